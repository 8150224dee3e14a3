"""Rows out of CSV, TSV, JSONL and Parquet files and Hub data sets, each with the way to its picture."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turkish_clip.errors import InputError
from turkish_clip.images import ImageError

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
PARQUET_ROWS = 512  # of a Parquet file in memory at once: pictures may stand in them


class TableError(InputError):
    """A table that does not read as one."""


@dataclass(frozen=True)
class Stored:
    """A picture inside a table or data set, read when it is wanted."""

    dataset: Any
    row: int
    column: str

    def read(self) -> bytes | Path:
        """The bytes of the file, or its path."""
        value = self.dataset[self.row][self.column]
        if value is None:
            raise ImageError(f"row {self.row + 1}", "no picture")
        return value["bytes"] if value["bytes"] is not None else Path(value["path"])


@dataclass(frozen=True)
class Inline:
    """The bytes of a picture that stand in a table's cell."""

    content: bytes

    def read(self) -> bytes:
        """The bytes of the file."""
        return self.content


@dataclass(frozen=True)
class Record:
    """One row of a source, before its columns have a meaning.

    Attributes:
        values: column → value; a picture inside the table is a `Stored`.
        folder: where a relative path starts, or None where there are no files.
        confined: whether a path may not leave the folder.
        number: the row's number, from 1, for messages and as the name of a picture that has none.
        split: the split where the source's layout gives it.
        prefix: put before the picture's path to make its name.
    """

    values: dict[str, Any]
    folder: Path | None
    confined: bool
    number: int
    split: str = ""
    prefix: str = ""

    def name(self, column: str) -> str:
        """The picture's path as written, or the row's number."""
        value = self.values.get(column)
        if isinstance(value, dict):
            value = value.get("path")
        return (
            value if isinstance(value, str) and value else f"{self.split}{'-' if self.split else ''}{self.number:08d}"
        )

    def image(self, column: str) -> Path | Stored | Inline | str:
        """The way to the picture, or why there is none."""
        value = self.values.get(column)
        if isinstance(value, Stored):
            return value
        if isinstance(value, dict):  # the Hub's own layout of a picture in Parquet
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return Inline(value)
        if not isinstance(value, str) or not value:
            return "no picture named"
        if self.folder is None:
            return "a path in a data set without files"
        if value.startswith(("http://", "https://")):
            return "a URL, not a file"
        path = self.folder / value
        if self.confined and not path.resolve().is_relative_to(self.folder.resolve()):
            return "a path that leaves the folder"
        return path if path.is_file() else "no file"


def is_table(path: Path) -> bool:
    return path.suffix.lower() in TABLE_SUFFIXES


def table_records(path: Path, *, confined: bool) -> Iterator[Record]:
    """Reads a table file, UTF-8 with or without a byte order mark.

    Raises:
        TableError: not UTF-8, or a line that is not JSON; names the place.
    """
    read = {".csv": _csv_rows, ".tsv": _csv_rows, ".jsonl": _jsonl_rows, ".parquet": _parquet_rows}
    for number, values in enumerate(read[path.suffix.lower()](path), start=1):
        yield Record(values, path.parent, confined, number)


def hub_records(name: str, config: str | None, revision: str | None) -> Iterator[Record]:
    """Reads a data set of the Hub (or of the local cache, offline), pictures left undecoded.

    Raises:
        TableError: it can't be had; says why and what else `captions` may be.
    """
    from datasets import DatasetDict, Image, load_dataset

    try:
        loaded = load_dataset(name, config, revision=revision)
    except Exception as error:  # the client raises its own, the network's and the file system's errors alike
        reason = " ".join(str(error).split())[:200]
        raise TableError(
            f"expected a folder, a table or a Hub data set, got {name!r}: {type(error).__name__}: {reason}; "
            "check the name and the connection"
        ) from error
    splits = loaded if isinstance(loaded, DatasetDict) else DatasetDict({"": loaded})
    for split, dataset in splits.items():
        pictures = [column for column, feature in dataset.features.items() if isinstance(feature, Image)]
        for column in pictures:
            dataset = dataset.cast_column(column, Image(decode=False))
        texts = dataset.remove_columns(pictures)
        rows: Iterator[dict[str, Any]] = iter(texts) if texts.column_names else iter([{}] * len(dataset))
        for number, values in enumerate(rows, start=1):
            stored = {column: Stored(dataset, number - 1, column) for column in pictures}
            yield Record({**values, **stored}, None, True, number, split=str(split))


def _csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            names = reader.fieldnames or []
            if len(names) == 1 and ";" in names[0]:
                raise TableError(
                    f"expected columns parted by {delimiter!r}, got {names[0]!r} in {path}; save it with commas"
                )
            for row in reader:
                if None in row:
                    raise TableError(
                        f"expected {len(names)} columns, got {len(names) + len(row[None])} in {path}, line "
                        f"{reader.line_num}; put captions that hold {delimiter!r} in double quotes"
                    )
                yield row
    except csv.Error as error:
        raise TableError(f"expected a table, got {error} in {path}, line {reader.line_num}; mend that line") from error
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from error


def _jsonl_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise TableError(
                        f"expected one JSON object a line, got {line.strip()[:60]!r} in {path}, line {number}; mend it"
                    ) from error
                if not isinstance(row, dict):
                    raise TableError(f"expected a JSON object, got {line.strip()[:60]!r} in {path}, line {number}")
                yield row
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from error


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise TableError(f"expected a Parquet file, got {path}: {' '.join(str(error).split())[:120]}") from error
    for batch in table.iter_batches(batch_size=PARQUET_ROWS):
        yield from batch.to_pylist()


def _not_utf8(path: Path, error: UnicodeDecodeError) -> TableError:
    found = error.object[error.start : error.start + 1].hex()
    return TableError(
        f"expected UTF-8, got the byte 0x{found} in {path}; if it was saved in the Turkish Windows code page, convert "
        f"it: iconv -f WINDOWS-1254 -t UTF-8 {path.name} > utf8-{path.name}"
    )
