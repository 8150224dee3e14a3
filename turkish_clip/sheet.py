"""Contact sheets: images with a line of text below each, as one PNG or one self-contained HTML page."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from turkish_clip.atomic import atomic_write
from turkish_clip.errors import InputError, printable
from turkish_clip.ownership import GENERATOR, SOFTWARE, check_replaceable
from turkish_clip.text import ascii_fold
from turkish_clip.thumbnails import data_uri, thumbnail_or_grey

TILE, MARGIN, LINE = 192, 12, 18  # pixels
COLUMNS = 5
LETTERS = 14  # pixels of the font
TURKISH = "çğıöşüÇĞİÖŞÜâîûÂÎÛ–…"
NO_LETTER = "\uffff"  # which every font draws as its empty box
FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "Arial.ttf",
    "arial.ttf",
    "Helvetica.ttc",
)
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
MOST = 500  # images on a sheet: bounds its size
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
    """One image of a sheet and the line below it; of a video, the frame at a second."""

    path: Path
    text: str
    second: float | None = None


def write_sheet(target: str | Path, tiles: Sequence[Tile], title: str) -> Path:
    """Writes a contact sheet and returns its path; an image that does not open is shown as a grey square.

    Args:
        target: the file, whose suffix, .png or .html, sets the format; missing folders above it are made.
        tiles: images with their lines, in reading order; those beyond `MOST` are left out.
        title: the line at the top.

    Raises:
        SheetError: the suffix is another one, or there are no tiles.
        ForeignFileError: there is a file that is no contact sheet.
    """
    path = check_name(target)
    if not tiles:
        raise SheetError("expected images for the sheet, got none; search for something else, or lower the threshold")
    shown = list(tiles)[:MOST]
    if len(tiles) > MOST:
        title = f"{title} ({MOST} / {len(tiles)})"
    with atomic_write(path) as partial:
        if path.suffix.lower() == ".png":
            about = PngInfo()
            about.add_text(*SOFTWARE)
            _png(shown, title).save(partial, "PNG", pnginfo=about)
        else:
            partial.write_text(_html(shown, title), encoding="utf-8")
    return path


def check_name(target: str | Path) -> Path:
    """Returns the path of a sheet after checking its suffix, and that nothing of others is there.

    Raises:
        SheetError: it is neither .png nor .html.
        ForeignFileError: there is a file that is no contact sheet.
    """
    path = Path(target)
    if path.suffix.lower() not in (".png", ".html"):
        raise SheetError(f"expected a sheet named .png or .html, got {path.name}; name it so")
    check_replaceable(path)
    return path


def _png(tiles: Sequence[Tile], title: str) -> Image.Image:
    rows = -(-len(tiles) // COLUMNS)
    columns = min(COLUMNS, len(tiles))
    cell = TILE + MARGIN
    sheet = Image.new("RGB", (max(columns * cell + MARGIN, 480), 40 + rows * (cell + 2 * LINE)), "white")
    draw, font = ImageDraw.Draw(sheet), turkish_font()
    draw.text((MARGIN, MARGIN), drawable(title, font), fill="black", font=font)
    for number, tile in enumerate(tiles):
        left, top = MARGIN + number % COLUMNS * cell, 40 + number // COLUMNS * (cell + 2 * LINE)
        image = thumbnail_or_grey(tile.path, TILE, tile.second)
        sheet.paste(image, (left + (TILE - image.width) // 2, top + (TILE - image.height) // 2))
        draw.text((left, top + TILE + 2), _cut(drawable(tile.text, font), draw, font), fill="black", font=font)
    return sheet


@cache
def turkish_font() -> Font:
    """Returns the first installed font of FONTS with all Turkish letters, or else Pillow's own, which lacks them."""
    for name in FONTS:
        try:
            font = ImageFont.truetype(name, LETTERS)
        except OSError:
            continue
        if not missing_letters(TURKISH, font):
            return font
    return ImageFont.load_default(LETTERS)


def missing_letters(text: str, font: Font) -> set[str]:
    """Returns the letters of a text that a font lacks and draws as an empty box.

    Args:
        text: any text; spaces do not count.
        font: a Pillow font.
    """
    box = bytes(font.getmask(NO_LETTER))
    return {letter for letter in set(text) if not letter.isspace() and bytes(font.getmask(letter)) == box}


def drawable(text: str, font: Font) -> str:
    """Returns a text in letters that a font has: in ASCII if it lacks one, with "?" for what it still lacks.

    Args:
        text: any text.
        font: a Pillow font.

    >>> drawable("kırmızı – top", ImageFont.load_default(14))
    'kirmizi ? top'
    """
    text = printable(text)
    if not missing_letters(text, font):
        return text
    folded = ascii_fold(text)
    lacking = missing_letters(folded, font)
    return "".join("?" if letter in lacking else letter for letter in folded)


def _cut(text: str, draw: ImageDraw.ImageDraw, font: Font) -> str:
    """Returns a text with its end replaced by dots if it is wider than a tile."""
    if draw.textlength(text, font=font) <= TILE:
        return text
    while text and draw.textlength(text + "...", font=font) > TILE:
        text = text[:-1]
    return text + "..."


def _html(tiles: Sequence[Tile], title: str) -> str:
    figures = []
    for tile in tiles:
        source = data_uri(thumbnail_or_grey(tile.path, TILE, tile.second))
        text = html.escape(printable(tile.text))
        figures.append(f'<figure><img src="{source}" alt="{text}"><figcaption>{text}</figcaption></figure>')
    title = html.escape(printable(title))
    head = f'<!doctype html><html lang="tr"><meta charset="utf-8">{GENERATOR}<title>{title}</title>'
    return f"{head}<style>{STYLE}</style><h1>{title}</h1><main>{''.join(figures)}</main></html>\n"
