"""Where an index lies: its place, one process at a time that writes there, and what storage says when it fails."""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from turkish_clip.errors import InputError, one_line

IN_SOURCES = re.compile(r",? ?\S+\.rs:\d+(:\d+)?")  # where in its own sources LanceDB met an error


class ImageIndexError(InputError):
    """An index that can't be opened, asked or written, or that is of other vectors."""


@contextmanager
def storage_errors(uri: str, to_do: str) -> Iterator[None]:
    """What LanceDB says of a disk or of object storage, in several types, as one of ours.

    Raises:
        ImageIndexError: in place of RuntimeError, OSError and ValueError.
    """
    try:
        yield
    except InputError:
        raise
    except (RuntimeError, OSError, ValueError) as error:
        raise _unusable(uri, to_do, error) from error


def _said(error: Exception) -> str:
    """LanceDB's words on one line, without the places in its sources."""
    return IN_SOURCES.sub("", one_line(error, 1000))


def _unusable(uri: str, to_do: str, error: Exception) -> ImageIndexError:
    said = _said(error)
    said = said if len(said) <= 300 else f"{said[:100]} … {said[-200:]}"  # paths come first, the reason last
    return ImageIndexError(
        f"expected an index to {to_do} in {uri}, got {said}; check rights and disk; "
        "if it is damaged, delete it and index again"
    )


def is_uri(uri: str) -> bool:
    """Whether it names object storage and no folder."""
    return "://" in uri


log = logging.getLogger("turkish_clip")
LOCK = "writing.lock"  # held by the process that writes; the system frees it when the process ends, however it ends
TABLE = ".lance"  # the ending of what LanceDB writes
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # what file systems without locks say


@contextmanager
def exclusive_write(uri: str) -> Iterator[None]:
    """While this process alone writes. On object storage nothing sees to that: write from one machine there.

    Two writers would both add an image that is new to both, and each would mend what the other is about to finish.

    Raises:
        ImageIndexError: another process writes, or the place can't be written, or is a folder of other things.
    """
    if is_uri(uri):
        yield
        return
    from filelock import FileLock, Timeout

    folder = Path(uri)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageIndexError(
            f"expected a place to write an index, got {uri} ({error.strerror}); check rights, or name another (--at)"
        ) from error
    _check_no_other_files(folder)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ImageIndexError(
            f"expected to write alone, got another process that writes to {uri}; try again when it is done"
        ) from error
    except (OSError, NotImplementedError) as error:
        if not isinstance(error, NotImplementedError) and error.errno not in NO_LOCKS:
            raise
        log.warning("%s knows no locks: see to it that one process alone writes to it", uri)
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _check_no_other_files(folder: Path) -> None:
    """Sees that an index does not come among other files.

    Raises:
        ImageIndexError: the folder holds something, and no index.
    """
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    others = [name for name in names if name != LOCK]
    if others and not any(name.endswith(TABLE) for name in others):
        raise ImageIndexError(
            f"expected an index or an empty folder, got {folder}, which holds {others[0]!r}; name a new folder"
        )
