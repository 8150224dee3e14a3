"""Runs a training command again and again in children that are killed (SIGKILL) at random moments.

    python random_kills.py MODULE KILLS SEED RESULT ARGV…

A child that ends before its kill makes the moments of the next ones earlier, and RESULT, the file or folder that it
made, is removed. Prints how many children there were.
"""

from __future__ import annotations

import importlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

FIRST_LIMIT_SECONDS = 6.0


def run_killed_at_random(module: str, result: Path, argv: list[str]) -> None:
    """Runs a command in processes of which ten die by SIGKILL at random moments (see random_kills.py)."""
    program = [sys.executable, __file__, module, "10", "0"]
    done = subprocess.run([*program, str(result), *argv], capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr


def main() -> None:
    module, kills, seed, result, *argv = sys.argv[1:]
    command = importlib.import_module(module)
    for heavy in ("torch", "sentence_transformers", "pyarrow.parquet", "tqdm"):  # once, and not in every child
        importlib.import_module(heavy)
    rng, limit, killed, children = random.Random(seed), FIRST_LIMIT_SECONDS, 0, 0
    while killed < int(kills):
        children += 1
        child = os.fork()
        if not child:
            run(command, argv)
        time.sleep(rng.uniform(0, limit))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            killed += 1
        elif os.WEXITSTATUS(status):
            sys.exit(f"a child ended with {os.WEXITSTATUS(status)}")
        else:
            limit *= 0.7
            remove(Path(result))
    print(f"{children} children")


def run(command: ModuleType, argv: list[str]) -> None:
    """Ends this process with the command's exit code, and nothing of the parent's cleaned up."""
    try:
        command.main(argv)
    except SystemExit as done:
        os._exit(int(done.code or 0))
    os._exit(0)


def remove(result: Path) -> None:
    if result.is_dir():
        shutil.rmtree(result)
    else:
        result.unlink()


if __name__ == "__main__":
    main()
