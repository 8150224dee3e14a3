"""How the trainer computes on its device: number formats, optimizer and memory, chosen by what a GPU can do.

Source of what a GPU can do: NVIDIA's compute capabilities; bf16 and TF32 came with 8.0 (Ampere).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.run.recipe import ConfigError

if TYPE_CHECKING:
    import torch

    from training.run.config import DistillConfig

AMPERE = (8, 0)


@dataclass(frozen=True)
class Computing:
    """How a device computes.

    Attributes:
        device: cpu, cuda or mps.
        name: of the GPU; empty for other devices.
        bf16: whether models compute in bf16 mixed precision.
        tf32: whether a GPU multiplies float32 numbers as TF32; None: there is no GPU.
        optimizer: the trainer's name of the optimizer; empty: its own choice.
        pinned: whether batches go to the device from pinned memory, while it computes.
    """

    device: str
    name: str = ""
    bf16: bool = False
    tf32: bool | None = None
    optimizer: str = ""
    pinned: bool = False

    @classmethod
    def on(
        cls,
        device: str,
        capability: tuple[int, int] | None = None,
        *,
        bf16: bool | None = None,
        tf32: bool | None = None,
        name: str = "",
    ) -> Computing:
        """Chooses how to compute; what is given holds, if the device can.

        Args:
            device: cpu, cuda or mps.
            capability: of the GPU; None for other devices.
            bf16: None: on a GPU that has it.
            tf32: as for bf16; no matter on other devices.
            name: of the GPU.

        Raises:
            ConfigError: the GPU lacks a format that is asked for.
        """
        if device != "cuda":
            return cls(device, bf16=bool(bf16))
        recent = capability is not None and capability >= AMPERE
        for option, wanted in (("bf16", bf16), ("tf32", tf32)):
            if wanted and not recent:
                raise ConfigError(
                    f"expected a GPU with {option} (compute capability 8.0), got {name or 'one'} without; leave "
                    f"--{option} out"
                )
        return cls(
            device,
            name,
            bf16=recent if bf16 is None else bf16,
            tf32=recent if tf32 is None else tf32,
            optimizer="adamw_torch_fused",
            pinned=True,
        )

    def __str__(self) -> str:
        """Returns it in words.

        >>> print(Computing.on("cpu"))
        on cpu in float32
        >>> print(Computing.on("cuda", (9, 0), name="H100"))
        on cuda (H100) in bf16 and TF32, fused AdamW, pinned memory
        """
        formats = "bf16" if self.bf16 else "float32"
        parts = [f"in {formats}{' and TF32' if self.tf32 else ''}"]
        parts += ["fused AdamW"] * bool(self.optimizer) + ["pinned memory"] * self.pinned
        return f"on {self.device}{f' ({self.name})' if self.name else ''} {', '.join(parts)}"


def computing_of(config: DistillConfig) -> Computing:
    """Returns how this machine's device computes.

    Raises:
        InputError: there is no such device.
        ConfigError: the GPU lacks a format that is asked for.
    """
    from training.run.distributed import device_of

    device = device_of(config.device)
    if not device.startswith("cuda"):
        return Computing.on(device, bf16=config.bf16)
    import torch

    return Computing.on(
        "cuda",
        torch.cuda.get_device_capability(device),
        bf16=config.bf16,
        tf32=config.tf32,
        name=torch.cuda.get_device_name(device),
    )


@contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """Multiplies float32 numbers as such on a GPU, also where TF32 is on: it would take similar images for the same."""
    import torch

    if device.type != "cuda":
        yield
        return
    products = torch.backends.cuda.matmul
    name, exact = ("fp32_precision", "ieee") if hasattr(products, "fp32_precision") else ("allow_tf32", False)
    before = getattr(products, name)
    setattr(products, name, exact)
    try:
        yield
    finally:
        setattr(products, name, before)
