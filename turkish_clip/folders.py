"""What of a folder is read as images, and what is left out and counted: hidden files, other kinds, excluded ones."""

from __future__ import annotations

import fnmatch
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from turkish_clip.errors import printable
from turkish_clip.images import (
    CLIPS,
    KIND_OF_SUFFIX,
    LIBRARIES,
    SOUND,
    VIDEO,
    has_library,
    readable_suffixes,
    unread_kind,
)

# Files and folders of systems and disk stations, beside those with a dot in front; written in any case.
SYSTEM_FILES = frozenset(("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini"))
SYSTEM_FOLDERS = frozenset(
    (
        "@eadir",  # Synology
        "#recycle",
        "#snapshot",
        "@recycle",  # QNAP
        "@recently-snapshot",
        "$recycle.bin",
        "recycler",
        "system volume information",
        "lost+found",
        "__macosx",
        "__pycache__",
    )
)
APPLE_DOUBLE = "._"  # begins the names of what macOS puts beside files on other systems' disks
INDEX_FOLDER = ".turkish-clip"  # the index of an image folder, inside it
TEXT_ENCODER = "text-encoder"  # begins the names of what `turkish_clip.search.text_encoder` keeps in an index
KEPT_TEXT_ENCODER = re.compile(rf"{TEXT_ENCODER}-[0-9a-f]{{12}}(-int8)?")  # its folder, by the hash of its weights
INDEX_TABLE = ".lance"  # ends the names of the folders in an index: LanceDB's tables
# What LanceDB writes into the folder of a table: its folders, and the endings of its files ("#1" while it writes them).
TABLE_FOLDERS = frozenset(("_deletions", "_indices", "_refs", "_transactions", "_versions", "data", "tree"))
TABLE_FILES = re.compile(r"(\.(lance|manifest|txn|idx|arrow|bin)|latest_version_hint\.json)(#\d+)?$")
SHOWN = 8  # names in one line
SOUND_ADVICE = "sounds are indexed by their spectrograms with --sounds, and are read where they are named one by one"
KEPT, REST = 50, "…"  # hidden names, and suffixes, that are counted each; the name of the rest


@dataclass(frozen=True)
class LeftOut:
    """The files of a folder that are neither read nor listed one by one, counted.

    Attributes:
        not_read: kind of image or video that is not read, such as "HEIC" → number of files.
        hidden: name of a hidden or system's file or folder, "._*" for AppleDouble, ".*" for other hidden files →
            number of files (a folder that can't be entered counts as one).
        excluded: pattern → number of files.
        other: suffix of the files of other kinds → number of files.
        linked_folders: number of links to folders, which are not followed.
    """

    not_read: dict[str, int] = field(default_factory=dict)
    hidden: dict[str, int] = field(default_factory=dict)
    excluded: dict[str, int] = field(default_factory=dict)
    other: dict[str, int] = field(default_factory=dict)
    linked_folders: int = 0

    @classmethod
    def sum(cls, parts: Iterable[LeftOut]) -> LeftOut:
        """Returns what several folders leave out together."""
        every = list(parts)
        return cls(
            _added(part.not_read for part in every),
            _added(part.hidden for part in every),
            _added(part.excluded for part in every),
            _added(part.other for part in every),
            sum(part.linked_folders for part in every),
        )

    def not_read_line(self) -> str:
        """Returns the kinds that are not read with their numbers and what to do about them; empty where there are none.

        >>> LeftOut({"PSD": 2, "SVG": 1}).not_read_line()
        '3 files of kinds that are not read: PSD 2, SVG 1; convert PSD and SVG to JPEG or PNG'
        """
        return f"{not_read_text(self.not_read)}; {conversion_advice(self.not_read)}" if self.not_read else ""

    def lines(self) -> list[str]:
        """Returns a line for each rule that leaves files out; those of other kinds, such as .txt, have none."""
        lines = [self.not_read_line()] if self.not_read else []
        if self.hidden:
            lines.append(f"{_files(self.hidden)} hidden or of a system, left out: {_listed(self.hidden)}")
        for pattern, count in self.excluded.items():
            matching = f"{count} {'file' if count == 1 else 'files'} left out" if count else "no file is left out"
            lines.append(f"{matching} by --exclude {pattern!r}, which the index remembers")
        if self.linked_folders:
            names = "a linked folder is" if self.linked_folders == 1 else f"{self.linked_folders} linked folders are"
            lines.append(f"{names} not entered; name what is behind a link as a folder of its own")
        return lines

    def instead_of_images(self) -> str:
        """Returns what there is where no image is, on one line, with what to do; empty where there is nothing.

        >>> LeftOut({"PSD": 2}, other={".txt": 1}).instead_of_images()
        '2 files of kinds that are not read: PSD 2; 1 file of other kinds: .txt 1; convert PSD to JPEG or PNG'
        """
        parts = [not_read_text(self.not_read)] if self.not_read else []
        if self.hidden:
            parts.append(f"{_files(self.hidden)} hidden or of a system: {_listed(self.hidden)}")
        if any(self.excluded.values()):
            parts.append(f"{_files(self.excluded)} left out by --exclude: {_listed(self.excluded)}")
        if self.linked_folders:
            parts.append(f"{self.linked_folders} linked folders, which are not entered")
        if self.other:
            parts.append(f"{_files(self.other)} of other kinds: {_listed(self.other)}")
        if self.not_read:
            parts.append(conversion_advice(self.not_read))
        if any(KIND_OF_SUFFIX.get(suffix) == SOUND for suffix in self.other):
            parts.append(SOUND_ADVICE)
        return "; ".join(parts)


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Returns the sums of counts by name, sorted by name."""
    total = Counter[str]()
    for each in counts:
        total.update(each)
    return dict(sorted(total.items()))


def _most(counts: Mapping[str, int]) -> dict[str, int]:
    """Returns the KEPT names of most files, sorted by name, and the others together as REST."""
    kept = sorted(counts, key=lambda name: (-counts[name], name))[:KEPT]
    rest = sum(counts.values()) - sum(counts[name] for name in kept)
    return {**{name: counts[name] for name in sorted(kept)}, **({REST: rest} if rest else {})}


def not_read_text(kinds: Mapping[str, int]) -> str:
    """Returns kinds that are not read, with their numbers of files, as a phrase."""
    of_kinds = "of a kind that is not read" if sum(kinds.values()) == 1 else "of kinds that are not read"
    return f"{_files(kinds)} {of_kinds}: {_listed(kinds)}"


def conversion_advice(kinds: Iterable[str], *, with_libraries: bool = True) -> str:
    """Returns what to do with files of kinds that are not read.

    Args:
        kinds: such as "PSD" and "video".
        with_libraries: whether an extra of this package would let some of them be read.

    >>> conversion_advice(["PSD", "SVG", "PDF"]), conversion_advice(["video"], with_libraries=False)
    ('convert PSD, SVG and PDF to JPEG or PNG', 'save stills of videos')
    """
    images = [kind for kind in kinds if kind not in CLIPS]
    advice = [f"convert {_joined(images)} to JPEG or PNG"] if images else []
    by_index = with_libraries and has_library(VIDEO)
    if VIDEO in kinds and not by_index:
        advice.append("save stills of videos")
    parts = [", and ".join(advice)] if advice else []
    lacking = [kind for kind in kinds if kind in LIBRARIES and not has_library(kind)] if with_libraries else []
    if lacking:
        extras = ",".join(dict.fromkeys(LIBRARIES[kind][1] for kind in lacking))
        joined = _joined(lacking)
        install = f'pip install -e ".[{extras}]"'
        parts.append(f"or have {joined} read: {install}" if parts else f"have {joined} read: {install}")
    if now := [kind for kind in images if has_library(kind)] if with_libraries else []:
        parts.append(f"{_joined(now)} can be read by now: index again")
    if VIDEO in kinds and by_index:
        parts.append("videos are searched in an index alone: turkish-clip index reads them by frames")
    return "; ".join(parts)


def _joined(names: Sequence[str]) -> str:
    """Returns names as a phrase.

    >>> _joined(["a", "b", "c"]), _joined(["a"])
    ('a, b and c', 'a')
    """
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _files(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    return f"{total} file" if total == 1 else f"{total} files"


def _listed(counts: Mapping[str, int]) -> str:
    """Returns names with their numbers, the largest first, not more than SHOWN."""
    names = sorted(counts, key=lambda name: (-counts[name], name))
    return ", ".join(f"{name} {counts[name]}" for name in names[:SHOWN]) + (" …" if len(names) > SHOWN else "")


def is_hidden(path: str) -> bool:
    """Returns whether a relative path, or a folder on its way, is hidden or a system's.

    >>> is_hidden("a/._1.jpg"), is_hidden("@eaDir/1.jpg"), is_hidden("a/Thumbs.db"), is_hidden("a/1.jpg")
    (True, True, True, False)
    """
    return any(
        part.startswith(".") or part.lower() in SYSTEM_FOLDERS or part.lower() in SYSTEM_FILES
        for part in path.split("/")
        if part not in ("", ".", "..")
    )


def is_there(path: str | Path) -> bool:
    r"""Returns whether a file exists; not one of a name that no file can have, which vectors of others may come with.

    >>> is_there(__file__), is_there("a" * 5000), is_there("a\0")
    (True, False, False)
    """
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def is_table(folder: str | Path) -> bool:
    """Returns whether a folder is a LanceDB table: it has the ending of one, and files, all of them of LanceDB's kinds.

    A folder of photographs may have that ending, too.
    """
    return str(folder).endswith(INDEX_TABLE) and holds_table_files_only(folder) and any(Path(folder).rglob("*.*"))


def holds_table_files_only(folder: str | Path) -> bool:
    """Returns whether a folder holds nothing but what LanceDB writes into a table; True for an empty one."""
    unread = list[OSError]()
    for parent, folders, names in os.walk(folder, onerror=unread.append):
        if parent == str(folder) and (names or not TABLE_FOLDERS.issuperset(folders)):
            return False
        if not all(map(TABLE_FILES.search, names)) or any(Path(parent, name).is_symlink() for name in folders):
            return False
    return not unread


class Exclusions:
    """Patterns of files and folders that are left out, as `index --exclude` takes them.

    A pattern is one of the shell (*, ?, [abc]), in which * stands for slashes too. It is compared with the path
    relative to the folder, and without a slash with the name alone; a folder that fits is left out whole.

    >>> rules = Exclusions(["thumbs", "2019/*.gif"])
    >>> rules.match("a/thumbs"), rules.match("2019/b/c.gif"), rules.match("2020/c.gif")
    ('thumbs', '2019/*.gif', None)
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self.patterns = list(patterns)
        tidy = [unicodedata.normalize("NFC", pattern).removeprefix("./").strip("/") for pattern in patterns]
        self._rules = [(re.compile(fnmatch.translate(rule)), "/" not in rule) for rule in tidy]

    def match(self, path: str) -> str | None:
        """Returns the first pattern that a relative path with forward slashes fits; None if none does."""
        composed = unicodedata.normalize("NFC", path)
        name = composed.rpartition("/")[2]
        for pattern, (rule, by_name) in zip(self.patterns, self._rules):
            if rule.match(composed) or (by_name and rule.match(name)):
                return pattern
        return None


class FolderWalk:
    """Finds the image files of a folder and the folders below it, and counts what it leaves out.

    Args:
        folder: the folder. Its own name may be hidden.
        exclude: patterns as in `Exclusions`.
        on_error: called with the error of each folder that can't be read.
        videos: whether videos count as images, where the library that reads them is installed.
        sounds: likewise sounds; otherwise they are files of other kinds, which no line counts.
    """

    def __init__(
        self,
        folder: Path,
        exclude: Sequence[str] = (),
        on_error: Callable[[OSError], None] | None = None,
        *,
        videos: bool = False,
        sounds: bool = False,
    ) -> None:
        self._folder, self._on_error, self._videos, self._sounds = folder, on_error, videos, sounds
        self._exclusions = Exclusions(exclude)
        self._not_read, self._hidden, self._other = Counter[str](), Counter[str](), Counter[str]()
        self._excluded, self._links = Counter[str](dict.fromkeys(exclude, 0)), 0

    @property
    def left_out(self) -> LeftOut:
        """What was left out so far."""
        return LeftOut(
            _added([self._not_read]),
            _most({name: count for name, count in self._hidden.items() if count}),  # without our own index
            _added([self._excluded]),
            _most(self._other),
            self._links,
        )

    def files(self) -> Iterator[Path]:
        """Yields the files whose suffix is that of an image that can be read; linked folders are not entered."""
        readable = readable_suffixes(videos=self._videos, sounds=self._sounds)
        for parent, folders, names in os.walk(self._folder, onerror=self._on_error, followlinks=False):
            relative = os.path.relpath(parent, self._folder).replace(os.sep, "/")
            prefix = "" if relative == "." else f"{relative}/"
            folders[:] = [name for name in sorted(folders) if self._enters(parent, prefix, name)]
            for name in names:
                if self._keeps(prefix, name, readable):
                    yield Path(parent) / name

    def _enters(self, parent: str, prefix: str, name: str) -> bool:
        path = f"{parent}{os.sep}{name}"
        if is_table(path) or (
            KEPT_TEXT_ENCODER.fullmatch(name) and _tables(parent, (path.name for path in Path(parent).iterdir()))
        ):
            return False
        if is_hidden(name):
            self._hidden[printable(name)] += _count_files(path)
        elif pattern := self._exclusions.match(prefix + name):
            self._excluded[pattern] += _count_files(path)
        elif Path(path).is_symlink():
            self._links += 1
        else:
            return True
        return False

    def _keeps(self, prefix: str, name: str, readable: frozenset[str]) -> bool:
        suffix = PurePath(name).suffix.lower()
        if is_hidden(name):
            self._hidden[_hidden_name(name)] += 1
        elif pattern := self._exclusions.match(prefix + name):
            self._excluded[pattern] += 1
        elif suffix in readable:
            return True
        elif (kind := unread_kind(name)) and (kind != SOUND or self._sounds):
            self._not_read[kind] += 1
        else:
            self._other[printable(suffix) or "no suffix"] += 1
        return False


def _hidden_name(name: str) -> str:
    """Returns how a hidden file is counted.

    >>> _hidden_name("._a.png"), _hidden_name(".DS_Store"), _hidden_name("Thumbs.db"), _hidden_name(".a.png")
    ('._*', '.DS_Store', 'Thumbs.db', '.*')
    """
    if name.startswith(APPLE_DOUBLE):
        return f"{APPLE_DOUBLE}*"
    return name if name == ".DS_Store" or name.lower() in SYSTEM_FILES else ".*"


def _count_files(folder: str) -> int:
    """Returns the number of files in a folder and below it; 0 for an index, 1 for a folder that can't be entered.

    The files beside an index's tables, its lock, are not counted either, nor the text encoder that it keeps.
    """
    count = 0

    def on_error(_: OSError) -> None:
        nonlocal count
        count += 1

    for parent, folders, names in os.walk(folder, onerror=on_error):
        tables = _tables(parent, folders)
        kept = [name for name in folders if tables and KEPT_TEXT_ENCODER.fullmatch(name)]
        folders[:] = [name for name in folders if name not in (*tables, *kept)]
        count += 0 if tables else len(names)
    return count


def _tables(parent: str, names: Iterable[str]) -> list[str]:
    """Returns those of a folder's entries that are tables of an index."""
    return [name for name in names if is_table(f"{parent}{os.sep}{name}")]
