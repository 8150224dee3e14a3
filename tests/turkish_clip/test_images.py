"""Any image to RGB, and a typed error for what is none."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import struct
from pathlib import Path

import pytest
from PIL import Image

from turkish_clip import ImageError, InputError, open_image
from turkish_clip.images import UnreadError, open_hashed

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


def test_exif_orientation_is_applied() -> None:
    image = Image.new("RGB", (8, 4), "white")
    image.putpixel((0, 0), RED)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise to be upright
    upright = open_image(encoded(image, exif=exif))
    assert upright.size == (4, 8)
    assert upright.getpixel((3, 0)) == RED


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    animation = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert open_image(animation).getpixel((0, 0)) == RED


def test_a_large_jpeg_is_decoded_small_enough_and_large_enough() -> None:
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
    """A PNG whose header says 60,000 by 60,000 pixels."""
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
def test_what_does_not_open_is_a_typed_error_with_the_path(reason: str, tmp_path: Path) -> None:
    path = tmp_path / "resim.jpg"
    content = BROKEN[reason]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError, match="resim.jpg") as caught:
        open_image(path)
    assert caught.value.reason == reason
    assert caught.value.name == str(path)
    assert isinstance(caught.value, InputError)


def test_a_folder_and_bytes_are_named() -> None:
    with pytest.raises(ImageError, match="a folder"):
        open_image(Path())
    with pytest.raises(ImageError, match="<5 bytes>"):
        open_image(b"short")


def test_max_pixels_applies_to_open_images_too() -> None:
    with pytest.raises(ImageError, match="more than 10 pixels"):
        open_image(Image.new("RGB", (4, 4)), max_pixels=10)


def test_max_pixels_counts_those_of_the_file_not_of_the_draft() -> None:
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
def test_a_hashed_image_fails_with_the_same_words(reason: str, tmp_path: Path) -> None:
    path = tmp_path / "resim.jpg"
    content = BROKEN[reason]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError, match="resim.jpg") as caught:
        open_hashed(path)
    assert caught.value.reason == reason
    assert isinstance(caught.value, UnreadError) == (reason == "no file")


def test_what_is_no_file_is_not_read_for_ever(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", Path("/dev/zero")):
        with pytest.raises(ImageError, match="an empty file"):
            open_hashed(path)


def test_a_file_that_would_fill_the_memory_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ImageError, match="a file of more than 715827880 bytes"):
        open_hashed(tmp_path / "huge.png")


def test_a_file_that_may_not_be_read_can_be_there_another_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "resim.png").write_bytes(encoded(Image.new("RGB", (4, 4))))

    def refuse(path: Path) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UnreadError, match=r"an unreadable file \(Input/output error\)"):
        open_hashed(tmp_path / "resim.png")


def test_vector_formats_are_not_interpreted(tmp_path: Path) -> None:
    path = tmp_path / "x.eps"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", encoding="ascii")
    with pytest.raises(ImageError, match="not an image"):
        open_image(path)
