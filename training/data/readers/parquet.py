"""A reader of Parquet tables, on disk or on the Hub, that leaves images in the file until they are needed."""

from __future__ import annotations

import bisect
import functools
import itertools
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.data.cells import decoded_image, is_base64_image
from training.data.image_files import resolve_image_path
from training.data.lazy_images import StreamedImage, one_line_errors
from training.data.samples import Record
from training.data.splits import SplitMeanings, group_of, splits_of_files
from training.run.source import SourceError
from turkish_clip.errors import one_line
from turkish_clip.images import ImageError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

IMAGES_AT_ONCE = 16  # in a batch of the image column
ROWS_AT_ONCE = 1024  # in a batch of the other columns
LANGUAGES = ("tr", "turkish")  # which say nothing in the name of a file
MAX_LISTED = 5  # folders in a message
READ_BYTES = 4 << 20  # in one request; by default pyarrow reads a row group's whole column


@dataclass(frozen=True)
class ParquetImageStore:
    """A column of images in a Parquet file.

    Attributes:
        file: a path, or an address on the Hub (hf://…).
        column: its name; it holds bytes, or records of bytes and path.
        folder: what paths in cells are relative to; empty where there are no files beside the table.
        confined: whether paths that leave the folder are refused.
    """

    file: str
    column: str
    folder: str = ""
    confined: bool = True

    def __str__(self) -> str:
        return self.file

    @property
    def is_remote(self) -> bool:
        return "://" in self.file

    def start(self, number: int) -> int:
        """Returns the first row of the row group that holds a row."""
        starts = self._starts()
        return starts[bisect.bisect_right(starts, number) - 1]

    def cells(self, start: int) -> Iterator[Any]:
        first = self._starts().index(start)
        with _opened(self.file) as table:
            for group in range(first, table.num_row_groups):
                for batch in table.iter_batches(
                    IMAGES_AT_ONCE, row_groups=[group], columns=[self.column], use_threads=False
                ):
                    yield from batch.column(0).to_pylist()

    def _starts(self) -> list[int]:
        with one_line_errors(self.file):
            return _group_starts(self.file, _stamp(self.file))

    def size(self) -> int:
        return _stamp(self.file)[0]

    def image(self, cell: Any, number: int) -> bytes | Path:
        """Returns the bytes in a cell, or the path of the file that it names.

        Args:
            cell: bytes, or a record of bytes and path.
            number: its row, from 0, for the message.

        Raises:
            ImageError: it holds neither, or a path that may not be opened.
        """
        if isinstance(cell, dict):
            cell = cell.get("bytes") or cell.get("path")
        if is_base64_image(cell):
            cell = decoded_image(cell)
        if isinstance(cell, bytes) and cell:
            return cell
        if not isinstance(cell, str) or not cell:
            raise ImageError(f"row {number + 1} of {self.file}", "no image")
        path = resolve_image_path(Path(self.folder) if self.folder else None, cell, confined=self.confined)
        if isinstance(path, str):
            raise ImageError(cell, path)
        return path


def parquet_rows(file: str, folder: Path | None, *, confined: bool, paths_are_names: bool) -> Iterator[dict[str, Any]]:
    """Yields the rows of a Parquet file as column → value, each image as a `StreamedImage` without its bytes.

    Args:
        file: a path, or an address on the Hub (hf://…).
        folder: what paths in cells are relative to; None where there are no files beside the table.
        confined: whether paths that leave the folder are refused.
        paths_are_names: whether the path beside an image's bytes is its name; files of one data set may repeat names.

    Raises:
        SourceError: the file is not a Parquet file, or can't be read.
    """
    import pyarrow as pa

    with _opened(file) as table:
        names = table.schema_arrow.names
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise SourceError(f"expected each column once in {file}, got {twice!r} twice; rename one of them")
        images = {field.name: field.type for field in table.schema_arrow if _holds_images(field, table.metadata)}
        images |= {name: pa.string() for name in _base64_columns(table, file)}
        stores = {name: ParquetImageStore(file, name, str(folder or ""), confined) for name in images}
        with_path = [name for name, kind in images.items() if paths_are_names and _has_path(kind)]
        columns = [name for name in names if name not in images]
        columns += [f"{name}.path" for name in with_path]
        number = 0
        for group in range(table.num_row_groups):
            for values in _group_rows(table, group, columns):
                paths = {name: (values[name] or {}).get("path") or "" for name in with_path}
                yield values | {
                    name: StreamedImage(store, number, paths.get(name, "")) for name, store in stores.items()
                }
                number += 1


def _base64_columns(table: pq.ParquetFile, file: str) -> list[str]:
    """Returns the columns of text whose first cell is an image as base64; none of a file on the Hub, unread."""
    import pyarrow.types as kinds

    texts = [
        field.name
        for field in table.schema_arrow
        if kinds.is_string(field.type) or kinds.is_large_string(field.type) or kinds.is_string_view(field.type)
    ]
    if "://" in file or not texts or not table.metadata.num_rows:
        return []
    first = next(table.iter_batches(1, columns=texts, use_threads=False)).to_pylist()[0]
    return [name for name in texts if is_base64_image(first[name])]


def parquet_folder_records(folder: Path, names: Sequence[str], meanings: SplitMeanings) -> Iterator[Record]:
    """Reads the Parquet files of a folder in the Hub's layout; rows without a name are numbered within their split.

    Args:
        folder: the folder.
        names: their relative paths.
        meanings: what names of splits mean in the source.

    Raises:
        SourceError: a file is no Parquet file, or has no split while others are named for training; or several folders
            have files of one split, as the configurations of a data set do.
    """
    splits = splits_of_files([name.removesuffix(".parquet") for name in names], meanings)
    _check_configurations(folder, names, splits, meanings)
    order = {"train": 0, "validation": 1, "test": 2}
    numbers: Counter[str] = Counter()
    for _, split, name in sorted(
        (order.get(meanings.known(split), 0), split, name) for split, name in zip(splits, names)
    ):
        for values in parquet_rows(str(folder / name), folder, confined=True, paths_are_names=False):
            numbers[split] += 1
            yield Record(values, folder, True, numbers[split], split=split or meanings.own or "train")


def _check_configurations(folder: Path, names: Sequence[str], splits: Sequence[str], meanings: SplitMeanings) -> None:
    """Refuses folders that are configurations of one data set: tr/train-0.parquet beside en/train-0.parquet.

    Folders in that of a split are none, nor are those that are numbered, or named data or the like.

    Args:
        folder: the folder.
        names: the relative paths of its files.
        splits: for each file the name of its split; empty where it has none.
        meanings: what names of splits mean in the source.

    Raises:
        SourceError: there are several.
    """
    found: dict[str, dict[str, None]] = {}
    for name, split in zip(names, splits):
        if split:
            parts = list(itertools.takewhile(lambda part: not meanings.known(part), name.split("/")[:-1]))
            named = (place for place, part in enumerate(parts) if group_of(part) or part.lower() in LANGUAGES)
            own = next(named, None)
            found.setdefault(split, {})["" if own is None else "/".join(parts[: own + 1])] = None
    for split, folders in found.items():
        if len(folders) > 1:
            listed = ", ".join(name or "the folder itself" for name in list(folders)[:MAX_LISTED])
            chosen = shlex.quote(str(folder / next(filter(None, folders))))
            more = " …" if len(folders) > MAX_LISTED else ""
            raise SourceError(
                f"expected Parquet files of one data set in {folder}, got the split {split} in {listed}{more}, which "
                f"look like configurations; choose one, as with --captions {chosen}, or give several as sources"
            )


def _group_rows(table: pq.ParquetFile, group: int, columns: list[str]) -> Iterator[dict[str, Any]]:
    if not columns:
        yield from ({} for _ in range(table.metadata.row_group(group).num_rows))
        return
    for batch in table.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=columns, use_threads=False):
        yield from batch.to_pylist()


def _holds_images(field: pa.Field, metadata: pq.FileMetaData) -> bool:
    """Returns whether a column holds bytes or records with bytes; records of paths are read like other columns."""
    import pyarrow.types as kinds

    def is_binary(kind: pa.DataType) -> bool:
        return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_binary_view(kind))

    if is_binary(field.type):
        return True
    if not kinds.is_struct(field.type):
        return False
    index = field.type.get_field_index("bytes")
    return index >= 0 and is_binary(field.type.field(index).type) and not _all_null(f"{field.name}.bytes", metadata)


def _has_path(kind: pa.DataType) -> bool:
    import pyarrow.types as kinds

    return bool(kinds.is_struct(kind)) and kind.get_field_index("path") >= 0


def _all_null(leaf: str, metadata: pq.FileMetaData) -> bool:
    """Returns whether the file's statistics say that a column holds nulls only."""
    columns = [number for number in range(metadata.num_columns) if metadata.schema.column(number).path == leaf]
    for group, number in itertools.product(range(metadata.num_row_groups), columns):
        chunk = metadata.row_group(group).column(number)
        counted = chunk.is_stats_set and chunk.statistics.has_null_count
        if not counted or chunk.statistics.null_count < chunk.num_values:
            return False
    return True


@contextmanager
def _opened(file: str) -> Iterator[pq.ParquetFile]:
    import pyarrow.parquet as pq

    with one_line_errors(file), _source(file) as source:
        metadata = _metadata(file, _stamp(file))
        with pq.ParquetFile(source, metadata=metadata, buffer_size=READ_BYTES, pre_buffer=False) as table:
            yield table


def _source(file: str) -> AbstractContextManager[Any]:
    """Returns what pyarrow reads: the path, or an open file of the Hub that requests only the bytes pyarrow needs."""
    if "://" not in file:
        return nullcontext(file)
    from fsspec.core import url_to_fs

    system, path = url_to_fs(file)
    opened: AbstractContextManager[Any] = system.open(path, "rb", cache_type="none")
    return opened


def _stamp(file: str) -> tuple[int, int]:
    """Returns a file's size in bytes and modification time in ns; zeros on the Hub, where addresses have the commit."""
    if "://" in file:
        return 0, 0
    status = Path(file).stat()
    return status.st_size, status.st_mtime_ns


@functools.lru_cache(maxsize=64)
def _metadata(file: str, stamp: tuple[int, int]) -> pq.FileMetaData:
    """Returns a file's metadata; read once for each `stamp`, not each time that the file is opened."""
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
