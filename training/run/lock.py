"""One command at a time in a run folder: the second says which is at work, before it touches anything."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
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
                (folder / LOCK).unlink(missing_ok=True)
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
    """Returns the open lock file of a folder, with a line about this process in it."""
    path = folder / LOCK
    while True:
        file = path.open("a+", encoding="utf-8", errors="replace")
        try:
            import fcntl

            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # of this process alone: children do not inherit it
        except (BlockingIOError, PermissionError) as error:
            file.seek(0)
            working = printable(file.read(MAX_LINE).strip()) or "another process"
            file.close()
            raise RunError(
                f"expected {name} for one command at a time, got {working}, which is at work there; wait until it is "
                "done, or start another --run"
            ) from error
        except (OSError, ImportError):  # a disk without locks, or Windows
            log.warning("%s has no file locks: make sure that only one command works there", name)
            return file
        if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
            break
        file.close()  # of a command that has just ended and removed it
    began = time.strftime("%Y-%m-%d %H:%M:%S %z")
    file.truncate(0)
    file.write(f"{_command()} (process {os.getpid()} on {platform.node()}, since {began})")
    file.flush()
    return file


def _command() -> str:
    """Returns the name of the command of this process, as it was started."""
    path = Path(sys.argv[0])
    return f"training.{path.stem}" if path.parent.name == "training" else path.name or "python"
