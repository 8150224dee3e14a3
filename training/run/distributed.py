"""Several processes that train one model (torchrun, accelerate launch): ranks, devices, and how they act as one.

One process alone goes through all of this as if it were not there.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from turkish_clip.errors import InputError

PATIENCE = timedelta(hours=6)  # of those that wait while the first one reads, downloads or draws
BAD_INPUT, DEFECT = 2, 1  # exit codes, as in `command`
LOST_WORDS = (
    "connection closed by baseline",
    "connection reset by baseline",
    "broken pipe",
    "distributed evaluator failed",
)
OTHER_WAYS = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM")
Result = TypeVar("Result")


class ProcessError(InputError):
    """Processes that do not find each other, or that one of them left."""


def world_size() -> int:
    """How many processes train together: 1 unless a launcher started several."""
    return int(os.environ["WORLD_SIZE"]) if {"RANK", "WORLD_SIZE"} <= set(os.environ) else 1


def rank() -> int:
    """The number of this process, from 0: the one that evaluates and writes."""
    return int(os.environ["RANK"]) if world_size() > 1 else 0


def local_rank() -> int:
    """The number of this process on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", rank())) if world_size() > 1 else 0


def _local_world_size() -> int:
    """How many of the processes are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size())) if world_size() > 1 else 1


def is_main_process() -> bool:
    return rank() == 0


def join_process_group(device: str) -> None:
    """Waits until all processes have found each other; one process alone joins nothing.

    Args:
        device: where this process computes: NCCL joins GPUs, gloo everything else.

    Raises:
        ProcessError: they did not find each other, or are to share the weights, too.
    """
    if world_size() == 1:
        return
    for name in OTHER_WAYS:
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
    """Ends this process at once, if it joined others; does nothing otherwise.

    Args:
        end: what ends it: None at the end of the work, SystemExit with its code, or a defect.

    The way out through torch's destructors hangs now and then: the group's waits, with Python's lock in its hand, for
    gloo's threads, of which one waits for that lock to let a tensor go (torch 2.13; pytorch issue 75097).
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
    """What `action` returns in this process; where it fails in one process, all of them end.

    Raises:
        Exception: whatever it raised in the first process where it failed, in that process alone.
        SystemExit: in the other processes, with the code that the failed one ends with.
    """
    result, error = _attempt(action)
    _agree(error)
    return result  # type: ignore[return-value]  # None only after an error, which _agree has raised


def main_process_first(action: Callable[[], Result]) -> Result:
    """Like `all_or_none`, but the first process comes first: what it wrote or downloaded, the others find there."""
    if is_main_process():
        result = all_or_none(action)
        all_or_none(lambda: None)
        return result
    all_or_none(lambda: None)
    return all_or_none(action)


def broadcast_from_main(action: Callable[[], Result]) -> Result:
    """What `action` returns in the first process, which alone runs it; fails as `all_or_none` does."""
    result = all_or_none(action if is_main_process() else lambda: None)
    if world_size() == 1:
        return result  # type: ignore[return-value]
    import torch

    told = [result]
    torch.distributed.broadcast_object_list(told, src=0)
    return told[0]  # type: ignore[return-value]


def reports_errors() -> bool:
    """Whether an error of this process is for it to say.

    Before the processes have met, the first one of each machine says it; afterwards `all_or_none` has chosen one.
    """
    return local_rank() == 0 or _joined()


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error only tells that another process has ended: gloo says so in a RuntimeError."""
    said = isinstance(error, RuntimeError) and any(words in str(error).lower() for words in LOST_WORDS)
    return said and world_size() > 1


def _joined() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized()


def _attempt(action: Callable[[], Result]) -> tuple[Result | None, Exception | None]:
    try:
        return action(), None
    except Exception as error:  # noqa: BLE001  # raised again once the others know of it
        return None, error


def _agree(error: Exception | None) -> None:
    """All processes go on, or none does."""
    codes = [0 if error is None else BAD_INPUT if isinstance(error, (InputError, OSError)) else DEFECT]
    if _joined():
        import torch

        told: list[Any] = [None] * world_size()
        torch.distributed.all_gather_object(told, codes[0])
        codes = told
    failed = next((number for number, code in enumerate(codes) if code), None)
    if failed is None:
        return
    if error is not None and (failed == rank() or not _joined()):
        raise error
    raise SystemExit(codes[failed])


def device_of(name: str) -> str:
    """The torch device that a configuration's `device` stands for; of several processes, each has a GPU of its own.

    Raises:
        InputError: this machine has no such device, or not for each process.
    """
    import torch

    several = world_size() > 1
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available() and not several, "cpu": True}
    device = next(device for device, present in has.items() if present) if name == "auto" else name
    if not has[device]:
        there = ", ".join(device for device, present in has.items() if present)
        raise InputError(f"expected a device that this machine has ({there}), got {name!r}; choose with --device")
    if device != "cuda" or not several:
        return device
    if _local_world_size() > torch.cuda.device_count():
        raise InputError(
            f"expected a GPU for each process, got {torch.cuda.device_count()} for {_local_world_size()} processes "
            "on this machine; start fewer, or add --device cpu"
        )
    return f"cuda:{local_rank()}"


def training_device(name: str) -> str:
    """`device_of`, for a trainer: one process that sees several GPUs would split each batch among them, and its loss.

    Raises:
        InputError: likewise, and where one process sees several GPUs.
    """
    import torch

    device = device_of(name)
    if device == "cuda" and torch.cuda.device_count() > 1:
        raise InputError(
            f"expected one GPU for this process, got {torch.cuda.device_count()}; set CUDA_VISIBLE_DEVICES=0 "
            "(distill runs on several by torchrun)"
        )
    return device
