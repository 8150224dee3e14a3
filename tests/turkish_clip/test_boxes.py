"""Boxes drawn over an image: where they are, in which letters, and as a file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from turkish_clip.boxes import COLOURS, draw_boxes, write_boxes
from turkish_clip.images import ImageError
from turkish_clip.ownership import ForeignFileError
from turkish_clip.sheet import SheetError, Tile, write_sheet

YELLOW = tuple(bytes.fromhex(COLOURS[0][1:]))


def coloured(image: Image.Image, colour: tuple[int, ...] = YELLOW) -> tuple[int, int, int, int]:
    """Returns the box around all pixels of a colour."""
    rows, columns = np.nonzero((np.asarray(image) == colour).all(axis=2))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def test_a_box_is_where_it_is_said_to_be_and_the_image_is_not_changed() -> None:
    image = Image.new("RGB", (400, 200), "#123456")
    drawn = draw_boxes(image, [((100, 50, 300, 150), "")])
    assert drawn.size == (400, 200)
    assert coloured(drawn) == (101, 51, 299, 149)  # within a dark line of one pixel
    assert drawn.getpixel((100, 50)) == (0, 0, 0)
    assert drawn.getpixel((200, 100)) == (18, 52, 86)
    assert image.getcolors() == [(400 * 200, (18, 52, 86))]


@pytest.mark.parametrize("side", [100, 800])
def test_boxes_are_scaled_with_the_image(side: int) -> None:
    drawn = draw_boxes(Image.new("RGB", (400, 200)), [((100, 50, 300, 150), "")], max_side=side)
    scale = side / 400
    assert max(drawn.size) == side
    assert coloured(drawn) == pytest.approx((100 * scale, 50 * scale, 300 * scale, 150 * scale), abs=1.5)


@pytest.mark.parametrize("box", [(0, 0, 400, 200), (-50, -9, 900, 900), (399, 199, 400, 200), (390, 0, 390, 0)])
@pytest.mark.parametrize("text", ["çocuğun şemsiyesi 0.93", "", "雪" * 90])
def test_boxes_at_the_edge_and_long_texts_stay_in_the_image(box: tuple[int, int, int, int], text: str) -> None:
    drawn = draw_boxes(Image.new("RGB", (400, 200), "white"), [(box, text)] * 9)
    assert drawn.size == (400, 200)
    assert (np.asarray(drawn) != 255).any()


def test_the_text_stands_above_its_box_on_a_ground_of_its_colour() -> None:
    plain = draw_boxes(Image.new("RGB", (400, 200)), [((100, 80, 300, 180), "")])
    drawn = draw_boxes(Image.new("RGB", (400, 200)), [((100, 80, 300, 180), "şemsiye")])
    assert coloured(plain)[1] == 81
    assert 50 < coloured(drawn)[1] < 75
    assert np.array_equal(np.asarray(plain)[90:], np.asarray(drawn)[90:])


def test_it_is_written_as_png_or_page(tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    Image.new("RGB", (64, 64), "navy").save(image)
    boxes = [((8, 8, 40, 40), "<b>kuş</b> 0.3"), ((20, 20, 60, 60), "")]
    with Image.open(write_boxes(tmp_path / "new" / "out.PNG", image, boxes, "kuş")) as written:
        assert written.size == (320, 320)  # a small one is enlarged by a whole factor
        assert written.text["Software"] == "turkish-clip"
    page = write_boxes(tmp_path / "out.html", image, boxes, "kuş & ev").read_text(encoding="utf-8")
    assert "<h1>kuş &amp; ev</h1>" in page
    assert "<li>&lt;b&gt;kuş&lt;/b&gt; 0.3</li>" in page
    assert page.count("<li>") == 1
    assert 'lang="tr"' in page
    assert "viewport" in page
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    write_boxes(tmp_path / "out.html", image, boxes, "again")  # replaces its own
    with pytest.raises(SheetError, match=r"named .png or .html, got out.jpg"):
        write_boxes(tmp_path / "out.jpg", image, boxes, "kuş")
    with pytest.raises(ForeignFileError):
        write_boxes(image, image, boxes, "kuş")
    with pytest.raises(ImageError):
        write_boxes(tmp_path / "none.png", tmp_path / "none.jpg", boxes, "kuş")


def test_a_sheet_shows_what_was_drawn(tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    Image.new("RGB", (64, 64), "navy").save(image)
    drawn = draw_boxes(image, [((8, 8, 40, 40), "")], max_side=192)
    with Image.open(write_sheet(tmp_path / "out.png", [Tile(image, "a", drawn), Tile(image, "b")], "iki")) as sheet:
        left, _, right, _ = coloured(sheet.convert("RGB"))
    assert 12 < left < right < 12 + 192
