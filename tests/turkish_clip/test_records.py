"""Records: what is written is read back as it was, and a damaged or older file is one line that says what to do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from turkish_clip import verify as verification
from turkish_clip.errors import InputError
from turkish_clip.records import ImageModel, read_record, write_record
from turkish_clip.resolve import ModelError, resolve_models
from turkish_clip.verify import ModelRecord, verify


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
        ({"fraction": float("nan")}, "got 'nan' as 'fraction'"),
        ({"fraction": float("inf")}, "got 'inf' as 'fraction'"),
        ({"fraction": 10**400}, "got '10{39}' as 'fraction'"),
        ({"rows": 1.5}, "got '1.5' as 'rows'"),
        ({"format": 10**400}, "got format 10{32}"),
        ({"format": "x" * 400}, "got x{40}"),
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


def model_record(**changes: object) -> str:
    values = {"format": 3, "kind": "text", "dim": 16, "max_tokens": 128, "weights_sha256": "", "image_model": {}}
    return json.dumps(values | changes)


HOSTILE: dict[str, dict[str, object]] = {
    "as temperature, not a number from 0.0001 to 100.0": {"temperature": 1e-320},
    "inf as temperature": {"temperature": float("inf")},
    "nan as temperature": {"temperature": float("nan")},
    "True as temperature": {"temperature": True},
    "'0.01' as temperature": {"temperature": "0.01"},
    "-1 as temperature": {"temperature": -1},
    "0 as temperature": {"temperature": 0},
    "'16' as dim": {"dim": "16"},
    "-1 as dim": {"dim": -1},
    "1000000000000 as dim, not a whole number from 1 to 65536": {"dim": 10**12},
    "16.0 as dim": {"dim": 16.0},
    "the kind 'vision'": {"kind": "vision"},
    "None as image_model": {"image_model": None},
    "as image_model, not texts by name": {"image_model": {"id": 1}},
    "as requires, not texts by name": {"requires": ["torch"]},
    "2 as tolerance, not a number from 0 to 1": {"tolerance": 2},
    "17 as matryoshka": {"matryoshka": [8, 17]},
    "'8' as matryoshka, not a list": {"matryoshka": "8"},
    "as golden, not an object": {"golden": [1]},
    "as bank, not an object": {"bank": [1]},
}


@pytest.mark.parametrize("message", HOSTILE)
def test_a_model_record_with_values_that_do_not_fit(message: str, text_folder: Path, tmp_path: Path) -> None:
    content = model_record(**HOSTILE[message])
    with pytest.raises(ValueError, match=message.replace(".", "[.]")):
        ModelRecord.from_json(content)
    (tmp_path / "modules.json").write_text("[]", encoding="utf-8")
    (tmp_path / "turkish_clip.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match="expected turkish_clip.json of format 3 in .*, got .*; update turkish-clip"):
        resolve_models(tmp_path, "image-model")
    found = verify(tmp_path)
    assert [(check.name, check.passed) for check in found] == [("record", False)]


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "null",
        "7",
        "[" * 100_000,
        '{"format": [' + "9" * 5000 + "]}",
        model_record(golden={}),
        model_record(image_model={"id": "x"}, golden={}),
        model_record(image_model={"id": "x"}, requires={"torch": "1"}, golden={"texts": 3}),
        model_record(image_model={"id": "x"}, requires={"torch": "1"}, golden={"texts": ["a"], "text_vectors": None}),
        model_record(
            image_model={"id": "x"}, requires={"torch": "1"}, golden={"texts": ["a"], "text_vectors": [["b"] * 16]}
        ),
        model_record(image_model={"id": "x"}, requires={"torch": "1"}, golden={"texts": ["a"], "text_vectors": [[1]]}),
    ],
)
def test_verify_never_raises(content: str, tmp_path: Path) -> None:
    (tmp_path / "turkish_clip.json").write_text(content, encoding="utf-8")
    (check,) = verify(tmp_path)
    assert (check.name, check.passed) == ("record", False)
    assert "Error" not in check.found


def raising(name: str, *parents: type[Exception]) -> type[Exception]:
    """Returns an error type as the Hub's client has it."""
    return type(name, parents or (Exception,), {})


@pytest.mark.parametrize(
    ("error", "offline", "found"),
    [
        (raising("LocalEntryNotFoundError", FileNotFoundError), True, "cache, while HF_HUB_OFFLINE is set; check"),
        (raising("OfflineModeIsEnabled", ConnectionError), True, "cache, while HF_HUB_OFFLINE is set; check"),
        (raising("LocalEntryNotFoundError", FileNotFoundError), False, "and no answer from the Hub; check"),
        (raising("ConnectError"), False, "and no answer from the Hub; check the path, or the connection"),
        (raising("RepositoryNotFoundError", OSError), False, "and the Hub has no such model or does not show it"),
        (raising("GatedRepoError", raising("RepositoryNotFoundError", OSError)), False, "or does not show it"),
        (raising("RevisionNotFoundError", OSError), False, "which has no such revision on the Hub; check the branch"),
        (raising("RemoteEntryNotFoundError", raising("EntryNotFoundError")), False, "on the Hub without turkish_clip"),
        (raising("HFValidationError", ValueError), False, "and no id of the Hub; check the path"),
        (raising("Unheard"), False, "and can't be read from the Hub (why); check the path, or the id"),
    ],
)
def test_verify_says_in_words_that_a_model_is_not_there(
    error: type[Exception], offline: bool, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Path:
        raise error("why")

    monkeypatch.setattr(verification, "find_record", fail)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    (check,) = verify("kimse/yok")
    assert check.found.startswith("expected a published model, got kimse/yok, ")
    assert found in check.found
    assert "Error" not in check.found


def test_verify_says_in_words_what_a_path_is_instead(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_text("x", encoding="utf-8")
    (file,), (folder,) = verify(tmp_path / "model.bin"), verify(tmp_path)
    got = f"expected a published model, got {tmp_path}"
    assert file.found == f"{got}/model.bin, a file; name the folder of the model"
    assert folder.found.startswith(f"{got}, a folder without turkish_clip.json; name")


def test_verify_looks_through_linked_folders(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.PKL").write_text("x", encoding="utf-8")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "more").symlink_to(tmp_path / "other")
    (tmp_path / "other" / "back").symlink_to(tmp_path / "model")
    assert "got model.PKL; don't load it" in verification._check_files(str(tmp_path / "model"), None).found
