"""Atomic writes: a file or folder is written beside its path, then renamed to it, so that it is whole or absent.

What is at the path already is replaced only if this project wrote it (`turkish_clip.ownership`). Temporary names are
random and marked, so that nothing of others is ever taken for one; the next write to the same path removes those that
a killed process has left.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import platform
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from turkish_clip.errors import printable
from turkish_clip.ownership import ForeignFileError, check_replaceable, check_replaceable_folder, files_in
from turkish_clip.strict_json import json_text

log = logging.getLogger("turkish_clip")
PARTIAL, FORMER = "turkish-clip-partial", "turkish-clip-former"  # the last part of a temporary name
TEMPORARY = re.compile(rf"\..+\.(?P<host>[^.]*)-(?P<pid>\d+)-[0-9a-f]{{8}}\.({PARTIAL}|{FORMER})")
SHOWN_NAME = 40  # letters of the name that a temporary name begins with: names have at most 255 bytes
READABLE = 0o644
EXCHANGE = 2  # renameat2's flag on Linux, and renamex_np's on macOS, to swap two paths
HERE = -100  # AT_FDCWD
unfinished: set[Path] = set()  # temporary files and folders of this process that are there now


@contextmanager
def atomic_write(path: Path, *, ours: bool = False) -> Iterator[Path]:
    """Yields a temporary sibling to write to; renames it to `path` if the block succeeds, removes it otherwise.

    Args:
        path: the file; missing folders above it are made, and a link is followed.
        ours: whether the caller knows that it may replace the file that is there.

    Raises:
        ForeignFileError: there is a file that this project did not write.
    """
    if "\0" in str(path):
        raise ForeignFileError(f"expected a name of a file, got {printable(str(path))}; name another")
    target = Path(os.path.realpath(path))
    if not ours:
        check_replaceable(target)
    with _folders_above(target):
        _remove_leftovers(target)
        partial = _temporary(target, PARTIAL)
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        unfinished.add(partial)
        try:
            yield partial
            _sync(partial)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
            unfinished.discard(partial)


@contextmanager
def atomic_folder(path: Path, marker: str | None, may_hold: re.Pattern[str] | None = None) -> Iterator[Path]:
    """Does what `atomic_write` does for a folder, which replaces an earlier one at `path`.

    There is a whole folder at `path` at each moment, and the earlier one is removed last. If it holds files that the
    new one lacks and that `may_hold` does not name, it stays beside it under another name.

    Args:
        path: the folder; missing folders above it are made, and a link is followed.
        marker: a file that each folder of this kind has; None where the caller knows that what is there is its own.
        may_hold: the paths of files that belong into such a folder, relative to it; None: any.

    Raises:
        ForeignFileError: there is something else.
    """
    target = Path(os.path.realpath(path))
    check_replaceable_folder(target, marker, may_hold)
    with _folders_above(target):
        _remove_leftovers(target)
        partial = _temporary(target, PARTIAL)
        partial.mkdir()
        unfinished.add(partial)
        try:
            yield partial
            for file in partial.rglob("*"):
                if file.is_file():
                    file.chmod(READABLE)  # some writers let only the owner read their files
                    _sync(file)
            _replace_folder(partial, target, may_hold)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            unfinished.discard(partial)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yields a new folder for temporary files, where the system has such, and removes it."""
    folder = Path(tempfile.mkdtemp(prefix="turkish-clip-"))
    unfinished.add(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.discard(folder)


def remove_unfinished() -> None:
    """Removes the temporary files and folders of this process, for one that ends without its `finally` blocks."""
    for path in list(unfinished):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def _folders_above(target: Path) -> Iterator[None]:
    """Makes the missing folders above a path; removes those that it made if the block fails, unless they are in use."""
    made = [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def set_aside(path: Path) -> Path:
    """Gives a file that can't be used, or a link to one, another name beside it, and returns that: nothing is lost."""
    kept = path.with_name(f"{path.name}.kept-{secrets.token_hex(4)}")
    path.replace(kept)
    return kept


def _replace_folder(partial: Path, target: Path, may_hold: re.Pattern[str] | None) -> None:
    """Gives a folder its name; what had the name before is removed last, or kept if it holds files of others."""
    if not target.exists():
        partial.replace(target)
        return
    others = files_in(target) - files_in(partial)
    if may_hold is not None:
        others = {name for name in others if not may_hold.fullmatch(name)}
    if others:
        kept = set_aside(target)
        partial.replace(target)
        log.warning("the folder before stays as %s: it holds %s", printable(str(kept)), printable(min(others)))
        return
    if _exchange(partial, target):
        return  # the temporary name has the former folder now, which the caller removes
    former = _temporary(target, FORMER)
    target.replace(former)
    partial.replace(target)
    shutil.rmtree(former, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two paths in one step; returns False where the system or the disk can't."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "linux":
            failed = library.renameat2(HERE, os.fsencode(one), HERE, os.fsencode(other), EXCHANGE)
        elif sys.platform == "darwin":
            failed = library.renamex_np(os.fsencode(one), os.fsencode(other), EXCHANGE)
        else:
            return False
    except (OSError, TypeError, AttributeError):
        return False
    return not failed


def _temporary(target: Path, kind: str) -> Path:
    """Returns a new name beside a path that no other process, and nobody but this project, gives."""
    return target.with_name(f"{_begin(target)}{_host()}-{os.getpid()}-{secrets.token_hex(4)}.{kind}")


def _begin(target: Path) -> str:
    """Returns what the temporary names of a path begin with."""
    return f".{target.name[:SHOWN_NAME]}."


def _host() -> str:
    """Returns the name of this machine, as temporary names hold it."""
    return re.sub(r"[^A-Za-z0-9]", "", platform.node())[:SHOWN_NAME]


def _remove_leftovers(target: Path) -> None:
    """Removes what killed processes of this machine have left of writes to a path, after restoring a former folder."""
    host = _host()
    for path in target.parent.iterdir():
        found = TEMPORARY.fullmatch(path.name) if path.name.startswith(_begin(target)) else None
        if found is None or found["host"] != host or _is_alive(int(found["pid"])):
            continue
        if path.name.endswith(FORMER) and not target.exists():
            path.replace(target)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    if os.name != "posix":  # elsewhere, signal 0 would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True


def write_json(path: Path, value: Any, *, ours: bool = False) -> None:
    """Writes a value as indented JSON, atomically; numbers that are not finite become null.

    Args:
        path: the file; missing folders above it are made.
        value: what `json.dumps` takes.
        ours: as in `atomic_write`.
    """
    write_text(path, json_text(value, indent=2) + "\n", ours=ours)


def write_text(path: Path, text: str, *, ours: bool = False) -> None:
    """Writes text as UTF-8, atomically.

    Args:
        path: the file; missing folders above it are made.
        text: the whole content.
        ours: as in `atomic_write`.
    """
    with atomic_write(path, ours=ours) as partial:
        partial.write_text(text, encoding="utf-8")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
