"""The shell around a command: one line for bad input and full disks, a traceback for defects."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from training.atomic import whole_file, whole_folder, write_json
from training.run_record import git_state, is_disk_full, library_versions, run_command, sha256_of, weights_sha256
from turkish_clip import InputError


def raising(error: BaseException) -> object:
    def main(argv: list[str]) -> NoReturn:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("expected a house,\n got a tree"), 2, "error: expected a house, got a tree"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "error: expected free disk space"),
        (
            RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
            2,
            "error: expected free disk",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "error: expected to read and write files"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_one_line_and_the_exit_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        run_command(raising(error), [])  # type: ignore[arg-type]
    assert stop.value.code == code
    captured = capsys.readouterr().err
    assert captured.startswith(line)
    assert captured.count("\n") == 1


def test_a_defect_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(raising(ZeroDivisionError()), [])  # type: ignore[arg-type]


def test_a_full_disk_is_known_through_what_wraps_it() -> None:
    inner = OSError(errno.ENOSPC, "No space left on device")
    outer = RuntimeError("could not save")
    outer.__cause__ = inner
    assert is_disk_full(outer)
    assert not is_disk_full(RuntimeError("something else"))


@pytest.mark.parametrize("command", ["embed_images", "distill", "evaluate", "pretrain"])
def test_bad_input_from_the_command_line_is_one_line(command: str, tmp_path: Path) -> None:
    words = [sys.executable, "-m", f"training.{command}", "--captions", str(tmp_path / "none"), "--run", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: expected a folder, table or Hub data set, got")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})

    def torn() -> None:
        with whole_file(path) as partial:
            partial.write_text("{", encoding="utf-8")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        torn()
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.json"]


def test_a_folder_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "model"

    def write(text: str, *, fails: bool) -> None:
        with whole_folder(path) as partial:
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


def test_hashes_and_versions(tmp_path: Path) -> None:
    import torch

    (tmp_path / "empty").write_bytes(b"")
    assert sha256_of(tmp_path / "empty").startswith("e3b0c44298fc1c149afbf4c8996fb924")
    torch.manual_seed(0)
    layer, same = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    same.load_state_dict(layer.state_dict())
    assert weights_sha256(layer) == weights_sha256(same)
    with torch.no_grad():
        same.bias[0] += 1e-6
    assert weights_sha256(layer) != weights_sha256(same)
    assert library_versions()["torch"].startswith("2.")
    assert set(git_state()) in ({"commit", "dirty"}, set())
