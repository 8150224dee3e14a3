"""Vectors that others have computed, in the layouts in which they are passed on, read block by block.

These are clip-retrieval's folder (img_emb/img_emb_0.npy … beside metadata/metadata_0.parquet …), a .npy with a list of
names, and Parquet tables with a column of vectors. Nothing but one block of rows is in memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from training.data.columns import IMAGE_COLUMNS
from training.data.lazy_images import one_line_errors
from training.data.readers.parquet import READ_BYTES
from training.data.readers.tables import is_table, table_records
from training.embeddings.manifest import EmbeddingsError
from training.run.config import ImportConfig
from turkish_clip.errors import one_line

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

IMAGE_FOLDER, METADATA_FOLDER = "img_emb", "metadata"  # of clip-retrieval
TEXT_FOLDERS = "text_emb*"
ID_COLUMNS = ("image_id", *IMAGE_COLUMNS)
TEXT_COLUMNS = ("text", "caption")
NAMES_AT_ONCE = 8192
SAMPLE_ROWS = 4096  # whose commonest width is taken for that of a table


@dataclass(frozen=True)
class Block:
    """Some rows of a file of vectors, as they are there.

    Attributes:
        start: number of the first row, from 0.
        names: of the n rows; None for a missing one.
        contents: what stands in the column of hashes; empty without such a column.
        vectors: (n, dim) float16 or float32; zeros where a row has another width.
        widths: (n,) int64, as found; -1 for a row without a vector.
    """

    start: int
    names: list[Any]
    contents: list[Any]
    vectors: NDArray[np.floating]
    widths: NDArray[np.int64]


@dataclass(frozen=True)
class Columns:
    """The columns of a table that hold names and, if any, hashes and vectors; empty means none."""

    name: str
    content: str = ""
    vector: str = ""


@dataclass(frozen=True)
class VectorFile:
    """A file of vectors and the names of its rows.

    Attributes:
        path: a .npy, or a Parquet table that holds the names as well.
        names: the table or text file of a .npy's names.
        columns: of the table; the column of names is empty for a text file.
        rows: number of vectors.
    """

    path: Path
    names: Path
    columns: Columns
    rows: int

    def read_names(self) -> Iterator[Any]:
        """Yields the names of all rows; None for a missing one.

        Raises:
            EmbeddingsError: there are more or fewer names than vectors.
        """
        count = 0
        for name, _ in _named(self.names, Columns(self.columns.name)):
            count += 1
            yield name
        if count != self.rows:
            raise EmbeddingsError(
                f"expected a name for each of {self.rows} vectors of {self.path}, got {count} in {self.names}; give "
                "the list that belongs to it"
            )

    def blocks(self, size: int, dim: int) -> Iterator[Block]:
        """Yields the rows in order, `size` at a time.

        Args:
            size: rows of a block; the last one may have fewer.
            dim: width of the vectors.
        """
        if self.columns.vector:
            yield from self._blocks_of_table(size, dim)
            return
        named = _named(self.names, self.columns)
        for start in range(0, self.rows, size):
            stored = open_npy(self.path)[start : start + size]  # mapped anew, so that pages read before are let go
            part = list(islice(named, len(stored)))
            yield Block(
                start,
                [name for name, _ in part],
                [content for _, content in part] if self.columns.content else [],
                _as_float(np.array(stored)),
                np.full(len(stored), dim, np.int64),
            )

    def _blocks_of_table(self, size: int, dim: int) -> Iterator[Block]:
        names = list(dict.fromkeys(filter(None, vars(self.columns).values())))
        start = 0
        with one_line_errors(self.path), _opened(self.path) as table:
            batches = table.iter_batches(min(size, NAMES_AT_ONCE), columns=names, use_threads=False)
            for rows in _in_blocks(batches, size):
                vectors, widths = _matrix(rows.column(self.columns.vector), dim)
                contents = rows.column(self.columns.content).to_pylist() if self.columns.content else []
                yield Block(start, rows.column(self.columns.name).to_pylist(), contents, vectors, widths)
                start += len(rows)

    def width(self) -> int:
        """Returns the width of the vectors; of a table the commonest one among its first rows.

        Raises:
            EmbeddingsError: a table begins without any vector.
        """
        if not self.columns.vector:
            return int(open_npy(self.path).shape[1])
        import pyarrow as pa

        with one_line_errors(self.path), _opened(self.path) as table:
            batch = next(table.iter_batches(SAMPLE_ROWS, columns=[self.columns.vector], use_threads=False), None)
        widths = _widths(pa.chunked_array([batch.column(0)])) if batch is not None else np.empty(0, np.int64)
        if not (widths > 0).any():
            raise EmbeddingsError(
                f"expected vectors in column {self.columns.vector!r} of {self.path}, got none in its first rows; name "
                "another column with --vector_column"
            )
        return int(np.bincount(widths[widths > 0]).argmax())

    def is_half(self) -> bool:
        """Returns whether the numbers are float16."""
        if not self.columns.vector:
            return bool(open_npy(self.path).dtype.itemsize == np.dtype(np.float16).itemsize)
        with one_line_errors(self.path), _opened(self.path) as table:
            return str(table.schema_arrow.field(self.columns.vector).type.value_type) == "halffloat"


def image_files(config: ImportConfig) -> list[VectorFile]:
    """Returns the files of vectors of images that the configuration names, in order.

    Raises:
        EmbeddingsError: there are none, a list of ids is missing or of another length, or a column is missing.
    """
    folder = Path(config.vectors)
    named = (config.id_column or config.image_column,) if config.id_column or config.image_column else ()
    option = "--id_column"
    if (folder / IMAGE_FOLDER).is_dir():
        arrays = _numbered(folder / IMAGE_FOLDER, "*.npy")
        if not arrays:
            raise EmbeddingsError(f"expected .npy files in {folder / IMAGE_FOLDER}, got none; copy them there")
        pairs = [(path, _beside(path, [folder / METADATA_FOLDER])) for path in arrays]
        return [_npy_file(*pair, named or ID_COLUMNS, option, config.content_column) for pair in pairs]
    return _files(folder, config.ids, "--ids", named or ID_COLUMNS, option, config.vector_column, config.content_column)


def text_files(config: ImportConfig) -> list[VectorFile]:
    """Returns the files of vectors of texts that the configuration names, in order; [] if it names none.

    Raises:
        EmbeddingsError: as `image_files` does.
    """
    if not config.text_vectors:
        return []
    folder = Path(config.text_vectors)
    named, option = (config.text_column,) if config.text_column else TEXT_COLUMNS, "--text_column"
    if folder.is_dir() and (arrays := _numbered(folder, "*.npy")):
        places = [folder, folder.parent / METADATA_FOLDER]
        return [_npy_file(path, _beside(path, places), named, option, "") for path in arrays]
    return _files(folder, config.texts, "--texts", named, option, config.text_vector_column, "")


def unused_texts(config: ImportConfig) -> list[Path]:
    """Returns the folders of text vectors beside those of images, where the configuration names none."""
    return [] if config.text_vectors else sorted(Path(config.vectors).glob(TEXT_FOLDERS))


def _files(
    path: Path, names: str, names_option: str, named: Sequence[str], option: str, vector_column: str, content: str
) -> list[VectorFile]:
    """Returns a .npy with its list of names, or the Parquet tables of a path."""
    if path.suffix == ".npy" and path.is_file():
        if not names:
            raise EmbeddingsError(
                f"expected the names of the rows of {path}, got none; add {names_option} FILE, one a line"
            )
        return [_npy_file(path, Path(names), named, option, content)]
    tables = _numbered(path, "*.parquet") if path.is_dir() else [path] if path.suffix == ".parquet" else []
    if not tables or not all(table.is_file() for table in tables):
        raise EmbeddingsError(
            f"expected a .npy, a Parquet table, a folder of tables, or clip-retrieval's {IMAGE_FOLDER}/ and "
            f"{METADATA_FOLDER}/, got {path}; check the path"
        )
    files = []
    for table in tables:
        with one_line_errors(table), _opened(table) as opened:
            schema, rows = opened.schema_arrow, opened.metadata.num_rows
        columns = Columns(
            _existing(named, schema.names, table, option),
            _existing((content,), schema.names, table, "--content_column") if content else "",
            _vector_column(schema, vector_column, table),
        )
        files.append(VectorFile(table, table, columns, rows))
    return files


def _npy_file(path: Path, names: Path, named: Sequence[str], option: str, content: str) -> VectorFile:
    """Returns a .npy with the table or text file of its names."""
    if not names.is_file():
        raise EmbeddingsError(f"expected the names of the rows of {path} in {names}, got no file; name one")
    columns = Columns("")
    if is_table(names) and names.suffix != ".txt":
        found = _columns_of(names)
        columns = Columns(
            _existing(named, found, names, option),
            _existing((content,), found, names, "--content_column") if content else "",
        )
    elif content:
        raise EmbeddingsError(
            f"expected a table with the column {content!r}, got the list {names}; give a table, or leave "
            "--content_column out"
        )
    return VectorFile(path, names, columns, len(open_npy(path)))


def open_npy(path: Path) -> NDArray[Any]:
    """Maps a .npy of vectors, (rows, width) of floats, into memory.

    Raises:
        EmbeddingsError: it is damaged, or holds something else.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise EmbeddingsError(f"expected a .npy of vectors, got {one_line(error)} in {path}; copy it again") from error
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind != "f":
        found = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else "several arrays"
        raise EmbeddingsError(f"expected float16 or float32 of shape (rows, width), got {found} in {path}; convert it")
    return array


def _numbered(folder: Path, pattern: str) -> list[Path]:
    """Returns the files of a folder, those with numbers at the end of their names by number."""
    return sorted(folder.glob(pattern), key=lambda path: (_number(path)[1], path.name))


def _number(path: Path) -> tuple[str, int]:
    """Returns the text and the number at the end of a file's name, 0 where there is none: img_emb_07 → img_emb, 7."""
    match = re.fullmatch(r"(.*?)_?(\d+)", path.stem)
    return (match[1], int(match[2])) if match else (path.stem, 0)


def _beside(path: Path, folders: Iterable[Path]) -> Path:
    """Returns the Parquet table that has the number of a .npy, from the first folder that has one."""
    folders = list(folders)
    for folder in folders:
        for table in _numbered(folder, "*.parquet"):
            if _number(table)[1] == _number(path)[1]:
                return table
    raise EmbeddingsError(
        f"expected a Parquet table numbered as {path} in {' or '.join(map(str, folders))}, got none; copy it there"
    )


def _existing(candidates: Sequence[str], names: Sequence[str], path: Path, option: str) -> str:
    """Returns the first candidate that is a column of a table."""
    for name in candidates:
        if name in names:
            return name
    raise EmbeddingsError(
        f"expected a column {' or '.join(candidates)} in {path}, got {', '.join(names)}; name it with {option}"
    )


def _vector_column(schema: pa.Schema, chosen: str, path: Path) -> str:
    """Returns the chosen column, or the only one of lists of numbers."""
    import pyarrow.types as kinds

    def holds_vectors(kind: pa.DataType) -> bool:
        is_list = kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind)
        return bool(is_list and kinds.is_floating(kind.value_type))

    found = [field.name for field in schema if holds_vectors(field.type)]
    if chosen in found or (not chosen and len(found) == 1):
        return chosen or found[0]
    expected = f"the column {chosen!r} of float vectors" if chosen else "one column of float vectors"
    raise EmbeddingsError(
        f"expected {expected} in {path}, got {', '.join(found) or 'none'}; name it with --vector_column "
        "(--text_vector_column for texts)"
    )


def _columns_of(table: Path) -> list[str]:
    if table.suffix.lower() == ".parquet":
        with one_line_errors(table), _opened(table) as opened:
            return list(opened.schema_arrow.names)
    first = next(table_records(table, confined=False), None)
    return list(first.values) if first is not None else []


def _named(path: Path, columns: Columns) -> Iterator[tuple[Any, Any]]:
    """Yields the name and the hash of each row of a table, or each line of a text file."""
    if not columns.name:
        try:
            with path.open(encoding="utf-8-sig", newline="\n") as file:
                yield from ((line.rstrip("\r\n"), None) for line in file)
        except UnicodeDecodeError as error:
            raise EmbeddingsError(f"expected UTF-8 in {path}, got other bytes; convert it") from error
        return
    wanted = list(dict.fromkeys(filter(None, (columns.name, columns.content))))
    if path.suffix.lower() != ".parquet":
        for record in table_records(path, confined=False):
            yield record.values.get(columns.name), record.values.get(columns.content)
        return
    with one_line_errors(path), _opened(path) as table:
        for batch in table.iter_batches(NAMES_AT_ONCE, columns=wanted, use_threads=False):
            names = batch.column(columns.name).to_pylist()
            contents = batch.column(columns.content).to_pylist() if columns.content else [None] * len(names)
            yield from zip(names, contents)


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, buffer_size=READ_BYTES, pre_buffer=False) as table:
        yield table


def _in_blocks(batches: Iterable[pa.RecordBatch], size: int) -> Iterator[pa.Table]:
    """Yields tables of `size` rows each, the last with fewer, from batches of at most as many."""
    import pyarrow as pa

    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        if rows + len(batch) > size:
            first = batch.slice(0, size - rows)
            yield pa.Table.from_batches([*waiting, first])
            waiting, rows, batch = [], 0, batch.slice(len(first))
        waiting.append(batch)
        rows += len(batch)
        if rows == size:
            yield pa.Table.from_batches(waiting)
            waiting, rows = [], 0
    if rows:
        yield pa.Table.from_batches(waiting)


def _widths(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Returns the number of values in each list of a column, (n,) int64; -1 for null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lengths = pc.list_value_length(column).cast(pa.int64()).fill_null(-1)
    return np.asarray(lengths.to_numpy())


def _matrix(column: pa.ChunkedArray, dim: int) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    """Returns the lists of a column as (n, dim) float16 or float32, zeros for other widths; and their widths, (n,)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    widths = _widths(column)
    flat = pc.list_flatten(column)
    if flat.null_count:  # a missing number is as bad as NaN
        flat = flat.cast(pa.float32()).fill_null(float("nan"))
    values = _as_float(flat.to_numpy())
    good = widths == dim
    if good.all():
        return values.reshape(-1, dim), widths
    vectors = np.zeros((len(widths), dim), values.dtype)
    vectors[good] = values[np.repeat(good, np.maximum(widths, 0))].reshape(-1, dim)
    return vectors, widths


def _as_float(values: NDArray[Any]) -> NDArray[np.floating]:
    """Returns floats as float16 or float32 of this machine's byte order."""
    half = values.dtype.itemsize == np.dtype(np.float16).itemsize
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinity, which is skipped
        return values.astype(np.float16 if half else np.float32, copy=False)
