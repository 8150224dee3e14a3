"""Runs a script in an isolated process, in which this project's packages can't be imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

BLOCK = (
    "import sys, runpy; sys.modules |= dict.fromkeys(['turkish_clip', 'training']); "
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)
TIMEOUT_SECONDS = 600


def run_isolated(script: Path, *argv: str, offline: bool = False) -> subprocess.CompletedProcess[str]:
    """Runs a Python file; returns the finished process with its output.

    Args:
        script: the file.
        argv: its command line.
        offline: whether the Hub's clients are confined to their cache.

    Raises:
        subprocess.TimeoutExpired: it does not end within TIMEOUT_SECONDS.
    """
    environment = {**os.environ, **({"HF_HUB_OFFLINE": "1"} if offline else {})}
    return subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", BLOCK, str(script), *argv],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
        env=environment,
    )
