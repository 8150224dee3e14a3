"""Images of more than 8 bits a channel: scaled to 8 by the range of their values, which cameras rarely fill."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

BITS = (8, 10, 12, 14, 16)  # of cameras, scanners and microscopes, which store them in 16 or 32 bits
FULL_FROM = 1 << (BITS[-2] - 8)  # high byte from which on a value needs all 16 bits
COLOURS = re.compile(r"(RGB|RGBA|RGBX|LA);16([BLN])")  # Pillow's names of colours of 16 bits, of which it keeps 8
OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
BITS_TAG, PHOTOMETRIC_TAG, CHANNELS_TAG, SAMPLE_FORMAT_TAG, NO_DATA_TAG = 258, 262, 277, 339, 42113  # of TIFF
UNSIGNED, SIGNED, FLOAT = 1, 2, 3  # values of SAMPLE_FORMAT_TAG
# Numbers that stand for "not measured": at the end of float32 (GDAL, Esri), Surfer's, and those below all others.
NO_DATA_FLOATS, NO_DATA_BELOW = (3.4028235e38, 1.70141e38), (-9999.0, -32768.0, -32767.0, -99999.0)
NO_DATA_ERROR = 1e-3  # relative

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Stored:
    """What a file says of its pixels; read before they are decoded, after which Pillow forgets it.

    Attributes:
        rawmode: Pillow's name of how the pixels are stored, such as "L;2" or "RGB;16B"; empty for decoded images.
        format: Pillow's name of the file's format; empty for other images.
        content: of colours of 16 bits the whole file, since Pillow decodes one byte of each at a time.
        frame: its number in the file.
        unsigned: whether whole numbers of 32 bits are, which Pillow takes for signed ones.
        inverted: whether 0 is white.
        no_data: the number that stands for "not measured"; None where none is named.
    """

    rawmode: str = ""
    format: str = ""
    content: bytes = b""
    frame: int = 0
    unsigned: bool = False
    inverted: bool = False
    no_data: float | None = None


def stored(image: Image.Image) -> Stored:
    """Returns what the file of an image says of its pixels, before they are decoded.

    Args:
        image: from `Image.open`, or any other.
    """
    tiles: Any = getattr(image, "tile", None)
    rawmode = _rawmode(tiles[0]) if tiles else ""
    content, frame = b"", 0
    reader: Any = getattr(image, "fp", None)
    if COLOURS.fullmatch(rawmode) and reader is not None:
        place = reader.tell()
        reader.seek(0)
        content, frame = reader.read(), image.tell()
        reader.seek(place)
    tags: Any = getattr(image, "tag_v2", {})
    no_data = None
    with contextlib.suppress(ValueError):
        no_data = float(str(tags.get(NO_DATA_TAG, "")).strip(" \0"))
    return Stored(
        rawmode=rawmode,
        format=image.format or "",
        content=content,
        frame=frame,
        unsigned=rawmode.startswith("I;32N") and tags.get(SAMPLE_FORMAT_TAG, (UNSIGNED,))[0] == UNSIGNED,
        inverted=tags.get(PHOTOMETRIC_TAG) == 0,
        no_data=no_data,
    )


def _rawmode(tile: Any) -> str:
    return str(tile[3] if isinstance(tile[3], str) else tile[3][0])


def grey_of(image: Image.Image, file: Stored) -> Image.Image:
    """Scales a grey image of 16 or 32 bits, or of floats, to 8 bits; with alpha, if one of its values is transparent.

    White is the largest number of the fewest bits (of BITS) that hold all values; of floats it is 1, or 255; of values
    beyond, the largest one. Values below zero move the range; what is not finite, or not measured, is black.

    Args:
        image: decoded, of a mode I, I;16 or F.
        file: what `stored` returned.
    """
    pixels = np.asarray(image)
    values = (pixels.astype(np.int32).view(np.uint32) if file.unsigned else pixels).astype(np.float64)
    transparent = image.info.get("transparency")
    alpha = None if not isinstance(transparent, int) else np.where(values == transparent, 0, 255)
    data = _measured(values, file.no_data, floats=image.mode == "F")
    low = min(0.0, float(values[data].min())) if data.any() else 0.0
    values = np.where(data, values, low) - low
    high = float(values.max(initial=0.0))
    if image.mode == "F":
        whites = [1.0] if high > 1 / 32 else []
        whites += [255.0] if high > 32 else []
    else:
        whites = [2.0**bits - 1 for bits in BITS]
    white = next((white for white in whites if high <= white), high) or 1.0
    scaled = np.rint(values * (255 / white)).astype(np.uint8)
    grey = Image.fromarray(np.where(data, 255 - scaled, 0).astype(np.uint8) if file.inverted else scaled, "L")
    if alpha is not None:
        grey.putalpha(Image.fromarray(alpha.astype(np.uint8), "L"))
    return grey


def _measured(values: Values, no_data: float | None, *, floats: bool) -> NDArray[np.bool_]:
    """Returns which values are finite and do not stand for "not measured"."""
    data: NDArray[np.bool_] = np.isfinite(values)
    if no_data is not None:
        data &= ~np.isclose(values, no_data, rtol=1e-6, atol=0)
    elif floats:
        for number in NO_DATA_FLOATS:
            data &= np.abs(np.abs(values) - number) > NO_DATA_ERROR * number
    if no_data is None and data.any() and (lowest := float(values[data].min())) in NO_DATA_BELOW:
        others: NDArray[np.bool_] = data & (values != lowest)
        if others.any() and values[others].min() > lowest / 2:  # far below all others, it is none of them
            return others
    return data


def colours_of(image: Image.Image, file: Stored, upright: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Scales colours, or grey with alpha, of 16 bits to 8 where their values have fewer, as `grey_of` does.

    Pillow keeps the high byte of each, in which values of 12 bits are black. The low bytes are read from the file.

    Args:
        image: decoded and upright.
        file: what `stored` returned.
        upright: turns an image as it is stored.
    """
    kind = COLOURS.fullmatch(file.rawmode)
    if kind is None or not file.content:
        return image
    high, transparent = np.asarray(image), image.info.get("transparency")
    alpha = high[..., 3] if high.shape[-1] == 4 else np.full(high.shape[:2], 255, np.uint8)
    shown = alpha > 0
    if isinstance(transparent, tuple):
        shown &= (high[..., :3] != [channel >> 8 for channel in transparent]).any(axis=-1)
    if high[..., :3][shown].max(initial=0) >= FULL_FROM:
        return image
    low = np.asarray(upright(_low_bytes(file, kind))).astype(np.uint16)
    if kind[1] == "LA":  # the two bytes of the grey, and those of alpha
        values = np.repeat(low[..., :1] * 256 + low[..., 1:2], 3, axis=-1)
    else:
        values = high[..., :3].astype(np.uint16) * 256 + low[..., :3]
    if isinstance(transparent, tuple):
        alpha = np.where((values == transparent).all(axis=-1), 0, alpha).astype(np.uint8)
    highest = int(values[alpha > 0].max(initial=0))
    white = next(2**bits - 1 for bits in BITS if highest < 2**bits)
    scaled = np.rint(np.minimum(values, white) * (255 / white)).astype(np.uint8)
    return Image.fromarray(np.dstack([scaled, alpha]), "RGBA")


def _low_bytes(file: Stored, kind: re.Match[str]) -> Image.Image:
    """Decodes a file again, by the other byte of each value; of grey with alpha, all four bytes as channels."""
    swapped = "RGBA" if kind[1] == "LA" else f"{kind[1]};16{OTHER_BYTE[kind[2]]}"
    image: Any = Image.open(io.BytesIO(file.content), formats=[file.format])
    image.seek(file.frame)
    image.tile = [(*tile[:3], swapped if isinstance(tile[3], str) else (swapped, *tile[3][1:])) for tile in image.tile]
    image.load()
    return image  # type: ignore[no-any-return]


def unread_tiff(head: Any) -> str:
    """Returns what kind of TIFF a file is, for one that Pillow does not open; empty for what is no TIFF.

    Args:
        head: the file, open for reading at its beginning.
    """
    with contextlib.suppress(Exception):  # of hostile bytes, Pillow raises many unrelated types
        begin = head.read(8)
        if begin[:4] not in TiffImagePlugin.PREFIXES:
            return ""
        begin += head.read(8) if 43 in begin[2:4] else b""
        tags: Any = TiffImagePlugin.ImageFileDirectory_v2(begin)
        head.seek(tags.next)
        tags.load(head)
        bits, channels = tags.get(BITS_TAG, (1,)), tags.get(CHANNELS_TAG, 1)
        kind = {SIGNED: "signed numbers", FLOAT: "floats"}.get(tags.get(SAMPLE_FORMAT_TAG, (UNSIGNED,))[0], "numbers")
        if BITS_TAG in tags:
            return f"TIFF of {bits[0]}-bit {kind}" + (f" in {channels} channels" if channels != 1 else "")
    return ""
