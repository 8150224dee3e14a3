"""Contact sheets: every Turkish letter is drawn, or replaced by a letter that the font has."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image, ImageFont
from samples import paint

from turkish_clip import sheet
from turkish_clip.sheet import TURKISH, SheetError, Tile, drawable, missing_letters, turkish_font, write_sheet


@pytest.mark.parametrize("own", [True, False], ids=["machine's font", "Pillow's font"])
def test_no_letter_is_drawn_as_a_box(own: bool) -> None:
    font = turkish_font() if own else ImageFont.load_default(14)
    assert not missing_letters(drawable(f"gece mavi bir balık – {TURKISH} 雪", font), font)


def test_letters_are_kept_where_the_font_has_them() -> None:
    font = turkish_font()
    if missing_letters(TURKISH, font):
        pytest.skip("no font with Turkish letters on this machine")
    assert drawable("çocuğun şemsiyesi", font) == "çocuğun şemsiyesi"


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "' onerror='alert(1)", '"><img src=x onerror=alert(1)>'])
def test_names_are_no_markup_on_a_sheet(tmp_path: Path, name: str) -> None:
    tiles = [Tile(paint(tmp_path / "0.png", 0), name)]
    page = write_sheet(tmp_path / "out.html", tiles, name).read_text(encoding="utf-8")
    tags = re.findall(r"<(\w+)([^>]*)>", page)
    assert {tag for tag, _ in tags} <= {
        "html",
        "meta",
        "title",
        "style",
        "h1",
        "main",
        "figure",
        "a",
        "img",
        "figcaption",
        "wbr",
    } | {"doctype"}
    assert len([tag for tag, _ in tags if tag == "img"]) == 1
    assert all(
        re.fullmatch(r' src="data:image/jpeg;base64,[^"]*" alt="[^"]*"', rest) for tag, rest in tags if tag == "img"
    )


def test_the_suffix_sets_the_format_and_long_sheets_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = [Tile(paint(tmp_path / f"{number}.png", number), "ağaç") for number in range(4)]
    with Image.open(write_sheet(tmp_path / "OUT.PNG", tiles, "dört")) as image:
        assert image.size[0] > 480
    monkeypatch.setattr(sheet, "MOST", 3)
    page = write_sheet(tmp_path / "out.html", tiles, "dört").read_text(encoding="utf-8")
    assert page.count("<figure>") == 3
    assert "dört (3 / 4)" in page
    with pytest.raises(SheetError, match=r"expected a sheet named .png or .html, got out.jpg"):
        write_sheet(tmp_path / "out.jpg", tiles, "dört")


def test_each_image_is_a_link_to_its_file(tmp_path: Path) -> None:
    tiles = [Tile(paint(tmp_path / "fotoğraflar" / name, 1), name) for name in ("kış & 'yaz' #1.png", "100 %.png")]
    page = write_sheet(tmp_path / "sayfalar" / "out.html", tiles, "iki").read_text(encoding="utf-8")
    links = [unquote(unescape(link)) for link in re.findall(r'<a href="([^"]*)">', page)]
    assert links == ["../fotoğraflar/kış & 'yaz' #1.png", "../fotoğraflar/100 %.png"]
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert '<html lang="tr">' in page


def test_a_name_is_never_cut(tmp_path: Path) -> None:
    font = turkish_font()
    name = f"0.300  {'çok uzun bir ad ' * 6}{'x' * 80}.png"
    lines = sheet._lines(name, font, sheet.TILE)
    assert "".join(lines).replace(" ", "") == name.replace(" ", "")
    assert max(map(font.getlength, lines)) <= sheet.TILE
    short, long = (
        write_sheet(tmp_path / f"{number}.png", [Tile(paint(tmp_path / "a" / "0.png", 0), text)], "bir")
        for number, text in enumerate(("a", name))
    )
    with Image.open(short) as one, Image.open(long) as other:
        assert other.height - one.height == sheet.LINE * (len(lines) - 1)


def test_a_sheet_follows_the_dark_and_breaks_names_at_their_signs(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20), "red").save(tmp_path / "a.png")
    page = write_sheet(tmp_path / "s.html", [Tile(tmp_path / "a.png", "kar_ev-1.png")], "x").read_text(encoding="utf-8")
    assert "prefers-color-scheme:dark" in page
    assert "overflow-wrap:anywhere" not in page
    assert "kar_<wbr>ev-<wbr>1.<wbr>png</figcaption>" in page
