"""Waits for changes in a folder of images, by watchfiles (extra `watch`), which asks the system for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from turkish_clip.errors import InputError, missing_library
from turkish_clip.folders import is_hidden
from turkish_clip.images import readable_suffixes

QUIET_MS = 1600  # a change is waited out this long for others, such as the rest of a camera's card
ASKED_MS = 500  # how long the system is asked for changes at a time


class WatchError(InputError):
    """A folder that can't be watched."""


def check_watch() -> None:
    """Checks that watchfiles is installed.

    Raises:
        WatchError: it is not.
    """
    if find_spec("watchfiles") is None:
        raise WatchError(missing_library("watchfiles", "watch"))


def changes(folder: Path, index: Path | None, stop: Any = None) -> Iterator[int]:
    """Yields 0 once the folder is watched, and from then on the number of paths with changes since the last time.

    What changes while the caller is busy is not lost. The call ends when `stop` is set.

    Args:
        folder: of images, watched with its subfolders.
        index: the folder of its index, whose changes do not count; None for one elsewhere.
        stop: a `threading.Event`; None never stops.

    Raises:
        WatchError: watchfiles is not installed, or the folder can't be watched.
    """
    check_watch()
    from watchfiles import watch

    counts = _filter(folder.absolute(), None if index is None else index.absolute())
    options: dict[str, Any] = {"debounce": QUIET_MS, "rust_timeout": ASKED_MS, "yield_on_timeout": True}
    begun = False
    try:
        for changed in watch(folder.absolute(), watch_filter=counts, stop_event=stop, **options):
            if changed or not begun:
                yield len(changed) if begun else 0
            begun = True
    except OSError as error:  # such as a limit of the system
        raise WatchError(f"expected to watch {folder}, got {error}; index it without --watch") from error


def _filter(folder: Path, index: Path | None) -> Callable[[Any, str], bool]:
    """Returns a function that tells whether a change of a path may be one of the images."""
    suffixes = readable_suffixes(videos=True, sounds=True)

    def may_count(change: Any, path: str) -> bool:
        changed = Path(path)
        if index is not None and changed.is_relative_to(index):
            return False
        if not changed.is_relative_to(folder) or is_hidden(changed.relative_to(folder).as_posix()):
            return False
        return changed.suffix.lower() in suffixes or not changed.is_file()  # a folder, or what is gone

    return may_count
