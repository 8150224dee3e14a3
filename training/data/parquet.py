"""Parquet tables, on the disk or on the Hub, whose images stay in the file until they are wanted."""

from __future__ import annotations

import bisect
import functools
import itertools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.data.lazy_images import StreamedImage, reading
from training.data.samples import inside
from training.run.source import SourceError
from turkish_clip.errors import one_line
from turkish_clip.images import ImageError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

IMAGES_AT_ONCE = 16  # decoded together
ROWS_AT_ONCE = 1024  # of the other columns
READ_BYTES = 4 << 20  # asked for in one request; pyarrow would else take a row group's whole column


@dataclass(frozen=True)
class ParquetImageStore:
    """A column of images in a Parquet file.

    Attributes:
        file: a path, or an address on the Hub (hf://…).
        column: of bytes, or of records of bytes and path.
        folder: where a path in a cell starts; empty where there are no files beside the table.
        confined: whether a path may not leave the folder.
    """

    file: str
    column: str
    folder: str = ""
    confined: bool = True

    def __str__(self) -> str:
        return self.file

    def start(self, number: int) -> int:
        """The first row of the row group that holds a row."""
        starts = self._starts()
        return starts[bisect.bisect_right(starts, number) - 1]

    def cells(self, start: int) -> Iterator[Any]:
        """The cells from the first row of a row group on."""
        first = self._starts().index(start)
        with _opened(self.file) as table:
            for group in range(first, table.num_row_groups):
                for batch in table.iter_batches(
                    IMAGES_AT_ONCE, row_groups=[group], columns=[self.column], use_threads=False
                ):
                    yield from batch.column(0).to_pylist()

    def _starts(self) -> list[int]:
        with reading(self.file):
            return _group_starts(self.file, _stamp(self.file))

    def size(self) -> int:
        """Bytes of the file; 0 on the Hub, where its address has its commit."""
        return _stamp(self.file)[0]

    def image(self, cell: Any, number: int) -> bytes | Path:
        """The bytes in a cell, or the path to the file that it names.

        Raises:
            ImageError: it holds neither, or no path that may be opened.
        """
        if isinstance(cell, dict):
            cell = cell.get("bytes") or cell.get("path")
        if isinstance(cell, bytes) and cell:
            return cell
        if not isinstance(cell, str) or not cell:
            raise ImageError(f"row {number + 1} of {self.file}", "no image")
        path = inside(Path(self.folder) if self.folder else None, cell, confined=self.confined)
        if isinstance(path, str):
            raise ImageError(cell, path)
        return path


def parquet_rows(file: str, folder: Path | None, *, confined: bool, named: bool) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, without the bytes of its images: those are `StreamedImage`.

    Args:
        file: a path, or an address on the Hub (hf://…).
        folder: where paths in cells start; None where there are no files.
        confined: whether a path may not leave the folder.
        named: whether the path beside an image's bytes is its name; in parts of a data set, names come twice.

    Raises:
        SourceError: it is no Parquet file, or can't be read any more.
    """
    with _opened(file) as table:
        images = {field.name: field.type for field in table.schema_arrow if _holds_images(field, table.metadata)}
        stores = {name: ParquetImageStore(file, name, str(folder or ""), confined) for name in images}
        told = [name for name, kind in images.items() if named and _has_path(kind)]
        columns = [name for name in table.schema_arrow.names if name not in images] + [f"{name}.path" for name in told]
        number = 0
        for group in range(table.num_row_groups):
            for values in _group_rows(table, group, columns):
                paths = {name: (values[name] or {}).get("path") or "" for name in told}
                yield values | {
                    name: StreamedImage(store, number, paths.get(name, "")) for name, store in stores.items()
                }
                number += 1


def _group_rows(table: pq.ParquetFile, group: int, columns: list[str]) -> Iterator[dict[str, Any]]:
    if not columns:
        yield from ({} for _ in range(table.metadata.row_group(group).num_rows))
        return
    for batch in table.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=columns, use_threads=False):
        yield from batch.to_pylist()


def _holds_images(field: pa.Field, metadata: pq.FileMetaData) -> bool:
    """Whether a column is of bytes, or of records that have any: those of paths alone are read like other columns."""
    import pyarrow.types as kinds

    def is_binary(kind: pa.DataType) -> bool:
        return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_binary_view(kind))

    if is_binary(field.type):
        return True
    if not kinds.is_struct(field.type):
        return False
    place = field.type.get_field_index("bytes")
    return place >= 0 and is_binary(field.type.field(place).type) and not _all_null(f"{field.name}.bytes", metadata)


def _has_path(kind: pa.DataType) -> bool:
    import pyarrow.types as kinds

    return bool(kinds.is_struct(kind)) and kind.get_field_index("path") >= 0


def _all_null(leaf: str, metadata: pq.FileMetaData) -> bool:
    """Whether the file's statistics say that a column holds nothing."""
    places = [place for place in range(metadata.num_columns) if metadata.schema.column(place).path == leaf]
    for group, place in itertools.product(range(metadata.num_row_groups), places):
        chunk = metadata.row_group(group).column(place)
        counted = chunk.is_stats_set and chunk.statistics.has_null_count
        if not counted or chunk.statistics.null_count < chunk.num_values:
            return False
    return True


@contextmanager
def _opened(file: str) -> Iterator[pq.ParquetFile]:
    import pyarrow.parquet as pq

    with reading(file), _source(file) as source:
        metadata = _metadata(file, _stamp(file))
        with pq.ParquetFile(source, metadata=metadata, buffer_size=READ_BYTES, pre_buffer=False) as table:
            yield table


def _source(file: str) -> AbstractContextManager[Any]:
    """What pyarrow reads: a path, or an open file of the Hub that asks for no more than it is asked for."""
    if "://" not in file:
        return nullcontext(file)
    from fsspec.core import url_to_fs

    system, path = url_to_fs(file)
    opened: AbstractContextManager[Any] = system.open(path, "rb", cache_type="none")
    return opened


def _stamp(file: str) -> tuple[int, int]:
    """What tells one state of a file from the next; an address on the Hub has its commit in it."""
    if "://" in file:
        return 0, 0
    found = Path(file).stat()
    return found.st_size, found.st_mtime_ns


@functools.lru_cache(maxsize=64)
def _metadata(file: str, stamp: tuple[int, int]) -> pq.FileMetaData:
    """The end of a file, where its parts are listed: read once, not each time that it is opened."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _source(file) as source:
        try:
            return pq.ParquetFile(source).metadata
        except pa.ArrowInvalid as error:
            raise SourceError(
                f"expected a Parquet file, got {file}: {one_line(error, 120)}; fetch or write it again"
            ) from error


@functools.lru_cache(maxsize=64)
def _group_starts(file: str, stamp: tuple[int, int]) -> list[int]:
    metadata = _metadata(file, stamp)
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    return list(itertools.accumulate([0, *sizes[:-1]]))
