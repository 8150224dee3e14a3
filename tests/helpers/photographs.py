"""Photographs with EXIF data, as cameras and telephones write them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

EXIF_IFD, GPS_IFD = 0x8769, 0x8825


def patches(number: int, size: tuple[int, int] = (96, 64)) -> Image.Image:
    """Six patches of colour, others for each number: they survive any compression."""
    colours = np.random.default_rng(number).integers(0, 256, (2, 3, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.NEAREST)


def exif(
    taken: Any = None,
    place: tuple[Any, Any, Any, Any] | None = None,
    make: Any = None,
    model: Any = None,
    turn: int = 1,
) -> bytes:
    """EXIF data with the given parts; `place` is the two references and the two triples of numbers."""
    data = Image.Exif()
    data[0x0112] = turn
    for tag, value in ((0x010F, make), (0x0110, model)):
        if value is not None:
            data[tag] = value
    if taken is not None:
        data.get_ifd(EXIF_IFD)[0x9003] = taken
    if place is not None:
        north, lat, east, lon = place
        data.get_ifd(GPS_IFD).update({1: north, 2: lat, 3: east, 4: lon})
    return data.tobytes()


PLACE = ("N", (41.0, 0.0, 36.0), "W", (29.0, 30.0, 0.0))


def photograph(number: int, kind: str = "JPEG", **parts: Any) -> bytes:
    """A photograph as a file; `parts` as in `exif`."""
    buffer = io.BytesIO()
    patches(number).save(buffer, kind, exif=exif(**parts), quality=90)
    return buffer.getvalue()
