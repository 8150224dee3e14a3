"""The ranks that train one model (torchrun, accelerate launch): their process group, joint actions and devices.

Without a launcher there is one process, the main one, and no process group; every function here works there, too.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from turkish_clip.errors import InputError
from turkish_clip.hosts import import_hosts

PATIENCE = timedelta(hours=6)  # for which ranks wait while the main process reads, downloads or draws images
BAD_INPUT, DEFECT = 2, 1  # exit codes, as in `command`
LOST_WORDS = ("connection closed by peer", "connection reset by peer", "broken pipe", "distributed evaluator failed")
SHARDED_WEIGHTS = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM")
Result = TypeVar("Result")


class ProcessError(InputError):
    """The processes of a launcher can't form the process group that training needs."""


def world_size() -> int:
    """Returns the number of processes that train together: 1 unless a launcher started several."""
    return int(os.environ["WORLD_SIZE"]) if {"RANK", "WORLD_SIZE"} <= set(os.environ) else 1


def rank() -> int:
    """Returns the rank of this process, from 0; the main process, which evaluates and writes, has rank 0."""
    return int(os.environ["RANK"]) if world_size() > 1 else 0


def local_rank() -> int:
    """Returns the rank of this process on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", rank())) if world_size() > 1 else 0


def _local_world_size() -> int:
    """Returns the number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size())) if world_size() > 1 else 1


def is_main_process() -> bool:
    return rank() == 0


def join_process_group(device: str) -> None:
    """Waits until all ranks have joined the process group; a single process needs none.

    Args:
        device: torch device of this rank; "cuda:N" joins through NCCL, everything else through gloo.

    Raises:
        ProcessError: the ranks do not meet, or the launcher would shard the weights, too.
    """
    if world_size() == 1:
        return
    for name in SHARDED_WEIGHTS:
        if os.environ.get(name, "false").lower() == "true":
            raise ProcessError(
                f"expected a launcher that starts plain processes, got {name}; turn that off (accelerate config)"
            )
    import torch

    options: dict[str, Any] = {"backend": "gloo"}
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
        options = {"backend": "nccl", "device_id": torch.device(device)}
    try:
        torch.distributed.init_process_group(timeout=PATIENCE, **options)
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ.get('MASTER_ADDR', '')}:{os.environ.get('MASTER_PORT', '')}"
        raise ProcessError(
            f"expected {world_size()} processes to meet at {where}, got {str(error).splitlines()[0]}; start them "
            "with torchrun or accelerate launch"
        ) from error


def exit_process_group(end: BaseException | None) -> None:
    """Ends this process at once if it has joined a process group; returns otherwise.

    An exit through torch's destructors sometimes hangs: the group's destructor holds Python's lock while it waits for
    gloo's threads, and one of them waits for that lock to free a tensor (torch 2.13; pytorch issue 75097).

    Args:
        end: the exception that ends the process: a SystemExit gives the exit code, another is a defect; None: success.
    """
    if not _joined():
        return
    code = 0 if end is None else DEFECT
    if isinstance(end, SystemExit):
        code = end.code if isinstance(end.code, int) else 0
    elif end is not None:
        traceback.print_exception(end)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def all_or_none(action: Callable[[], Result]) -> Result:
    """Runs `action` on each rank and returns this rank's result; if it fails on one rank, all of them end.

    Raises:
        Exception: what `action` raised, on the lowest rank where it failed.
        SystemExit: on the other ranks, with the exit code of that one.
    """
    result, error = _attempt(action)
    _agree(error)
    return result  # type: ignore[return-value]  # None only after an error, which _agree has raised


def main_process_first(action: Callable[[], Result]) -> Result:
    """Does what `all_or_none` does, on the main process first: the other ranks find what it wrote or downloaded."""
    if is_main_process():
        result = all_or_none(action)
        all_or_none(lambda: None)
        return result
    all_or_none(lambda: None)
    return all_or_none(action)


def broadcast_from_main(action: Callable[[], Result]) -> Result:
    """Runs `action` on the main process only and returns its result on every rank; fails as `all_or_none` does."""
    result = all_or_none(action if is_main_process() else lambda: None)
    if world_size() == 1:
        return result  # type: ignore[return-value]
    import torch

    results = [result]
    torch.distributed.broadcast_object_list(results, src=0)
    return results[0]  # type: ignore[return-value]


def reports_errors() -> bool:
    """Returns whether this process prints its error.

    Outside a process group, the first rank of each machine does; inside one, `all_or_none` has chosen the rank.
    """
    return local_rank() == 0 or _joined()


def is_lost_peer(error: BaseException) -> bool:
    """Returns whether an error only means that another rank has ended, as gloo reports it in a RuntimeError."""
    lost = isinstance(error, RuntimeError) and any(words in str(error).lower() for words in LOST_WORDS)
    return lost and world_size() > 1


def _joined() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized()


def _attempt(action: Callable[[], Result]) -> tuple[Result | None, Exception | None]:
    try:
        return action(), None
    except Exception as error:  # noqa: BLE001  # raised again once the other ranks know of it
        return None, error


def _agree(error: Exception | None) -> None:
    """Raises an error of any rank: itself on the lowest rank that has one, SystemExit with its code on the others."""
    codes = [0 if error is None else BAD_INPUT if isinstance(error, (InputError, OSError)) else DEFECT]
    if _joined():
        import torch

        gathered: list[Any] = [None] * world_size()
        torch.distributed.all_gather_object(gathered, codes[0])
        codes = gathered
    failed = next((other for other, code in enumerate(codes) if code), None)
    if failed is None:
        return
    if error is not None and (failed == rank() or not _joined()):
        raise error
    raise SystemExit(codes[failed])


def device_of(name: str) -> str:
    """Returns the torch device for a configuration's `device`; each of several ranks gets a GPU of its own.

    Raises:
        InputError: this machine has no such device, or fewer GPUs than ranks.
    """
    import_hosts("torch")
    import torch

    several = world_size() > 1
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available() and not several, "cpu": True}
    present = [device for device, is_present in has.items() if is_present]
    device = present[0] if name == "auto" else name
    if not has[device]:
        raise InputError(
            f"expected a device that this machine has ({', '.join(present)}), got {name!r}; choose with --device"
        )
    if device != "cuda" or not several:
        return device
    if _local_world_size() > torch.cuda.device_count():
        raise InputError(
            f"expected a GPU for each process, got {torch.cuda.device_count()} for {_local_world_size()} processes "
            "on this machine; start fewer, or add --device cpu"
        )
    return f"cuda:{local_rank()}"


def training_device(name: str) -> str:
    """Returns `device_of` for a trainer, which would split the batches of one process that sees several GPUs.

    Raises:
        InputError: as by `device_of`, or one process sees several GPUs.
    """
    import torch

    device = device_of(name)
    if device == "cuda" and torch.cuda.device_count() > 1:
        raise InputError(
            f"expected one GPU for this process, got {torch.cuda.device_count()}; set CUDA_VISIBLE_DEVICES=0 "
            "(distill runs on several by torchrun)"
        )
    return device
