"""The storage of an index, a folder or object storage: one writer at a time, and one error type for its failures."""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from turkish_clip.errors import InputError, is_disk_full, one_line
from turkish_clip.folders import TEXT_ENCODER, holds_table_files_only

log = logging.getLogger("turkish_clip")
LOCK = "writing.lock"  # held by the process that writes; the system frees it when the process ends, however it ends
TABLE_SUFFIX = ".lance"  # of the folder of a LanceDB table
# The tables of an index, and bytes in their manifests that those of others lack: a key of their metadata, or a column.
MARKS = {"images": b"turkish_clip", "files": b"mtime_ns", "bank": b"turkish_clip", "pictures": b"turkish_clip"}
COLUMNS = "path, also_at, bytes, modified, taken, lat, lon, camera, second"  # what a condition may name
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # the errors of file systems without locks
NAMES = frozenset(COLUMNS.split(", "))
# The words of SQL that a condition may hold, and its functions; others reach what an index keeps for itself.
WORDS = frozenset(
    "and or not in like ilike between is null true false escape case when then else end cast as distinct from "
    "timestamp date interval bigint int integer double float string varchar boolean lower upper length char_length "
    "character_length octet_length trim ltrim rtrim btrim substr substring left right reverse replace concat strpos "
    "position starts_with ends_with contains regexp_like regexp_match split_part array_to_string array_has "
    "array_length date_part date_trunc extract year month day hour minute second to_timestamp now current_date "
    "current_timestamp abs round floor ceil coalesce nullif".split()
)
# More of either ends the process: LanceDB's parser goes one call deeper for each operator and bracket.
MAX_CONDITION, MAX_SIGNS = 100_000, 500
SQL_SIGNS = re.compile(r"""'[^']*'|"[^"]*"|`[^`]*`|[\d.]+|(\w+|[^\w\s,])""")  # names, words and operators
# A text in quotes is one, and so is a name in ` or "; then words, numbers, operators and what is none of these.
SQL_TOKENS = re.compile(
    r"""'[^']*'|"[^"]*"|`[^`]*`|--|/\*|[^\W\d]\w*|\d[\d.]*(?:[eE][+-]?\d+)?|[-<>=!+*/%.,]|\s+|.""", re.S
)
OPERATORS = "<>=!+-*/%.,()"
# LanceDB's messages about what it was asked for: no fault of the disk
REFUSALS = re.compile(r"Invalid (user )?input|not supported|divisible by|LanceError\(Index\)", re.IGNORECASE)
IN_SOURCES = re.compile(r",? ?\S+\.rs:\d+(:\d+)?")  # the place in LanceDB's sources that its messages name


class ImageIndexError(InputError):
    """An index that can't be opened, searched or written, or that holds the vectors of another model."""


@contextmanager
def storage_errors(uri: str, to_do: str) -> Iterator[None]:
    """Translates the errors that LanceDB raises for a disk or for object storage.

    Args:
        uri: of the index.
        to_do: what is being done, for the message, such as "read".

    Raises:
        ImageIndexError: in place of RuntimeError, OSError and ValueError.
    """
    try:
        yield
    except InputError:
        raise
    except (RuntimeError, OSError, ValueError) as error:
        raise _unusable(uri, to_do, error) from error


@contextmanager
def query_errors(uri: str, where: str | None) -> Iterator[None]:
    """Does the same for a query, for which LanceDB's SQL parser and the cluster raise types of their own too.

    Args:
        uri: of the index.
        where: the query's condition in SQL; None if it has none.

    Raises:
        ImageIndexError: the index can't be read, or the condition is not understood.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if where is None or isinstance(error, OSError) or "LanceError(IO)" in str(error):
            raise _unusable(uri, "read", error) from error
        message = _message(error).partition(" Valid fields")[0][:300]  # then follow the table's own columns
        raise ImageIndexError(
            f"expected a condition over {COLUMNS}, got {where!r:.200}: {message}; correct it"
        ) from error


def one_condition(where: str) -> str:
    """Returns a condition in parentheses: LanceDB reads an expression and drops what follows it, such as "; …".

    A list of any length, as in "path IN ('a', 'b')", has few signs: texts, numbers and commas do not count.

    Raises:
        ImageIndexError: it is empty or too long, or has a comment, a parenthesis that closes none of its own, a name
            that is none of NAMES, or another sign than those of comparisons and sums.

    >>> one_condition("bytes > 3 OR path LIKE '%;%'")
    "(bytes > 3 OR path LIKE '%;%')"
    """
    if not where.strip():
        raise ImageIndexError(f"expected a condition over {COLUMNS}, got an empty one; leave it out")
    signs = 0 if len(where) > MAX_CONDITION else sum(map(bool, SQL_SIGNS.findall(where)))
    if len(where) > MAX_CONDITION or signs > MAX_SIGNS:
        raise ImageIndexError(
            f"expected a condition of at most {MAX_CONDITION} characters, with {MAX_SIGNS} names, operators and "
            f"brackets, got {len(where)}{f', with {signs}' if signs else ''}; shorten it: path IN ('a', 'b') stands "
            "for many terms"
        )
    depth = 0
    for sign in SQL_TOKENS.findall(where):
        depth += (sign == "(") - (sign == ")")
        if depth < 0 or not _is_allowed(sign):
            raise ImageIndexError(
                f"expected a condition over {COLUMNS}, got {where!r:.200}, with {sign!r} in it; correct it"
            )
    return f"({where})"


def _is_allowed(sign: str) -> bool:
    """Returns whether a condition may hold a token."""
    if sign[0] in '`"':  # both stand around names
        return sign[1:-1] in NAMES
    if sign[0] == "'":
        return len(sign) > 1  # closed
    if sign[0].isalpha() or sign[0] == "_":
        return sign.lower() in NAMES or sign.lower() in WORDS
    return sign[0].isdigit() or sign.isspace() or (len(sign) == 1 and sign in OPERATORS)


def _message(error: Exception) -> str:
    """Returns LanceDB's message on one line, without the places in its sources."""
    return IN_SOURCES.sub("", one_line(error, 1000))


def is_storage_error(error: Exception) -> bool:
    """Returns whether an error of LanceDB is of the disk or the object storage, or of damaged files there."""
    return isinstance(error, OSError) or "LanceError(IO)" in str(error) or not REFUSALS.search(str(error))


def _unusable(uri: str, to_do: str, error: Exception) -> ImageIndexError:
    message = _message(error)
    message = message if len(message) <= 300 else f"{message[:100]} … {message[-200:]}"  # paths first, the reason last
    if not is_uri(uri) and not Path(uri).is_dir():
        advice = "its folder is not there: is its disk still mounted? if it was deleted, index again"
    elif is_disk_full(error):
        advice = "free some space and run it again: what was written before is kept"
    elif is_storage_error(error):
        advice = "check rights and disk; if it is damaged, delete it and index again"
    else:
        advice = "its files and the disk are in order: LanceDB refuses what it was asked for; try another version of it"
    return ImageIndexError(f"expected an index to {to_do} in {uri}, got {message}; {advice}")


def folder_of(uri: str) -> Path | None:
    """Returns the absolute folder of an index; None for one on object storage."""
    uri = uri.removeprefix("file://")
    return None if is_uri(uri) else Path(uri).expanduser().absolute()


def is_uri(uri: str) -> bool:
    """Returns whether an index's address names object storage, not a folder."""
    return "://" in uri


def holds_index(folder: str | Path) -> bool:
    """Returns whether a folder of this machine holds an index, in this format or an older one, damaged or not.

    It is known by a table of ours. Beside a lock of ours, one that was never finished or is damaged counts, too.
    """
    tables = [table for name in MARKS if (table := Path(folder) / f"{name}{TABLE_SUFFIX}").is_dir()]
    if any(map(_is_ours, tables)):
        return True
    return (Path(folder) / LOCK).is_file() and any(map(holds_table_files_only, tables))


def _manifests(table: Path) -> list[Path]:
    return sorted((table / "_versions").glob("*.manifest"))


def _is_ours(table: Path) -> bool:
    """Returns whether the folder of a table has a version, and its manifest bears our mark."""
    for manifest in _manifests(table):
        try:
            return table.stem in MARKS and MARKS[table.stem] in manifest.read_bytes()
        except FileNotFoundError:  # another process has removed an old version
            continue
        except OSError:
            break
    return False


@contextmanager
def exclusive_write(uri: str) -> Iterator[None]:
    """Keeps other processes from writing to an index; object storage has no locks, so write there from one machine.

    Two writers would both add an image that is new to both, and each would undo what the other has only half written.

    Raises:
        ImageIndexError: another process writes, the folder can't be written to, or it holds other files and no index.
    """
    if is_uri(uri):
        yield
        return
    from filelock import FileLock, Timeout

    folder = Path(uri)
    check_place(uri)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _no_place(uri, error) from error
    _check_no_other_files(folder)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ImageIndexError(
            f"expected to write alone, got another process that writes to {uri}; try again when it is done"
        ) from error
    except (OSError, NotImplementedError) as error:
        if not isinstance(error, NotImplementedError) and error.errno not in NO_LOCKS:
            raise _no_place(uri, error) from error
        log.warning("%s has no file locks: make sure that only one process writes to it", uri)
        yield
        return
    try:
        yield
    finally:
        lock.release()


def check_place(uri: str) -> None:
    """Checks that an index can be written to a folder, as far as that shows before; object storage is not asked.

    Raises:
        ImageIndexError: it can't.
    """
    if is_uri(uri):
        return
    there = Path(uri).absolute()
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise _no_place(uri, NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
    if not os.access(there, os.W_OK | os.X_OK):
        raise _no_place(uri, PermissionError(errno.EACCES, "it can't be written to"))


def _no_place(uri: str, error: OSError) -> ImageIndexError:
    return ImageIndexError(
        f"expected a place to write an index, got {uri} ({error.strerror}); check rights, or name another place with "
        "--at FOLDER"
    )


def _check_no_other_files(folder: Path) -> None:
    """Raises an ImageIndexError if a folder holds other files and no index, or a table that is not ours."""
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    others = [name for name in names if name != LOCK and not name.startswith(TEXT_ENCODER)]
    if others and not holds_index(folder):
        raise ImageIndexError(
            f"expected an index or an empty folder, got {folder}, which holds {others[0]!r}; name a new folder"
        )
    for table in (folder / name for name in others if name.endswith(TABLE_SUFFIX)):
        unmade = table.stem in MARKS and not _manifests(table) and holds_table_files_only(table)  # beside our lock
        if table.is_dir() and not unmade and not _is_ours(table):
            raise ImageIndexError(
                f"expected an index or an empty folder, got {folder}, which holds {table.name!r}, not a table of "
                "turkish-clip; name a new folder"
            )
