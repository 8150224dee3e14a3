"""The page, served by the command in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def served(folder: Path, pair_folder: Path, log: Path) -> Iterator[str]:
    """The address of the page for a folder, until the block ends."""
    port = free_port()
    argv = [sys.executable, "-m", "turkish_clip.cli", "app", str(folder), "--port", str(port)]
    environment = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    environment |= dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")  # nothing is there
    environment["TURKISH_CLIP_MODEL"] = str(pair_folder)
    with log.open("w") as stream:
        server = subprocess.Popen(argv, env=environment, stdout=stream, stderr=stream)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(url, timeout=1)
                break
            except OSError:
                assert server.poll() is None, log.read_text(encoding="utf-8")
                time.sleep(0.25)
        assert f"the page: {url} (" in log.read_text(encoding="utf-8")
        yield url
        assert server.poll() is None
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="package")
def address(indexed: Path, pair_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page of an indexed folder."""
    with served(indexed, pair_folder, tmp_path_factory.mktemp("app") / "log") as url:
        yield url


@pytest.fixture
def serve_folder(pair_folder: Path, tmp_path: Path) -> Callable[[Path], Any]:
    """Serves the page of another folder."""
    return lambda folder: served(folder, pair_folder, tmp_path / "log")
