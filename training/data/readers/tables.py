"""A reader of CSV, TSV, JSONL and Parquet files of captioned images."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from training.data.samples import Record
from training.run.source import SourceError

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


def is_table(path: Path) -> bool:
    return path.suffix.lower() in TABLE_SUFFIXES


def table_records(path: Path, *, confined: bool) -> Iterator[Record]:
    """Reads a table file; text is UTF-8 with or without a byte order mark.

    Args:
        path: the file; its suffix gives its format, and relative paths in it start from its folder.
        confined: whether paths that leave the folder are refused.

    Raises:
        SourceError: the file is not UTF-8, CSV, JSON lines or Parquet; the message gives the line.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        from training.data.readers.parquet import parquet_rows

        rows = parquet_rows(str(path), path.parent, confined=confined, paths_are_names=True)
    else:
        rows = _jsonl_rows(path) if suffix == ".jsonl" else _csv_rows(path)
    for number, values in enumerate(rows, start=1):
        yield Record(values, path.parent, confined, number)


def _csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
            reader = csv.DictReader(_lines(file, path), delimiter=delimiter, strict=True)
            names = reader.fieldnames or []
            if len(names) == 1 and ";" in names[0]:
                raise SourceError(
                    f"expected columns separated by {delimiter!r}, got {names[0]!r} in {path}; save it with commas"
                )
            for row in reader:
                if None in row:
                    raise SourceError(
                        f"expected {len(names)} columns, got {len(names) + len(row[None])} in {path}, line "
                        f"{reader.line_num}; put captions that hold {delimiter!r} in double quotes"
                    )
                yield row
    except csv.Error as error:
        raise SourceError(f"expected a table, got {error} in {path}, line {reader.line_num}; fix that line") from error
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
            raise SourceError(
                f"expected text, got a NUL character in {path}, line {number}; if it was saved as UTF-16 without a "
                f"byte order mark, convert it: {_converted(path, 'UTF-16LE')}; if not, it is damaged"
            )
        yield line


def _no_json_line(path: Path, number: int, line: str) -> SourceError:
    """Returns the error of a line that is no JSON object; at the start of a list it says how to convert that."""
    is_list = number == 1 and line.lstrip().startswith("[")
    advice = f"write one record a line: {json_lines(path)}" if is_list else "fix it"
    return SourceError(f"expected one JSON object a line, got {line.strip()[:60]!r} in {path}, line {number}; {advice}")


def json_lines(path: Path) -> str:
    """Returns the shell command that converts a list in a JSON file to one record a line."""
    return f"jq -c '.[]' {path.name} > lines-{path.stem}.jsonl"


def _not_utf8(path: Path, error: UnicodeDecodeError) -> SourceError:
    with path.open("rb") as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return SourceError(f"expected UTF-8, got UTF-16 in {path}; convert it: {_converted(path, 'UTF-16')}")
    byte = error.object[error.start : error.start + 1].hex()
    return SourceError(
        f"expected UTF-8, got the byte 0x{byte} in {path}; if it was saved in the Turkish Windows code page, convert "
        f"it: {_converted(path, 'WINDOWS-1254')}"
    )


def _converted(path: Path, encoding: str) -> str:
    return f"iconv -f {encoding} -t UTF-8 {path.name} > utf8-{path.name}"
