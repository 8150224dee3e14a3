"""Runs a command: its logging, exit codes, errors on one line, and results as lines or JSON."""

from __future__ import annotations

import argparse
import logging
import os
import select
import sys
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

from training.run.distributed import (
    exit_process_group,
    is_lost_peer,
    is_main_process,
    local_rank,
    reports_errors,
    world_size,
)
from training.run.lock import releasing_locks
from turkish_clip.errors import InputError, is_disk_full, one_line, printable
from turkish_clip.hosts import import_hosts
from turkish_clip.terminal import as_json as json_line
from turkish_clip.terminal import lenient_output, log_to_stderr

NETWORK_CLIENTS = ("huggingface_hub", "httpx", "httpx2", "requests", "urllib3", "aiohttp")


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are `InputError`s, which `run_command` prints as one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"expected the options of {self.prog}, got {message}; see --help")


def run_command(
    main: Callable[[list[str]], Any], argv: list[str] | None = None, *, several_processes: bool = False
) -> None:
    """Runs a command; an error that its user can correct becomes one line on stderr.

    Exit codes: 0 done, 2 bad input or a full disk, 130 interrupted. Another error is a defect and keeps its traceback.

    Args:
        main: the command.
        argv: its arguments; None: those of the command line.
        several_processes: whether a launcher may start it on several ranks, of which one logs and prints errors.
    """
    level = logging.INFO if is_main_process() else logging.ERROR
    lenient_output()
    log_to_stderr(level)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        if world_size() > 1 and not several_processes:
            _exit(
                f"expected one process, got {world_size()}; start it without a launcher (training.distill alone "
                "runs on several)"
            )
        with releasing_locks():
            _run(main, sys.argv[1:] if argv is None else argv)
    except BaseException as end:
        exit_process_group(end)
        raise
    exit_process_group(None)


def _run(main: Callable[[list[str]], Any], argv: list[str]) -> None:
    try:
        try:
            main(argv)
        finally:
            sys.stdout.flush()  # here, where a reader that has gone ends it without a traceback
    except InputError as error:
        _exit(one_line(error, None))
    except KeyboardInterrupt:
        _close_progress_bars()
        if local_rank() == 0:
            print("interrupted; give the same command again (with --resume where it trains) to go on", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _is_output_closed():
            raise SystemExit(1) from None  # as `| head` does, which has read enough
        if is_lost_peer(error):
            if not is_main_process():
                raise SystemExit(2) from None  # the rank that ended, or the main process, prints why
            _exit(f"expected all {world_size()} processes to go on, got one that ended; see why above, and --resume")
        if is_disk_full(error):
            _exit(f"expected free disk space, got a full disk ({_first_line(error)}); free some and run it again")
        if (reason := network_failure(error)) is not None:
            _exit(f"expected an answer from the network, got {reason}; check the connection, and run it again")
        if isinstance(error, OSError):
            _exit(f"expected to read and write files, got {_first_line(error)}; check the path and its permissions")
        raise


def _is_output_closed() -> bool:
    """Returns whether no one reads stdout any more; what is left in its buffer is then dropped."""
    poll = select.poll()  # systems without it have another error for such an output
    poll.register(sys.stdout, select.POLLOUT)
    if not any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def print_result(result: dict[str, Any], as_json: bool) -> None:
    """Prints the result of a command to stdout, on the main process only.

    Args:
        result: numbers, texts and nested dictionaries by name.
        as_json: whether to print one JSON object; otherwise a line for each value, without the intervals `ci95`.
    """
    if not is_main_process():
        return
    if as_json:
        print(json_line(result))
        return
    for name, value in _flat(result):
        print(f"{name:<48} {value:.4f}" if isinstance(value, float) else printable(f"{name:<48} {value}"))


def _flat(result: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    lines: list[tuple[str, Any]] = []
    for name, value in result.items():
        if isinstance(value, dict):
            lines += [] if name == "ci95" else _flat(value, f"{prefix}{name}.")
        else:
            lines.append((prefix + name, value))
    return lines


def network_failure(error: BaseException | None) -> str | None:
    """Returns the first line of an error, or of a cause of it, that comes from the network; None for others."""
    while error is not None:
        library, name = type(error).__module__.partition(".")[0], type(error).__name__
        lost = isinstance(error, (ConnectionError, TimeoutError)) and not isinstance(error, BrokenPipeError)
        if lost or library in NETWORK_CLIENTS or name == "DatasetNotFoundError":
            return f"{name}: {_first_line(error)}"
        error = error.__cause__ or error.__context__
    return None


def quiet_hosts() -> None:
    """Turns off the host libraries' progress bars and their log messages below errors, so that ours can be read."""
    import_hosts("transformers")
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # the library sets its level when it is imported
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")  # accelerate passes it to torch
    for name in ("sentence_transformers", "datasets", "httpx", "httpx2", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _close_progress_bars() -> None:
    """Ends the line of an interrupted progress bar, so that a message starts on a new line."""
    for bar in list(getattr(getattr(sys.modules.get("tqdm"), "tqdm", None), "_instances", ())):
        bar.close()


def _exit(message: str) -> None:
    _close_progress_bars()
    if reports_errors():
        print(f"error: {printable(message)}", file=sys.stderr)
    raise SystemExit(2)
