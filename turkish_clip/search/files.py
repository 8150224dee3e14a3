"""Compares the files of an image collection with an index, and hashes new and changed ones."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, ClassVar

from turkish_clip.clips import is_clip
from turkish_clip.errors import InputError
from turkish_clip.folders import FolderWalk, LeftOut, is_hidden
from turkish_clip.images import NO_FILE, NO_MEMORY, UNREADABLE, hash_of_file
from turkish_clip.videos import EVERY

LATEST_NS = (1 << 63) - 1  # the year 2262, the latest that 64 bits hold; disks report later times of some files
UNSETTLED_NS = -LATEST_NS - 1  # in place of a time that can't tell whether the file has changed since
COARSEST_NS = 2 * 10**9  # the coarsest times of file systems (FAT): a later change may leave the time as it is
MAX_BYTES = 1 << 30  # larger files are skipped unread, but for videos and sounds


class CollectionError(InputError):
    """An image folder that does not exist, or that has unexpectedly become empty."""


@dataclass(frozen=True)
class File:
    """A file as the index knows it.

    Attributes:
        path: absolute, and spelt as the file system spells it, NFC or not.
        folder: the collection's folder; of a file that was given by its path, the one that it is in.
        size: in bytes.
        mtime_ns: time of the last change in nanoseconds since 1970, clamped to the years 1677 to 2262; UNSETTLED_NS of
            a file that was read too soon after a change.
        content: hex SHA-256 of its bytes; empty before they are read.
        reason: why it is not indexed; empty where it is.
    """

    path: str
    folder: str
    size: int
    mtime_ns: int
    content: str = ""
    reason: str = ""

    def skipped(self, reason: str) -> File:
        return replace(self, reason=reason)

    def settled(self, read_ns: int) -> File:
        """Returns the file as it is stored: with UNSETTLED_NS, so that it is read again, if it had just been changed.

        Args:
            read_ns: when it was read, or a little before.
        """
        just_changed = abs(read_ns - self.mtime_ns) <= COARSEST_NS
        return replace(self, mtime_ns=UNSETTLED_NS) if just_changed else self

    @property
    def modified(self) -> datetime:
        """The time of the last change as the index shows it: in UTC, to the second."""
        return datetime.fromtimestamp(self.mtime_ns // 10**9, timezone.utc)

    @property
    def is_unread(self) -> bool:
        """Whether it could not be read, so that its content is unknown, and a later attempt may succeed."""
        return self.reason.startswith(UNREADABLE) or self.reason in (NO_FILE, NO_MEMORY)

    def as_row(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class SkippedFile:
    """A file that is not indexed, and why."""

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What an index remembers of its folders beside their files.

    Attributes:
        exclude: patterns of files that are left out, as in `turkish_clip.folders.Exclusions`.
        left_out: folder → what was left out of it when it was last indexed.
        video_every: seconds from one frame of a video to the next; 0 leaves videos out.
        sounds: whether sounds are indexed, too, by their spectrograms.
        imported: absolute path of the stored vectors that the index was made of; empty without such.
    """

    FORMAT: ClassVar[int] = 4  # 1 had no videos, 2 did not tell what is imported, 3 had no sounds

    exclude: list[str] = field(default_factory=list)
    left_out: dict[str, LeftOut] = field(default_factory=dict)
    video_every: float = EVERY
    sounds: bool = False
    imported: str = ""


@dataclass(frozen=True)
class Scan:
    """The result of comparing a collection with the known files.

    Attributes:
        pending: files to read, in order of path: new or changed, or not indexed when they were last read.
        unchanged: paths of indexed files with the known size and time.
        vanished: paths of known files of the folder that are gone; none below a folder that can't be entered now.
        skipped: files and folders that are not read, with the reason.
        missing: paths of known files of other folders that do not exist now: moved, deleted, or not mounted.
        left_out: the files of the folder that are left out by a rule, counted.
    """

    pending: list[File]
    unchanged: list[str]
    vanished: list[str]
    skipped: list[SkippedFile] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)


def scan(
    images: str | Path | Sequence[str | Path],
    known: Mapping[str, File],
    exclude: Sequence[str] = (),
    *,
    videos: bool = False,
    sounds: bool = False,
) -> Scan:
    """Compares a folder, or a list of files, with the known files.

    In a folder, hidden files, files of other kinds and those that `exclude` names are left out and counted, links out
    of the folder are skipped, and linked folders are not entered.

    Args:
        images: a folder, read with its subfolders, or paths of files.
        known: the files that the index knows, by path.
        exclude: patterns of files in the folder, as in `turkish_clip.folders.Exclusions`.
        videos: whether the folder's videos are read, too, where the library for them is installed.
        sounds: likewise its sounds.

    Raises:
        CollectionError: the folder does not exist, or is without images although it was indexed: not mounted?
    """
    if isinstance(images, (str, Path)):
        folder = Path(collection_folder(images))
        if not folder.is_dir():
            raise CollectionError(f"expected a folder of images, got {images}, which is not one; check the path")
        paths, skipped, inaccessible, left_out = _walk(folder, exclude, videos, sounds)
        vanished = _vanished(folder, paths, inaccessible, known)
    else:
        paths, skipped, vanished, left_out = dict[str, str](), list[SkippedFile](), list[str](), LeftOut()
        for image in images:
            file = Path(os.path.normpath(Path(image).absolute()))
            paths[str(file)] = str(file.parent)
    pending: list[File] = []
    unchanged: list[str] = []
    for path, root in sorted(paths.items()):
        now, before = examined(path, root), known.get(path)
        if now.reason:
            skipped.append(SkippedFile(path, now.reason))
        elif before is not None and not before.reason and (before.size, before.mtime_ns) == (now.size, now.mtime_ns):
            unchanged.append(path)
        else:
            pending.append(now)
    gone = {folder for folder in {file.folder for file in known.values()} if _is_gone(folder)}
    seen = {*paths, *vanished}
    missing = sorted(path for path, file in known.items() if file.folder in gone and path not in seen)
    return Scan(pending, unchanged, vanished, skipped, missing, left_out)


def collection_folder(folder: str | Path) -> str:
    """Returns a folder as the index names it: absolute, without dots in its path."""
    return os.path.normpath(Path(folder).absolute())


def check_there(files: Sequence[File]) -> None:
    """Checks that the folders of files that could not be read still exist and hold anything.

    Raises:
        CollectionError: one does not, as when its disk was taken out while it was read.
    """
    for folder in sorted({file.folder for file in files if file.is_unread}):
        try:
            there = any(not is_hidden(path.name) for path in Path(folder).iterdir())
        except OSError:
            there = False
        if not there:
            raise CollectionError(
                f"expected {folder} to stay while it is read, got it gone or empty: is its disk still there? what was "
                "indexed so far is kept, and the same command goes on"
            )


def examined(path: str, folder: str) -> File:
    """Returns a file with its size and time as they are now, or with the reason why it can't be read.

    Args:
        path: absolute.
        folder: as in `File`.
    """
    try:
        stat = Path(path).stat()
    except (OSError, ValueError) as error:  # of a name with NUL
        return File(path, folder, 0, 0, reason=f"{UNREADABLE} ({getattr(error, 'strerror', error)})")
    return File(path, folder, stat.st_size, min(max(stat.st_mtime_ns, -LATEST_NS), LATEST_NS))


def hashed(files: Sequence[File], workers: int) -> tuple[list[File], list[File]]:
    """Hashes files; returns those that were read, with their `content`, and the others, with their `reason`.

    Args:
        files: to read.
        workers: number of threads.
    """
    with ThreadPoolExecutor(workers) as pool:
        results = list(pool.map(_hash, files))
    return [file for file in results if not file.reason], [file for file in results if file.reason]


def _hash(file: File) -> File:
    if file.size == 0:
        return file.skipped("an empty file")
    if file.size > MAX_BYTES and not is_clip(file.path):
        return file.skipped("more than 1 GB")
    try:
        return replace(file, content=hash_of_file(file.path).hex())
    except OSError as error:
        return file.skipped(f"{UNREADABLE} ({error.strerror})")


def _walk(
    folder: Path, exclude: Sequence[str], videos: bool, sounds: bool
) -> tuple[dict[str, str], list[SkippedFile], list[str], LeftOut]:
    """Walks a folder.

    Returns:
        The image paths under it, each with the folder; skipped files; folders that it can't enter; what is left out.
    """
    root = folder.resolve()
    paths: dict[str, str] = {}
    skipped: list[SkippedFile] = []
    inaccessible: list[str] = []

    def on_error(error: OSError) -> None:
        name = str(error.filename)
        inaccessible.append(name)
        skipped.append(SkippedFile(_printable(name), f"a folder that can't be entered ({error.strerror})"))

    walk = FolderWalk(folder, exclude, on_error, videos=videos, sounds=sounds)
    for path in walk.files():
        if _printable(str(path)) != str(path):
            skipped.append(SkippedFile(_printable(str(path)), "a name that is not UTF-8"))
        elif reason := _skip_reason(path, root):
            skipped.append(SkippedFile(str(path), reason))
        else:
            paths[str(path)] = str(folder)
    return paths, skipped, inaccessible, walk.left_out


def _skip_reason(path: Path, root: Path) -> str:
    """Returns why a path under a folder is skipped; empty if it is not."""
    try:
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            return "a link that leaves the folder"
        return "" if path.is_file() else "not a regular file"
    except RuntimeError:  # before Python 3.13
        return "a link to itself"
    except OSError as error:
        return f"{UNREADABLE} ({error.strerror})"


def _vanished(
    folder: Path, paths: Mapping[str, str], inaccessible: Sequence[str], known: Mapping[str, File]
) -> list[str]:
    """Returns the known files below a folder that are no longer its images, sorted."""

    def below(path: str, top: str) -> bool:
        return path.startswith(top.rstrip(os.sep) + os.sep)

    inside = [path for path in known if below(path, str(folder))]
    if inside and not paths and not inaccessible and all(map(_is_gone, inside)):  # else a rule leaves them all out
        raise CollectionError(
            f"expected the {len(inside)} indexed images in {folder}, got none: is a disk not mounted? if they are "
            "really gone, delete the index"
        )
    gone = [path for path in inside if path not in paths and not any(below(path, top) for top in inaccessible)]
    return sorted(path for path in gone if known[path].folder == str(folder) or _is_gone(path))


def _is_gone(path: str) -> bool:
    """Returns whether a path certainly does not exist: one that can't be examined now might."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


def _printable(path: str) -> str:
    r"""Returns a path as text that can be stored and printed; bytes that are not UTF-8 become escapes.

    >>> print(_printable(os.fsdecode(b"kar/\xe7i\xe7ek.jpg")))
    kar/\xe7i\xe7ek.jpg
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")
