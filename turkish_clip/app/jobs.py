"""What takes longer than a request: indexing, finding duplicates, drawing; one at a time, in a thread with progress."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock, Thread
from typing import Any, Literal

from turkish_clip.app.wording import RefusedError
from turkish_clip.errors import InputError

log = logging.getLogger("turkish_clip")
Progress = Callable[[int, int], None]
Kind = Literal["index", "duplicates", "draw"]


class _StoppedError(Exception):
    """Raised inside the work of a job that is to stop."""


@dataclass
class Job:
    """One piece of work.

    Attributes:
        kind: what it does.
        state: "running", "done", "stopped" or "failed".
        done: images done.
        total: of all images; 0 while it is not known.
        result: what it returned.
        message: why it failed, in Turkish.
    """

    kind: Kind
    state: Literal["running", "done", "stopped", "failed"] = "running"
    done: int = 0
    total: int = 0
    result: dict[str, Any] = field(default_factory=dict)
    message: str = ""
    stopping: bool = False

    def advance(self, done: int, total: int) -> None:
        """Notes how far the work is, or ends it if it is to stop.

        Args:
            done: images done.
            total: of all images.
        """
        if self.stopping:
            raise _StoppedError
        self.done, self.total = done, total

    def as_json(self) -> dict[str, Any]:
        """Returns what the page shows of it."""
        shown = ("kind", "state", "done", "total", "result", "message", "stopping")
        return {name: getattr(self, name) for name in shown}


class Jobs:
    """The last job of each kind; while one runs, no other begins."""

    def __init__(self) -> None:
        self._last: dict[str, Job] = {}
        self._lock = Lock()

    def last(self, kind: str) -> Job | None:
        """Returns the last job of a kind, if there was one."""
        return self._last.get(kind)

    def note(self, kind: str, result: dict[str, Any]) -> None:
        """Notes what a running job has so far.

        Args:
            kind: of the job.
            result: that is shown until it ends.
        """
        if (job := self._last.get(kind)) is not None:
            job.result = result

    def start(self, kind: Kind, work: Callable[[Progress], dict[str, Any]], failed: Callable[[InputError], str]) -> Job:
        """Starts a job.

        Args:
            kind: what it does.
            work: given the function that takes progress; returns what is to be shown.
            failed: returns the Turkish message of an error.

        Raises:
            RefusedError: another one runs.
        """
        with self._lock:
            if any(job.state == "running" for job in self._last.values()):
                raise RefusedError("Bir iş sürüyor. Bitmesini bekleyin ya da durdurun.")
            job = self._last[kind] = Job(kind)
        Thread(target=_run, args=(job, work, failed), name=f"turkish-clip {kind}", daemon=True).start()
        return job


def _run(job: Job, work: Callable[[Progress], dict[str, Any]], failed: Callable[[InputError], str]) -> None:
    try:
        job.result = work(job.advance)
        job.state = "done"
    except _StoppedError:
        job.state = "stopped"
    except InputError as error:
        log.warning("%s: %s", job.kind, error)
        job.message, job.state = failed(error), "failed"
    except Exception:  # the page goes on, and says that it failed
        log.exception("%s", job.kind)
        job.message, job.state = "Beklenmeyen bir aksaklık oldu. Ayrıntısı komutun çıktısında.", "failed"
