"""Reads the vectors of images that other programs have stored, with the names of the images, a part at a time.

Layouts, each as its program writes it: clip-retrieval 2 (`img_emb/*.npy` beside `metadata/*.parquet`), immich 1.133 and
later (a plain pg_dump of its PostgreSQL database, or its tables as CSV: `smart_search`, and `asset`, once `assets`), a
Parquet file or a folder of them, a Lance table, an .npy file with a file of names, and CSV or COPY text of names beside
vectors in pgvector's form, `[0.1,0.2]`.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import sqlite3
import tempfile
import tokenize
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from turkish_clip.atomic import temporary_folder
from turkish_clip.errors import InputError, is_disk_full, one_line, printable
from turkish_clip.photo import date_of

ROWS = 2048  # read at a time
# Columns that hold the names of images, the first that there is; compared in lower case.
NAME_COLUMNS = (
    "image_path originalpath path file_path filepath image_file file_name filename file image url uri name key id"
).split()
IMAGES_TABLES, VECTORS_TABLE = ("asset", "assets"), "smart_search"  # of immich
COPY = re.compile(r'COPY (?:"?\w+"?\.)?"?(?P<table>\w+)"? \((?P<columns>.*)\) FROM stdin;')
ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
ESCAPED = re.compile(r"\\([0-7]{1,3}|x[0-9a-fA-F]{1,2}|.)", re.DOTALL)
END = r"\."  # the line behind a table's rows
ARCHIVE = b"PGDMP"  # begins what pg_dump writes in its own format
FIELD_LIMIT = 1 << 24  # letters of one field of CSV
TEXTS = (".csv", ".tsv", ".txt", ".copy")
# What the readers of numpy, gzip, CSV, JSON and Arrow raise for damaged files, beside what they document.
DAMAGED = (ValueError, OSError, EOFError, OverflowError, RecursionError, SyntaxError, NotImplementedError)
DAMAGED_PARTS = (tokenize.TokenError, zlib.error, csv.Error)


class VectorSourceError(InputError):
    """Stored vectors that can't be read."""


@dataclass(frozen=True)
class VectorBatch:
    """Some of the vectors of a source.

    Attributes:
        names: of the images, as the source has them.
        vectors: (n, width) float32, as they are stored; a row of NaN where a name has none.
        taken: when each was taken, in local time, where the source says so.
        without_image: further vectors of the source that are left out, since it has no image of them, or in its bin.
    """

    names: list[str]
    vectors: NDArray[np.float32]
    taken: list[datetime | None]
    without_image: int = 0


@dataclass(frozen=True)
class VectorSource:
    """A source of vectors.

    Attributes:
        kind: what it is, for people.
        path: of the file or folder.
        read: begins to read it, from the start each time; `batches` is for others.
    """

    kind: str
    path: Path
    read: Callable[[], Iterator[VectorBatch]]

    def batches(self) -> Iterator[VectorBatch]:
        """Yields the batches, from the start each time.

        Raises:
            VectorSourceError: the source can't be read; also where that shows in the middle of it.
        """
        try:
            yield from self.read()
        except (*DAMAGED, *DAMAGED_PARTS) as error:
            if isinstance(error, InputError) or is_disk_full(error):
                raise
            raise VectorSourceError(
                f"expected vectors that can be read to the end in {self.path}, got {one_line(error)}; export them again"
            ) from error
        except sqlite3.Error as error:
            raise VectorSourceError(
                f"expected room for the paths of the images in {tempfile.gettempdir()}, got {one_line(error)}; free "
                "some, or name another folder with TMPDIR"
            ) from error


def open_source(
    path: str | Path,
    *,
    vectors_column: str | None = None,
    names_column: str | None = None,
    names: str | Path | None = None,
) -> VectorSource:
    """Finds out what a source is.

    Args:
        path: of a file or a folder.
        vectors_column: of a table; None takes the only one that holds lists of numbers.
        names_column: of a table, or of the file of names; None takes the first with a usual name.
        names: file of the names for an .npy file: text, a name a line, a JSON list, CSV with a header, or Parquet.

    Raises:
        VectorSourceError: it is of no known layout.
    """
    source = Path(path)
    if not source.exists():
        raise VectorSourceError(f"expected stored vectors at {source}, got nothing there; check the path")
    suffix = ".sql" if source.suffixes[-2:] == [".sql", ".gz"] else source.suffix.lower()
    if suffix == ".gz":
        suffix = Path(source.stem).suffix.lower()
    if (names is not None) != (suffix == ".npy"):
        if names is None:
            raise VectorSourceError(
                f"expected the images' names beside {source.name}, got none; add --names FILE: one name a line"
            )
        raise VectorSourceError(f"expected --names beside an .npy file alone, got it with {source.name}; leave it out")
    columns = _Columns(source, vectors_column, names_column)
    if suffix == ".npy" and names is not None:
        listed = Path(names)
        return VectorSource("vectors in an .npy file", source, lambda: _of_npy(source, listed, names_column))
    if source.is_dir() and any((source / "img_emb").glob("*.npy")):
        return VectorSource("a folder of clip-retrieval", source, lambda: _of_clip_retrieval(source, names_column))
    if source.is_dir() and (table := _lance_table(source)) is not None:
        return VectorSource("a Lance table", source, lambda: _of_arrow(_lance_batches(table, columns), columns))
    if parquet := [source] if suffix == ".parquet" else sorted(source.glob("*.parquet")):
        return VectorSource("Parquet", source, lambda: _of_arrow(_parquet_batches(parquet, columns), columns))
    if source.is_dir() and _immich_csv(source, (VECTORS_TABLE,)) is not None:
        return VectorSource("tables of immich", source, lambda: _of_immich(lambda: _csv_tables(source), source))
    if suffix in (".sql", ".dump", ".backup"):
        _check_dump(source)
        return VectorSource("a database dump of immich", source, lambda: _of_immich(lambda: _dumped(source), source))
    if source.is_file() and suffix in TEXTS:
        return VectorSource("a table of text", source, lambda: _of_text(source, vectors_column, names_column))
    raise _unknown(source)


def _unknown(source: Path) -> VectorSourceError:
    return VectorSourceError(
        "expected a folder of clip-retrieval, a dump or CSV of immich, Parquet, a Lance table, .npy with --names, or "
        f"lines of a path and a vector such as [0.1,0.2], got {source}; see turkish-clip index --help"
    )


# --- numbers in files of numpy ---


def _array(path: Path) -> NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (*DAMAGED, *DAMAGED_PARTS) as error:
        raise VectorSourceError(f"expected vectors in {path}, got {one_line(error)}; write it again") from error
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind != "f":
        shape = getattr(array, "shape", "an archive")
        dtype = getattr(array, "dtype", "several arrays")
        raise VectorSourceError(
            f"expected rows of floating-point numbers in {path}, got {shape} of {dtype}; write these"
        )
    return array


def _beside(path: Path, names: Iterator[str], of_names: Path) -> Iterator[VectorBatch]:
    """Yields the rows of an .npy file with their names.

    Raises:
        VectorSourceError: there are not as many of both.
    """
    array = _array(path)
    for start in range(0, len(array), ROWS):
        with np.errstate(over="ignore"):  # infinite ones are left out, and counted
            vectors = np.asarray(array[start : start + ROWS], np.float32)
        some = list(islice(names, len(vectors)))
        if len(some) < len(vectors):
            raise _unequal(path, len(array), of_names, start + len(some))
        yield VectorBatch(some, vectors, [None] * len(some))
    if more := sum(1 for _ in names):
        raise _unequal(path, len(array), of_names, len(array) + more)


def _unequal(path: Path, vectors: int, names: Path, count: int) -> VectorSourceError:
    return VectorSourceError(
        f"expected a name for each of the {vectors} vectors in {path}, got {count} in {names}; give the file that "
        "belongs to it"
    )


def _of_npy(path: Path, names: Path, column: str | None) -> Iterator[VectorBatch]:
    yield from _beside(path, _names_in(names, column), names)


def _of_clip_retrieval(folder: Path, column: str | None) -> Iterator[VectorBatch]:
    """Yields what clip-retrieval's inference writes: img_emb_0.npy beside metadata_0.parquet, and so on.

    Source: rom1504/clip-retrieval, clip_inference/writer.py, version 2.44.
    """
    for path in sorted((folder / "img_emb").glob("*.npy"), key=_number_of):
        metadata = folder / "metadata" / f"{path.stem.replace('img_emb', 'metadata')}.parquet"
        if not metadata.is_file():
            raise VectorSourceError(f"expected {metadata} beside {path.name}, got no file; copy the whole folder")
        yield from _beside(path, _names_in(metadata, column), metadata)


def _number_of(path: Path) -> tuple[int, str]:
    return int(re.sub(r"\D", "", path.stem) or 0), path.name


def _names_in(path: Path, column: str | None) -> Iterator[str]:
    """Yields the names in a file: text, a JSON list, CSV with a header, or Parquet."""
    if not path.is_file():
        raise VectorSourceError(f"expected a file of names at {path}, got no file; check the path")
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        file = _parquet(path)
        chosen = _name_column(path, list(file.schema_arrow.names), column)
        for batch in file.iter_batches(ROWS, columns=[chosen]):
            yield from ("" if name is None else str(name) for name in batch.column(0).to_pylist())
    elif suffix in (".csv", ".tsv"):
        with _text_of(path) as file:
            rows = csv.reader(file, delimiter="\t" if suffix == ".tsv" else ",")
            header = next(rows, [])
            place = header.index(_name_column(path, header, column))
            yield from (row[place] if place < len(row) else "" for row in rows if row)
    elif suffix == ".json":
        try:
            listed = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise VectorSourceError(f"expected a JSON list in {path}, got {one_line(error)}; write one") from error
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise VectorSourceError(f"expected a JSON list of names in {path}, got something else; write one")
        yield from listed
    else:
        with _text_of(path) as file:
            yield from (line.rstrip("\r\n") for line in file)


def _name_column(path: Path, names: Sequence[str], asked: str | None) -> str:
    """Returns the column of names that was asked for, else the first with a usual name."""
    if asked is not None:
        if asked not in names:
            raise VectorSourceError(f"expected a column {asked!r} in {path}, got {_listed(names)}; name one of these")
        return asked
    by_lower = {name.lower(): name for name in reversed(names)}
    found = next((by_lower[name] for name in NAME_COLUMNS if name in by_lower), None)
    if found is None:
        raise VectorSourceError(
            f"expected a column of names in {path}, got {_listed(names)}; name it with --names-column"
        )
    return found


def _listed(names: Sequence[str]) -> str:
    return printable(", ".join(names[:12])) + (" …" if len(names) > 12 else "") or "none"


# --- tables of Arrow ---


@dataclass(frozen=True)
class _Columns:
    """The columns of a table that are read."""

    path: Path
    vectors: str | None
    names: str | None

    def of(self, schema: Any) -> tuple[str, str]:
        """Returns the column of names and that of vectors.

        Raises:
            VectorSourceError: one is not there, or several could be meant.
        """
        import pyarrow as pa

        def holds_vectors(kind: Any) -> bool:
            is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
            return bool(is_list and pa.types.is_floating(kind.value_type))

        lists = [field.name for field in schema if holds_vectors(_storage(field.type))]
        if self.vectors is not None and self.vectors not in lists:
            raise VectorSourceError(
                f"expected a column {self.vectors!r} of vectors in {self.path}, got {_listed(lists)}; name one of these"
            )
        if self.vectors is None and len(lists) != 1:
            advice = "name it with --vectors-column" if lists else "lists of floating-point numbers are read"
            raise VectorSourceError(f"expected one column of vectors in {self.path}, got {_listed(lists)}; {advice}")
        texts = [f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
        if self.names is None and len(texts) == 1:
            return texts[0], self.vectors or lists[0]
        return _name_column(self.path, (self.names and schema.names) or texts, self.names), self.vectors or lists[0]


def _storage(kind: Any) -> Any:
    return getattr(kind, "storage_type", kind)


def _of_arrow(batches: Iterator[Any], columns: _Columns) -> Iterator[VectorBatch]:
    for batch in batches:
        names, vectors = columns.of(batch.schema)
        listed = ["" if name is None else str(name) for name in batch.column(names).to_pylist()]
        yield VectorBatch(listed, _matrix(batch.column(vectors), columns.path), [None] * len(listed))


def _matrix(column: Any, path: Path) -> NDArray[np.float32]:
    """Returns a column of lists of one width as (n, width); NaN where there is none."""
    lists = getattr(column, "storage", column)
    rows = lists.drop_null()
    fixed = getattr(rows.type, "list_size", None)
    widths = [fixed] if fixed is not None else np.unique(np.asarray(rows.value_lengths())).tolist()
    if len(widths) > 1:
        raise _other_widths(path, widths)
    there = np.asarray(lists.is_valid())
    matrix = np.full((len(lists), (widths or [0])[0]), np.nan, np.float32)
    if there.any():
        with np.errstate(over="ignore"):
            matrix[there] = np.asarray(rows.flatten(), np.float32).reshape(len(rows), -1)
    return matrix


def _other_widths(path: Path, widths: Sequence[int]) -> VectorSourceError:
    shown = ", ".join(map(str, widths[:4]))
    return VectorSourceError(f"expected vectors of one width in {path}, got {shown}; store those of one model")


def _parquet(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise VectorSourceError(f"expected Parquet in {path}, got {one_line(error)}; write it again") from error


def _parquet_batches(paths: Sequence[Path], columns: _Columns) -> Iterator[Any]:
    for path in paths:
        file = _parquet(path)
        yield from file.iter_batches(ROWS, columns=list(columns.of(file.schema_arrow)))


def _lance_table(folder: Path) -> Path | None:
    """Returns the folder of a Lance table: the folder itself, or the only table of a database in it."""
    if (folder / "_versions").is_dir():
        return folder
    tables = [path for path in sorted(folder.glob("*.lance")) if (path / "_versions").is_dir()]
    if len(tables) > 1:
        names = _listed([path.name for path in tables])
        raise VectorSourceError(f"expected one Lance table in {folder}, got {names}; name one of these: {tables[0]}")
    return tables[0] if tables else None


def _lance_batches(table: Path, columns: _Columns) -> Iterator[Any]:
    import lancedb

    if table.suffix != ".lance":
        raise VectorSourceError(f"expected a Lance table named ….lance, got {table}; rename it")
    try:
        opened = lancedb.connect(str(table.parent)).open_table(table.stem)
        chosen = list(columns.of(opened.schema))
        yield from opened.search().select(chosen).limit(max(1, opened.count_rows())).to_batches(batch_size=ROWS)
    except (RuntimeError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise VectorSourceError(f"expected a Lance table in {table}, got {one_line(error)}; check it") from error


# --- text of PostgreSQL ---


@contextmanager
def _text_of(path: Path) -> Iterator[Any]:
    """Opens a text file in UTF-8, compressed by gzip or not."""
    csv.field_size_limit(FIELD_LIMIT)
    opener: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            yield file
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, csv.Error) as error:
        raise VectorSourceError(f"expected text in UTF-8 in {path}, got {one_line(error)}; export it again") from error


def _numbers(text: str | None, path: Path) -> NDArray[np.float32] | None:
    """Returns a vector in pgvector's form; None where there is none."""
    if not text or not text.strip("[]{} \t"):
        return None
    try:
        with np.errstate(over="ignore"):
            return np.array(text.strip("[]{} \t").split(","), np.float32)
    except ValueError as error:
        raise VectorSourceError(
            f"expected a vector such as [0.1,0.2] in {path}, got {text!r:.60}; export it again"
        ) from error


def _batch(rows: Sequence[tuple[str, str | None, datetime | None]], path: Path) -> VectorBatch:
    """Returns rows of names, vectors as text, and dates as a batch."""
    vectors = [_numbers(text, path) for _, text, _ in rows]
    widths = sorted({len(vector) for vector in vectors if vector is not None})
    if len(widths) > 1:
        raise _other_widths(path, widths)
    matrix = np.full((len(rows), (widths or [0])[0]), np.nan, np.float32)
    for place, vector in enumerate(vectors):
        if vector is not None:
            matrix[place] = vector
    return VectorBatch([name for name, _, _ in rows], matrix, [taken for _, _, taken in rows])


def _of_text(path: Path, vectors: str | None, names: str | None) -> Iterator[VectorBatch]:
    """Yields the rows of CSV with a header, or of COPY text (tabs, without a header)."""
    with _text_of(path) as file:
        first = file.readline()
        by_tabs = "\t" in first and not first.startswith('"')
        lines = _chained(first, file)
        rows: Iterator[Any] = map(_unescaped, lines) if by_tabs else csv.reader(lines, strict=True)
        fields: list[str | None] = next(rows, [])  # a field in quotes may have several lines
        headless = [place for place, field in enumerate(fields) if (field or "").startswith("[")]
        if headless:
            others = [place for place, field in enumerate(fields) if place not in headless]
            paths = [place for place in others if re.search(r"[/\\.]", fields[place] or "")]
            if not others or (not paths and len(others) > 1):
                raise VectorSourceError(
                    f"expected a path and a vector in each line of {path}, got others; add a header"
                )
            at_name, at_vector = (paths or others)[0], headless[0]
            rows = _chained(fields, rows)
        else:
            header = [field or "" for field in fields]
            ahead: Any = next(rows, None)
            held = [
                header[p] for p, field in enumerate((ahead or [])[: len(header)]) if (field or "")[:1] in ("[", "{")
            ]
            if vectors is None and not held:
                raise _unknown(path)
            at_name = header.index(_name_column(path, header, names))
            if (vectors is None and len(held) != 1) or (vectors is not None and vectors not in header):
                raise VectorSourceError(
                    f"expected one column of vectors such as [0.1,0.2] in {path}, got {_listed(held)}; name it with "
                    "--vectors-column"
                )
            at_vector = header.index(vectors or held[0])
            rows = _chained(ahead, rows)
        read = ((_field(row, at_name) or "", _field(row, at_vector), None) for row in rows if row and row != [END])
        while some := list(islice(read, ROWS)):
            yield _batch(some, path)


def _field(row: Sequence[str | None], place: int) -> str | None:
    """Returns a field of a row; None if the row is too short, which counts as an image without a vector."""
    return row[place] if place < len(row) else None


def _chained(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _unescaped(line: str) -> list[str | None]:
    r"""Returns the fields of a line of COPY text.

    >>> _unescaped("a\\\\b\\tc\t\\N\n")
    ['a\\b\tc', None]
    """

    def letter(match: re.Match[str]) -> str:
        code = match[1]
        if code[0] in "01234567":
            return chr(int(code, 8))
        if code[0] == "x" and len(code) > 1:
            return chr(int(code[1:], 16))
        return ESCAPES.get(code, code)

    fields = line.rstrip("\r\n").split("\t")
    return [None if field == r"\N" else ESCAPED.sub(letter, field) if "\\" in field else field for field in fields]


Table = tuple[str, list[str], Iterator[Sequence[str | None]]]  # its name, its columns, and its rows


def _check_dump(path: Path) -> None:
    opener: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            head = file.read(len(ARCHIVE))
    except (OSError, EOFError, zlib.error) as error:
        raise VectorSourceError(f"expected a dump in {path}, got {one_line(error)}; export it again") from error
    if head == ARCHIVE:
        raise VectorSourceError(
            f"expected a plain dump, got pg_dump's own format in {path}; make it plain: pg_restore -f immich.sql {path}"
        )


def _dumped(path: Path) -> Iterator[Table]:
    """Yields the tables of a plain pg_dump (or pg_dumpall), each to be read before the next."""
    with _text_of(path) as file:
        for line in file:
            found = COPY.match(line) if line.startswith("COPY ") else None
            if found is not None:
                columns = [name.strip().strip('"') for name in found["columns"].split(",")]
                yield found["table"], columns, _copied(file, found["table"], path)


def _copied(file: Any, table: str, path: Path) -> Iterator[list[str | None]]:
    """Yields the rows of a table of a dump.

    Raises:
        VectorSourceError: the dump ends before the table does.
    """
    while (line := file.readline()).rstrip("\r\n") != END:
        if not line.endswith("\n"):
            raise VectorSourceError(
                f"expected a whole dump in {path}, got one that ends within the table {table}; copy or export it again"
            )
        yield _unescaped(line)


def _immich_csv(folder: Path, tables: Sequence[str]) -> Path | None:
    """Returns the CSV file of one of immich's tables."""
    files = [folder / f"{table}{end}" for table in tables for end in (".csv", ".csv.gz")]
    return next((file for file in files if file.is_file()), None)


def _csv_tables(folder: Path) -> Iterator[Table]:
    for names in (IMAGES_TABLES, (VECTORS_TABLE,)):
        path = _immich_csv(folder, names)
        if path is not None:
            with _text_of(path) as file:
                rows = csv.reader(file, strict=True)
                yield names[0], next(rows, []), rows


def _of_immich(tables: Callable[[], Iterator[Table]], path: Path) -> Iterator[VectorBatch]:
    """Yields the vectors of immich's smart_search with the paths of its assets, which are kept in a temporary file.

    Source: immich-app/immich, server/src/schema/tables/{asset,smart-search}.table.ts, versions 1.135.3 and 2.2.2.
    """
    with temporary_folder() as folder:
        assets = sqlite3.connect(str(folder / "assets.db"), isolation_level=None)
        try:
            assets.execute("PRAGMA journal_mode = OFF")
            assets.execute("CREATE TABLE asset (id TEXT PRIMARY KEY, path TEXT, taken TEXT) WITHOUT ROWID")
            found = False
            for name, columns, rows in _whole(tables(), path):
                if name in IMAGES_TABLES and "originalPath" in columns:
                    found = True
                    at = [columns.index(column) if column in columns else None for column in ("id", "originalPath")]
                    date = columns.index("localDateTime") if "localDateTime" in columns else None
                    gone = columns.index("deletedAt") if "deletedAt" in columns else None
                    _store(assets, rows, at, date, gone)
            if not found:
                raise VectorSourceError(
                    f"expected immich's table asset in {path}, with the columns id and originalPath, got none; export "
                    "it with its rows, as COPY lines"
                )
            found = False
            for name, columns, rows in _whole(tables(), path):
                if name == VECTORS_TABLE and {"assetId", "embedding"} <= set(columns):
                    found = True
                    yield from _joined(assets, rows, columns.index("assetId"), columns.index("embedding"), path)
            if not found:
                raise VectorSourceError(
                    f"expected immich's table smart_search in {path}, with the columns assetId and embedding, got "
                    "none; export it with its rows, as COPY lines"
                )
        finally:
            assets.close()


def _whole(tables: Iterator[Table], path: Path) -> Iterator[Table]:
    """Yields tables of which a row with too few fields is an error."""

    def rows_of(name: str, columns: list[str], rows: Iterator[Sequence[str | None]]) -> Iterator[Sequence[str | None]]:
        for number, row in enumerate(rows, 1):
            if len(row) < len(columns):
                raise VectorSourceError(
                    f"expected {len(columns)} fields in row {number} of immich's table {name} in {path}, got "
                    f"{len(row)}; export it again"
                )
            yield row

    for name, columns, rows in tables:
        yield name, columns, rows_of(name, columns, rows)


def _store(
    assets: sqlite3.Connection,
    rows: Iterator[Sequence[str | None]],
    at: Sequence[int | None],
    date: int | None,
    gone: int | None,
) -> None:
    """Writes the ids, paths and dates of assets, those in the bin aside."""
    place, path = (0 if one is None else one for one in at)
    kept = (
        (row[place], row[path], None if date is None else row[date])
        for row in rows
        if row[path] and (gone is None or not row[gone])
    )
    while some := list(islice(kept, ROWS)):
        assets.execute("BEGIN")
        assets.executemany("INSERT OR REPLACE INTO asset VALUES (?, ?, ?)", some)
        assets.execute("COMMIT")


def _joined(
    assets: sqlite3.Connection, rows: Iterator[Sequence[str | None]], at: int, embedding: int, path: Path
) -> Iterator[VectorBatch]:
    """Yields vectors with the paths and dates of their assets; those of assets that are gone are left out."""
    without = 0
    while some := list(islice(rows, ROWS // 4)):
        marks = ",".join("?" * len(some))
        known = assets.execute(
            f"SELECT id, path, taken FROM asset WHERE id IN ({marks})",  # noqa: S608 - question marks alone
            [row[at] for row in some],
        )
        of = {id_: (name, date_of(taken)) for id_, name, taken in known}
        found = [(of[row[at]], row[embedding]) for row in some if row[at] in of]
        without += len(some) - len(found)
        if found:
            batch = _batch([(name, text, taken) for (name, taken), text in found], path)
            yield replace(batch, without_image=without)
            without = 0
    if without:
        yield VectorBatch([], np.empty((0, 0), np.float32), [], without)
