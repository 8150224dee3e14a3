"""Starts several processes by torchrun, in a network of their own.

torchrun's store listens on all addresses, whatever it is told (seen with `ss -ltn`, torch 2.13). In a network namespace
whose only interface is the loopback, nothing outside can reach it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OWN_NETWORK = ("unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


def launched(words: list[str], *, processes: int = 2, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `torchrun WORDS` on so many processes, or skips the test where no network of its own can be had."""
    return in_own_network([*TORCHRUN, str(processes), *words], **environment)


def in_own_network(words: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command that sees nothing but the loopback."""
    if (
        not shutil.which("unshare")
        or subprocess.run([*OWN_NETWORK, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no network namespace here, and torchrun would listen on all addresses")
    quiet = {"TORCH_CPP_LOG_LEVEL": "ERROR"}  # the addresses of this network have no names
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", **quiet, **environment}
    return subprocess.run(
        [*OWN_NETWORK, *words], env=here, capture_output=True, text=True, timeout=600, check=False, cwd=ROOT
    )
