"""What is done with images that were found: they are copied into a folder, or opened with the system's viewer."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from turkish_clip.atomic import atomic_folder
from turkish_clip.errors import InputError, printable

OPENED_WITHIN = 1.0  # seconds in which a system without a viewer says so


class CopyError(InputError):
    """A folder that images can't be copied to."""


def check_copy_folder(folder: Path, indexed: Iterable[str] = ()) -> None:
    """Checks that a folder is new or empty, and outside the folders that are indexed.

    Args:
        folder: that images are to be copied to.
        indexed: folders of an index, in which copies would be indexed too.

    Raises:
        CopyError: it is not.
    """
    shown = printable(str(folder))
    if folder.exists() and not folder.is_dir():
        raise CopyError(f"expected a folder to copy to, got {shown}, a file; name a new folder")
    if folder.is_dir() and (held := next(folder.iterdir(), None)) is not None:
        raise CopyError(
            f"expected a new or empty folder to copy to, got {shown}, which holds {printable(held.name)!r}; name "
            "another: nothing is replaced"
        )
    real = folder.absolute().resolve()
    for one in map(Path, indexed):
        if real.is_relative_to(one.resolve()):
            raise CopyError(
                f"expected a folder to copy to outside {printable(str(one))}, which is indexed, got {shown}, where the "
                "copies would be found too; name another"
            )


def copy_images(paths: Sequence[Path], folder: Path) -> list[str]:
    """Copies images into a folder that is new or empty, all or none of them; returns their names there, in order.

    Of equal names, the later ones get a number. Names that differ in case alone count as equal: on some disks they are.

    Args:
        paths: of files that exist.
        folder: as `check_copy_folder` wants it.

    Raises:
        CopyError: the folder holds something.
        OSError: a file can't be read, or the disk is full.
    """
    check_copy_folder(folder)
    taken: set[str] = set()
    names = [_free_name(path, taken) for path in paths]
    with atomic_folder(folder, None) as partial:
        for path, name in zip(paths, names):
            shutil.copy2(path, partial / name)
    return names


def _free_name(path: Path, taken: set[str]) -> str:
    """Returns a file's name with a number if it is taken, and takes it."""
    name, number = path.name, 1
    while (key := unicodedata.normalize("NFC", name).casefold()) in taken:
        number += 1
        name = f"{path.stem}-{number}{path.suffix}"
    taken.add(key)
    return name


def open_with_viewer(path: Path) -> bool:
    """Opens a file or a folder with the system's program for it, without waiting; returns False if there is none."""
    if sys.platform == "win32":
        os.startfile(path)  # noqa: S606 - the one way there
        return True
    command = shutil.which("open" if sys.platform == "darwin" else "xdg-open")
    if command is None:
        return False
    quiet = subprocess.DEVNULL
    opening = subprocess.Popen(
        [command, str(path.absolute())], stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
    )
    with contextlib.suppress(subprocess.TimeoutExpired):  # it goes on with a viewer, or says at once that there is none
        return opening.wait(OPENED_WITHIN) == 0
    return True
