"""Finds images that an index holds more than once: the same bytes, and near duplicates.

The vectors of an index say which pairs to look at, the images themselves whether the two are near
duplicates (`turkish_clip.likeness`): images of one thing have similar vectors, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from turkish_clip.clips import open_still
from turkish_clip.images import ImageError
from turkish_clip.likeness import LARGE, SIDE, near_duplicates, small_copy
from turkish_clip.search.files import SkippedFile, examined

if TYPE_CHECKING:
    from turkish_clip.metrics import Vectors
    from turkish_clip.search.tables import ImageTables

NEAREST = 32  # images of the largest cosines that each is compared with
LEAST_COSINE = 0.5  # a crop may change a vector much; with CLIP's larger models copies have 0.9 and more
COSINES_AT_ONCE = 1 << 22  # in one block: 16 MB, and some times that while the largest are looked for
PAIRS_AT_ONCE = 1024  # compared in one call
MOST_FRAMES = (
    0.75  # of the frames of each of two videos that the other has too, at least, where they are near duplicates
)


@dataclass(frozen=True)
class DuplicateFile:
    """One of several files with one image.

    Attributes:
        path: of the file.
        bytes: its size now.
        modified: when it was last changed, in UTC.
        taken: when the photograph was taken, as in `turkish_clip.photo.Photo`.
        same: what it has in common with the first file of its group: "bytes", or "image" (of a video, most of its
            frames); empty for the first.
        second: of a video, that of a frame which the others of its group have too, else None.
    """

    path: str
    bytes: int
    modified: datetime
    taken: datetime | None
    same: str
    second: float | None = None


@dataclass(frozen=True)
class Duplicates:
    """What was found.

    Attributes:
        groups: of at least two files each: the largest first, of one size the oldest, which is the one to keep; groups
            in the order of what the others take.
        images: number of distinct images that were looked at.
        unread: files that could not be opened to be compared, with the reason.
        gone: number of indexed files that do not exist now.
    """

    groups: list[list[DuplicateFile]]
    images: int
    unread: list[SkippedFile]
    gone: int

    @property
    def spare_bytes(self) -> int:
        """How much all files but the first of each group take."""
        return sum(file.bytes for group in self.groups for file in group[1:])


def find_duplicates(
    tables: ImageTables, *, exact: bool, workers: int, progress: Callable[[int, int], Any] | None = None
) -> Duplicates:
    """Does what `ImageIndex.duplicates` does.

    Args:
        tables: of the index.
        exact: as there.
        workers: as there.
        progress: as there.

    Raises:
        ImageIndexError: the index can't be read.
    """
    rows, vectors = tables.rows_with_vectors(["content", "second", "path", "also_at", "taken"])
    entry_of = {content: entry for entry, content in enumerate(dict.fromkeys(row["content"] for row in rows))}
    entries = np.array([entry_of[row["content"]] for row in rows], np.int64)  # that of each row: a video has several
    files, gone = list[list[DuplicateFile]](), 0
    for row, entry in zip(rows, entries):
        if entry == len(files):
            paths = [row["path"], *row["also_at"]]
            found = [file for path in paths if (file := _on_disk(path, row["taken"])) is not None]
            files.append([replace(file, second=row["second"]) for file in found])
            gone += len(paths) - len(found)
    joined, unread = _Groups(len(files)), list[SkippedFile]()
    if not exact:
        unread = _join_near(joined, _Rows(rows, vectors, entries, files), workers, progress)
    groups = [_ordered([files[place] for place in places_of]) for places_of in joined.groups()]
    groups = [group for group in groups if len(group) > 1]
    groups.sort(key=lambda group: (-sum(file.bytes for file in group[1:]), group[0].path))
    return Duplicates(groups, len(files), unread, gone)


@dataclass(frozen=True)
class _Rows:
    """The rows of an index: of each image one, of a video one for each frame.

    Attributes:
        rows: with `second`.
        vectors: (n, dim) float32 unit vectors.
        entries: (n,) the number of the image or video of each.
        files: of each image or video those that are there; `_join_near` gives videos their seconds.
    """

    rows: list[dict[str, Any]]
    vectors: Vectors
    entries: NDArray[np.int64]
    files: list[list[DuplicateFile]]


def _join_near(
    joined: _Groups, of: _Rows, workers: int, progress: Callable[[int, int], Any] | None
) -> list[SkippedFile]:
    """Joins near duplicates; returns the files that could not be opened. A still is no copy of a video."""
    rows, entries, files = of.rows, of.entries, of.files
    is_video = np.array([row["second"] is not None for row in rows], bool)
    there = np.array([place for place, entry in enumerate(entries) if files[entry]], np.int64)
    pairs = there[similar_pairs(of.vectors[there], entries[there])] if len(there) else np.empty((0, 2), np.int64)
    pairs = pairs[is_video[pairs[:, 0]] == is_video[pairs[:, 1]]]
    places = [(files[entry][0].path if files[entry] else "", row["second"]) for row, entry in zip(rows, entries)]
    copies, common, done = _SmallCopies(places, workers), _CommonFrames(entries), 0
    for start in range(0, len(pairs), PAIRS_AT_ONCE):
        part = pairs[start : start + PAIRS_AT_ONCE]
        for first, second in part[copies.same(part)].tolist():
            if is_video[first]:
                common.add(first, second)
            else:
                joined.join(int(entries[first]), int(entries[second]))
        done = int(entries[part[-1, 0]]) + 1
        if progress is not None:
            progress(done, len(files))
    if progress is not None and done < len(files):
        progress(len(files), len(files))
    for left, right in common.pairs():
        joined.join(int(entries[left]), int(entries[right]))
        for place in (left, right):
            shown = [replace(file, second=rows[place]["second"]) for file in files[entries[place]]]
            files[entries[place]] = shown
    return sorted({file.path: file for file in copies.unread.values()}.values(), key=lambda file: file.path)


def similar_pairs(vectors: Vectors, entries: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Returns the (m, 2) pairs of images, the smaller place first, one of which is among the nearest of the other.

    Args:
        vectors: (n, dim) float32 unit vectors, compared a block of rows at a time.
        entries: (n,) the image or video that each is of; those of one are no pairs. None: each is of its own.
    """
    count, found = len(vectors), list[NDArray[np.int64]]()
    block, nearest = max(1, COSINES_AT_ONCE // max(1, count)), min(NEAREST, count - 1)
    for start in range(0, count if nearest > 0 else 0, block):
        cosines = vectors[start : start + block] @ vectors.T
        if entries is None:
            here = np.arange(len(cosines))
            cosines[here, start + here] = -2  # an image itself
        else:
            cosines[entries[start : start + block, None] == entries] = -2
        best = np.argpartition(-cosines, nearest - 1, axis=1)[:, :nearest]
        row, column = np.nonzero(np.take_along_axis(cosines, best, axis=1) >= LEAST_COSINE)
        found.append(np.sort(np.stack([start + row, best[row, column]], axis=1), axis=1))
    return np.unique(np.concatenate(found), axis=0) if found else np.empty((0, 2), np.int64)


class _SmallCopies:
    """Small copies of images, each opened when it is first needed; they lie in a temporary file, 28 kB each.

    Args:
        places: path, and of a frame of a video its second, else None.
        workers: threads that open them.
    """

    def __init__(self, places: Sequence[tuple[str, float | None]], workers: int) -> None:
        self._places, self._workers = places, workers
        self._is_there, self._is_large = np.zeros(len(places), bool), np.zeros(len(places), bool)
        with TemporaryFile() as file:  # which stays as long as it is mapped
            self._copies = np.memmap(file, np.uint8, "w+", shape=(max(1, len(places)), SIDE, 3, SIDE))
        self.unread: dict[int, SkippedFile] = {}

    def same(self, pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Returns which of (m, 2) pairs are near duplicates; those that do not open are none."""
        self._open_all(np.unique(pairs).tolist())
        same = np.asarray(self._is_there[pairs].all(axis=1))
        first, second = (np.asarray(self._copies[pairs[same, side]]) for side in (0, 1))
        same[same] = near_duplicates(first, second, np.asarray(self._is_large[pairs[same]].all(axis=1)))
        return same

    def _open_all(self, places: list[int]) -> None:
        new = [place for place in places if not self._is_there[place] and place not in self.unread]
        with ThreadPoolExecutor(self._workers) as pool:
            for place, copy in zip(new, pool.map(self._open, new)):
                if isinstance(copy, ImageError):
                    self.unread[place] = SkippedFile(self._places[place][0], copy.reason)
                else:
                    self._copies[place], self._is_large[place] = copy
                    self._is_there[place] = True

    def _open(self, place: int) -> tuple[NDArray[np.uint8], bool] | ImageError:
        """Returns the small copy of an image or a frame, and whether it is large."""
        path, second = self._places[place]
        try:
            image = open_still(path, second, min_side=LARGE)
            return small_copy(image), min(image.size) >= LARGE
        except ImageError as error:
            return error


class _CommonFrames:
    """Counts the frames that videos have in common.

    Args:
        entries: (rows,) the video of each frame.
    """

    def __init__(self, entries: NDArray[np.int64]) -> None:
        self._entries, self._frames = entries, np.bincount(entries) if len(entries) else np.empty(0, np.int64)
        self._common: dict[tuple[int, int], tuple[set[int], set[int]]] = {}

    def add(self, first: int, second: int) -> None:
        """Notes that two frames, given by their rows, are near duplicates."""
        videos = int(self._entries[first]), int(self._entries[second])
        if videos[0] > videos[1]:
            videos, first, second = videos[::-1], second, first
        left, right = self._common.setdefault(videos, (set(), set()))
        left.add(first)
        right.add(second)

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Yields for each two videos that have most frames in common a frame of either, by its row."""
        for (first, second), (left, right) in self._common.items():
            if len(left) >= MOST_FRAMES * self._frames[first] and len(right) >= MOST_FRAMES * self._frames[second]:
                yield min(left), min(right)


class _Groups:
    """Places that were joined, directly or by others."""

    def __init__(self, count: int) -> None:
        self._above = list(range(count))

    def join(self, first: int, second: int) -> None:
        self._above[self._top(second)] = self._top(first)

    def _top(self, place: int) -> int:
        while self._above[place] != place:
            self._above[place] = self._above[self._above[place]]
            place = self._above[place]
        return place

    def groups(self) -> Iterator[list[int]]:
        members: dict[int, list[int]] = {}
        for place in range(len(self._above)):
            members.setdefault(self._top(place), []).append(place)
        yield from members.values()


def _on_disk(path: str, taken: datetime | None) -> DuplicateFile | None:
    """Returns a file as it is now; None if it is not there."""
    file = examined(path, "")
    return None if file.reason else DuplicateFile(path, file.size, file.modified, taken, "")


def _ordered(images: Sequence[Sequence[DuplicateFile]]) -> list[DuplicateFile]:
    """Returns the files of one group, given by image, the one to keep first."""
    of_bytes = {file.path: place for place, files in enumerate(images) for file in files}
    files = sorted((file for each in images for file in each), key=lambda file: (-file.bytes, file.modified, file.path))
    if not files:
        return []
    first = of_bytes[files[0].path]
    return [files[0], *(replace(f, same="bytes" if of_bytes[f.path] == first else "image") for f in files[1:])]
