"""What a table's file is by its bytes: text in UTF-8 or another encoding, or something else under a table's name."""

from __future__ import annotations

import codecs
import shlex
from pathlib import Path

from training.run.source import SourceError

# First bytes → what begins with them, and what to do about it.
SIGNATURES = (
    (b"\x1f\x8b", "gzip", "uncompress it: {gzip}"),
    (b"BZh", "bzip2", "uncompress it: {bzip2}"),
    (b"\xfd7zXZ\0", "xz", "uncompress it: {xz}"),
    (b"(\xb5/\xfd", "zstd", "uncompress it: {zstd}"),
    (b"PK\x03\x04", "a zip file (as .xlsx is)", "open it, and save the table as CSV in UTF-8"),
    (b"PK\x05\x06", "an empty zip file", "give the table itself"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel file (.xls)", "open it, and save the table as CSV in UTF-8"),
    (b"PAR1", "Parquet", "name it {parquet}"),
    (b"ARROW1", "Arrow", "write it as Parquet"),
    (b"SQLite format 3\0", "an SQLite data base", "export its table as CSV"),
    (b"%PDF-", "a PDF", "give the table itself"),
    (b"7z\xbc\xaf'\x1c", "a 7z file", "unpack it"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image", "give the table itself"),
    (b"\x93NUMPY", "a NumPy array", "give a table"),
    (b"version https://git-lfs", "a Git LFS pointer", "fetch the file that it stands for: git lfs pull"),
    (b"<!DOCTYPE", "an HTML page", "download the table itself"),
    (b"<!doctype", "an HTML page", "download the table itself"),
    (b"<html", "an HTML page", "download the table itself"),
    (b"\xff\xd8\xff", "a JPEG image", "give the table itself"),
)
NOT_IN_1254 = frozenset(b"\x81\x8d\x8e\x8f\x90\x9d\x9e")


def check_is_text(path: Path) -> None:
    """Checks that a file is not something else under the name of a table, by its first bytes.

    Raises:
        SourceError: it is; the message says what, and what to do.
    """
    with path.open("rb") as file:
        start = file.read(32)
    for signature, kind, advice in SIGNATURES:
        if start.startswith(signature):
            commands = {tool: piped(path, f"{tool} -dc") for tool in ("gzip", "bzip2", "xz", "zstd")}
            told = advice.format(parquet=shlex.quote(str(path.with_suffix(".parquet"))), **commands)
            raise SourceError(f"expected a table of text, got {kind} by the first bytes of {path}; {told}")


def nul_error(path: Path, number: int) -> SourceError:
    """Returns the error of a NUL character.

    Args:
        path: the file.
        number: of the line.
    """
    return _utf16(path) or SourceError(
        f"expected text, got a NUL character in {path}, line {number}; if it was saved as UTF-16 without a "
        f"byte order mark, convert it: {_converted(path, 'UTF-16LE')}; if not, it is damaged"
    )


def not_utf8_error(path: Path, error: UnicodeDecodeError) -> SourceError:
    """Returns the error of a file that is no UTF-8.

    Args:
        path: the file.
        error: of decoding it.
    """
    found = error.object[error.start]
    advice = f"if it was saved in the Turkish Windows code page, convert it: {_converted(path, 'WINDOWS-1254')}"
    if found in NOT_IN_1254:
        advice = "it is no Turkish Windows text either: save it as UTF-8 where it was made"
    return _utf16(path) or SourceError(f"expected UTF-8, got the byte 0x{found:02x} in {path}; {advice}")


def _utf16(path: Path) -> SourceError | None:
    """Returns the error of a file that begins with the byte order mark of UTF-16; None of any other."""
    with path.open("rb") as file:
        if file.read(2) not in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return None
    return SourceError(f"expected UTF-8, got UTF-16 in {path}; convert it: {_converted(path, 'UTF-16')}")


def _converted(path: Path, encoding: str) -> str:
    return piped(path, f"iconv -f {encoding} -t UTF-8")


def piped(path: Path, command: str) -> str:
    """Returns the shell command that puts what another makes of a file in its place, and keeps the file as it was.

    Given twice, it makes the same of the kept file again.

    Args:
        path: the file.
        command: it turns its input into its output.
    """
    file, kept = shlex.quote(str(path)), shlex.quote(f"{path}.old")
    return f"test -e {kept} || cp {file} {kept} && {command} < {kept} > {file}"
