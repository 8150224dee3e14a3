"""Finds the file that a table names: composed or decomposed, with backslashes, or in another encoding on disk."""

from __future__ import annotations

import functools
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

DISK_ENCODINGS = ("cp1254", "iso8859-9", "cp857", "cp437", "cp1252")  # of names that are no UTF-8: Turkish ones first
CAPTION_NUMBER = re.compile(r"(?<=\.)(jpe?g|png|gif|bmp|webp|tiff?)#\d+$", re.IGNORECASE)  # as in Flickr8k's tables
# How programs that unpack or copy read names on disk, and what they were: UTF-8, or a Turkish page of DOS or Windows.
MISREAD = tuple((code, "utf-8") for code in ("cp1252", "latin-1", "cp437", "cp850", "cp1254", "cp857", "mac_turkish"))
MISREAD += (("cp437", "cp857"), ("cp437", "cp1254"), ("latin-1", "cp1254"), ("cp850", "cp857"))
INVISIBLE = re.compile("[\u200b-\u200f\u2060\ufeff\u00ad]")
ADDRESS = re.compile(r"[A-Za-z][\w+.-]+://")
WINDOWS_PATH = re.compile(r"[A-Za-z]:[\\/]|\\\\")
MAX_CACHED_FOLDERS = 64
NO_IMAGE_NAMED = "no image named"


def resolve_image_path(folder: Path | None, name: object, *, confined: bool) -> Path | str:
    """Returns the path of the file that a cell names, or as text the reason why it names none.

    A name that is not there as it is written is looked for composed and decomposed (NFC, NFD), without spaces at its
    ends, with its backslashes as slashes, without invisible characters, percent-decoded, and among names on disk that
    are no UTF-8 or were misread when they were unpacked. file:// addresses are paths.

    Args:
        folder: what relative paths start from; None where there are no files.
        name: what the cell holds.
        confined: whether a path that leaves the folder is refused.
    """
    if not isinstance(name, str) or not name.strip():
        return NO_IMAGE_NAMED if name is None or isinstance(name, str) else "no image named, but another type of cell"
    if folder is None:
        return "a path in a data set without files"
    if name.strip().startswith("file://"):
        name = unquote(name.strip().removeprefix("file://").removeprefix("localhost"))
    if ADDRESS.match(name):
        return "a URL, not a file"
    leaves = False
    try:
        for written in _spellings(name):
            path = folder / written
            if confined and not _is_inside(folder, path):
                leaves = True
            elif path.is_file():
                return path
        if leaves:
            return "a path that leaves the folder"
        return _listed_file(folder, name, confined)
    except (OSError, ValueError):  # longer than a path can be, or with a NUL character
        return "no file"


def _is_inside(folder: Path, path: Path) -> bool:
    if path == folder or path.name == ".." or path.is_symlink():
        return path.resolve().is_relative_to(folder.resolve())
    return _is_folder_inside(str(folder), str(path.parent))


@functools.lru_cache(maxsize=MAX_CACHED_FOLDERS)
def _is_folder_inside(folder: str, below: str) -> bool:
    """Returns whether a folder on the way to images is inside another one; asked for each image of the folder."""
    return Path(below).resolve().is_relative_to(Path(folder).resolve())


def without_caption_number(name: str) -> str:
    """Returns the name of an image without the number of one of its captions, as Flickr8k's tables have it.

    >>> without_caption_number("a/1.jpg#0"), without_caption_number("1#2.jpg")
    ('a/1.jpg', '1#2.jpg')
    """
    return CAPTION_NUMBER.sub(r"\1", name)


def _spellings(name: str) -> Iterator[str]:
    """Yields a name as it is written, and in the ways that it may be written on disk."""
    tidy = name.strip()
    slashed = tidy.replace("\\", "/")
    written = [name, tidy, slashed, *(unicodedata.normalize(form, slashed) for form in ("NFC", "NFD"))]
    plain = _plain(slashed)
    written += [without_caption_number(slashed), plain]
    if "%" in plain:
        written.append(unicodedata.normalize("NFC", unquote(plain)))
    yield from dict.fromkeys(written)


def _listed_file(folder: Path, name: str, confined: bool) -> Path | str:
    """Finds a file by reading the folders on its way, each of whose names may be written in its own form.

    Returns:
        The path, or the reason why there is none: no such name, or one in another case.
    """
    if WINDOWS_PATH.match(name):
        return "no file: a path of a Windows machine; write paths relative to the table"
    parts = [part for part in name.strip().replace("\\", "/").split("/") if part not in ("", ".")]
    if name.startswith("/"):
        return "no file: an absolute path that is not on this machine"
    here = folder
    for number, part in enumerate(parts):
        found = here / part
        if not found.exists():
            entries, folded = _entries(str(here), here.stat().st_mtime_ns)
            other = next(filter(None, map(entries.get, (_plain(part), _plain(unquote(part)), *_misread(part)))), None)
            if other is None:
                alike = folded.get(_caseless(part))
                return f"no file, but one in another case: {alike}" if alike and number + 1 == len(parts) else "no file"
            found = here / other
        here = found
    if confined and not here.resolve().is_relative_to(folder.resolve()):
        return "a path that leaves the folder"
    return here if here.is_file() else "no file"


@functools.lru_cache(maxsize=MAX_CACHED_FOLDERS)
def _entries(folder: str, stamp: int) -> tuple[dict[str, str], dict[str, str]]:
    """Reads a folder that has not changed since `stamp`.

    Returns:
        Composed name without invisible characters → name on disk, and caseless name → composed name.
    """
    composed: dict[str, str] = {}
    caseless: dict[str, str] = {}
    names = sorted(path.name for path in Path(folder).iterdir())
    for name in names:
        readings = [name]
        if any("\udc80" <= letter <= "\udcff" for letter in name):
            readings = [text for text in (_decoded(os.fsencode(name), code) for code in DISK_ENCODINGS) if text]
        for text in readings:
            plain = _plain(text)
            composed.setdefault(plain, name)
            caseless.setdefault(_caseless(plain), plain)
    for name in names:
        for text in _misread(name):
            composed.setdefault(text, name)
    return composed, caseless


def _plain(name: str) -> str:
    """Returns a name in NFC, with plain spaces and without invisible characters."""
    return unicodedata.normalize("NFC", INVISIBLE.sub("", name).replace("\u00a0", " ").strip())


def _misread(name: str) -> list[str]:
    """Returns what a name may have been before a program read it in another encoding; nothing for plain ASCII.

    >>> "çiçek.png" in _misread("Ã§iÃ§ek.png"), _misread("a.png")
    (True, [])
    """
    found = []
    for code, true in MISREAD if not name.isascii() else ():
        try:
            found.append(_plain(name.encode(code).decode(true)))
        except UnicodeError:
            continue
    return found


def _decoded(name: bytes, encoding: str) -> str:
    try:
        return name.decode(encoding)
    except UnicodeDecodeError:
        return ""


def _caseless(name: str) -> str:
    """Returns a name without case, in which the four i of Turkish are one letter."""
    return unicodedata.normalize("NFC", name).replace("İ", "i").replace("ı", "i").casefold()
