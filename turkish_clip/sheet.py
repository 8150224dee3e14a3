"""Contact sheets: images with a line below each, as one PNG or one self-contained HTML page."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from turkish_clip.errors import InputError
from turkish_clip.images import ImageError, open_image
from turkish_clip.text import ascii_fold

TILE, MARGIN, LINE = 192, 12, 18  # pixels
COLUMNS = 5
LETTERS = 14  # pixels
TURKISH = "çğıöşüÇĞİÖŞÜâîûÂÎÛ–…"
NO_LETTER = "\uffff"
FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "Arial.ttf",
    "arial.ttf",
    "Helvetica.ttc",
)
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
MOST = 500  # images on a sheet: more than anyone looks at, and a bound on its size
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
    """One image and the line below it."""

    path: Path
    text: str


def write_sheet(target: str | Path, tiles: Sequence[Tile], title: str) -> Path:
    """Writes a sheet; the suffix of the target, .png or .html, says which kind. Images that don't open are grey.

    Raises:
        SheetError: another suffix, or nothing to show.
    """
    path = check_name(target)
    if not tiles:
        raise SheetError("expected images for the sheet, got none; search for something else, or lower the threshold")
    shown = list(tiles)[:MOST]
    if len(tiles) > MOST:
        title = f"{title} ({MOST} / {len(tiles)})"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".png":
        _png(shown, title).save(path)
    else:
        path.write_text(_html(shown, title), encoding="utf-8")
    return path


def check_name(target: str | Path) -> Path:
    """A sheet's path.

    Raises:
        SheetError: its suffix is neither .png nor .html.
    """
    path = Path(target)
    if path.suffix.lower() not in (".png", ".html"):
        raise SheetError(f"expected a sheet named .png or .html, got {path.name}; name it so")
    return path


def thumbnail(path: Path, side: int = TILE) -> Image.Image:
    """The image, small, enlarged by whole factors where it is tiny; grey where it does not open."""
    try:
        image = open_image(path, min_side=side)
    except ImageError:
        return Image.new("RGB", (side, side), "#dddddd")
    if max(image.size) * 2 <= side:
        factor = side // max(image.size)
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image.thumbnail((side, side))
    return image


def _png(tiles: Sequence[Tile], title: str) -> Image.Image:
    rows = -(-len(tiles) // COLUMNS)
    columns = min(COLUMNS, len(tiles))
    cell = TILE + MARGIN
    sheet = Image.new("RGB", (max(columns * cell + MARGIN, 480), 40 + rows * (cell + 2 * LINE)), "white")
    draw, font = ImageDraw.Draw(sheet), turkish_font()
    draw.text((MARGIN, MARGIN), drawable(title, font), fill="black", font=font)
    for number, tile in enumerate(tiles):
        left, top = MARGIN + number % COLUMNS * cell, 40 + number // COLUMNS * (cell + 2 * LINE)
        image = thumbnail(tile.path)
        sheet.paste(image, (left + (TILE - image.width) // 2, top + (TILE - image.height) // 2))
        draw.text((left, top + TILE + 2), _cut(drawable(tile.text, font), draw, font), fill="black", font=font)
    return sheet


@cache
def turkish_font() -> Font:
    """The machine's first sans serif that has all Turkish letters; Pillow's own, which has none, where it has none."""
    for name in FONTS:
        try:
            font = ImageFont.truetype(name, LETTERS)
        except OSError:
            continue
        if not missing(TURKISH, font):
            return font
    return ImageFont.load_default(LETTERS)


def missing(text: str, font: Font) -> set[str]:
    """The letters of a text that a font draws as an empty box."""
    box = bytes(font.getmask(NO_LETTER))
    return {letter for letter in set(text) if not letter.isspace() and bytes(font.getmask(letter)) == box}


def drawable(text: str, font: Font) -> str:
    """The text in letters that the font has: without its Turkish letters, or a question mark, where they are missing.

    >>> drawable("kırmızı – top", ImageFont.load_default(14))
    'kirmizi ? top'
    """
    lacking = missing(text, font)
    if not lacking:
        return text
    folded = ascii_fold("".join(text))
    still = missing(folded, font)
    return "".join("?" if letter in still else letter for letter in folded)


def _cut(text: str, draw: ImageDraw.ImageDraw, font: Font) -> str:
    """The text, its end replaced by dots where it is wider than a tile."""
    if draw.textlength(text, font=font) <= TILE:
        return text
    while text and draw.textlength(text + "...", font=font) > TILE:
        text = text[:-1]
    return text + "..."


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
