"""The files of an image collection: what is new, changed, gone or not to be read, and the hash of their bytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from turkish_clip.errors import InputError
from turkish_clip.images import IMAGE_SUFFIXES

READ_BYTES = 1 << 20
LATEST_NS = (1 << 63) - 1  # the year 2262; disks say of some files what no table can hold
MAX_BYTES = 1 << 30  # a larger file is no image that anyone looks for


class CollectionError(InputError):
    """A folder that can't be looked through."""


@dataclass(frozen=True)
class File:
    """A file as the index knows it.

    Attributes:
        path: absolute, NFC or not, as the system has it.
        folder: under which it was found.
        size: in bytes.
        mtime_ns: time of the last change, within the years 1677 to 2262.
        content: SHA-256 of its bytes; empty while it was not read.
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

    def as_row(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class SkippedFile:
    """A file that is left out, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Scan:
    """What looking through a collection found.

    Attributes:
        pending: new or changed files, and those that could not be read before, in order of path.
        unchanged: paths of files that are as they were.
        vanished: paths that were known under the folder and are gone; none below a folder that can't be entered now.
        skipped: what is not to be read at all.
        missing: paths that were known under other folders, which are not there now: moved, deleted, or not mounted.
    """

    pending: list[File]
    unchanged: list[str]
    vanished: list[str]
    skipped: list[SkippedFile] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def scan(images: str | Path | Sequence[str | Path], known: Mapping[str, File]) -> Scan:
    """Compares a folder, or a list of files, with what is known of it.

    Links that lead out of the folder are skipped, and folders behind links are not entered. Files without a
    image's suffix are none.

    Raises:
        CollectionError: there is no such folder, or it is empty and was not: it may not be mounted.
    """
    if isinstance(images, (str, Path)):
        folder = Path(os.path.normpath(Path(images).absolute()))
        if not folder.is_dir():
            raise CollectionError(f"expected a folder of images, got {images}, which is none; check the path")
        paths, skipped, closed = _walk(folder)
        vanished = _vanished(folder, paths, closed, known)
    else:
        paths, skipped, vanished = dict[str, str](), list[SkippedFile](), list[str]()
        for image in images:
            file = Path(os.path.normpath(Path(image).absolute()))
            paths[str(file)] = str(file.parent)
    pending: list[File] = []
    unchanged: list[str] = []
    for path, root in sorted(paths.items()):
        try:
            stat = Path(path).stat()
        except OSError as error:
            skipped.append(SkippedFile(path, f"an unreadable file ({error.strerror})"))
            continue
        before, mtime_ns = known.get(path), min(max(stat.st_mtime_ns, -LATEST_NS), LATEST_NS)
        if before is not None and not before.reason and (before.size, before.mtime_ns) == (stat.st_size, mtime_ns):
            unchanged.append(path)
        else:
            pending.append(File(path, root, stat.st_size, mtime_ns))
    lost = {folder for folder in {file.folder for file in known.values()} if _is_gone(folder)}
    seen = {*paths, *vanished}
    missing = sorted(path for path, file in known.items() if file.folder in lost and path not in seen)
    return Scan(pending, unchanged, vanished, skipped, missing)


def hashed(files: Sequence[File], workers: int) -> tuple[list[File], list[File]]:
    """The files with the hash of their bytes, and those that can't be read, with the reason."""
    with ThreadPoolExecutor(workers) as pool:
        results = list(pool.map(_hash, files))
    return [file for file in results if not file.reason], [file for file in results if file.reason]


def _hash(file: File) -> File:
    if file.size == 0:
        return file.skipped("an empty file")
    if file.size > MAX_BYTES:
        return file.skipped("more than 1 GB")
    digest = hashlib.sha256()
    try:
        with Path(file.path).open("rb") as stream:
            while part := stream.read(READ_BYTES):
                digest.update(part)
    except OSError as error:
        return file.skipped(f"an unreadable file ({error.strerror})")
    return replace(file, content=digest.hexdigest())


def _walk(folder: Path) -> tuple[dict[str, str], list[SkippedFile], list[str]]:
    """Paths of image files under a folder → the folder; what is not to be read; and folders that can't be entered."""
    root = folder.resolve()
    paths: dict[str, str] = {}
    skipped: list[SkippedFile] = []
    closed: list[str] = []

    def refuse(error: OSError) -> None:
        closed.append(str(error.filename))
        skipped.append(
            SkippedFile(_printable(str(error.filename)), f"a folder that can't be entered ({error.strerror})")
        )

    for path in _files(folder, refuse):
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if _printable(str(path)) != str(path):
            skipped.append(SkippedFile(_printable(str(path)), "a name that is not UTF-8"))
        elif reason := _why_not(path, root):
            skipped.append(SkippedFile(str(path), reason))
        else:
            paths[str(path)] = str(folder)
    return paths, skipped, closed


def _why_not(path: Path, root: Path) -> str:
    """Why a path under a folder is not to be read; empty where it is."""
    try:
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            return "a link that leaves the folder"
        return "" if path.is_file() else "not a regular file"
    except RuntimeError:  # before Python 3.13
        return "a link to itself"
    except OSError as error:
        return f"an unreadable file ({error.strerror})"


def _vanished(folder: Path, paths: Mapping[str, str], closed: Sequence[str], known: Mapping[str, File]) -> list[str]:
    """Known files below a folder that are no longer its images."""

    def below(path: str, top: str) -> bool:
        return path.startswith(top.rstrip(os.sep) + os.sep)

    inside = [path for path in known if below(path, str(folder))]
    if inside and not paths and not closed:
        raise CollectionError(
            f"expected the {len(inside)} indexed images in {folder}, got none: is a disk not mounted? if they are "
            "really gone, delete the index"
        )
    gone = [path for path in inside if path not in paths and not any(below(path, top) for top in closed)]
    return sorted(path for path in gone if known[path].folder == str(folder) or _is_gone(path))


def _is_gone(path: str) -> bool:
    """Whether nothing is there; what can't be looked at now may be."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


def _printable(path: str) -> str:
    r"""A path as text that can be stored and printed; bytes that are not UTF-8 become escapes.

    >>> print(_printable(os.fsdecode(b"kar/\xe7i\xe7ek.jpg")))
    kar/\xe7i\xe7ek.jpg
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _files(folder: Path, refuse: Callable[[OSError], None]) -> Iterator[Path]:
    for directory, _, names in os.walk(folder, onerror=refuse, followlinks=False):
        for name in names:
            yield Path(directory) / name
