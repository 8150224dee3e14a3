"""Thumbnails of images, and images inside a page as data URIs."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from PIL import Image

from turkish_clip.images import ImageError, ImageLike, open_image

GREY = "#dddddd"
JPEG_QUALITY = 85


def thumbnail(source: ImageLike, side: int, second: float | None = None) -> Image.Image:
    """Returns an image as RGB that fits into a square; one of at most half its side is enlarged by a whole factor.

    Args:
        source: a path, the bytes of a file, or a PIL image (which is not changed).
        side: of the square, in pixels.
        second: of the frame or spectrogram, if the source is the path of a video or sound.

    Raises:
        ImageError: the image does not open.
    """
    if second is not None and isinstance(source, (str, Path)):
        from turkish_clip.clips import image_at

        image = image_at(source, second, min_side=side)
    else:
        image = open_image(source, min_side=side)
    factor = side // max(image.size)
    if factor > 1:
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image.thumbnail((side, side))
    return image


def thumbnail_or_grey(source: ImageLike, side: int, second: float | None = None) -> Image.Image:
    """Returns the thumbnail of an image, or a grey square if the image does not open.

    Args:
        source: a path, the bytes of a file, or a PIL image (which is not changed).
        side: of the square, in pixels.
        second: as in `thumbnail`.
    """
    try:
        return thumbnail(source, side, second)
    except ImageError:
        return Image.new("RGB", (side, side), GREY)


def link_to(file: str | Path, folder: Path) -> str:
    """Returns the address of a file for a page in a folder: from there on, so that both can be moved together.

    Args:
        file: a path; it need not exist.
        folder: of the page.

    >>> link_to("/photos/a b.jpg", Path("/photos/sheets"))
    '../a%20b.jpg'
    """
    path = Path(file).absolute()
    try:
        relative = os.path.relpath(path, folder.absolute())
    except ValueError:  # on another disk of Windows
        return path.as_uri()
    return quote(Path(relative).as_posix().encode("utf-8", "surrogateescape"))


def data_uri(image: Image.Image, kind: Literal["JPEG", "PNG"] = "JPEG") -> str:
    """Returns an image as a data URI, for the `src` of an HTML page.

    Args:
        image: of mode "RGB".
        kind: JPEG for photographs, PNG where every pixel counts.
    """
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=JPEG_QUALITY)  # PNG has no quality and ignores it
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
