"""A reader of CSV, TSV, JSON, JSONL and Parquet files of captioned images."""

from __future__ import annotations

import codecs
import csv
import json
import logging
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from training.data.cells import decoded_image, is_base64_image, once_named
from training.data.lazy_images import LazyImage
from training.data.readers.json_files import MAX_VALUE_CHARACTERS, json_rows
from training.data.samples import Record
from training.data.splits import SplitMeanings
from training.run.source import SourceError
from turkish_clip.images import ImageError

log = logging.getLogger("training")
TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json", ".parquet")
LINES_OF_JSON = (".jsonl", ".ndjson")
SEPARATORS = (",", ";", "\t", "|")
EXCEL_SEPARATOR = re.compile(r'"?sep=(.)"?\s*')  # Excel's own first line
LINE_END = re.compile(rb"(?<=\n)|(?<=\r)(?!\n)")


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
    if suffix == ".json" or (suffix in LINES_OF_JSON and _starts_with_list(path)):
        for number, (split, values) in enumerate(_json_rows(path, meanings), start=1):
            yield Record(values, root, confined, number, split=split)
        return
    rows = _jsonl_rows(path) if suffix in LINES_OF_JSON else _csv_rows(path)
    for number, (place, values) in enumerate(rows, start=1):
        for name, value in values.items():
            if is_base64_image(value):
                values[name] = replace(place, column=name)
        yield Record(values, root, confined, number)


@dataclass(frozen=True)
class CellImage(LazyImage):
    """An image that is written as base64 in a row of a table: `size` bytes from `offset` on.

    Attributes:
        header: the names of the columns of a CSV file, joined by its separator; empty for JSON lines.
        separator: that of the columns; empty for JSON lines.
    """

    file: str
    offset: int
    size: int
    separator: str = ""
    header: str = ""
    column: str = ""

    @property
    def place(self) -> str:
        return f"byte {self.offset} of {self.file}"

    def read(self) -> bytes:
        try:
            with Path(self.file).open("rb") as opened:
                opened.seek(self.offset)
                line = opened.read(self.size).decode("utf-8-sig")
            if self.separator:
                names = next(csv.reader([self.header], delimiter=self.separator))
                cells = next(csv.reader(line.splitlines(keepends=True), delimiter=self.separator))
                cell = dict(zip(names, cells)).get(self.column)
            else:
                cell = json.loads(line).get(self.column)
        except (OSError, ValueError, StopIteration, csv.Error) as error:
            raise SourceError(
                f"expected {self.file} as it was when its captions were read, got other bytes at {self.offset}; start "
                "again"
            ) from error
        content = decoded_image(cell) if isinstance(cell, str) else b""
        if not content:
            raise ImageError(self.place, "base64 that does not read")
        return content


class _Lines:
    """Yields the lines of a table as text, and knows at which byte the next one begins."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        with self.path.open("rb") as file:
            for chunk in file:
                for line in LINE_END.split(chunk) if b"\r" in chunk else (chunk,):
                    if not line:
                        continue
                    self.number += 1
                    try:
                        text = line.decode("utf-8-sig" if self.number == 1 else "utf-8")
                    except UnicodeDecodeError as error:
                        raise _not_utf8(self.path, error) from error
                    if "\0" in text:
                        raise _nul(self.path, self.number)
                    self.offset += len(line)
                    yield text


def _csv_rows(path: Path) -> Iterator[tuple[CellImage, dict[str, Any]]]:
    """Yields each row's place and its values by column."""
    csv.field_size_limit(MAX_VALUE_CHARACTERS)
    lines = _Lines(path)
    texts = iter(lines)
    first = next(texts, "")
    excel = EXCEL_SEPARATOR.fullmatch(first)
    first = next(texts, "") if excel else first
    separator = excel.group(1) if excel else _separator(path, first)
    padded = re.search(re.escape(separator) + " +", first) is not None  # "a.png, kar": spaces belong to the separator
    number = lines.number
    try:
        header = [name.strip() for name in next(csv.reader([first], delimiter=separator, skipinitialspace=True), [])]
        if first.count('"') % 2:
            raise csv.Error("a quote in the names of columns that is not closed")
        reader = csv.reader(texts, delimiter=separator, strict=True, skipinitialspace=padded)
        named = [place for place, name in enumerate(header) if name]
        joined = separator.join(header)
        start = lines.offset
        for row in reader:
            number = lines.number
            if row:
                if len(row) > len(header):
                    raise SourceError(
                        f"expected {len(header)} columns, got {len(row)} in {path}, line {number}; put captions that "
                        f"hold {separator!r} in double quotes"
                    )
                cells = [cell.strip() if padded else cell for cell in row] + [None] * (len(header) - len(row))
                place = CellImage(str(path), start, lines.offset - start, separator, joined)
                yield place, once_named([(header[index], cells[index]) for index in named])
            start = lines.offset
    except csv.Error as error:
        raise SourceError(f"expected a table, got {error} in {path}, line {lines.number}; fix that line") from error


def _separator(path: Path, header: str) -> str:
    """Returns what separates the columns: what the suffix says, or what else the names of columns are separated by.

    Raises:
        SourceError: they could be separated by two others.
    """
    expected = "\t" if path.suffix.lower() == ".tsv" else ","
    counts = {mark: len(_columns(header, mark)) for mark in SEPARATORS}
    if counts[expected] > 1:
        return expected
    others = [mark for mark in SEPARATORS if counts[mark] > 1]
    if len(others) > 1:
        raise SourceError(
            f"expected columns separated by {expected!r}, got {header.strip()[:80]!r} in {path}; save it with "
            "one separator"
        )
    if others:
        log.info("%s: its columns are separated by %r, not by %r", path, others[0], expected)
    return others[0] if others else expected


def _columns(header: str, mark: str) -> Sequence[str]:
    return next(csv.reader([header], delimiter=mark), [])


def _starts_with_list(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4096).removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"["


def _json_rows(path: Path, meanings: SplitMeanings | None) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        yield from json_rows(path, meanings)
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from error


def _jsonl_rows(path: Path) -> Iterator[tuple[CellImage, dict[str, Any]]]:
    lines = _Lines(path)
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
    advice = f"if it is one record over several lines: {_piped(path, 'jq -c .')}" if line.strip() == "{" else "fix it"
    return SourceError(f"expected one JSON object a line, got {line.strip()[:60]!r} in {path}, line {number}; {advice}")


def _utf16(path: Path) -> SourceError | None:
    """Returns the error of a file that begins with the byte order mark of UTF-16; None of any other."""
    with path.open("rb") as file:
        if file.read(2) not in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return None
    return SourceError(f"expected UTF-8, got UTF-16 in {path}; convert it: {_converted(path, 'UTF-16')}")


def _nul(path: Path, number: int) -> SourceError:
    return _utf16(path) or SourceError(
        f"expected text, got a NUL character in {path}, line {number}; if it was saved as UTF-16 without a "
        f"byte order mark, convert it: {_converted(path, 'UTF-16LE')}; if not, it is damaged"
    )


def _not_utf8(path: Path, error: UnicodeDecodeError) -> SourceError:
    byte = error.object[error.start : error.start + 1].hex()
    return _utf16(path) or SourceError(
        f"expected UTF-8, got the byte 0x{byte} in {path}; if it was saved in the Turkish Windows code page, convert "
        f"it: {_converted(path, 'WINDOWS-1254')}"
    )


def _converted(path: Path, encoding: str) -> str:
    return _piped(path, f"iconv -f {encoding} -t UTF-8")


def _piped(path: Path, command: str) -> str:
    """Returns the shell command that puts what another makes of a file in the file's place."""
    file, fresh = shlex.quote(str(path)), shlex.quote(f"{path}.new")
    return f"{command} {file} > {fresh} && mv {fresh} {file}"
