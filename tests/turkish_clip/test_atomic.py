"""An atomic write that fails leaves the earlier file or folder unchanged, and nothing temporary."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from turkish_clip import InputError
from turkish_clip.atomic import atomic_folder, atomic_write, write_json, write_text
from turkish_clip.ownership import ForeignFileError


def test_a_failed_write_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"format": 1, "seed": 0})

    def interrupted() -> None:
        with atomic_write(path) as partial:
            partial.write_text("{", encoding="utf-8")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        interrupted()
    assert json.loads(path.read_text(encoding="utf-8")) == {"format": 1, "seed": 0}
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.json"]


def test_a_failed_write_leaves_the_earlier_folder(tmp_path: Path) -> None:
    path = tmp_path / "model"

    def write(text: str, *, fails: bool) -> None:
        with atomic_folder(path, "weights") as partial:
            (partial / "weights").write_text(text, encoding="utf-8")
            if fails:
                raise InputError("stopped")

    write("one", fails=False)
    with pytest.raises(InputError, match="stopped"):
        write("two", fails=True)
    assert (path / "weights").read_text(encoding="utf-8") == "one"
    write("three", fails=False)
    assert (path / "weights").read_text(encoding="utf-8") == "three"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_a_failed_write_leaves_no_folder_that_it_made(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(OSError, match="No space left"), atomic_write(tmp_path / "there" / "a" / "b" / "s.png"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list((tmp_path / "there").iterdir()) == []
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "new" / "model", None):
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    with pytest.raises(IsADirectoryError), atomic_write(tmp_path / "a" / "s.png"):
        (tmp_path / "a" / "s.png").mkdir(parents=True)  # of another program, and the name is taken
    assert (tmp_path / "a" / "s.png").is_dir()


def test_no_name_of_a_file_holds_nul(tmp_path: Path) -> None:
    with pytest.raises(ForeignFileError, match="expected a name of a file, got "):
        write_text(tmp_path / "a\0b", "x")
