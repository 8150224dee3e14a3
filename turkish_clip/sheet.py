"""Contact sheets: pictures with a line below each, as one PNG or one self-contained HTML page."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from turkish_clip.errors import InputError
from turkish_clip.images import ImageError, open_image

TILE, MARGIN, LINE = 192, 12, 18  # pixels
COLUMNS = 5
MOST = 500  # pictures on a sheet: more than anyone looks at, and a bound on its size
STYLE = (
    "body{font:14px sans-serif;margin:24px;background:#fafafa;color:#222}"
    "main{display:grid;grid-template-columns:repeat(auto-fill,minmax(200px,1fr));gap:16px}"
    "figure{margin:0;background:#fff;border:1px solid #ddd;border-radius:6px;padding:8px}"
    "img{width:100%;height:180px;object-fit:contain}figcaption{overflow-wrap:anywhere;margin-top:6px}"
)


class SheetError(InputError):
    """A contact sheet that can't be written."""


@dataclass(frozen=True)
class Tile:
    """One picture and the line below it."""

    path: Path
    text: str


def write_sheet(target: str | Path, tiles: Sequence[Tile], title: str) -> Path:
    """Writes a sheet; the suffix of the target, .png or .html, says which kind. Pictures that don't open are grey.

    Raises:
        SheetError: another suffix, or nothing to show.
    """
    path = Path(target)
    if path.suffix not in (".png", ".html"):
        raise SheetError(f"expected a sheet named .png or .html, got {path.name}; name it so")
    if not tiles:
        raise SheetError("expected pictures for the sheet, got none; search for something else, or lower the threshold")
    shown = list(tiles)[:MOST]
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        _png(shown, title).save(path)
    else:
        path.write_text(_html(shown, title), encoding="utf-8")
    return path


def thumbnail(path: Path, side: int = TILE) -> Image.Image:
    """The picture, small, enlarged by whole factors where it is tiny; grey where it does not open."""
    try:
        picture = open_image(path, min_side=side)
    except ImageError:
        return Image.new("RGB", (side, side), "#dddddd")
    if max(picture.size) * 2 <= side:
        factor = side // max(picture.size)
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    picture.thumbnail((side, side))
    return picture


def _png(tiles: Sequence[Tile], title: str) -> Image.Image:
    rows = -(-len(tiles) // COLUMNS)
    columns = min(COLUMNS, len(tiles))
    cell = TILE + MARGIN
    sheet = Image.new("RGB", (max(columns * cell + MARGIN, 480), 40 + rows * (cell + 2 * LINE)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    draw.text((MARGIN, MARGIN), title, fill="black", font=font)
    for number, tile in enumerate(tiles):
        left, top = MARGIN + number % COLUMNS * cell, 40 + number // COLUMNS * (cell + 2 * LINE)
        picture = thumbnail(tile.path)
        sheet.paste(picture, (left + (TILE - picture.width) // 2, top + (TILE - picture.height) // 2))
        draw.text((left, top + TILE + 2), _cut(tile.text, draw, font), fill="black", font=font)
    return sheet


def _cut(text: str, draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text, its end replaced by dots where it is wider than a tile."""
    if draw.textlength(text, font=font) <= TILE:
        return text
    while text and draw.textlength(text + "…", font=font) > TILE:
        text = text[:-1]
    return text + "…"


def _html(tiles: Sequence[Tile], title: str) -> str:
    figures = []
    for tile in tiles:
        buffer = io.BytesIO()
        thumbnail(tile.path).save(buffer, "JPEG", quality=85)
        source = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
        text = html.escape(tile.text)
        figures.append(f'<figure><img src="{source}" alt="{text}"><figcaption>{text}</figcaption></figure>')
    head = f'<!doctype html><html lang="tr"><meta charset="utf-8"><title>{html.escape(title)}</title>'
    return f"{head}<style>{STYLE}</style><h1>{html.escape(title)}</h1><main>{''.join(figures)}</main></html>\n"
