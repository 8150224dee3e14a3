"""The one family of errors that a user's input can cause."""

from __future__ import annotations


class InputError(ValueError):
    """Something given to us does not fit: says what was expected, what came, where, and what to do next.

    The commands print its text as one line and exit with code 2.
    """


def one_line(error: BaseException, letters: int = 200) -> str:
    """What an error says, on one line and no longer than that."""
    return " ".join(str(error).split())[:letters]
