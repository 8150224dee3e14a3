"""Photographs as they lie on disks: HEIC is opened where its library is, and EXIF data is read, or is None."""

from __future__ import annotations

import io
import random
import subprocess
import sys
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photographs import GPS_IFD, PLACE, exif, patches, photograph
from PIL import Image
from PIL.TiffImagePlugin import IFDRational
from raw_files import dng

from turkish_clip.errors import InputError
from turkish_clip.images import ImageError, open_hashed, open_image, photo_of, readable_suffixes
from turkish_clip.photo import Photo

TAKEN = datetime(2024, 6, 15, 18, 30, 5)
PARTS: dict[str, Any] = {"taken": "2024:06:15 18:30:05", "place": PLACE, "make": "Apple", "model": "iPhone 12"}


@pytest.fixture
def heic() -> None:
    """Skips a test where nothing reads HEIC."""
    pytest.importorskip("pillow_heif")
    readable_suffixes()  # registers it with Pillow


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "MPO", "AVIF", "HEIF"])
def test_date_place_and_camera_of_every_kind(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if kind == "HEIF":
        request.getfixturevalue("heic")
    data = photograph(1, kind, **PARTS)
    (path := tmp_path / "a").write_bytes(data)
    for photo in (open_hashed(data, min_side=8).photo, open_hashed(path).photo, photo_of(path)):
        assert photo.taken == TAKEN
        assert (photo.lat, photo.lon) == pytest.approx((41.01, -29.5))
        assert photo.camera == "Apple iPhone 12"


def test_exif_data_behind_the_pixels_of_a_png() -> None:
    data = photograph(1, "PNG", **PARTS)
    at = data.index(b"eXIf") - 4
    chunk = data[at : at + 12 + int.from_bytes(data[at : at + 4], "big")]
    end = len(data) - 12
    moved = data[:at] + data[at + len(chunk) : end] + chunk + data[end:]
    assert open_hashed(moved).photo.taken == TAKEN


def test_no_exif_data_is_no_error() -> None:
    buffer = io.BytesIO()
    patches(1).save(buffer, "PNG")
    assert open_hashed(buffer.getvalue()).photo == Photo()


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        ("2024-06-15 18:30:05", TAKEN),  # as some scanners write it
        ("2024:06:15 18:30:05\0", TAKEN),
        ("2024:06:15T18:30:05+03:00", TAKEN),
        (b"2024:06:15 18:30:05", TAKEN),
        ("0000:00:00 00:00:00", None),
        ("    :  :     :  :  ", None),
        ("2024:13:01 00:00:00", None),
        ("2024:02:30 00:00:00", None),
        ("0001:01:01 00:00:00", None),
        ("٢٠٢٤:٠٦:١٥ 18:30:05", None),
        ("yesterday", None),
        ("", None),
        (b"\xff" * 20, None),
    ],
)
def test_dates(taken: Any, expected: datetime | None) -> None:
    assert open_hashed(photograph(1, taken=taken)).photo.taken == expected


@pytest.mark.parametrize(
    "place",
    [
        ("", (41.0, 0.0, 36.0), "E", (29.0, 0.0, 0.0)),  # north or south?
        ("N", (91.0, 0.0, 0.0), "E", (29.0, 0.0, 0.0)),
        ("N", (41.0, 60.0, 0.0), "E", (29.0, 0.0, 0.0)),
        ("N", (41.0, 0.0, 0.0), "E", (180.0, 0.0, 1.0)),
        ("N", (0.0, 0.0, 0.0), "E", (0.0, 0.0, 0.0)),  # what receivers without a fix write
        ("N", (41.0, 0.0), "E", (29.0, 0.0, 0.0)),
    ],
)
def test_places_that_are_none(place: Any) -> None:
    photo = open_hashed(photograph(1, place=place, model="X")).photo
    assert (photo.lat, photo.lon, photo.camera) == (None, None, "X")


def test_a_place_of_zero_over_zero_is_none() -> None:
    data = Image.Exif()
    zero = IFDRational(0, 0)
    data.get_ifd(GPS_IFD).update({1: "N", 2: (zero, zero, zero), 3: "E", 4: (1.0, 2.0, 3.0)})
    buffer = io.BytesIO()
    patches(1).save(buffer, "JPEG", exif=data.tobytes())
    assert open_hashed(buffer.getvalue()).photo == Photo()


@pytest.mark.parametrize(
    ("make", "model", "camera"),
    [
        ("NIKON CORPORATION", "NIKON D90", "NIKON D90"),
        ("samsung\0\0", " SM-G991B ", "samsung SM-G991B"),
        ("Canon", None, "Canon"),
        (None, "\x1b[2Jevil\nname", "[2Jevil name"),
        (None, "x" * 3000, "x" * 100),
        ("", "\0\0", None),
        (7, None, "7"),
    ],
)
def test_cameras(make: Any, model: Any, camera: str | None) -> None:
    assert open_hashed(photograph(1, make=make, model=model)).photo.camera == camera


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_hostile_exif_data_never_raises(kind: str) -> None:
    rng, whole, opened = random.Random(0), exif(**PARTS), 0
    tiff = photograph(1, "TIFF", **PARTS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of what it finds
        for _ in range(300):
            data = bytearray(tiff if kind == "TIFF" else whole)
            for _ in range(rng.randint(1, 12)):
                at = rng.randrange(12, len(whole))
                data[-at if kind == "TIFF" else at] = rng.choice((0, 1, 255, rng.randrange(256)))
            buffer = io.BytesIO(bytes(data))
            if kind != "TIFF":
                patches(1).save(buffer := io.BytesIO(), kind, exif=bytes(data))
            try:
                photo = open_hashed(buffer.getvalue()).photo
            except ImageError:
                continue
            opened += 1
            assert photo.taken is None or isinstance(photo.taken, datetime)
            assert photo.lat is None or (-90 <= photo.lat <= 90 and photo.lon is not None)
    assert opened > 100


def test_heic_is_opened_upright(heic: None, tmp_path: Path) -> None:
    (path := tmp_path / "IMG_1.HEIC").write_bytes(photograph(3, "HEIF", turn=6))  # to be turned by 90 degrees
    image = open_image(path)
    assert (image.mode, image.size) == ("RGB", (64, 96))
    turned = patches(3).transpose(Image.Transpose.ROTATE_270)
    assert float(np.abs(np.asarray(image, float) - np.asarray(turned, float)).mean()) < 5
    assert open_image(path.rename(tmp_path / "renamed.jpg")).size == (64, 96)


@pytest.mark.parametrize("kept", [20, 300, 0.5, 0.95])
def test_a_truncated_heic_is_damaged(heic: None, tmp_path: Path, kept: float) -> None:
    data = photograph(1, "HEIF", **PARTS)
    (path := tmp_path / "a.heic").write_bytes(data[: int(kept if kept > 1 else kept * len(data))])
    with pytest.raises(ImageError, match="got a truncated or damaged image"):
        open_image(path)


def test_a_heic_of_too_many_pixels_is_refused(heic: None) -> None:
    with pytest.raises(ImageError, match="got more than 100 pixels"):
        open_image(photograph(1, "HEIF"), max_pixels=100)


def test_heic_without_its_library_is_named(without_libraries: None, tmp_path: Path) -> None:
    (path := tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(InputError, match=r"got a file of a kind that is not read \(HEIC\)"):
        open_image(path)


def test_the_library_is_not_imported_before_an_image_is_opened(heic: None) -> None:
    program = (
        "import sys; from turkish_clip.images import unread_kind, open_image; from PIL import Image\n"
        "assert unread_kind('a.heic') == '' and 'pillow_heif' not in sys.modules and 'HEIF' not in Image.OPEN\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_exif_of_the_helper_is_read_by_pillow() -> None:
    data = Image.Exif()
    data.load(exif(**PARTS))
    assert data.get_ifd(GPS_IFD)[1] == "N"


@pytest.mark.parametrize("turn", [1, 6, 8])
def test_a_raw_file_is_opened_by_its_preview(turn: int, tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    (path := tmp_path / "L1.DNG").write_bytes(dng(patches(3, (480, 320)), taken=PARTS["taken"], turn=turn))
    image, photo = open_image(path), open_hashed(path).photo
    ways = {6: Image.Transpose.ROTATE_270, 8: Image.Transpose.ROTATE_90}
    expected = patches(3, (480, 320)) if turn == 1 else patches(3, (480, 320)).transpose(ways[turn])
    assert image.size == expected.size
    assert float(np.abs(np.asarray(image, float) - np.asarray(expected, float)).mean()) < 5
    assert (photo.taken, photo.camera) == (TAKEN, "Leica Q3")
    assert photo_of(path) == photo


@pytest.mark.parametrize("preview", [None, patches(3, (60, 40))])
def test_a_raw_file_without_a_preview_is_developed(preview: Image.Image | None, tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    (path := tmp_path / "1.dng").write_bytes(dng(preview, taken=PARTS["taken"], turn=6))
    image = open_hashed(path)
    assert image.image.size == (32, 32)
    red, green, _ = np.asarray(image.image, float).mean((0, 1))
    assert red > 200 > 50 > green
    assert image.photo.taken == TAKEN


@pytest.mark.parametrize("kept", [0, 10, 3000])
def test_a_truncated_raw_file_is_damaged(kept: int, tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    (path := tmp_path / "1.nef").write_bytes(dng(patches(3, (480, 320)))[:kept])
    with pytest.raises(ImageError, match="got (a truncated or damaged image|an empty file)"):
        open_image(path)


def test_a_raw_file_of_too_many_pixels_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    (path := tmp_path / "1.dng").write_bytes(dng(patches(3, (480, 320))))
    with pytest.raises(ImageError, match="got more than 100 pixels"):
        open_image(path, max_pixels=100)
