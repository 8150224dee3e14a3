"""JSON files: lists, Karpathy's, COCO's, captions by file name, lists by split; read element by element."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from samples import paint

from training.data.readers import json_files
from training.data.sources import Captions, read_captions
from training.run.source import SourceConfig, SourceError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        paint(tmp_path / f"{number}.png", number)
        paint(tmp_path / "images" / f"{number}.png", number)
    return tmp_path


def read(folder: Path, content: Any, **options: Any) -> Captions:
    path = folder / "file.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    common = {"run": "unused", "max_skipped_fraction": 1.0, "test_fraction": 0.0, "validation_fraction": 0.0}
    return read_captions(SourceConfig(captions=str(path), **common, **options))


def rows(captions: Captions) -> list[tuple[str, tuple[str, ...], str]]:
    return [(row.image_id, row.captions, row.split) for row in captions.rows]


def test_karpathys_file(folder: Path) -> None:
    images = [
        {"filename": f"{n}.png", "imgid": 0, "split": split, "sentences": [{"raw": f"bir {n}"}, {"raw": "ev"}]}
        for n, split in enumerate(("train", "restval", "val"))
    ]
    expected = [("0.png", ("bir 0", "ev"), "train"), ("1.png", ("bir 1", "ev"), "train")]
    expected.append(("2.png", ("bir 2", "ev"), "validation"))
    assert rows(read(folder, {"dataset": "x", "images": images})) == expected
    nested = {"images": [image | {"filepath": "images"} for image in images]}
    assert [row.image_id for row in read(folder, nested).rows] == [f"images/{n}.png" for n in range(3)]


@pytest.mark.parametrize("order", [("images", "annotations"), ("annotations", "images")])
def test_cocos_file_in_any_order(folder: Path, order: tuple[str, str]) -> None:
    lists = {
        "images": [{"id": 10 + n, "file_name": f"{n}.png"} for n in range(3)],
        "annotations": [{"id": n, "image_id": 10 + n % 2, "caption": f"bir {n}"} for n in range(4)],
    }
    captions = read(
        folder, {"info": {"x": [1]}} | {name: lists[name] for name in order}, image_folder=str(folder / "images")
    )
    assert rows(captions) == [("10", ("bir 0", "bir 2"), "train"), ("11", ("bir 1", "bir 3"), "train")]
    assert captions.rows[0].image == folder / "images" / "0.png"
    assert [(sample.image_id, sample.reason) for sample in captions.skipped] == [("12", "no caption")]


def test_other_shapes_that_are_sure(folder: Path) -> None:
    expected = [("0.png", ("a", "b"), "train"), ("1.png", ("c",), "train")]
    assert rows(read(folder, {"0.png": ["a", "b"], "1.png": "c"})) == expected
    records = [{"image": "0.png", "captions": ["a", "b"]}, {"image": "1.png", "captions": "c"}]
    for content in (
        records,
        {"data": records},
        {"x": records[0], "y": records[1]},
        {"0.png": records[0], "1.png": records[1]},
    ):
        assert rows(read(folder, content)) == expected
    by_split = {"train": records[:1], "test1k": records[1:]}
    assert [split for _, _, split in rows(read(folder, by_split))] == ["train", "test"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '[{"image": "0.png", "caption": "ev"}, {"image"',
            "expected JSON, got '{\"image\"' at character 38 of .*; fix it",
        ),
        ('[{"image": "0.png", "caption": "ev"}', "got its end at character 36 of .*: it is cut off"),
        ("", "got its end at character 0"),
        ("7", "expected JSON, got '7' at character 0"),
        ('["a"]', 'expected records in .*, got "a"; write objects with file_name and captions'),
        ('{"a": 1}', "got an object of a; write one record a line"),
        (json.dumps({"a" * 5000: 1}), "got an object of a{60}; write one record a line"),
        (
            '{"image": {"0": "0.png"}, "caption": {"0": "ev"}}',
            "as pandas writes them; convert it: python -c 'import pandas",
        ),
        ('{"a": [{"x": 1}], "b": [{"x": 1}]}', "got an object of a, b"),
        ("[" * 100_000, "expected JSON|expected records"),
    ],
)
def test_what_is_not_sure_is_refused_with_advice(folder: Path, content: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read(folder, content)


def coco(ids: list[Any], image_ids: list[Any]) -> dict[str, Any]:
    images = [{"file_name": f"{n}.png"} | ({} if value is None else {"id": value}) for n, value in enumerate(ids)]
    notes = [{"id": n, "image_id": value, "caption": f"bir {n}"} for n, value in enumerate(image_ids)]
    return {"images": images, "annotations": notes}


def test_cocos_ids_that_are_repeated_or_missing_are_refused(folder: Path) -> None:
    with pytest.raises(SourceError, match="expected one image for each id in .*, got 0.png and 1.png for 1; if it was"):
        read(folder, coco([1, 1], [1, 1]))
    for missing in (None, "", True):
        with pytest.raises(SourceError, match="expected an id of each image in .*, got none for 1.png; add the ids"):
            read(folder, coco([1, missing], [1, 1]))
    twice = coco([1, 2], [1, 2])
    twice["images"].append({"id": 1, "file_name": "0.png"})
    assert len(read(folder, twice).rows) == 2


def test_cocos_ids_are_one_as_numbers_and_texts(folder: Path) -> None:
    captions = read(folder, coco([1.0, "2", 3], [1, "1.0", 2.0, "3"]))
    assert rows(captions) == [
        ("1", ("bir 0", "bir 1"), "train"),
        ("2", ("bir 2",), "train"),
        ("3", ("bir 3",), "train"),
    ]
    assert not captions.skipped


def test_lists_by_split_of_any_name(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = [{"image": f"{n}.png", "caption": f"bir {n}"} for n in range(3)]
    by_split = {"train": records[:1], "val": records[1:2], "ek": records[2:], "categories": [{"id": 1}], "n": ["a"]}
    with pytest.raises(SourceError, match='expected lists of .* got .ek. beside train, val; .*--split_names "ek=train'):
        read(folder, by_split)
    for meaning, splits in (("test", ["train", "validation", "test"]), ("none", ["train", "validation"])):
        found = rows(read(folder, by_split, split_names=(f"ek={meaning}",)))
        assert [split for _, _, split in found] == splits
    assert "the records of other lists than train, val, ek are left out: 'categories' (1)" in caplog.text
    others = {"images": records[:1], "test": records[1:2], "more": records[2:]}
    assert [split for _, _, split in rows(read(folder, others))] == ["train", "test", "train"]
    caplog.clear()
    assert len(rows(read(folder, {"images": records[:1], "more": records[1:]}))) == 1
    assert "the records of other lists than images are left out: 'more' (2)" in caplog.text


def test_a_file_is_read_piece_by_piece(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [{"image": f"{n % 3}.png", "caption": f"şey {n}", "n": 12345} for n in range(50)]
    whole = rows(read(folder, records))
    by_split = {"train": {f"{n}.png": [f"şey {n}"] for n in range(3)}, "info": {"a": [1, {"b": 2}]}}
    split_rows = rows(read(folder, by_split))
    for size in (1, 2, 7):
        monkeypatch.setattr(json_files, "CHUNK_CHARACTERS", size)
        assert rows(read(folder, records)) == whole
        assert rows(read(folder, by_split)) == split_rows


def test_splits_that_hold_objects(folder: Path) -> None:
    by_file = {
        "train": {"0.png": ["a", "b"]},
        "test": {"1.png": "c"},
        "val": {"2.png": {"captions": ["d"]}},
        "info": {"n": 1},
    }
    expected = [("0.png", ("a", "b"), "train"), ("1.png", ("c",), "test"), ("2.png", ("d",), "validation")]
    assert rows(read(folder, by_file)) == expected

    def part(number: int) -> dict[str, Any]:
        images = [{"id": number, "file_name": f"{number}.png"}]
        return {"images": images, "annotations": [{"image_id": number, "caption": f"bir {number}"}]}

    by_coco = {"version": 1, "val2017": dict(reversed(part(1).items())), "train_set": part(0)}
    assert sorted(rows(read(folder, by_coco))) == [("0", ("bir 0",), "train"), ("1", ("bir 1",), "validation")]
    by_id = {
        "train": {"7": {"file_name": "0.png", "caption": "a"}},
        "test": {"8": {"file_name": "1.png", "caption": "b"}},
    }
    assert rows(read(folder, by_id)) == [("0.png", ("a",), "train"), ("1.png", ("b",), "test")]
    with pytest.raises(
        SourceError, match="in each split of .*, got an object of a, b in train; write a list of records"
    ):
        read(folder, {"train": {"a": "0.png", "b": "ev"}, "test": {"a": "1.png", "b": "kuş"}})
    deep: dict[str, Any] = {}
    for _ in range(400):
        deep = {"a": deep}
    assert len(rows(read(folder, {**by_file, "info": deep}))) == 3
    with pytest.raises(SourceError, match="expected objects of .*, got 'ek' beside train"):
        read(folder, {"train": {"0.png": ["a"]}, "ek": {"1.png": ["b"]}})
    with pytest.raises(SourceError, match="got the list train and the object test; write a list of records for each"):
        read(folder, {"train": [{"file_name": "0.png", "caption": "a"}], "test": {"1.png": ["b"]}})
