"""Images that are read only when needed, such as those in a Parquet file or in a streamed data set.

A row holds the address of its image, not its bytes. Threads ask for images nearly in order: the cells that a cursor
reads on its way to a later image are buffered for the threads that ask for them next.
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
from turkish_clip.images import ImageError


class LazyImage:
    """An image that is read when needed: from a table, a shard, a data set or the network."""

    @property
    def place(self) -> str:
        """Where the image is, for messages."""
        return str(self)

    @property
    def is_remote(self) -> bool:
        """Whether reading it takes the network."""
        return False

    def read(self) -> bytes | Path:
        """Returns the bytes of the image's file, or its path.

        Raises:
            ImageError: there is no image.
            SourceError: the source can't be read any more.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class MissingImage(LazyImage):
    """Takes the place of an image that can't be read; `reason` says why, also to those who try."""

    name: str
    reason: str

    @property
    def place(self) -> str:
        return self.name

    def read(self) -> bytes | Path:
        raise ImageError(self.name, self.reason)


MAX_BUFFERED_BYTES = 64 << 20  # of the cells that a cursor buffers
MAX_READ_AHEAD = 1024  # cells that a cursor reads rather than skips: another thread may be about to ask for them
MAX_CURSORS = 4  # cursors over one store
MAX_OPEN_STORES = 3  # stores with cursors: the files of a data set are read one after the other


class ImageStore(Protocol):
    """A sequence of cells with one image each, which can be read in order from certain cells on."""

    @property
    def is_remote(self) -> bool:
        """Whether reading it takes the network."""

    def size(self) -> int:
        """Returns the bytes of the store's file; 0 where a revision identifies its content."""

    def start(self, number: int) -> int:
        """Returns the number of the last cell, at or before the given one, from which reading can begin."""

    def cells(self, start: int) -> Iterator[Any]:
        """Yields the cells from that one on: bytes, a record of bytes and path, or None."""

    def image(self, cell: Any, number: int) -> bytes | Path:
        """Returns the bytes of a cell's image, or the path of its file.

        Args:
            cell: what `cells` yielded.
            number: the cell's number, from 0, for messages.

        Raises:
            ImageError: it holds none.
        """


@dataclass(frozen=True)
class StreamedImage(LazyImage):
    """An image in a store: a small object that can be sent to another process.

    Attributes:
        number: the number of its cell in the store, from 0.
        name: its path, where the store gives one.
    """

    store: ImageStore
    number: int
    name: str = ""

    @property
    def place(self) -> str:
        return f"row {self.number + 1} of {self.store}"

    @property
    def is_remote(self) -> bool:
        return self.store.is_remote

    @property
    def size(self) -> int:
        """Bytes of the store's file, so that a store that was rewritten is noticed."""
        return self.store.size()

    def read(self) -> bytes | Path:
        return self.store.image(_reader(self.store).read(self.number), self.number)


class _Cursor:
    """A cursor over a store: an iterator of cells, its position, and buffered cells that it has read past."""

    def __init__(self, store: ImageStore, start: int) -> None:
        self.position = start
        self.cells = store.cells(start)
        self.buffered: OrderedDict[int, Any] = OrderedDict()
        self.buffered_bytes = 0

    def take(self, number: int) -> Any:
        """Returns a cell from the buffer, or reads on to it and buffers the last cells before it."""
        if number in self.buffered:
            cell = self.buffered.pop(number)
            self.buffered_bytes -= _size(cell)
            return cell
        while self.position < number:
            cell = next(self.cells)
            if number - self.position <= MAX_READ_AHEAD:
                self.buffered[self.position] = cell
                self.buffered_bytes += _size(cell)
            self.position += 1
            while self.buffered_bytes > MAX_BUFFERED_BYTES:
                self.buffered_bytes -= _size(self.buffered.popitem(last=False)[1])
        cell = next(self.cells)
        self.position += 1
        return cell


class _Reader:
    """Reads one store for all threads of the process, with a few cursors."""

    def __init__(self, store: ImageStore) -> None:
        self.store = store
        self.lock = threading.Lock()
        self.cursors: list[_Cursor] = []  # the most recently used last

    def read(self, number: int) -> Any:
        with self.lock:
            cursor = self._take_cursor(number)
            try:
                cell = cursor.take(number)
            except StopIteration:
                raise SourceError(
                    f"expected row {number + 1} in {self.store}, got its end; it has changed: start again"
                ) from None
            self.cursors.append(cursor)  # one that failed is not used again
            return cell

    def _take_cursor(self, number: int) -> _Cursor:
        """Removes a cursor from the list: the one that buffered the cell, the nearest before it, or a new one."""
        best = next((cursor for cursor in self.cursors if number in cursor.buffered), None)
        if best is None:
            before = [cursor for cursor in self.cursors if cursor.position <= number]
            best = max(before, key=lambda cursor: cursor.position, default=None)
            if best and number - best.position > MAX_READ_AHEAD and self.store.start(number) > best.position:
                best = None
        if best is None:
            del self.cursors[: max(0, len(self.cursors) + 1 - MAX_CURSORS)]
            return _Cursor(self.store, self.store.start(number))
        self.cursors.remove(best)
        return best


_readers: OrderedDict[ImageStore, _Reader] = OrderedDict()
_readers_lock = threading.Lock()


def _reader(store: ImageStore) -> _Reader:
    with _readers_lock:
        reader = _readers.get(store) or _Reader(store)
        _readers[store] = reader
        _readers.move_to_end(store)
        while len(_readers) > MAX_OPEN_STORES:
            _readers.popitem(last=False)
        return reader


def _size(cell: Any) -> int:
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    return len(content) if isinstance(content, bytes) else 0


@contextmanager
def one_line_errors(place: object) -> Iterator[None]:
    """Turns any error of a library or of the network while a place is read into a SourceError of one line.

    Raises:
        SourceError: reading failed; an `InputError` passes unchanged.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # parsers, file systems and the network raise dozens of unrelated types
        raise SourceError(
            f"expected to read {place}, got {type(error).__name__}: {one_line(error)}; check that it "
            "is there, and give the same command again: finished work is kept"
        ) from error
