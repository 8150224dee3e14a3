"""One command at a time in a run folder: the second says which is at work, before it touches anything."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import re
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from training.run.distributed import is_main_process
from training.run.record import RunError
from turkish_clip.errors import printable

log = logging.getLogger("training")
LOCK = ".at-work"  # holds a line about the command that works; the system frees it when that ends, however it ends
MAX_LINE = 1000
LINE = re.compile(r"(.+ \(process \d+ on .*, since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d .*\))?")  # that the lock holds


@dataclass(frozen=True)
class _Lock:
    file: IO[str]
    made: list[Path]  # folders that were made for it, the deepest first


_held: ContextVar[dict[Path, _Lock] | None] = ContextVar("held", default=None)  # None outside a command


@contextmanager
def releasing_locks() -> Iterator[None]:
    """Keeps what `hold` locks until the block ends; a block inside another one leaves that to the outer one."""
    if _held.get() is not None:
        yield
        return
    locks: dict[Path, _Lock] = {}
    token = _held.set(locks)
    try:
        yield
    finally:
        _held.reset(token)
        for folder, lock in reversed(locks.items()):
            with contextlib.suppress(OSError):  # of a disk that went away, or a folder that holds something by now
                if _is_at(folder / LOCK, lock.file):
                    (folder / LOCK).unlink()
                for made in lock.made:
                    made.rmdir()
            lock.file.close()


def hold(*folders: Path) -> None:
    """Locks folders until the command ends; in a process that is no command's main process, does nothing.

    Args:
        folders: that the command writes into, made if they do not exist.

    Raises:
        RunError: another process is at work in one.
    """
    locks = _held.get()
    if locks is None or not is_main_process():
        return
    for folder in folders:
        real = Path(os.path.realpath(folder))
        if real not in locks:
            made = [path for path in (real, *real.parents) if not path.exists()]
            real.mkdir(parents=True, exist_ok=True)
            locks[real] = _Lock(_locked(real, folder), made)


def _locked(folder: Path, name: Path) -> IO[str]:
    """Returns the open lock file of a folder, with a line about this process in it.

    Nothing is written to what this project did not: a link, a folder or a file with other content is refused.
    """
    path = folder / LOCK
    while True:
        file = _opened(path)
        try:
            import fcntl

            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # of this process alone: children do not inherit it
        except (BlockingIOError, PermissionError) as error:
            working = printable(_content(file).strip()) or "another process"
            file.close()
            raise RunError(
                f"expected {name} for one command at a time, got {working}, which is at work there; wait until it is "
                "done, or start another --run"
            ) from error
        except (OSError, ImportError):  # a disk without locks, or Windows
            log.warning("%s has no file locks: make sure that only one command works there", name)
            return file
        if _is_at(path, file):
            break
        file.close()  # of a command that has just ended and removed it
    if not LINE.fullmatch(_content(file)):  # of a command that was killed
        file.close()
        raise _foreign(path, "a file with other content")
    began = time.strftime("%Y-%m-%d %H:%M:%S %z")
    file.truncate(0)
    file.write(f"{_command()} (process {os.getpid()} on {platform.node()}, since {began})")
    file.flush()
    return file


def _opened(path: Path) -> IO[str]:
    """Opens the lock file for appending, and makes it where there is none; never through a link.

    Raises:
        RunError: there is something else than a file that one name has.
    """
    if path.is_symlink():  # for systems without O_NOFOLLOW
        raise _foreign(path, "a link")
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise _foreign(path, "no regular file") from error
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(descriptor)
        raise _foreign(path, "a file with a second name" if stat.S_ISREG(status.st_mode) else "no regular file")
    return os.fdopen(descriptor, "a+", encoding="utf-8", errors="replace")


def _foreign(path: Path, found: str) -> RunError:
    return RunError(
        f"expected nothing of others as {printable(str(path))}, the lock of a run folder, got {found}; move it away, "
        "or start another --run"
    )


def _content(file: IO[str]) -> str:
    file.seek(0)
    return file.read(MAX_LINE)


def _is_at(path: Path, file: IO[str]) -> bool:
    """Returns whether an open file is the one at a path."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _command() -> str:
    """Returns the name of the command of this process, as it was started."""
    path = Path(sys.argv[0])
    return f"training.{path.stem}" if path.parent.name == "training" else path.name or "python"
