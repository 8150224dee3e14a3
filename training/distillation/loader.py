"""How many processes prepare batches of captions ahead of the training, and where there can be none."""

from __future__ import annotations

import logging
import multiprocessing
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.run.config import DistillConfig
from training.run.distributed import is_main_process, world_size
from training.run.record import RunError
from turkish_clip.decoding import cores
from turkish_clip.errors import one_line

log = logging.getLogger("training")
MOST = 4  # of which each prepares 10,000 captions a second or more: no GPU takes more with a BERT-base
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where batches pass from one process to another
BATCHES_AHEAD = 4  # of each process
SPARE = 4  # times what the batches take is to be free there


def loader_processes(config: DistillConfig, dim: int) -> int:
    """Returns the number of processes that augment and tokenise captions while the model computes; 0: none.

    They see the rows in the same order as a single process would, so the weights are the same. There are none where a
    process can't be forked, where its memory can't be shared, and by default on a single core.

    Args:
        config: has their number, or -1 for as many as there are free cores, at most `MOST`.
        dim: width of the regression targets.
    """
    wanted = config.loader_processes
    if wanted < 0:
        wanted = min(MOST, cores() // world_size() - 1)
    if wanted <= 0:
        return 0
    hindrance = _hindrance(wanted * BATCHES_AHEAD * SPARE * _bytes_of_batch(config, dim))
    if hindrance and is_main_process():
        log.warning("captions are tokenised between the training steps, not beside them: %s", hindrance)
    return 0 if hindrance else wanted


@contextmanager
def naming_lost_processes() -> Iterator[None]:
    """Turns the loader's error about a process that died into a `RunError` of one line."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise RunError(
            f"expected the processes that tokenise captions to go on, got {one_line(error)}; give the same command "
            "with --resume, and --loader_processes 0 if it happens again"
        ) from error


def _bytes_of_batch(config: DistillConfig, dim: int) -> int:
    """Returns what the largest batch takes: token numbers, masks and labels."""
    return config.batch_size * (3 * 8 * config.max_tokens + 4 * (2 * dim + 1))


def _hindrance(needed: int) -> str:
    """Returns what keeps batches from being prepared in other processes; empty: nothing."""
    if sys.platform != "linux" or multiprocessing.get_start_method() != "fork":
        return "processes are not forked here"  # a new one would need the whole data set pickled
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return f"there is no {SHARED_MEMORY}"
    if free < needed:
        return f"{SHARED_MEMORY} has {free >> 20} MB free, {-(-needed >> 20)} MB are wanted"
    return ""
