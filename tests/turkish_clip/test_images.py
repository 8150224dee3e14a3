"""Every image opens as upright RGB, and everything else is an ImageError with the file and the reason."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from turkish_clip import ImageError, InputError, open_image
from turkish_clip.images import UnreadableImageError, open_hashed

WHITE, RED = (255, 255, 255), (255, 0, 0)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_transparency_is_laid_on_white() -> None:
    assert open_image(Image.new("RGBA", (4, 4), (255, 0, 0, 0))).getpixel((0, 0)) == WHITE
    assert open_image(Image.new("RGBA", (4, 4), (255, 0, 0, 255))).getpixel((0, 0)) == RED
    half = open_image(Image.new("RGBA", (4, 4), (255, 0, 0, 128))).getpixel((0, 0))
    assert half == (255, 127, 127)
    assert open_image(Image.new("LA", (4, 4), (0, 0))).getpixel((0, 0)) == WHITE


def test_palette_with_and_without_transparency() -> None:
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    assert open_image(encoded(palette)).getpixel((0, 0)) == RED
    assert open_image(encoded(palette, transparency=0)).getpixel((0, 0)) == WHITE


def test_rgb_with_a_transparent_colour() -> None:
    assert open_image(encoded(Image.new("RGB", (4, 4), RED), transparency=RED)).getpixel((0, 0)) == WHITE


@pytest.mark.parametrize("mode", ["1", "L", "I;16", "I", "F", "CMYK", "YCbCr", "HSV", "LAB", "RGBa", "La", "RGBX"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = open_image(Image.new(mode, (5, 3)))
    assert (image.mode, image.size) == ("RGB", (5, 3))


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    grey = Image.new("I;16", (2, 1))
    grey.putpixel((0, 0), 65535)
    grey.putpixel((1, 0), 32896)
    image = open_image(encoded(grey))
    assert image.getpixel((0, 0)) == WHITE
    assert image.getpixel((1, 0)) == (128, 128, 128)


def test_floats_from_zero_to_one_are_scaled() -> None:
    assert open_image(Image.new("F", (2, 2), 1.0)).getpixel((0, 0)) == WHITE


def grey_values(array: np.ndarray, suffix: str = ".tif") -> list[int]:
    image = open_image(encoded(Image.fromarray(array), {".tif": "TIFF", ".png": "PNG"}[suffix]))
    return [pixel[0] for pixel in image.get_flattened_data()]


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([0, 2048, 4095], np.uint16, [0, 128, 255]),  # the 12 bits of a camera
        ([0, 300, 1023], np.uint16, [0, 75, 255]),
        ([0, 17, 255], np.uint16, [0, 17, 255]),  # 8 bits in 16
        ([0, 5_000_000, 10_000_000], np.int32, [0, 128, 255]),
        ([-100, 0, 155], np.int32, [0, 100, 255]),
        ([0.0, 2500.0, 10_000.0], np.float32, [0, 64, 255]),
        ([0.0, 0.25, 0.5], np.float32, [0, 64, 128]),
        ([0.0, 100.0, 250.0], np.float32, [0, 100, 250]),
        ([0.0, 0.005, 0.01], np.float32, [0, 128, 255]),
        ([-1.0, 0.0, 1.0], np.float32, [0, 128, 255]),
        ([np.nan, 0.5, 1.0], np.float32, [0, 128, 255]),
        ([np.inf, 0.5, 1.0], np.float32, [0, 128, 255]),
        ([np.nan, np.nan, np.nan], np.float32, [0, 0, 0]),
        ([0, 0, 0], np.uint16, [0, 0, 0]),
    ],
)
def test_greys_of_many_bits_are_scaled_by_their_range(values: list[float], kind: type, expected: list[int]) -> None:
    assert grey_values(np.array([values], kind)) == expected
    if kind is np.uint16:
        assert grey_values(np.array([values], kind), ".png") == expected


def tiff(values: np.ndarray, tags: dict[int, tuple[int, object]], order: str = "<") -> bytes:
    """Returns an uncompressed TIFF of (height, width[, channels]) values, with further tags as (type, value)."""
    width, channels, data = values.shape[1], values.shape[2] if values.ndim == 3 else 1, values.tobytes()
    kinds = {"u": 1, "i": 2, "f": 3}
    found: dict[int, tuple[int, object]] = {
        256: (3, width), 257: (3, len(values)), 258: (3, values.itemsize * 8), 259: (3, 1),
        262: (3, 2 if channels > 2 else 1), 273: (4, 8), 277: (3, channels), 278: (4, len(values)),
        279: (4, len(data)), 339: (3, kinds[values.dtype.kind]), **tags,
    }  # fmt: skip
    extra, entries = b"", b""
    for tag, (kind, value) in sorted(found.items()):
        text = str(value).encode() + b"\0"
        if kind == 2 and len(text) <= 4:
            entries += struct.pack(order + "HHI4s", tag, 2, len(text), text)
        elif kind == 2:  # it lies after the pixels
            entries += struct.pack(order + "HHII", tag, 2, len(text), 8 + len(data) + len(extra))
            extra += text + bytes(8)
        else:
            number = struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value)
            entries += struct.pack(order + "HHI", tag, kind, 1) + number
    start = struct.pack(order + "HI", 42, 8 + len(data) + len(extra))
    head = (b"II" if order == "<" else b"MM") + start
    return head + data + extra + struct.pack(order + "H", len(found)) + entries + bytes(4)


def reds(file: bytes) -> list[int]:
    return [pixel[0] for pixel in open_image(file).get_flattened_data()]


@pytest.mark.parametrize(
    ("values", "tags", "expected"),
    [
        (np.array([[0, 2**31, 2**32 - 1]], "<u4"), {}, [0, 128, 255]),
        (np.array([[0, 100, 255]], "<u4"), {}, [0, 100, 255]),
        (np.array([[-3.4e38, 0.0, 50.0, 100.0]], "<f4"), {}, [0, 0, 50, 100]),
        (np.array([[1.70141e38, 0.0, 50.0, 100.0]], "<f4"), {}, [0, 0, 50, 100]),
        (np.array([[-9999.0, 0.0, 50.0, 100.0]], "<f4"), {}, [0, 0, 50, 100]),
        (np.array([[-32768, 0, 100, 255]], "<i2"), {}, [0, 0, 100, 255]),
        (np.array([[-9999.0, -9000.0, 1.0]], "<f4"), {}, [0, 25, 255]),  # measured ones, of which it is the lowest
        (np.array([[7.0, 0.0, 0.5, 1.0]], "<f4"), {42113: (2, "7")}, [0, 0, 128, 255]),
        (np.array([[65535, 0, 2048, 4095]], "<u2"), {42113: (2, "65535")}, [0, 0, 128, 255]),
        (np.array([[7.0, 0.0, 128.0]], "<f4"), {42113: (2, "yok")}, [7, 0, 128]),
        (np.array([[0, 1023, 4095]], "<u2"), {262: (3, 0)}, [255, 191, 0]),  # 0 is white
    ],
)  # fmt: skip
def test_values_of_tiff_files(values: np.ndarray, tags: dict[int, tuple[int, object]], expected: list[int]) -> None:
    assert reds(tiff(values, tags)) == expected


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        (tiff(np.zeros((1, 4), "<f8"), {}), "TIFF of 64-bit floats"),
        (tiff(np.zeros((1, 4), "<f2"), {}), "TIFF of 16-bit floats"),
        (tiff(np.zeros((1, 4), ">i8"), {}, ">"), "TIFF of 64-bit signed numbers"),
        (tiff(np.zeros((1, 4, 2), "<u2"), {}), "TIFF of 16-bit numbers in 2 channels"),
    ],
)
def test_a_tiff_of_a_kind_that_is_not_read_is_named(file: bytes, kind: str, tmp_path: Path) -> None:
    (tmp_path / "yükselti.tif").write_bytes(file)
    for source in (file, tmp_path / "yükselti.tif"):
        with pytest.raises(ImageError, match=rf"a file of a kind that is not read \({kind}\)"):
            open_image(source)


BITS_12 = [0, 1000, 2048, 4095]
FULL = [0, 1000, 2048, 65535]


@pytest.mark.parametrize(
    ("values", "expected"),
    [(BITS_12, [0, 62, 128, 255]), (FULL, [0, 3, 8, 255]), ([0, 17, 30, 255], [0, 17, 30, 255]), ([0] * 4, [0] * 4)],
)
def test_colours_of_sixteen_bits_are_scaled_by_their_range_as_greys_are(values: list[int], expected: list[int]) -> None:
    rgb, alpha = np.repeat([values], 3, axis=0).T, np.full((4, 1), 65535)
    with_alpha, grey_alpha = np.hstack([rgb, alpha]), np.hstack([rgb[:, :1], alpha])
    assert reds(png(16, 2, rgb.astype(">u2").tobytes(), 4, b"")) == expected
    assert reds(png(16, 6, with_alpha.astype(">u2").tobytes(), 4, b"")) == expected
    assert reds(png(16, 4, grey_alpha.astype(">u2").tobytes(), 4, b"")) == expected
    for order in "<>":
        assert reds(tiff(rgb[None].astype(f"{order}u2"), {}, order)) == expected
        assert reds(tiff(with_alpha[None].astype(f"{order}u2"), {338: (3, 2)}, order)) == expected


def test_channels_are_scaled_alike_and_what_is_transparent_does_not_count(tmp_path: Path) -> None:
    row = np.array([[4095, 2048, 0, 65535], [65535, 65535, 65535, 0]], ">u2")
    (tmp_path / "a.png").write_bytes(png(16, 6, row.tobytes(), 2, b""))
    lazy = Image.open(tmp_path / "a.png")
    for source in (tmp_path / "a.png", (tmp_path / "a.png").read_bytes(), lazy):
        image = open_image(source)
        assert [image.getpixel((x, 0)) for x in (0, 1)] == [(255, 128, 0), WHITE]
    assert lazy.mode == "RGBA"
    keyed = open_image(png(16, 2, row[:, :3].tobytes(), 2, struct.pack(">3H", 65535, 65535, 65535)))
    assert [keyed.getpixel((x, 0)) for x in (0, 1)] == [(255, 128, 0), WHITE]


def test_colours_of_sixteen_bits_are_turned_upright() -> None:
    values = np.array([[[4095, 0, 0], [0, 2048, 0]]], "<u2")
    image = open_image(tiff(values, {274: (3, 3)}))  # upside down
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [(0, 128, 0), (255, 0, 0)]


def drawing(colour: tuple[int, int, int]) -> Image.Image:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((*colour, 255), (2, 2, 6, 6))
    return image


def test_white_on_transparent_is_laid_on_black() -> None:
    for colour in (WHITE, (250, 245, 240)):
        image = open_image(drawing(colour))
        assert image.getpixel((0, 0)) == (0, 0, 0)
        assert image.getpixel((3, 3)) == colour
    for colour in (RED, (255, 255, 0), (180, 180, 180)):  # yellow is dark enough to be seen
        assert open_image(drawing(colour)).getpixel((0, 0)) == WHITE
    both = drawing(WHITE)
    both.putpixel((7, 7), (0, 0, 0, 255))
    assert open_image(both).getpixel((0, 0)) == WHITE
    shadowed = drawing(WHITE)
    shadowed.putpixel((7, 7), (0, 0, 0, 40))  # 40 / (16 · 255 + 40), a hundredth of what is visible
    assert open_image(shadowed).getpixel((0, 0)) == (0, 0, 0)
    shadowed.paste((0, 0, 0, 40), (6, 6, 8, 8))  # four of them are 0.038
    assert open_image(shadowed).getpixel((0, 0)) == WHITE
    faint = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    faint.putpixel((3, 3), (0, 0, 0, 40))
    assert open_image(faint).getpixel((0, 0)) == WHITE
    assert open_image(Image.new("RGBA", (4, 4), (255, 255, 255, 0))).getpixel((0, 0)) == WHITE


def png(bits: int, colour_type: int, row: bytes, width: int, transparent: bytes) -> bytes:
    """Returns a PNG of one row, which Pillow does not write: few bits, or 16 bits of three channels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, 1, bits, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"\0" + row)
    parts = ((b"IHDR", header), (b"tRNS", transparent), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts if part != (b"tRNS", b""))


@pytest.mark.parametrize(
    ("file", "seen"),
    [
        (png(16, 0, struct.pack(">HH", 1000, 30000), 2, struct.pack(">H", 1000)), (117, 117, 117)),
        (png(16, 2, struct.pack(">6H", 500, 600, 700, 30000, 0, 0), 2, struct.pack(">3H", 500, 600, 700)), (117, 0, 0)),
        (png(4, 0, bytes([0x4C]), 2, struct.pack(">H", 4)), (204, 204, 204)),
        (png(2, 0, bytes([0b01100000]), 2, struct.pack(">H", 1)), (170, 170, 170)),
        (png(1, 0, bytes([0b01000000]), 2, struct.pack(">H", 1)), None),
    ],
)
def test_a_transparent_value_of_any_number_of_bits(file: bytes, seen: tuple[int, int, int] | None) -> None:
    image = open_image(file)
    if seen is None:  # black, and a transparent white
        assert [image.getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 0), WHITE]
        return
    assert image.getpixel((0, 0)) == WHITE
    assert image.getpixel((1, 0)) == seen


def test_exif_orientation_is_applied() -> None:
    image = Image.new("RGB", (8, 4), "white")
    image.putpixel((0, 0), RED)
    exif = Image.Exif()
    exif[0x0112] = 6  # upright after a quarter turn clockwise
    upright = open_image(encoded(image, exif=exif))
    assert upright.size == (4, 8)
    assert upright.getpixel((3, 0)) == RED


def test_the_first_frame_of_an_animation_is_taken() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    animation = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert open_image(animation).getpixel((0, 0)) == RED


def test_a_large_jpeg_is_decoded_at_the_smallest_sufficient_size() -> None:
    photograph = encoded(Image.effect_noise((2048, 1536), 60).convert("RGB"), "JPEG")
    assert open_image(photograph, min_side=224).size == (512, 384)
    assert open_image(photograph, min_side=257).size == (1024, 768)
    assert open_image(photograph, min_side=513).size == (2048, 1536)
    assert open_image(photograph).size == (2048, 1536)


def test_a_pil_image_is_not_changed() -> None:
    image = Image.new("RGB", (4, 4), RED)
    opened = open_image(image)
    opened.putpixel((0, 0), WHITE)
    assert image.getpixel((0, 0)) == RED


def bomb() -> bytes:
    """Returns a PNG whose header claims 60,000 by 60,000 pixels."""
    png = bytearray(encoded(Image.new("L", (1, 1))))
    png[16:24] = struct.pack(">II", 60_000, 60_000)
    import zlib

    png[29:33] = struct.pack(">I", zlib.crc32(bytes(png[12:29])))
    return bytes(png)


BROKEN = {
    "no file": None,
    "an empty file": b"",
    "a file that is not an image": b"merhaba, ben bir resim de\xc4\x9filim",
    "a truncated or damaged image": encoded(Image.effect_noise((64, 64), 50))[:900],
    "more than 178956970 pixels": bomb(),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_a_file_that_does_not_open_is_an_error_with_its_path_and_reason(reason: str, tmp_path: Path) -> None:
    path = tmp_path / "resim.jpg"
    content = BROKEN[reason]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError, match="resim.jpg") as caught:
        open_image(path)
    assert caught.value.reason == reason
    assert caught.value.name == str(path)
    assert isinstance(caught.value, InputError)


def test_errors_name_folders_and_bytes() -> None:
    with pytest.raises(ImageError, match="a folder"):
        open_image(Path())
    with pytest.raises(ImageError, match="<5 bytes>"):
        open_image(b"short")


def test_max_pixels_applies_to_pil_images_too() -> None:
    with pytest.raises(ImageError, match="more than 10 pixels"):
        open_image(Image.new("RGB", (4, 4)), max_pixels=10)


def test_max_pixels_counts_the_pixels_of_the_file_not_of_the_reduced_image() -> None:
    photograph = encoded(Image.new("RGB", (2000, 1000)), "JPEG")
    with pytest.raises(ImageError, match="more than 1000000 pixels"):
        open_image(photograph, min_side=64, max_pixels=1_000_000)


def test_the_hash_is_that_of_the_file(tmp_path: Path) -> None:
    data = encoded(Image.new("RGB", (4, 4), RED))
    (tmp_path / "resim.png").write_bytes(data)
    for source in (tmp_path / "resim.png", data):
        opened = open_hashed(source)
        assert opened.content == hashlib.sha256(data).digest()
        assert opened.image.getpixel((0, 0)) == RED


@pytest.mark.parametrize("reason", BROKEN)
def test_open_hashed_gives_the_same_reasons(reason: str, tmp_path: Path) -> None:
    path = tmp_path / "resim.jpg"
    content = BROKEN[reason]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError, match="resim.jpg") as caught:
        open_hashed(path)
    assert caught.value.reason == reason
    assert isinstance(caught.value, UnreadableImageError) == (reason == "no file")


def test_pipes_and_devices_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", Path("/dev/zero")):
        with pytest.raises(ImageError, match="an empty file"):
            open_hashed(path)


def test_a_file_too_large_for_memory_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ImageError, match="a file of more than 715827880 bytes"):
        open_hashed(tmp_path / "huge.png")


def test_a_file_that_fails_to_be_read_is_an_unread_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "resim.png").write_bytes(encoded(Image.new("RGB", (4, 4))))

    def refuse(path: Path) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UnreadableImageError, match=r"an unreadable file \(Input/output error\)"):
        open_hashed(tmp_path / "resim.png")


def test_vector_formats_are_not_interpreted(tmp_path: Path) -> None:
    path = tmp_path / "x.eps"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", encoding="ascii")
    with pytest.raises(ImageError, match=r"a file of a kind that is not read \(EPS\)"):
        open_image(path)
