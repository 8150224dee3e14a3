"""What runs and is held by a process and by the copies of it that it forked, from Linux's /proc."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def copies(pid: int) -> list[int]:
    """The running processes that a process forked; programs that it started are none."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has ended since
            found += [int(child) for child in (task / "children").read_text().split()]
    return [child for child in found if is_alive(child) and _command(child) == _command(pid)]


def is_alive(pid: int) -> bool:
    """Whether a process has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def shares_by_name(pid: int) -> bool:
    """Whether a process holds memory that has, or had, a name in /dev/shm; tqdm has semaphores, which are small."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return any("/dev/shm/" in line and "/dev/shm/sem." not in line for line in lines)


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """Waits for something; returns it."""
    ends = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < ends
        time.sleep(0.01)
    return found


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
