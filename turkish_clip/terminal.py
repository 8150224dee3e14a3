"""What commands need of a terminal: an end at once on Ctrl-C, and output that neither fails nor obeys a file's name."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from turkish_clip.atomic import remove_unfinished
from turkish_clip.errors import printable
from turkish_clip.strict_json import json_text

INTERRUPTED = 130  # the exit code after Ctrl-C
IMPORTING = "<frozen importlib"  # what Python names the code that imports modules
AGAIN = b"\ninterrupted; give the same command again to go on\n"
SHOW_CURSOR = b"\x1b[?25h"  # which a progress bar has hidden


def end_at_once_while_importing() -> None:
    """Makes Ctrl-C end the process at once while modules are imported, and raise KeyboardInterrupt otherwise.

    Importing takes seconds, in which some libraries take the exception for a missing module, and others print it.
    """
    ours = threading.current_thread() is threading.main_thread()
    if ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)


def _interrupted(_: int, frame: FrameType | None) -> None:
    if _imports(frame):
        os.write(2, (SHOW_CURSOR if os.isatty(2) else b"") + AGAIN)
        remove_unfinished()
        os._exit(INTERRUPTED)
    raise KeyboardInterrupt


def end_in_order() -> None:
    """Makes SIGTERM, and SIGHUP of a closed terminal, end the process as Ctrl-C does: temporary files go with it.

    A second signal ends it at once, as both do without this.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup leaves it ignored
            signal.signal(number, _ended)


def _ended(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    if _imports(frame):
        remove_unfinished()
        os._exit(128 + number)  # as a shell counts the end by a signal
    raise SystemExit(128 + number)


def _imports(frame: FrameType | None) -> bool:
    """Returns whether a module is being imported."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(IMPORTING):
            return True
        frame = frame.f_back
    return False


def lenient_output() -> None:
    """Makes letters that stdout and stderr can't encode escapes, since an error would come after all the work."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def as_json(value: Any) -> str:
    """Returns a value as JSON on one line, with all but ASCII escaped if it has letters that stdout can't show."""
    text = json_text(value)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return json_text(value, ascii_only=True)
    return text if printable(text) == text else json_text(value, ascii_only=True)


class LineFormatter(logging.Formatter):
    """Formats log messages with control characters escaped, but for the ends of lines.

    Args:
        template: as logging takes it.
        said: returns a message as it is to be read, in another language for example.
    """

    def __init__(self, template: str, said: Callable[[str], str] = str) -> None:
        super().__init__(template)
        self._said = said

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the host's name
        """Returns the message of a record."""
        return "\n".join(map(printable, self._said(super().formatMessage(record)).split("\n")))


def log_to_stderr(level: int, said: Callable[[str], str] = str) -> None:
    """Lets log messages from a level on go to stderr, as lines without their origin.

    Args:
        level: of logging.
        said: as `LineFormatter` takes it.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter("%(message)s", said))
    logging.basicConfig(level=level, handlers=[handler])
