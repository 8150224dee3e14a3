"""One command at a time in a run folder; the lock of a process that was killed does not hold."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
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
