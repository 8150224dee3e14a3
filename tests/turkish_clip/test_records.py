"""Records: what is written is read back as it was, and a damaged or older file is one line that says what to do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from turkish_clip.errors import InputError
from turkish_clip.records import ImageModel, read_record, write_record


@dataclass(frozen=True, kw_only=True)
class Example:
    FORMAT: ClassVar[int] = 2

    name: str
    rows: int
    fraction: float = 0.5
    finished: bool = False
    texts: tuple[str, ...] = ()
    counts: dict[str, int] | None = None
    image_model: ImageModel | None = None


def written(folder: Path, **changes: object) -> Path:
    path = folder / "example.json"
    path.write_text(json.dumps({"format": 2, "name": "ağ", "rows": 3, **changes}), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "record",
    [
        Example(name="İğdır", rows=0),
        Example(
            name="", rows=-1, fraction=1, finished=True, texts=("ı", "i"), counts={"a": 1}, image_model=ImageModel("x")
        ),
    ],
)
def test_what_is_written_is_read(tmp_path: Path, record: Example) -> None:
    write_record(tmp_path / "example.json", record)
    assert read_record(Example, tmp_path / "example.json", "") == record


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 1}, "got format 1"),
        ({"format": "2"}, "expected example.json of format 2 in .*, got 2"),
        ({"rows": "3"}, "got '3' as 'rows'"),
        ({"rows": True}, "got 'True' as 'rows'"),
        ({"rows": 1.5}, "got '1.5' as 'rows'"),
        ({"name": None}, "got 'None' as 'name'"),
        ({"texts": "ab"}, "got 'ab' as 'texts'"),
        ({"texts": [1]}, "got '1' as 'texts'"),
        ({"counts": {"a": "b"}}, "got 'b' as 'a'"),
        ({"image_model": []}, r"got '\[\]' as 'image_model'"),
        ({"image_model": {"id": "x", "color": 1}}, "the unknown field 'color'"),
        ({"image_model": {}}, "got no field 'id'"),
    ],
)
def test_a_file_that_does_not_fit(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=f"{message}.*; start again$"):
        read_record(Example, written(tmp_path, **changes), "start again")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"[]", "got a list"), (b"{", "got Expecting"), (b"\xff", "got 'utf-8' codec"), (b"{}", "got an older one")],
)
def test_a_damaged_file(tmp_path: Path, content: bytes, message: str) -> None:
    path = written(tmp_path)
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{message}.*; start again$"):
        read_record(Example, path, "start again")


def test_no_file_and_a_folder_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got none; start again$"):
        read_record(Example, tmp_path / "example.json", "start again")
    (tmp_path / "example.json").mkdir()
    with pytest.raises(InputError, match="Is a directory.*; start again$"):
        read_record(Example, tmp_path / "example.json", "start again")
