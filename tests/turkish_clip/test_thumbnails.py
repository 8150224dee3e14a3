"""Thumbnails: sizes, enlargement, grey squares, and data URIs that decode to the image."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from turkish_clip.images import ImageError
from turkish_clip.thumbnails import data_uri, thumbnail, thumbnail_or_grey


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((640, 320), (100, 50)),
        ((320, 640), (50, 100)),
        ((100, 100), (100, 100)),
        ((60, 30), (60, 30)),  # enlarged by a whole factor or not at all
        ((50, 20), (100, 40)),
        ((30, 20), (90, 60)),
        ((1, 1), (100, 100)),
    ],
)
def test_sizes(size: tuple[int, int], expected: tuple[int, int]) -> None:
    image = Image.new("L", size, 80)
    small = thumbnail(image, 100)
    assert (small.size, small.mode) == (expected, "RGB")
    assert image.size == size


def test_enlargement_repeats_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    enlarged = np.asarray(thumbnail(Image.fromarray(pixels), 100))
    assert np.array_equal(enlarged, pixels.repeat(3, axis=0).repeat(3, axis=1))


def test_paths_and_bytes_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "1.png"
    Image.linear_gradient("L").save(path)
    small = [thumbnail(source, 64) for source in (path, str(path), path.read_bytes(), Image.open(path))]
    assert all(image.tobytes() == small[0].tobytes() for image in small)


def test_an_image_that_does_not_open(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="expected an image at .*none.png, got no file"):
        thumbnail(tmp_path / "none.png", 40)
    grey = thumbnail_or_grey(tmp_path / "none.png", 40)
    assert grey.size == (40, 40)
    assert grey.getcolors() == [(1600, (221, 221, 221))]


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_data_uri_holds_the_image(kind: str) -> None:
    image = thumbnail(Image.linear_gradient("L"), 64)
    head, _, data = data_uri(image, kind).partition(",")  # type: ignore[arg-type]
    assert head == f"data:image/{kind.lower()};base64"
    decoded = Image.open(io.BytesIO(base64.b64decode(data)))
    assert (decoded.format, decoded.size) == (kind, (64, 64))
    difference = np.abs(np.asarray(decoded).astype(int) - np.asarray(image)).max()
    assert difference <= (0 if kind == "PNG" else 8)
