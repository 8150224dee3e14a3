"""Rows out of CSV, TSV, JSONL and Parquet files and Hub data sets, each with the way to its picture."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from turkish_clip.errors import InputError, one_line
from turkish_clip.images import ImageError

PICTURE_COLUMN = "__image__"  # where a source's layout, not a name, says which part is the picture
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


class TableError(InputError):
    """A table that does not read as one."""


class Picture:
    """The way to a picture that is no file of its own: `read()` gives the bytes of the file, or its path."""

    def read(self) -> bytes | Path:
        """The bytes of the file, or its path.

        Raises:
            ImageError: there is none.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Stored(Picture):
    """A picture inside a data set, read when it is wanted."""

    dataset: Any
    row: int
    column: str

    def read(self) -> bytes | Path:
        """The bytes of the file, or its path."""
        value = self.dataset[self.row][self.column]
        if isinstance(value, dict):
            value = value["path"] if value["bytes"] is None else value["bytes"]
        if not value:
            raise ImageError(f"row {self.row + 1}", "no picture")
        return value if isinstance(value, bytes) else Path(value)


@dataclass(frozen=True)
class Missing:
    """What stands in the place of a picture that can't be had, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Record:
    """One row of a source, before its columns have a meaning.

    Attributes:
        values: column → value; a picture inside the table is a `Picture`, or `Missing`.
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
        elif isinstance(value, (Picture, Missing)):
            value = getattr(value, "name", "")
        return (
            value if isinstance(value, str) and value else f"{self.split}{'-' if self.split else ''}{self.number:08d}"
        )

    def image(self, column: str) -> Path | Picture | str:
        """The way to the picture, or why there is none."""
        value = self.values.get(column)
        if isinstance(value, Picture):
            return value
        if isinstance(value, Missing):
            return value.reason
        if isinstance(value, dict):  # the Hub's own layout of a picture in Parquet
            value = value.get("path")
        return inside(self.folder, value, confined=self.confined)


def inside(folder: Path | None, name: object, *, confined: bool) -> Path | str:
    """The file that a cell names, or why it is none.

    Args:
        folder: where a relative path starts, or None where there are no files.
        name: what the cell holds.
        confined: whether a path may not leave the folder.
    """
    if not isinstance(name, str) or not name:
        return "no picture named"
    if folder is None:
        return "a path in a data set without files"
    if name.startswith(("http://", "https://")):
        return "a URL, not a file"
    path = folder / name
    try:
        if confined and not path.resolve().is_relative_to(folder.resolve()):
            return "a path that leaves the folder"
        return path if path.is_file() else "no file"
    except (OSError, ValueError):  # longer than a path can be, or with a NUL character
        return "no file"


def is_table(path: Path) -> bool:
    return path.suffix.lower() in TABLE_SUFFIXES


def table_records(path: Path, *, confined: bool) -> Iterator[Record]:
    """Reads a table file, UTF-8 with or without a byte order mark.

    Raises:
        TableError: not UTF-8, or a line that is not JSON; names the place.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        from training.parquet_pictures import parquet_rows

        rows = parquet_rows(str(path), path.parent, confined=confined, named=True)
    else:
        rows = _jsonl_rows(path) if suffix == ".jsonl" else _csv_rows(path)
    for number, values in enumerate(rows, start=1):
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
        raise no_data_set(name, error) from error
    splits = loaded if isinstance(loaded, DatasetDict) else DatasetDict({"": loaded})
    for split, dataset in splits.items():
        for column, feature in dataset.features.items():
            if isinstance(feature, Image):
                dataset = dataset.cast_column(column, Image(decode=False))
        pictures = [column for column, feature in dataset.features.items() if _holds_pictures(feature)]
        texts = dataset.remove_columns(pictures)
        rows: Iterator[dict[str, Any]] = iter(texts) if texts.column_names else iter([{}] * len(dataset))
        for number, values in enumerate(rows, start=1):
            stored = {column: Stored(dataset, number - 1, column) for column in pictures}
            yield Record({**values, **stored}, None, True, number, split=str(split))


def no_data_set(name: str, error: Exception) -> TableError:
    """What is said where a data set can't be had."""
    reason = one_line(error)
    return TableError(
        f"expected a folder, a table or a Hub data set, got {name!r}: {type(error).__name__}: {reason}; "
        "check the name and the connection"
    )


def _holds_pictures(feature: Any) -> bool:
    """Whether a data set's column is of pictures: the Hub's own kind, bytes, or records of bytes and path."""
    from datasets import Image, Value

    if isinstance(feature, dict):
        feature = feature.get("bytes")
    return isinstance(feature, Image) or (isinstance(feature, Value) and "binary" in feature.dtype)


def _csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
            reader = csv.DictReader(_lines(file, path), delimiter=delimiter, strict=True)
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
            for number, line in enumerate(_lines(file, path), start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise _no_json_line(path, number, line) from error
                if not isinstance(row, dict):
                    raise _no_json_line(path, number, line)
                yield row
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from error


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    for number, line in enumerate(file, start=1):
        if "\0" in line:
            raise TableError(
                f"expected text, got a NUL character in {path}, line {number}; if it was saved as UTF-16 without a "
                f"byte order mark, convert it: {_converted(path, 'UTF-16LE')}; if not, it is damaged"
            )
        yield line


def _no_json_line(path: Path, number: int, line: str) -> TableError:
    """A line that is no record; where a list begins with it, how to make lines of that."""
    mend = f"make lines of it: {json_lines(path)}" if number == 1 and line.lstrip().startswith("[") else "mend it"
    return TableError(f"expected one JSON object a line, got {line.strip()[:60]!r} in {path}, line {number}; {mend}")


def json_lines(path: Path) -> str:
    """The command that makes a list in a JSON file a record a line."""
    return f"jq -c '.[]' {path.name} > lines-{path.stem}.jsonl"


def _not_utf8(path: Path, error: UnicodeDecodeError) -> TableError:
    with path.open("rb") as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return TableError(f"expected UTF-8, got UTF-16 in {path}; convert it: {_converted(path, 'UTF-16')}")
    found = error.object[error.start : error.start + 1].hex()
    return TableError(
        f"expected UTF-8, got the byte 0x{found} in {path}; if it was saved in the Turkish Windows code page, convert "
        f"it: {_converted(path, 'WINDOWS-1254')}"
    )


def _converted(path: Path, encoding: str) -> str:
    return f"iconv -f {encoding} -t UTF-8 {path.name} > utf8-{path.name}"
