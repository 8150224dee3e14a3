"""Where the computation runs."""

from __future__ import annotations

from training.processes import local_process_count, local_process_number, process_count
from turkish_clip.errors import InputError


def device_of(name: str) -> str:
    """The torch device that a configuration's `device` stands for; of several processes, each has a GPU of its own.

    Raises:
        InputError: this machine has no such device, or not for each process.
    """
    import torch

    several = process_count() > 1
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available() and not several, "cpu": True}
    device = next(device for device, present in has.items() if present) if name == "auto" else name
    if not has[device]:
        there = ", ".join(device for device, present in has.items() if present)
        raise InputError(f"expected a device that this machine has ({there}), got {name!r}; choose with --device")
    if device != "cuda" or not several:
        return device
    if local_process_count() > torch.cuda.device_count():
        raise InputError(
            f"expected a GPU for each process, got {torch.cuda.device_count()} for {local_process_count()} processes "
            "on this machine; start fewer, or add --device cpu"
        )
    return f"cuda:{local_process_number()}"


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
