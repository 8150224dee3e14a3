"""Which rows are of one image: ids that restart, equal names and keys, one image under several captions."""

from __future__ import annotations

import io
import shutil
import tarfile
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from samples import paint, write_rows
from source_layouts import png

from training.data.sources import read_captions
from training.run.source import Source, SourceConfig, SourceError


def read(captions: object, **options: Any) -> dict[str, tuple[str, ...]]:
    config = SourceConfig(captions=str(captions), run="unused", max_skipped_fraction=1.0, **options)
    return {row.image_id: row.captions for row in read_captions(config).rows}


def cells(path: Path, images: list[int], ids: list[object], names: list[str | None]) -> Path:
    """A Parquet table with the images inside."""
    records = [{"bytes": png(number), "path": name} for number, name in zip(images, names)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    texts = [f"resim {row}" for row in range(len(images))]
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"image": pa.array(records, kind), "caption": texts} | ({"image_id": ids} if any(ids) else {})
    pq.write_table(pa.table(columns), path)
    return path


def test_ids_that_restart_in_each_split_are_refused_with_both_places(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("test", 10)):
        names = [paint(tmp_path / split / f"{n}.png", n).name for n in range(first, first + 3)]
        rows = [{"file_name": name, "image_id": n, "caption": name} for n, name in enumerate(names)]
        write_rows(tmp_path / split, [dict(row) for row in rows])
    match = r"one image for each image_id, got two for '0' in .*test/10.png and .*train/0.png; .*--id_column none"
    with pytest.raises(SourceError, match=match):
        read(tmp_path)
    assert len(read(tmp_path, id_column="none")) == 6
    with pytest.raises(SourceError, match="got two for '0'"):
        read_captions(SourceConfig(captions=str(tmp_path), run="unused"), check_files=False)


def test_a_missing_image_gives_its_captions_to_no_other(tmp_path: Path) -> None:
    for split, name in (("train", "0.png"), ("test", "1.png")):
        write_rows(tmp_path / split, [{"file_name": name, "image_id": 0, "caption": name}])
    paint(tmp_path / "train" / "0.png", 0)
    with pytest.raises(SourceError, match="got two for '0'"):
        read_captions(SourceConfig(captions=str(tmp_path), run="unused"), check_files=False)


def test_ids_that_restart_in_each_file_are_refused_and_row_numbers_are_not(tmp_path: Path) -> None:
    for part in range(2):
        cells(tmp_path / f"part-{part}.parquet", [part * 2, part * 2 + 1], [0, 1], [None] * 2)
    with pytest.raises(SourceError, match=r"row 1 of .*part-0.parquet and row 1 of .*part-1.parquet"):
        read(tmp_path)
    with pytest.raises(SourceError, match="got two for '0'"):
        read_captions(SourceConfig(captions=str(tmp_path), run="unused"), check_files=False)
    assert sorted(read(tmp_path, id_column="none")) == [f"train-{n:08d}" for n in (1, 2, 3, 4)]


def test_a_column_that_names_something_else_is_refused(tmp_path: Path) -> None:
    rows = [{"file_name": paint(tmp_path / f"{n}.png", n).name, "product": "çanta", "caption": "ev"} for n in range(2)]
    write_rows(tmp_path, [dict(row) for row in rows])
    with pytest.raises(SourceError, match="one image for each product, got two for 'çanta'"):
        read(tmp_path, id_column="product")


def test_one_image_in_several_rows_stays_one(tmp_path: Path) -> None:
    table = cells(tmp_path / "a.parquet", [5, 5, 6], ["a", "a", "b"], [None] * 3)
    assert read(table) == {"a": ("resim 0", "resim 1"), "b": ("resim 2",)}
    named = cells(tmp_path / "b.parquet", [5, 6, 5], [None] * 3, ["x.png", "y.png", "x.png"])
    assert read(named) == {"x.png": ("resim 0", "resim 2"), "y.png": ("resim 1",)}
    shutil.copy(paint(tmp_path / "one.png", 1), tmp_path / "copy.png")
    write_rows(tmp_path, [{"file_name": n, "image_id": 1, "caption": n} for n in ("one.png", "copy.png")])
    assert read(tmp_path / "metadata.jsonl") == {"1": ("one.png", "copy.png")}


def test_equal_base_names_in_one_table_are_told_apart(tmp_path: Path) -> None:
    table = cells(tmp_path / "t.parquet", [0, 1, 2, 1], [None] * 4, ["1.png"] * 4)
    expected = {"1.png": ("resim 0",), "1.png#2": ("resim 1", "resim 3"), "1.png#3": ("resim 2",)}
    assert read(table) == expected


def test_a_key_that_comes_twice_in_a_shard_is_two_images(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number in range(2):
            for name, content in (("0.png", png(number)), ("0.txt", f"resim {number}".encode())):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    assert read(tmp_path / "a.tar") == {"a/0": ("resim 0",), "a/0#2": ("resim 1",)}


def test_names_that_differ_in_composition_alone_are_two_images(tmp_path: Path) -> None:
    names = ["şey.png", unicodedata.normalize("NFD", "şey.png")]
    write_rows(
        tmp_path, [{"file_name": paint(tmp_path / name, n).name, "caption": str(n)} for n, name in enumerate(names)]
    )
    assert read(tmp_path) == {"şey.png": ("0",), "şey.png#2": ("1",)}


def test_a_missing_id_is_no_id(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    for n in range(3):
        paint(tmp_path / f"{n}.png", n)
    ids = pa.array([1.0, float("nan"), None])
    pq.write_table(
        pa.table({"path": [f"{n}.png" for n in range(3)], "image_id": ids, "caption": ["a", "b", "c"]}), path
    )
    assert read(path) == {"1.0": ("a",), "1.png": ("b",), "2.png": ("c",)}


def test_an_image_in_two_splits_is_in_the_later_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paint(tmp_path / "0.png", 0)
    write_rows(tmp_path, [{"file_name": "0.png", "caption": s, "split": s} for s in ("train", "test", "validation")])
    (row,) = read_captions(SourceConfig(captions=str(tmp_path), run="unused")).rows
    assert (row.split, row.captions) == ("test", ("train", "test", "validation"))
    assert "1 images are in several splits" in caplog.text


def test_two_sources_with_one_image_id_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, name in ((Path("a"), "b/c.png"), (Path("a/b"), "c.png")):
        write_rows(folder, [{"file_name": name, "image_id": name, "caption": "ev"}])
        paint(folder / name, 1)
    sources = (Source(captions="a"), Source(captions="a/b"))
    with pytest.raises(SourceError, match=r"other images in each of the sources, got 'a/b/c.png' in a and a/b; move"):
        read_captions(SourceConfig(sources=sources, run="unused"))


def test_rows_of_texts_alone_are_not_merged_by_ids_that_restart(tmp_path: Path) -> None:
    paint(tmp_path / "i" / "0.png", 0)
    write_rows(tmp_path / "i", [{"file_name": "0.png", "caption": "ev"}])
    write_rows(tmp_path / "t", [{"image_id": 0, "caption": f"metin {n}", "caption_en": f"text {n}"} for n in range(3)])
    sources = (
        Source(captions=str(tmp_path / "i")),
        Source(captions=str(tmp_path / "t" / "metadata.jsonl"), text_only=True),
    )
    texts = read_captions(SourceConfig(sources=sources, run="unused")).texts
    assert texts is not None
    assert [row.english for row in texts] == [("text 0",), ("text 1",), ("text 2",)]


def test_one_image_has_one_id_in_every_spelling_of_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    full = paint(tmp_path / "r" / "x" / "0.png", 0)
    names = ["x/0.png", "./x/0.png", "x//0.png", str(full), "x\\0.png", "y/../x/0.png", " x/0.png"]
    (tmp_path / "r" / "y").mkdir()
    write_rows(tmp_path / "r", [{"file_name": name, "caption": str(n)} for n, name in enumerate(names)])
    for source in ("r", str(tmp_path / "r"), "r/metadata.jsonl"):
        assert read(source) == {"x/0.png": tuple("0123456")}
    write_rows(tmp_path / "r", [{"file_name": name, "caption": name.strip("./")} for name in (str(full), "./x/0.png")])
    assert read("r") == {str(full): (str(full).strip("/"), "x/0.png")}
