"""A reader of CSV files: their lines, names of columns, stray quotes, and images that are written in cells."""

from __future__ import annotations

import csv
import json
import logging
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.data.cells import decoded_image, once_named
from training.data.image_files import ADDRESS
from training.data.lazy_images import LazyImage
from training.data.readers.file_kinds import not_utf8_error, nul_error, piped
from training.data.readers.json_files import MAX_VALUE_CHARACTERS
from training.data.readers.webdataset import IMAGES
from training.run.source import SourceError
from turkish_clip.images import ImageError

log = logging.getLogger("training")
SEPARATORS = (",", ";", "\t", "|")
EXCEL_SEPARATOR = re.compile(r'"?sep=(.)"?\s*')  # Excel's own first line
USUAL_NAMES = frozenset("file_name image image_path path caption captions text".split())
MAX_HEADER_WORDS = 30
IMAGE_FILE = re.compile(rf"\.({'|'.join(sorted(IMAGES))})(#\d+)?$", re.IGNORECASE)
COMMENT = re.compile(r"#(?![^\W_])")  # "# a comment", but not "#image,caption"
NEW_LINE = "\\n"  # for printf
MIN_COLUMNS = 2
LINE_END = re.compile(rb"(?<=\n)|(?<=\r)(?!\n)")


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


class Lines:
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
                        raise not_utf8_error(self.path, error) from error
                    if "\0" in text:
                        raise nul_error(self.path, self.number)
                    self.offset += len(line)
                    yield text


def csv_rows(path: Path) -> Iterator[tuple[CellImage, dict[str, Any]]]:
    """Yields each row's place and its values by column."""
    csv.field_size_limit(MAX_VALUE_CHARACTERS)
    lines = Lines(path)
    texts = iter(lines)
    first, excel = _header_line(path, lines, texts)
    separator = excel or _separator(path, first)
    padded = re.search(re.escape(separator) + " +", first) is not None  # "a.png, kar": spaces belong to the separator
    at = number = lines.number
    try:
        header = [name.strip() for name in next(csv.reader([first], delimiter=separator, skipinitialspace=True), [])]
        if first.count('"') % 2:
            raise csv.Error("a quote in the names of columns that is not closed")
        _refuse_data(path, at, header, separator)
        own: list[str] = []  # the lines of one row
        reader = csv.reader(_kept(texts, own), delimiter=separator, strict=True, skipinitialspace=padded)
        named = [place for place, name in enumerate(header) if name]
        joined = separator.join(header)
        start, spanning, rows = lines.offset, 0, False
        for row in reader:
            if len(own) > 1:
                spanning += 1
                _refuse_swallowed(path, number + 1, own, row, separator, len(header))
            number = lines.number
            own.clear()
            if row:
                _check_row(path, row, header, separator, at, number, is_first=not rows)
                rows = True
                cells = [cell.strip() if padded else cell for cell in row] + [None] * (len(header) - len(row))
                place = CellImage(str(path), start, lines.offset - start, separator, joined)
                yield place, once_named([(header[index], cells[index]) for index in named])
            start = lines.offset
        if spanning:
            log.info("%s: %d rows have a cell that spans lines", path, spanning)
    except csv.Error as error:
        last, begun = lines.number, number + 1
        where, advice = f"line {last}", "fix that line"
        if begun < last:
            where = f"lines {begun} to {last}, which a quote in line {begun} makes one row"
            advice = "take that quote out, or double quotes inside quotes"
        raise SourceError(f"expected a table, got {error} in {path}, {where}; {advice}") from error


def _kept(texts: Iterator[str], own: list[str]) -> Iterator[str]:
    """Yields lines, and keeps them in a list that the caller empties after each row."""
    for text in texts:
        own.append(text)
        yield text


def _header_line(path: Path, lines: Lines, texts: Iterator[str]) -> tuple[str, str]:
    """Reads the line of the names of columns, after Excel's own first line, empty lines and comments.

    Returns:
        The line, and the separator that Excel's own line names; empty without.
    """
    excel, passed = "", 0
    for text in texts:
        found = EXCEL_SEPARATOR.fullmatch(text) if not excel else None
        if found:
            excel = found.group(1)
        elif not text.strip() or (COMMENT.match(text) and not _has_usual_names(text)):
            passed += 1
        else:
            if passed:
                log.info("%s: the names of columns are read from line %d", path, lines.number)
            return text, excel
    return "", excel


def _has_usual_names(line: str) -> bool:
    """Returns whether a line names a column as usual, which may begin with # as the first of its names."""
    words = {word.lower() for word in re.findall(r"\w+", line)}
    return not words.isdisjoint(USUAL_NAMES) and len(words) < MAX_HEADER_WORDS


def _are_names(cells: Sequence[str]) -> bool:
    """Returns whether two or more cells are usual names of columns."""
    return len(USUAL_NAMES.intersection(cell.strip().lower() for cell in cells)) > 1


def _refuse_data(path: Path, number: int, header: Sequence[str], separator: str) -> None:
    """Refuses a first line that is no header, but data: a cell of it is the name of an image file.

    Raises:
        SourceError: it is; the message gives the header to add.
    """
    if header and header[0].startswith(("{", "[{")):
        raise SourceError(f"expected the names of columns in line {number} of {path}, got JSON; name the file .jsonl")
    images = [place for place, name in enumerate(header) if IMAGE_FILE.search(name) or ADDRESS.match(name)]
    if not images or not USUAL_NAMES.isdisjoint(name.lower() for name in header):
        return
    texts = [place for place in range(len(header)) if place not in images]
    names = [f"column{place + 1}" for place in range(len(header))]
    names[images[0]] = "image"
    if texts:
        longest = max(texts, key=lambda place: len(header[place]))
        names[longest] = "caption"
    line = separator.replace("\t", "\\t").join(names)
    added = f"(printf {shlex.quote(line + NEW_LINE)}; cat)"
    raise SourceError(
        f"expected the names of columns in line {number} of {path}, got {header[images[0]][:60]!r}, which looks like "
        f"data; add a line with names in front, such as {line}: {piped(path, added)}"
    )


def _check_row(
    path: Path, row: Sequence[str], header: Sequence[str], separator: str, at: int, number: int, *, is_first: bool
) -> None:
    """Refuses a row that holds the names of columns, or more cells than there are columns.

    Raises:
        SourceError: it does; the message names line `at`, of the names of columns, or `number`, of the row.
    """
    if is_first and _are_names(row) and not _are_names(header):
        raise SourceError(
            f"expected the names of columns in line {at} of {path}, got them in line {number}; take out what stands "
            "before them"
        )
    if len(row) > len(header) < MIN_COLUMNS:
        raise SourceError(
            f"expected the names of {len(row)} columns in line {at} of {path}, got {separator.join(header)[:60]!r}; "
            "take out what stands before the names of columns"
        )
    if len(row) > len(header):
        raise SourceError(
            f"expected {len(header)} columns, got {len(row)} in {path}, line {number}; put captions that hold "
            f"{separator!r} in double quotes"
        )


def _refuse_swallowed(
    path: Path, begun: int, own: Sequence[str], row: Sequence[str], separator: str, columns: int
) -> None:
    """Refuses a row of several lines, one of which looks like a row by itself: a quote has swallowed it.

    A line looks like one if it has as many cells as there are columns, and, but for columns separated by tabs, a cell
    like the row's own one in the same column: 1.png beside 0.png, but not "güzel" beside "ev".

    Raises:
        SourceError: there is such a line.
    """
    spanning = next((place for place, cell in enumerate(row) if "\n" in cell or "\r" in cell), 0)
    first = 0 if spanning < len(row) - 1 else 1  # legitimately full: the first line where the last cell spans lines,
    last = len(own) - (spanning == 0)  # and the last one where the first cell does
    for place, line in list(enumerate(own))[first:last]:
        cells = [cell.strip().strip('"') for cell in line.rstrip("\r\n").split(separator)]
        if len(cells) < columns or columns < MIN_COLUMNS or (separator == "\t" and len(cells) > columns):
            continue
        from_cell = spanning + 1 if place == 0 else 0  # what precedes the quote is the row's own
        to_cell = columns if len(cells) == columns else spanning  # captions may hold the separator
        pairs = [
            pair for number, pair in enumerate(zip(cells, row)) if from_cell <= number < to_cell and number != spanning
        ]
        if separator == "\t" or any(_shape(cell) == _shape(other) != "" for cell, other in pairs):
            swallowed = max(place, 1)
            raise SourceError(
                f"expected one row in lines {begun} to {begun + len(own) - 1} of {path}, got a quote in line {begun} "
                f"that swallows line {begun + swallowed}, {own[swallowed].strip()[:60]!r}; take that quote out, or "
                "double quotes inside quotes"
            )


def _shape(cell: str) -> str:
    """Returns what kind of name a cell holds, with its letters and digits made equal; empty for plain words.

    >>> _shape("img_12.png"), _shape("img_7.png"), _shape("000123"), _shape("güzel bir ev")
    ('a_0.a', 'a_0.a', '0', '')
    """
    shape = re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "0", cell.strip()))
    return "" if " " in shape or re.fullmatch(r"a*", shape) else shape


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
