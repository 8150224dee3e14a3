"""The base class of the errors that a user's input can cause, and their form on one line."""

from __future__ import annotations

import errno
import re
import unicodedata

UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # categories: controls, marks of direction, halves of pairs, line separators
DISK_FULL_WORDS = ("no space left", "disk quota", "file write failed", "enforce fail at inline_container")
NUMBERED = re.compile(r"\[Errno -?\d+\] ")
KEPT = "\u200c\u200d\xad"  # joiners, as in emoji, and the soft hyphen: invisible and harmless


class InputError(ValueError):
    """Input that does not fit; the message gives what was expected, what came, where, and what to do next.

    The commands print the message as one line and exit with code 2.
    """


def one_line(error: BaseException, limit: int | None = 200) -> str:
    """Returns the message of an error on one line, without the number that Python puts before those of the system.

    Args:
        error: any exception.
        limit: the result is cut to this many characters, the last of which is then an ellipsis; None gives all.

    >>> one_line(ValueError("a line   and another"), 8), one_line(ValueError("a line"), 6)
    ('a line …', 'a line')
    """
    text = printable(NUMBERED.sub("", " ".join(str(error).split())))
    return text if limit is None or len(text) <= limit else f"{text[: limit - 1]}…"


def printable(text: str) -> str:
    r"""Returns a text that can be printed on one line: control characters and bytes that are not UTF-8 as escapes.

    File names may hold any of them; a terminal would obey them. Marks of direction are escaped too, since they make a
    name look like another.

    >>> import os
    >>> print(printable("a\x1b[2Jb\nc"), printable(os.fsdecode(b"\xe7i\xe7ek.jpg")))
    a\x1b[2Jb\nc \xe7i\xe7ek.jpg
    """
    if text.isprintable():
        return text
    unseen = {letter for letter in set(text) if unicodedata.category(letter) in UNSEEN and letter not in KEPT}
    return "".join(_escape(letter) if letter in unseen else letter for letter in text)


def is_encodable(text: str) -> bool:
    """Returns whether a text can be written as UTF-8: arguments and names of files may hold other bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _escape(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as Python reads it
        return f"\\x{code - 0xDC00:02x}"
    return letter.encode("unicode_escape", "backslashreplace").decode()


def is_disk_full(error: BaseException | None) -> bool:
    """Returns whether an error, or one of its causes, means a full disk, which each writer reports in its own type."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(words in str(error).lower() for words in DISK_FULL_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


def missing_library(library: str, extra: str) -> str:
    """Returns the message for a library that is not installed, with the extra of this package that brings it.

    Args:
        library: its name, for people.
        extra: as in pyproject.toml.

    >>> missing_library("LanceDB", "search")
    'expected LanceDB, got none installed; run in the checkout of turkish-clip: pip install -e ".[search]"'
    """
    return f'expected {library}, got none installed; run in the checkout of turkish-clip: pip install -e ".[{extra}]"'


def not_imported(error: ImportError, library: str, extra: str, *modules: str) -> str:
    """Returns the message for a library that can't be imported: it is not installed, or it is and fails.

    >>> not_imported(ImportError("no x"), "Starlette", "app", "starlette")
    'expected Starlette, got an installed one that can not be imported (ImportError: no x); install what it asks for'

    Args:
        error: from its import.
        library: its name, for people.
        extra: as in pyproject.toml.
        modules: its names, for Python.
    """
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in modules:
        return missing_library(library, extra)
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"expected {library}, got an installed one that needs the module {error.name!r}; install that, too"
    reason = f"{type(error).__name__}: {one_line(error)}"
    return f"expected {library}, got an installed one that can not be imported ({reason}); install what it asks for"
