"""Contact sheets: images with a line of text below each, as one PNG or one self-contained HTML page."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from turkish_clip.atomic import atomic_write
from turkish_clip.errors import InputError, printable
from turkish_clip.ownership import GENERATOR, SHEET, check_replaceable, kind_in_page, png_marks
from turkish_clip.text import ascii_fold
from turkish_clip.thumbnails import data_uri, link_to, thumbnail_or_grey

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
VIEWPORT = '<meta name="viewport" content="width=device-width, initial-scale=1">'
BREAKS = "-_./"  # in names of files; behind these a line may be broken
MOST = 500  # images on a sheet: bounds its size
STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:16px/1.4 system-ui,sans-serif;margin:24px;background:#fafafa;color:#222}"
    "h1{font-size:22px;overflow-wrap:break-word}"
    "main{display:grid;grid-template-columns:repeat(auto-fill,minmax(200px,1fr));gap:16px}"
    "figure{margin:0;min-width:0;background:#fff;border:1px solid #ddd;border-radius:8px;padding:8px}"
    "a{display:block;color:inherit}img{width:100%;aspect-ratio:1;object-fit:contain;display:block}"
    "figcaption{overflow-wrap:break-word;margin-top:6px}"
    "@media(max-width:600px){body{margin:12px}main{grid-template-columns:repeat(2,minmax(0,1fr));gap:8px}}"
    "@media(prefers-color-scheme:dark){body{background:#161616;color:#eee}figure{background:#222;border-color:#444}}"
)


class SheetError(InputError):
    """A contact sheet that can't be written."""


@dataclass(frozen=True)
class Tile:
    """One image of a sheet and the line below it.

    Attributes:
        path: the image.
        text: the line.
        drawn: what is shown in place of the image, such as it with boxes over it; None shows the image.
        second: of a video, that of the frame that is shown.
    """

    path: Path
    text: str
    drawn: Image.Image | None = None
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
            _png(shown, title).save(partial, "PNG", pnginfo=png_marks(SHEET))
        else:
            partial.write_text(_html(shown, title, path.parent), encoding="utf-8")
    return path


def check_name(target: str | Path, kind: str = SHEET) -> Path:
    """Returns the path of a sheet after checking its suffix, and that nothing else is there.

    Args:
        target: the file.
        kind: what it is to be, as `check_replaceable` takes it.

    Raises:
        SheetError: it is neither .png nor .html.
        ForeignFileError: there is a file that is nothing of that kind.
    """
    path = Path(target)
    if path.suffix.lower() not in (".png", ".html"):
        raise SheetError(f"expected a sheet named .png or .html, got {path.name}; name it so")
    check_replaceable(path, kind)
    return path


def _png(tiles: Sequence[Tile], title: str) -> Image.Image:
    columns = min(COLUMNS, len(tiles))
    cell = TILE + MARGIN
    width, font = max(columns * cell + MARGIN, 480), turkish_font()
    head = _lines(drawable(title, font), font, width - 2 * MARGIN)
    rows = [tiles[start : start + COLUMNS] for start in range(0, len(tiles), COLUMNS)]
    texts = [[_lines(drawable(tile.text, font), font, TILE) for tile in row] for row in rows]
    heights = [cell + LINE * (1 + max(map(len, lines))) for lines in texts]
    top = 2 * MARGIN + LINE * len(head)
    sheet = Image.new("RGB", (width, top + sum(heights)), "white")
    draw = ImageDraw.Draw(sheet)
    _draw(draw, head, MARGIN, MARGIN, font)
    for row, lines, height in zip(rows, texts, heights):
        for column, (tile, text) in enumerate(zip(row, lines)):
            left = MARGIN + column * cell
            image = thumbnail_or_grey(tile.drawn or tile.path, TILE, tile.second)
            sheet.paste(image, (left + (TILE - image.width) // 2, top + (TILE - image.height) // 2))
            _draw(draw, text, left, top + TILE + 2, font)
        top += height
    return sheet


def _draw(draw: ImageDraw.ImageDraw, lines: Sequence[str], left: int, top: int, font: Font) -> None:
    for number, line in enumerate(lines):
        draw.text((left, top + number * LINE), line, fill="black", font=font)


def _lines(text: str, font: Font, width: int) -> list[str]:
    """Returns a text as lines of at most a width, broken at spaces, behind a sign of BREAKS, or at any letter."""
    lines = []
    while text:
        end = len(text)
        while end > 1 and font.getlength(text[:end]) > width:
            end -= 1
        if end < len(text) and (space := text.rfind(" ", 1, end + 1)) > 0:
            end = space
        elif end < len(text) and (sign := max(text.rfind(sign, 1, end) for sign in BREAKS)) > 0:
            end = sign + 1
        lines.append(text[:end].strip())
        text = text[end:].lstrip()
    return lines or [""]


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


def _html(tiles: Sequence[Tile], title: str, folder: Path) -> str:
    figures = []
    for tile in tiles:
        source = data_uri(thumbnail_or_grey(tile.drawn or tile.path, TILE, tile.second))
        text = html.escape(printable(tile.text))
        broken = "".join(f"{letter}<wbr>" if letter in BREAKS else letter for letter in text)
        image = f'<a href="{html.escape(link_to(tile.path, folder))}"><img src="{source}" alt="{text}"></a>'
        figures.append(f"<figure>{image}<figcaption>{broken}</figcaption></figure>")
    title = html.escape(printable(title))
    about = f'<meta charset="utf-8">{VIEWPORT}{GENERATOR}{kind_in_page(SHEET)}'
    head = f'<!doctype html><html lang="tr">{about}<title>{title}</title>'
    return f"{head}<style>{STYLE}</style><h1>{title}</h1><main>{''.join(figures)}</main></html>\n"
