"""Draws boxes with their texts over an image, and writes it as a PNG or a self-contained HTML page."""

from __future__ import annotations

import html
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import ImageDraw, ImageFont

from turkish_clip.atomic import atomic_write
from turkish_clip.errors import printable
from turkish_clip.images import ImageLike, open_image
from turkish_clip.ownership import DRAWING, GENERATOR, kind_in_page, png_marks
from turkish_clip.sheet import Font, check_name, drawable, turkish_font
from turkish_clip.thumbnails import data_uri, thumbnail

if TYPE_CHECKING:
    from PIL import Image

    from turkish_clip.regions import Box

# On a dark edge all of them can be told from light and dark images, and from each other by people who confuse red and
# green. Source: Okabe & Ito 2008, "Color Universal Design".
COLOURS = ("#f0e442", "#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#0072b2")
DARK_TEXT, LIGHT_TEXT = "#000000", "#ffffff"
DARK_COLOURS = frozenset({"#0072b2", "#d55e00", "#009e73"})  # on which white letters read better
LINE_OF_SIDE = 1 / 160  # width of a box's line, of the image's shorter side
LETTER_OF_SIDE = 1 / 28  # height of letters, likewise
LEAST_LETTER, MOST_LETTER = 12, 64  # pixels
LEAST_SHOWN, MOST_SHOWN = 320, 1600  # pixels of a written image's longer side: others are enlarged, or reduced
STYLE = (
    ":root{color-scheme:light dark}body{font:16px sans-serif;margin:16px;background:#fafafa;color:#222}"
    "img{max-width:100%;height:auto}h1{font-size:20px;overflow-wrap:break-word}li{margin:4px 0}"
    "@media(prefers-color-scheme:dark){body{background:#161616;color:#eee}}"
)


def draw_boxes(image: ImageLike, boxes: Sequence[tuple[Box, str]], *, max_side: int | None = None) -> Image.Image:
    """Returns an image, upright and RGB, with boxes and their texts drawn over it; the image itself is not changed.

    Args:
        image: a path, the bytes of a file, or a PIL image.
        boxes: each (left, top, right, bottom) in pixels of the upright image, as regions have them, with the text at
            its top, which may be empty.
        max_side: the side of a square, in pixels, into which the result fits: a small image is enlarged by a whole
            factor, as `thumbnail` does; None keeps the image's own size.

    Raises:
        ImageError: the image does not open.
    """
    opened = open_image(image)
    drawn = opened if max_side is None else thumbnail(opened, max_side)
    scale = (drawn.width / opened.width, drawn.height / opened.height) * 2
    line = max(2, round(LINE_OF_SIDE * min(drawn.size)))
    font = _font(round(LETTER_OF_SIDE * min(drawn.size)))
    canvas = ImageDraw.Draw(drawn)
    for (box, text), colour in zip(boxes, cycle(COLOURS)):
        left, top, right, bottom = (round(edge * factor) for edge, factor in zip(box, scale))
        left, top = max(0, min(left, drawn.width - 1)), max(0, min(top, drawn.height - 1))
        right, bottom = max(left + 1, min(right, drawn.width)), max(top + 1, min(bottom, drawn.height))
        canvas.rectangle((left, top, right - 1, bottom - 1), outline="#000000", width=line + 2)
        inside = (left + 1, top + 1, max(left + 1, right - 2), max(top + 1, bottom - 2))
        canvas.rectangle(inside, outline=colour, width=line)
        if text:
            _write(canvas, drawable(text, font), (left, top), drawn.size, font, colour)
    return drawn


def write_boxes(target: str | Path, image: ImageLike, boxes: Sequence[tuple[Box, str]], title: str) -> Path:
    """Writes an image with boxes drawn over it, and returns the path.

    Args:
        target: the file, whose suffix, .png or .html, sets the format; missing folders above it are made. A page has
            the texts of the boxes below the image, too.
        image: as in `draw_boxes`.
        boxes: as in `draw_boxes`.
        title: the line at the top of a page.

    Raises:
        ImageError: the image does not open.
        SheetError: the suffix is another one.
        ForeignFileError: there is a file that is no such output.
    """
    path = check_name(target, DRAWING)
    opened = open_image(image)
    longest = max(opened.size)
    side = LEAST_SHOWN if longest < LEAST_SHOWN else MOST_SHOWN if longest > MOST_SHOWN else None
    drawn = draw_boxes(opened, boxes, max_side=side)
    with atomic_write(path) as partial:
        if path.suffix.lower() == ".png":
            drawn.save(partial, "PNG", pnginfo=png_marks(DRAWING))
        else:
            partial.write_text(_page(drawn, [text for _, text in boxes if text], title), encoding="utf-8")
    return path


def _page(drawn: Image.Image, texts: Sequence[str], title: str) -> str:
    name = html.escape(printable(title))
    items = "".join(f"<li>{html.escape(printable(text))}</li>" for text in texts)
    head = (
        f'<!doctype html><html lang="tr"><meta charset="utf-8">{GENERATOR}{kind_in_page(DRAWING)}'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
    )
    return (
        f"{head}<title>{name}</title><style>{STYLE}</style><h1>{name}</h1>"
        f'<img src="{data_uri(drawn)}" alt="{name}"><ol>{items}</ol></html>\n'
    )


def _write(
    canvas: ImageDraw.ImageDraw,
    text: str,
    corner: tuple[int, int],
    size: tuple[int, int],
    font: Font,
    colour: str,
) -> None:
    """Writes a text on a ground of its colour, above a box's corner if there is room, else inside, within the image."""
    start, above, end, below = canvas.textbbox((0, 0), text, font=font)
    width, height = round(end - start) + 6, round(below - above) + 6
    left = max(0, min(corner[0], size[0] - width))
    top = corner[1] - height if corner[1] >= height else corner[1]
    canvas.rectangle((left, top, left + width - 1, top + height - 1), fill=colour)
    letters = LIGHT_TEXT if colour in DARK_COLOURS else DARK_TEXT
    canvas.text((left + 3 - start, top + 3 - above), text, fill=letters, font=font)


def _font(height: int) -> Font:
    """Returns the font of sheets in a size in pixels."""
    font = turkish_font()
    if not isinstance(font, ImageFont.FreeTypeFont):
        return font
    return font.font_variant(size=max(LEAST_LETTER, min(MOST_LETTER, height)))
