"""Images that are read when they are wanted, such as those in a Parquet file or in a data set that streams.

A row keeps the place of its image, not its bytes. Readers ask for images nearly in order, from several threads;
what is passed on the way to a later image is kept for the thread that comes for it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from training.run.source import SourceError
from turkish_clip.errors import InputError, one_line


class LazyImage:
    """The way to an image that is no file of its own: `read()` gives the bytes of the file, or its path."""

    def read(self) -> bytes | Path:
        """The bytes of the file, or its path.

        Raises:
            ImageError: there is none.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class MissingImage:
    """What stands in the place of an image that can't be had, and why."""

    name: str
    reason: str


KEPT_BYTES = 64 << 20  # of images that were passed and not asked for yet
NEAR = 1024  # rows that are rather passed than jumped over: another thread may be about to ask for them
OPEN_PLACES = 4  # of one store that are read at the same time
OPEN_STORES = 3  # files of a data set are read one after the other


class Store(Protocol):
    """Numbered images that can be read from some places on."""

    def size(self) -> int:
        """Bytes of the file that it is in; 0 where that has a revision."""

    def start(self, number: int) -> int:
        """The last place at or before an image from which reading can begin."""

    def cells(self, start: int) -> Iterator[Any]:
        """The cells from a place on: bytes, a record of bytes and path, or None."""

    def image(self, cell: Any, number: int) -> bytes | Path:
        """A cell's image.

        Raises:
            ImageError: it holds none.
        """


@dataclass(frozen=True)
class StreamedImage(LazyImage):
    """An image in a store, read when it is wanted; small, and the same in another process.

    Attributes:
        number: its place in the store, from 0.
        name: its path, where the store tells one.
    """

    store: Store
    number: int
    name: str = ""

    @property
    def size(self) -> int:
        """Bytes of the file that the store is in, so that a store that was written again is read again."""
        return self.store.size()

    def read(self) -> bytes | Path:
        """The bytes of the file, or its path.

        Raises:
            ImageError: there is none.
            SourceError: the store can't be read any more.
        """
        return self.store.image(_reader(self.store).read(self.number), self.number)


class _Place:
    """One iterator over a store, where it stands, and what it has passed."""

    def __init__(self, store: Store, start: int) -> None:
        self.position = start
        self.cells = store.cells(start)
        self.passed: OrderedDict[int, Any] = OrderedDict()
        self.passed_bytes = 0

    def take(self, number: int) -> Any:
        if number in self.passed:
            cell = self.passed.pop(number)
            self.passed_bytes -= _size(cell)
            return cell
        while self.position < number:
            cell = next(self.cells)
            if number - self.position <= NEAR:
                self.passed[self.position] = cell
                self.passed_bytes += _size(cell)
            self.position += 1
            while self.passed_bytes > KEPT_BYTES:
                self.passed_bytes -= _size(self.passed.popitem(last=False)[1])
        cell = next(self.cells)
        self.position += 1
        return cell


class _Reader:
    """Reads one store for all threads of the process."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.lock = threading.Lock()
        self.places: list[_Place] = []  # the last used last

    def read(self, number: int) -> Any:
        with self.lock:
            place = self._place(number)
            try:
                cell = place.take(number)
            except StopIteration:
                raise SourceError(
                    f"expected row {number + 1} in {self.store}, got its end; it has changed: start again"
                ) from None
            self.places.append(place)  # one that failed is not used again
            return cell

    def _place(self, number: int) -> _Place:
        """Takes the place to read on from out of the list: one that kept the image, the nearest before, or a new."""
        best = next((place for place in self.places if number in place.passed), None)
        if best is None:
            before = [place for place in self.places if place.position <= number]
            best = max(before, key=lambda place: place.position, default=None)
            if best and number - best.position > NEAR and self.store.start(number) > best.position:
                best = None
        if best is None:
            del self.places[: max(0, len(self.places) + 1 - OPEN_PLACES)]
            return _Place(self.store, self.store.start(number))
        self.places.remove(best)
        return best


_readers: OrderedDict[Store, _Reader] = OrderedDict()
_readers_lock = threading.Lock()


def _reader(store: Store) -> _Reader:
    with _readers_lock:
        reader = _readers.get(store) or _Reader(store)
        _readers[store] = reader
        _readers.move_to_end(store)
        while len(_readers) > OPEN_STORES:
            _readers.popitem(last=False)
        return reader


def _size(cell: Any) -> int:
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    return len(content) if isinstance(content, bytes) else 0


@contextmanager
def reading(place: object) -> Iterator[None]:
    """Says which store could not be read, in one line, whatever the library or the network raised.

    Raises:
        SourceError: for every error but our own.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # parsers, file systems and the network raise dozens of unrelated types
        raise SourceError(
            f"expected to read {place}, got {type(error).__name__}: {one_line(error)}; see that it "
            "is there, and give the same command again: what was finished is kept"
        ) from error
