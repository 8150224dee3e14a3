"""The base class of the errors that a user's input can cause, and their form on one line."""

from __future__ import annotations


class InputError(ValueError):
    """Input that does not fit; the message gives what was expected, what came, where, and what to do next.

    The commands print the message as one line and exit with code 2.
    """


def one_line(error: BaseException, letters: int = 200) -> str:
    """Returns the message of an error on one line.

    Args:
        error: any exception.
        letters: the result is cut at this many characters.
    """
    return " ".join(str(error).split())[:letters]
