"""Folders without metadata: images with a .txt each, tables of splits, and what is said of other things in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from samples import paint, write_rows

from training.data.sources import Captions, read_captions
from training.run.source import SourceConfig, SourceError


def read(folder: Path, **options: Any) -> Captions:
    common = {"run": "unused", "max_skipped_fraction": 1.0, "test_fraction": 0.0, "validation_fraction": 0.0}
    return read_captions(SourceConfig(captions=str(folder), **common, **options))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_img2datasets_folder_beside_its_parquet_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(3):
        paint(tmp_path / "00000" / f"00000000{number}.jpg", number)
        write(tmp_path / "00000" / f"00000000{number}.txt", f"resim {number}" if number < 2 else "")
        write(tmp_path / "00000" / f"00000000{number}.json", json.dumps({"key": str(number), "caption": "x"}))
    write(tmp_path / "00000" / "000000007.txt", "resimsiz")
    write(tmp_path / "00000_stats.json", "{}")
    pq.write_table(pa.table({"url": ["http://x"], "caption": ["x"], "key": ["0"]}), tmp_path / "00000.parquet")
    captions = read(tmp_path)
    assert {row.image_id: row.captions for row in captions.rows} == {
        f"00000/00000000{number}.jpg": (f"resim {number}",) for number in range(2)
    }
    assert {(sample.path, sample.reason) for sample in captions.skipped} == {
        ("00000/000000002.jpg", "no caption"),
        ("00000/000000007", "no image beside the caption"),
    }
    assert "1 Parquet file is left out (00000.parquet), since there are images with a .txt each" in caplog.text


def test_texts_in_two_languages_dots_in_names_and_broken_files(tmp_path: Path) -> None:
    for name in ("a.b.png", "c.png", "d.png", "e.png"):
        paint(tmp_path / "train" / name, len(name))
    write(tmp_path / "train" / "a.b.txt", "bir ev")
    write(tmp_path / "train" / "c.txt", "iki ev")
    write(tmp_path / "train" / "c.en.txt", "two houses")
    (tmp_path / "train" / "d.txt").write_bytes("üç".encode("cp1254"))
    write(tmp_path / "train" / "e.txt", "dört")
    write(tmp_path / "train" / "e.json", "[]")
    captions = read(tmp_path)
    assert {row.image_id: row.captions for row in captions.rows} == {
        "train/a.b.png": ("bir ev",),
        "train/c.png": ("iki ev",),
    }
    reasons = {sample.path: sample.reason for sample in captions.skipped}
    assert reasons["train/d.png"].startswith("a .txt that is not UTF-8")
    assert reasons["train/e.png"] == "a .json that is no record"


def test_metadata_of_any_depth_and_kind(tmp_path: Path) -> None:
    paint(tmp_path / "a" / "train" / "0.png", 0)
    write_rows(tmp_path / "a" / "train", [{"file_name": "0.png", "caption": "ev"}])
    paint(tmp_path / "b" / "test" / "1.png", 1)
    write(tmp_path / "b" / "test" / "metadata.tsv", "file_name\tcaption\n1.png\tkuş\n")
    rows = read(tmp_path).rows
    assert [(row.image_id, row.split) for row in rows] == [("a/train/0.png", "train"), ("b/test/1.png", "test")]


def test_linked_folders_are_read_and_circles_end(tmp_path: Path) -> None:
    paint(tmp_path / "outside" / "0.png", 0)
    write_rows(tmp_path / "outside", [{"file_name": "0.png", "caption": "ev"}])
    source = tmp_path / "source"
    source.mkdir()
    (source / "train").symlink_to(tmp_path / "outside")
    (source / "again").symlink_to(source)
    (source / "test").symlink_to(tmp_path / "outside")
    assert [row.image_id for row in read(source).rows] == ["test/0.png", "train/0.png"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("captions.csv", "got captions.csv; name one of them: --captions .*captions.csv"),
        ("captions.txt", "got captions.txt; name one of them: --captions .*captions.txt"),
        ("dataset.json", "got dataset.json; name one of them: --captions .*dataset.json"),
        ("0.png", "got 1 images alone; write the metadata"),
    ],
)
def test_a_folder_of_something_else_names_it(tmp_path: Path, name: str, message: str) -> None:
    write(tmp_path / name, "x")
    with pytest.raises(SourceError, match=message):
        read(tmp_path)
