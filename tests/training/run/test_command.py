"""Running a command: one line for bad input and full disks, a traceback for defects."""

from __future__ import annotations

import errno
import importlib
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from training.run.command import run_command
from turkish_clip import InputError
from turkish_clip.errors import is_disk_full


def raising(error: BaseException) -> object:
    def main(argv: list[str]) -> NoReturn:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("expected a folder,\n got a file"), 2, "error: expected a folder, got a file"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "error: expected free disk space"),
        (
            RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
            2,
            "error: expected free disk",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "error: expected to read and write files"),
        (
            ConnectionError("Couldn't reach 'a/b'"),
            2,
            "error: expected an answer from the network, got ConnectionError: C",
        ),
        (
            TimeoutError("timed out"),
            2,
            "error: expected an answer from the network, got TimeoutError: timed out; check",
        ),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(
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


def test_a_full_disk_is_recognised_as_the_cause_of_an_error() -> None:
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


@pytest.mark.parametrize("command", ["demo", "release.readme"])
def test_an_unknown_option_of_a_command_without_recipe_is_an_error_of_one_line(command: str) -> None:
    main = importlib.import_module(f"training.{command}").main
    with pytest.raises(
        InputError, match=f"expected the options of python -m training.{command}, got unrecognized .*--x"
    ):
        main(["--x"])


def test_a_reader_that_has_gone_ends_a_command_without_a_word() -> None:
    program = "from training.run.command import run_command\nrun_command(lambda argv: print('a line\\n' * 100_000), [])"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "a line\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


@pytest.mark.parametrize("module", ["training.evaluate", "training.studies.ablate", "training.drawing.judge"])
def test_help_names_the_command_as_it_is_started(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.startswith(f"usage: python -m {module} [recipe.yaml or run folder]"), done.stderr
