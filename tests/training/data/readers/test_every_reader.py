"""Every reader: each row that a source has is a row that is used, or is listed with a reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from source_layouts import LAYOUTS, RawRow

from training.data.sources import Captions, read_captions
from training.run.source import SourceConfig
from turkish_clip.images import ImageError

SPLITS = ("train", "train", "validation", "test", "")
ROWS = [
    RawRow(
        caption="" if number % 11 == 0 else f"resim {number}",
        image=None if number % 7 == 0 else number // 2 * 2,  # two rows an image, some of which are in two splits
        split=SPLITS[number % len(SPLITS)],
    )
    for number in range(1, 121)
]


def accounted(captions: Captions) -> tuple[set[str], int]:
    """Returns the captions of rows whose image opens, and how many rows are listed as skipped, or do not open."""
    used: set[str] = set()
    unopened = 0
    for row in captions.rows:
        try:
            row.open()
            used.update(row.captions)
        except ImageError:
            unopened += len(row.captions)
    return used, unopened + len(captions.skipped)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_rows_in_are_rows_used_and_rows_listed_with_a_reason(
    tmp_path: Path, layout: Callable[[Path, Sequence[RawRow]], Path]
) -> None:
    source = layout(tmp_path / "source", ROWS)
    captions = read_captions(SourceConfig(captions=str(source), run="unused", max_skipped_fraction=1.0))
    used, listed = accounted(captions)
    expected = {row.caption for row in ROWS if row.caption and row.image is not None}
    assert used == expected
    assert listed == len(ROWS) - len(expected) == 26  # 17 without an image, 10 without a caption, one of which is both
    assert captions.read == len(ROWS)
    assert all(sample.reason for sample in captions.skipped)
    assert len({row.image_id for row in captions.rows}) == len(captions.rows)


@pytest.mark.parametrize(
    "layout", [layout for layout in LAYOUTS if layout.__name__ != "coco"], ids=lambda layout: layout.__name__
)
def test_no_caption_of_a_test_row_is_trained_on(
    tmp_path: Path, layout: Callable[[Path, Sequence[RawRow]], Path]
) -> None:
    source = layout(tmp_path / "source", ROWS)
    captions = read_captions(SourceConfig(captions=str(source), run="unused", max_skipped_fraction=1.0))
    trained = {text for row in captions.split("train") for text in row.captions}
    held_out = {row.caption for row in ROWS if row.split in ("validation", "test")}
    assert trained
    assert not trained & held_out
