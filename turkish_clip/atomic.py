"""Atomic writes: a file or folder is written beside its path, then renamed to it, so that it is whole or absent."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARTIAL_SUFFIX = ".partial"
READABLE = 0o644


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary sibling to write to; renames it to `path` if the block succeeds, removes it otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    try:
        yield partial
        _sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Does what `atomic_write` does for a folder, which replaces an existing one at `path`."""
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        for file in partial.rglob("*"):
            if file.is_file():
                file.chmod(READABLE)  # some writers let only the owner read their files
                _sync(file)
        if path.exists():
            shutil.rmtree(path)
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Writes a value as indented JSON, atomically.

    Args:
        path: the file; missing folders above it are made.
        value: what `json.dumps` takes.
    """
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes text as UTF-8, atomically.

    Args:
        path: the file; missing folders above it are made.
        text: the whole content.
    """
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
