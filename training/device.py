"""Where the computation runs."""

from __future__ import annotations

from turkish_clip.errors import InputError


def device_of(name: str) -> str:
    """The torch device that a configuration's `device` stands for.

    Raises:
        InputError: this machine has no such device.
    """
    import torch

    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if has[device])
    if not has[name]:
        there = ", ".join(device for device, present in has.items() if present)
        raise InputError(f"expected a device that this machine has ({there}), got {name!r}; choose with --device")
    return name
