"""Temporary storage: arrays and tables too large for memory, in unnamed files that vanish with the process.

Nothing has to be deleted, even after a SIGKILL, and nothing can be stale. The files are on the run folder's disk, since
the system's temporary folder may be in memory. They are mapped: the system can drop their pages where memory is short.
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

BATCH_ROWS = 8192  # held in memory as Python objects before they are written
BATCH_BYTES = 16_000_000  # also held at most: captions may be long
BLOCK = 1024  # rows built at a time where a table is read in order
T = TypeVar("T")
Numbers = NDArray[np.int64]


def _unnamed_file(temp_dir: Path) -> IO[bytes]:
    """Opens an empty unnamed file on the disk where the folder `temp_dir` is or will be; OSError if it can't."""
    folder = temp_dir.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return tempfile.TemporaryFile(dir=folder)


def unnamed_array(shape: tuple[int, ...], dtype: DTypeLike, temp_dir: Path) -> NDArray[Any]:
    """Returns a writable array of zeros, mapped from an unnamed file.

    Args:
        shape: of the array.
        dtype: of its numbers.
        temp_dir: the folder on whose disk it is stored.

    Raises:
        OSError: the disk has no space for it.
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
    """Reserves the disk space of a sparse file, since a write through a map to a full disk would kill the process.

    Raises:
        OSError: the disk has less space.
    """
    if hasattr(os, "posix_fallocate"):  # absent on macOS and Windows
        os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)


class TableWriter:
    """Writes a table to an unnamed file, row by row."""

    def __init__(self, schema: pa.Schema, temp_dir: Path) -> None:
        """Opens the file on the disk of the folder `temp_dir`."""
        import pyarrow as pa

        self._schema = schema
        self._file = _unnamed_file(temp_dir)
        self._stream = pa.ipc.new_stream(self._file, schema)
        self._rows: list[tuple[Any, ...]] = []
        self._bytes = 0

    def add(self, row: tuple[Any, ...], size: int = 0) -> None:
        """Adds a row.

        Args:
            row: one value per column.
            size: bytes of its large values; batches are written early where these add up.
        """
        self._rows.append(row)
        self._bytes += size
        if len(self._rows) >= BATCH_ROWS or self._bytes >= BATCH_BYTES:
            self._write()

    def finish(self) -> pa.Table:
        """Returns the memory-mapped table of all rows that were added."""
        import pyarrow as pa

        self._write()
        self._stream.close()
        self._file.flush()
        mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        self._file.close()
        return pa.ipc.open_stream(pa.py_buffer(mapped)).read_all()

    def __del__(self) -> None:
        with contextlib.suppress(OSError):  # of a full disk, which `add` or `finish` has raised already
            self._file.close()  # still open where the source could not be read to its end

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
    """A sequence of the rows of a memory-mapped table, or a selection of them, each built when it is accessed."""

    def __init__(self, table: pa.Table, numbers: range | Numbers | None = None) -> None:
        """Takes the table, and the numbers of the rows to select; None selects all."""
        self._batches: list[pa.RecordBatch] = table.to_batches()
        self._starts = np.cumsum([0, *(len(batch) for batch in self._batches)], dtype=np.int64)
        self._numbers: range | Numbers = range(len(table)) if numbers is None else numbers

    def _make(self, batch: pa.RecordBatch, numbers: Numbers) -> Iterable[T]:
        """Builds a few rows from their columns, and from their numbers in the table."""
        raise NotImplementedError

    @property
    def numbers(self) -> Numbers:
        """The numbers of these rows in the table: (n,) int64."""
        return _array(self._numbers)

    def take(self, places: Numbers) -> Self:
        """Returns the rows at the given positions, (n,) int64, in that order."""
        return self._selection(self.numbers[places])

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, place: int) -> T: ...

    @overload
    def __getitem__(self, place: slice) -> Self: ...

    def __getitem__(self, place: int | slice) -> T | Self:
        if isinstance(place, slice):
            return self._selection(self._numbers[place])
        return next(iter(self._made(np.array([self._numbers[place]], np.int64))))

    def __iter__(self) -> Iterator[T]:
        for start in range(0, len(self), BLOCK):
            yield from self._made(_array(self._numbers[start : start + BLOCK]))

    def _selection(self, numbers: range | Numbers) -> Self:
        selection = copy.copy(self)
        selection._numbers = numbers
        return selection

    def _made(self, numbers: Numbers) -> Iterable[T]:
        """Builds a few rows; those of several places are joined first, which is faster than one by one."""
        import pyarrow as pa

        batch_of = np.searchsorted(self._starts, numbers, side="right") - 1
        slices = []
        starts = np.flatnonzero(np.diff(batch_of)) + 1  # of the rows of another batch than the row before
        for part, number in zip(np.split(numbers, starts), batch_of[[0, *starts]]):
            places, batch = part - self._starts[number], self._batches[number]
            in_order = (np.diff(places) == 1).all()
            slices.append(batch.slice(int(places[0]), len(places)) if in_order else batch.take(places))
        return self._make(slices[0] if len(slices) == 1 else pa.concat_batches(slices), numbers)


class Texts(TableRows[str]):
    """The texts of a table with one column."""

    def _make(self, batch: pa.RecordBatch, numbers: Numbers) -> Iterable[str]:
        texts: list[str] = batch.column(0).to_pylist()
        return texts


def _encodable(value: Any) -> Any:
    """Returns a value with ? for unpaired surrogates (half an emoji), which JSON can hold and UTF-8 can't."""
    if isinstance(value, tuple):
        return tuple(map(_encodable, value))
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _array(numbers: range | Numbers) -> Numbers:
    return np.arange(numbers.start, numbers.stop, numbers.step) if isinstance(numbers, range) else numbers
