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
