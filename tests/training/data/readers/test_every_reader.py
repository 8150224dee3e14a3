"""Every reader: each row that a source has is a row that is used, or is listed with a reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from source_layouts import LAYOUTS, RawRow, metadata_jsonl, parquet_folder
from stand_in_hub import StandInHub

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


def test_an_object_of_images_and_their_captions(tmp_path: Path) -> None:
    metadata_jsonl(tmp_path, [RawRow("", number) for number in range(3)])
    (tmp_path / "metadata.jsonl").unlink()
    captions = {"0.png": ["bir", "iki"], "1.png": ["", " "], "2.png": "üç", "3.png": ["dört"], "none.png": []}
    (tmp_path / "captions.json").write_text(json.dumps(captions, ensure_ascii=False), encoding="utf-8")
    source = str(tmp_path / "captions.json")
    read = read_captions(SourceConfig(captions=source, run="unused", max_skipped_fraction=1.0))
    used, listed = accounted(read)
    assert used == {"bir", "iki", "üç"}
    assert {sample.reason for sample in read.skipped} == {"no caption", "no file"}
    assert listed == 3
    assert read.read == 5


FROM_THE_HUB = """
import json
from test_every_reader import accounted
from training.data.sources import read_captions
from training.run.source import SourceConfig

result = {}
for name in ("org/metadata", "org/parquet"):
    for streaming in (True, False):
        config = SourceConfig(captions=name, captions_streaming=streaming, run="x", max_skipped_fraction=1.0)
        captions = read_captions(config, check_files=False)
        used, listed = accounted(captions)
        result[f"{name} {streaming}"] = [sorted(used), listed, captions.read]
print("RESULT" + json.dumps(result))
"""


def test_the_rows_of_data_sets_on_the_hub_are_used_or_listed(tmp_path: Path) -> None:
    rows = [row for row in ROWS if row.image is not None or row.split != "test"]
    here = [metadata_jsonl(tmp_path / "metadata", [row for row in rows if row.image is not None])]
    here.append(parquet_folder(tmp_path / "parquet", rows))
    with StandInHub() as hub:
        for folder in here:
            files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
            hub.put("datasets", f"org/{folder.name}", {"README.md": b"# x", **files})
        environment = hub.environment(tmp_path / "cache")
        paths = [str(Path(__file__).parent), *sys.path]
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", FROM_THE_HUB], capture_output=True, text=True, cwd=tmp_path,
            env=environment | {"PYTHONPATH": os.pathsep.join(paths)}, timeout=400, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.partition("RESULT")[2])
    expected = sorted(row.caption for row in rows if row.caption and row.image is not None)
    counts = {"org/metadata": sum(row.image is not None for row in rows), "org/parquet": len(rows)}
    for name, (used, listed, read) in result.items():
        assert used == expected, name
        assert read == counts[name.split()[0]], name
        assert listed == read - len(expected), name


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
