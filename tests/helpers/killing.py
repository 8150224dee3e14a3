"""Runs a training command in a child that kills itself (SIGKILL) at a chosen moment.

    python killing.py MODULE TARGET NTH ARGV…

TARGET is "package.module:Class.method" or "package.module:function"; its NTH call never returns. Of several processes
that a launcher started, the one numbered KILLED_RANK dies (the first where that is not set).
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys

from training.run.command import run_command


def run_killed(module: str, target: str, nth: int, argv: list[str]) -> None:
    """Runs a command in a process that dies by SIGKILL at the nth call of `target` (see killing.py)."""
    command = [sys.executable, __file__, module, target, str(nth), *argv]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr


def main() -> None:
    module, target, nth, *argv = sys.argv[1:]
    place, _, path = target.partition(":")
    owner = importlib.import_module(place)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    real = getattr(owner, name)
    calls = 0

    def deadly(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if calls == int(nth) and os.environ.get("RANK", "0") == os.environ.get("KILLED_RANK", "0"):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    setattr(owner, name, deadly)
    run_command(importlib.import_module(module).main, argv, several_processes=True)


if __name__ == "__main__":
    main()
