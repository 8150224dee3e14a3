"""The files of a picture collection: what is new, changed, gone or not to be read, and the hash of their bytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from turkish_clip.errors import InputError

SUFFIXES = frozenset(
    ".png .jpg .jpeg .jpe .jfif .gif .webp .avif .bmp .dib .tif .tiff .ppm .pgm .ico .icns .tga .jp2 .pcx".split()
)
READ_BYTES = 1 << 20
MAX_BYTES = 1 << 30  # a larger file is no picture that anyone looks for


class CollectionError(InputError):
    """A folder that can't be looked through."""


@dataclass(frozen=True)
class File:
    """A file as the index knows it.

    Attributes:
        path: absolute, NFC or not, as the system has it.
        folder: under which it was found.
        size: in bytes.
        mtime_ns: time of the last change.
        content: SHA-256 of its bytes; empty while it was not read.
        reason: why it is not indexed; empty where it is.
    """

    path: str
    folder: str
    size: int
    mtime_ns: int
    content: str = ""
    reason: str = ""

    def rejected(self, reason: str) -> File:
        return replace(self, reason=reason)

    def as_row(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class FileReject:
    """A file that is left out, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Scan:
    """What looking through a collection found.

    Attributes:
        pending: new or changed files, in order of path.
        unchanged: paths of files that are as they were.
        vanished: paths that were known under the folder and are gone.
        rejects: what is not to be read at all.
    """

    pending: list[File]
    unchanged: list[str]
    vanished: list[str]
    rejects: list[FileReject] = field(default_factory=list)


def scan(pictures: str | Path | Sequence[str | Path], known: Mapping[str, File]) -> Scan:
    """Compares a folder, or a list of files, with what is known of it.

    Links that lead out of the folder are rejected, and folders behind links are not entered. Files without a
    picture's suffix are none.

    Raises:
        CollectionError: there is no such folder.
    """
    if isinstance(pictures, (str, Path)):
        folder = Path(pictures).absolute()
        if not folder.is_dir():
            raise CollectionError(f"expected a folder of pictures, got {pictures}, which is none; check the path")
        paths, rejects = _walk(folder)
        vanished = sorted(path for path, before in known.items() if before.folder == str(folder) and path not in paths)
    else:
        paths, rejects, vanished = dict[str, str](), list[FileReject](), list[str]()
        for picture in pictures:
            file = Path(picture).absolute()
            paths[str(file)] = str(file.parent)
    pending: list[File] = []
    unchanged: list[str] = []
    for path, root in sorted(paths.items()):
        try:
            stat = Path(path).stat()
        except OSError as error:
            rejects.append(FileReject(path, f"an unreadable file ({error.strerror})"))
            continue
        before = known.get(path)
        if before is not None and (before.size, before.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
            unchanged.append(path)
        else:
            pending.append(File(path, root, stat.st_size, stat.st_mtime_ns))
    return Scan(pending, unchanged, vanished, rejects)


def hashed(files: Sequence[File], workers: int) -> tuple[list[File], list[File]]:
    """The files with the hash of their bytes, and those that can't be read, with the reason."""
    with ThreadPoolExecutor(workers) as pool:
        results = list(pool.map(_hash, files))
    return [file for file in results if not file.reason], [file for file in results if file.reason]


def _hash(file: File) -> File:
    if file.size == 0:
        return file.rejected("an empty file")
    if file.size > MAX_BYTES:
        return file.rejected("more than 1 GB")
    digest = hashlib.sha256()
    try:
        with Path(file.path).open("rb") as stream:
            while part := stream.read(READ_BYTES):
                digest.update(part)
    except OSError as error:
        return file.rejected(f"an unreadable file ({error.strerror})")
    return replace(file, content=digest.hexdigest())


def _walk(folder: Path) -> tuple[dict[str, str], list[FileReject]]:
    """Paths of picture files under a folder → the folder; and the links that lead out of it."""
    root = folder.resolve()
    paths: dict[str, str] = {}
    rejects = []
    for path in _files(folder):
        if path.suffix.lower() not in SUFFIXES:
            continue
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            rejects.append(FileReject(str(path), "a link that leaves the folder"))
        elif path.is_file():
            paths[str(path)] = str(folder)
        else:
            rejects.append(FileReject(str(path), "not a regular file"))
    return paths, rejects


def _files(folder: Path) -> Iterator[Path]:
    for directory, _, names in os.walk(folder, followlinks=False):
        for name in names:
            yield Path(directory) / name
