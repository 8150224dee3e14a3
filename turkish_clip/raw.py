"""Opens RAW files of cameras by the preview that they hold, with rawpy (LibRaw), which knows those of all makers.

The preview is what the camera shows. A file without one, or with a stamp alone, is developed, at half its size.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image

LEAST_PREVIEW = 200  # the longer side in pixels of the smallest preview that is taken
ORIENTATION = 0x0112
TURNS = {3: 3, 5: 8, 6: 6}  # LibRaw's flip → EXIF's orientation
TIFF_HEADERS = (b"II*\0", b"MM\0*")


class TooLargeError(Exception):
    """A RAW file of more pixels than are allowed."""


def raw_image(source: str | Path | bytes, max_pixels: int) -> Image.Image:
    """Returns the image of a RAW file, not decoded yet if it is a preview, with its EXIF data.

    Args:
        source: a path, or the bytes of the file.
        max_pixels: a sensor of more is refused.

    Raises:
        TooLargeError: it has more pixels.
        Exception: LibRaw's own errors, of a file that is damaged or of an unknown kind.
    """
    import rawpy

    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    with rawpy.imread(io.BytesIO(data)) as raw:
        if raw.sizes.raw_width * raw.sizes.raw_height > max_pixels:
            raise TooLargeError
        image = _preview(rawpy, raw)
        if image is None or max(image.size) < LEAST_PREVIEW:
            image = Image.fromarray(raw.postprocess(half_size=True, use_camera_wb=True))  # upright
            turn = 1
        else:
            turn = image.getexif().get(ORIENTATION) or TURNS.get(raw.sizes.flip, 1)
    exif = image.getexif()
    if data[:4] in TIFF_HEADERS:  # the file's own: LibRaw puts a part of it into a preview without any
        try:
            exif.load(data)
        except Exception:  # noqa: BLE001  hostile data, as in `turkish_clip.photo`
            exif.clear()
    exif[ORIENTATION] = turn
    return image


def _preview(rawpy: Any, raw: Any) -> Image.Image | None:
    """Returns the largest preview of a RAW file; None where it has none that is understood."""
    try:
        preview = raw.extract_thumb()
    except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError):
        return None
    if preview.format == rawpy.ThumbFormat.JPEG:
        return Image.open(io.BytesIO(preview.data), formats=("JPEG", "MPO"))
    return Image.fromarray(preview.data) if preview.format == rawpy.ThumbFormat.BITMAP else None
