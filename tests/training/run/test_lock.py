"""One command at a time in a run folder; the lock of a process that was killed does not hold."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from training.run.lock import LOCK, hold, releasing_locks
from training.run.record import RunError

WORK = """
import sys, time
from pathlib import Path
from training.run.lock import hold, releasing_locks
with releasing_locks():
    hold(Path(sys.argv[1]))
    if len(sys.argv) > 2:  # a child that lives on holds nothing
        import subprocess
        print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stdout=subprocess.DEVNULL).pid)
    print("held", flush=True)
    time.sleep(60)
"""


def working(folder: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WORK, str(folder), *more], stdout=subprocess.PIPE, text=True)


def test_the_second_says_who_is_at_work_and_touches_nothing(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with working(run, "child") as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert process.stdout.readline() == "held\n"
        before = sorted(path.name for path in run.iterdir())
        message = (
            rf"expected .*run for one command at a time, got .* \(process {process.pid} on .*, since 20.*\), which"
        )
        for _ in range(2):
            with pytest.raises(RunError, match=message), releasing_locks():
                hold(run)
        assert sorted(path.name for path in run.iterdir()) == before
        process.send_signal(signal.SIGKILL)
        process.wait()
        with releasing_locks():
            hold(run)  # although a child of the killed process lives
        os.kill(child, signal.SIGKILL)
    assert list(run.iterdir()) == []


def test_commands_that_call_others_hold_once_and_leave_no_lock(tmp_path: Path) -> None:
    with releasing_locks():
        hold(tmp_path, tmp_path / "embeddings")
        with releasing_locks():
            hold(tmp_path)
        assert (tmp_path / LOCK).is_file()
        (tmp_path / "result").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["result"]
    hold(tmp_path / "other")  # of no command
    assert not (tmp_path / "other").exists()


def link_to_a_file(path: Path) -> Path:
    (path.parent.parent / "mine.txt").write_text("kept")
    path.symlink_to(path.parent.parent / "mine.txt")
    return path


def link_to_nothing(path: Path) -> Path:
    path.symlink_to(path.parent.parent / "made.txt")
    return path


def second_name(path: Path) -> Path:
    (path.parent.parent / "mine.txt").touch()
    path.hardlink_to(path.parent.parent / "mine.txt")
    return path


def folder_with_a_file(path: Path) -> Path:
    path.mkdir()
    (path / "mine.txt").write_text("kept")
    return path


def fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def written(text: str) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (link_to_a_file, "a link"),
        (link_to_nothing, "a link"),
        (second_name, "a file with a second name"),
        (folder_with_a_file, "no regular file"),
        (fifo, "no regular file"),
        (written("my own notes"), "a file with other content"),
        (written("a (process 1 on b, since 2026-01-01 10:00:00 +0000)\nand more"), "a file with other content"),
    ],
)
def test_what_others_have_at_the_name_of_the_lock_stays(
    tmp_path: Path, make: Callable[[Path], Path], found: str
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    make(run / LOCK)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    message = rf"expected nothing of others as .*run/\{LOCK}, .*, got {found}; move it away"
    with pytest.raises(RunError, match=message), releasing_locks():
        hold(run)
    assert os.path.lexists(run / LOCK)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("left", ["", "training.distill (process 7 on host, since 2026-01-01 10:00:00 +0000)"])
def test_the_line_of_a_killed_command_is_replaced(tmp_path: Path, left: str) -> None:
    (tmp_path / LOCK).write_text(left)
    with releasing_locks():
        hold(tmp_path)
        assert f"(process {os.getpid()} on " in (tmp_path / LOCK).read_text()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_took_the_name_in_between_is_not_removed(tmp_path: Path) -> None:
    with releasing_locks():
        hold(tmp_path)
        (tmp_path / LOCK).unlink()
        (tmp_path / LOCK).write_text("mine")
    assert (tmp_path / LOCK).read_text() == "mine"
