"""The base class of the errors that a user's input can cause, and their form on one line."""

from __future__ import annotations


class InputError(ValueError):
    """Input that does not fit; the message gives what was expected, what came, where, and what to do next.

    The commands print the message as one line and exit with code 2.
    """


def one_line(error: BaseException, limit: int | None = 200) -> str:
    """Returns the message of an error on one line.

    Args:
        error: any exception.
        limit: the result is cut at this many characters; None gives all.
    """
    return " ".join(str(error).split())[:limit]


def missing_library(library: str, extra: str) -> str:
    """Returns the message for a library that is not installed, with the extra of this package that brings it.

    Args:
        library: its name, for people.
        extra: as in pyproject.toml.

    >>> missing_library("LanceDB", "search")
    'expected LanceDB, got none installed; run in the checkout of turkish-clip: pip install -e ".[search]"'
    """
    return f'expected {library}, got none installed; run in the checkout of turkish-clip: pip install -e ".[{extra}]"'
