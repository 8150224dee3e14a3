"""A reader of CSV, TSV, JSON, JSONL and Parquet files of captioned images."""

from __future__ import annotations

import codecs
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from training.data.cells import is_base64_image, once_named
from training.data.readers.csv_files import CellImage, Lines, csv_rows
from training.data.readers.file_kinds import check_is_text, not_utf8_error, piped
from training.data.readers.json_files import json_rows
from training.data.samples import Record
from training.data.splits import SplitMeanings
from training.run.source import SourceError

log = logging.getLogger("training")
TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json", ".parquet")
LINES_OF_JSON = (".jsonl", ".ndjson")


def is_table(path: Path) -> bool:
    return path.suffix.lower() in TABLE_SUFFIXES


def table_records(
    path: Path, *, confined: bool, folder: Path | None = None, meanings: SplitMeanings | None = None
) -> Iterator[Record]:
    """Reads a table file; text is UTF-8 with or without a byte order mark.

    Args:
        path: the file; its suffix gives its format.
        confined: whether paths that leave the folder are refused.
        folder: what relative paths in it start from; None: its own folder.
        meanings: what names of splits mean in the source; None: what they usually mean.

    Raises:
        SourceError: the file is not UTF-8, CSV, JSON or Parquet; the message gives the line.
    """
    suffix, root = path.suffix.lower(), folder or path.parent
    if suffix == ".parquet":
        from training.data.readers.parquet import parquet_rows

        for number, values in enumerate(
            parquet_rows(str(path), root, confined=confined, paths_are_names=True), start=1
        ):
            yield Record(values, root, confined, number)
        return
    check_is_text(path)
    if suffix == ".json" or (suffix in LINES_OF_JSON and _starts_with_list(path)):
        for number, (split, values) in enumerate(_json_rows(path, meanings), start=1):
            yield Record(values, root, confined, number, split=split)
        return
    rows = _jsonl_rows(path) if suffix in LINES_OF_JSON else csv_rows(path)
    for number, (place, values) in enumerate(rows, start=1):
        for name, value in values.items():
            if is_base64_image(value):
                values[name] = replace(place, column=name)
        yield Record(values, root, confined, number)


def _starts_with_list(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4096).removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"["


def _json_rows(path: Path, meanings: SplitMeanings | None) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        yield from json_rows(path, meanings)
    except UnicodeDecodeError as error:
        raise not_utf8_error(path, error) from error


def _jsonl_rows(path: Path) -> Iterator[tuple[CellImage, dict[str, Any]]]:
    lines = Lines(path)
    start = 0
    for line in lines:
        place, start = CellImage(str(path), start, lines.offset - start), lines.offset
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=once_named)
        except (ValueError, RecursionError) as error:
            raise _no_json_line(path, lines.number, line) from error
        if not isinstance(row, dict):
            raise _no_json_line(path, lines.number, line)
        yield place, row


def _no_json_line(path: Path, number: int, line: str) -> SourceError:
    """Returns the error of a line that is no JSON object."""
    advice = f"if it is one record over several lines: {piped(path, 'jq -c .')}" if line.strip() == "{" else "fix it"
    if number == 1 and line.strip()[:1] not in ("{", "["):
        advice = "if it is a table with names of columns, name it .csv or .tsv; if not, fix it"
    return SourceError(f"expected one JSON object a line, got {line.strip()[:60]!r} in {path}, line {number}; {advice}")
