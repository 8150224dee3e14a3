"""Files without a name: what is too much for memory and not worth keeping lies in them, and goes with the process.

Nothing has to be deleted, not after a SIGKILL either, and nothing can be stale: whoever needs it makes it anew from its
source. They lie on the run folder's disk, since a temporary folder may be memory itself. Mapped pages count as the
file's, not as the process's own: the system takes them back where memory is short.
"""

from __future__ import annotations

import contextlib
import copy
import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

if TYPE_CHECKING:
    import pyarrow as pa
    from typing_extensions import Self

BATCH_ROWS = 8192  # held as Python objects while a table is written
BATCH_BYTES = 16_000_000  # likewise: captions may be long
BLOCK = 1024  # rows made at a time while a table is read in order
T = TypeVar("T")
Numbers = NDArray[np.int64]


def _unnamed_file(temp_dir: Path) -> IO[bytes]:
    """An empty file without a name, on the disk where the folder `temp_dir` is or will be.

    Raises:
        OSError: that place can't be written.
    """
    folder = temp_dir.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return tempfile.TemporaryFile(dir=folder)


def unnamed_array(shape: tuple[int, ...], dtype: DTypeLike, temp_dir: Path) -> NDArray[Any]:
    """Zeros in a file without a name, mapped to be read and written.

    Raises:
        OSError: the disk has no room for it; said here, since a write through the map would kill the process.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if not size:
        return np.zeros(shape, dtype)
    with _unnamed_file(temp_dir) as file:
        file.truncate(size)
        allocate(file)
        mapped = mmap.mmap(file.fileno(), size)
    return np.frombuffer(mapped, dtype).reshape(shape)


def allocate(file: IO[bytes]) -> None:
    """Takes a sparse file's whole space at once: writing through a map to a full disk would kill the process.

    Raises:
        OSError: there is not as much.
    """
    if hasattr(os, "posix_fallocate"):  # absent on macOS and Windows
        os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)


class TableWriter:
    """Writes a table, row by row, to a file without a name."""

    def __init__(self, schema: pa.Schema, temp_dir: Path) -> None:
        import pyarrow as pa

        self._schema = schema
        self._file = _unnamed_file(temp_dir)
        self._stream = pa.ipc.new_stream(self._file, schema)
        self._rows: list[tuple[Any, ...]] = []
        self._bytes = 0

    def add(self, row: tuple[Any, ...], size: int = 0) -> None:
        """Adds a row, a value a column.

        Args:
            row: the values.
            size: bytes of what is large in it.
        """
        self._rows.append(row)
        self._bytes += size
        if len(self._rows) >= BATCH_ROWS or self._bytes >= BATCH_BYTES:
            self._write()

    def finish(self) -> pa.Table:
        """The table, mapped: as many rows as were added, none of them in memory."""
        import pyarrow as pa

        self._write()
        self._stream.close()
        self._file.flush()
        mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        self._file.close()
        return pa.ipc.open_stream(pa.py_buffer(mapped)).read_all()

    def __del__(self) -> None:
        with contextlib.suppress(OSError):  # a full disk, of which the writer has heard
            self._file.close()  # not finished where the source could not be read to its end

    def _write(self) -> None:
        import pyarrow as pa

        if self._rows:
            columns = list(zip(*self._rows))
            try:
                arrays = [pa.array(values, field.type) for values, field in zip(columns, self._schema)]
            except UnicodeEncodeError:
                columns = [tuple(map(_encodable, values)) for values in columns]
                arrays = [pa.array(values, field.type) for values, field in zip(columns, self._schema)]
            self._stream.write_batch(pa.record_batch(arrays, schema=self._schema))
        self._rows, self._bytes = [], 0


class TableRows(Sequence[T], Generic[T]):
    """Rows of a mapped table, all or some of them in any order, each made when it is asked for."""

    def __init__(self, table: pa.Table, numbers: range | Numbers | None = None) -> None:
        """Takes the table, and which of its rows; None means all."""
        self._batches: list[pa.RecordBatch] = table.to_batches()
        self._starts = np.cumsum([0, *(len(batch) for batch in self._batches)], dtype=np.int64)
        self._numbers: range | Numbers = range(len(table)) if numbers is None else numbers

    def _make(self, batch: pa.RecordBatch, numbers: Numbers) -> Iterable[T]:
        """What a few rows are, given as columns, and by their numbers in the table."""
        raise NotImplementedError

    @property
    def numbers(self) -> Numbers:
        """Which rows of the table these are: (n,) int64."""
        return _array(self._numbers)

    def take(self, places: Numbers) -> Self:
        """Those at the given places, in that order."""
        return self._some(self.numbers[places])

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, place: int) -> T: ...

    @overload
    def __getitem__(self, place: slice) -> Self: ...

    def __getitem__(self, place: int | slice) -> T | Self:
        if isinstance(place, slice):
            return self._some(self._numbers[place])
        return next(self._made(np.array([self._numbers[place]], np.int64)))

    def __iter__(self) -> Iterator[T]:
        for start in range(0, len(self), BLOCK):
            yield from self._made(_array(self._numbers[start : start + BLOCK]))

    def _some(self, numbers: range | Numbers) -> Self:
        some = copy.copy(self)
        some._numbers = numbers
        return some

    def _made(self, numbers: Numbers) -> Iterator[T]:
        """A few rows, by stretches that stand in one batch."""
        batch_of = np.searchsorted(self._starts, numbers, side="right") - 1
        for part in np.split(numbers, np.flatnonzero(np.diff(batch_of)) + 1):
            number = int(np.searchsorted(self._starts, part[0], side="right")) - 1
            places, batch = part - self._starts[number], self._batches[number]
            in_order = (np.diff(places) == 1).all()
            yield from self._make(batch.slice(int(places[0]), len(places)) if in_order else batch.take(places), part)


class Texts(TableRows[str]):
    """The texts of a table of one column."""

    def _make(self, batch: pa.RecordBatch, numbers: Numbers) -> Iterable[str]:
        texts: list[str] = batch.column(0).to_pylist()
        return texts


def _encodable(value: Any) -> Any:
    """A value with ? in the place of half characters, which JSON can hold, as of an emoji cut in two, and UTF-8 not."""
    if isinstance(value, tuple):
        return tuple(map(_encodable, value))
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _array(numbers: range | Numbers) -> Numbers:
    return np.arange(numbers.start, numbers.stop, numbers.step) if isinstance(numbers, range) else numbers
