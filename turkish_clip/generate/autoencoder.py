"""A VQ-autoencoder as a canvas: what is optimised are its codes, so that every image is one that it can decode."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from turkish_clip.errors import InputError, not_imported, one_line

VQModel: TypeAlias = Any  # that of diffusers, which has no types
CONFIG = "config.json"  # of a folder that VQModel saved


class GeneratorError(InputError):
    """A generator or decoder that can't be loaded, or does not fit."""


class VQCanvas:
    """An image as the codes of a VQ-autoencoder, which moves freely between the entries of its codebook.

    What is decoded is the nearest entry at each place; gradients go past that choice to the code (the straight-through
    estimator of van den Oord et al., "Neural Discrete Representation Learning", 2017), as VQGAN+CLIP has it. Codes stay
    within the codebook's range.

    Args:
        model: the autoencoder; its weights are frozen.
        height: of the image in pixels, a multiple of the autoencoder's step.
        width: of the image in pixels, likewise.
        generator: source of the first codes, on the CPU.
        start: an image to begin with, which is resized and encoded; None begins with entries drawn at random: it may
            not know a plain image.

    Raises:
        GeneratorError: the size does not fit.
    """

    smoothness = 5.0

    def __init__(
        self,
        model: VQModel,
        height: int,
        width: int,
        generator: torch.Generator,
        *,
        start: Image.Image | None = None,
    ) -> None:
        step = step_of(model)
        if height % step or width % step:
            down = f"{max(1, width // step) * step}x{max(1, height // step) * step}"
            raise GeneratorError(
                f"expected sides that are multiples of {step}, as the autoencoder's, got {width}x{height}; give {down}"
            )
        self._model = model.eval().requires_grad_(False)
        self._height, self._width = height, width
        codebook: Tensor = model.quantize.embedding.weight.detach()
        self._low = codebook.min(dim=0).values[None, :, None, None]
        self._high = codebook.max(dim=0).values[None, :, None, None]
        rows, columns = height // step, width // step
        if start is None:
            numbers = torch.randint(len(codebook), (rows * columns,), generator=generator)
            codes = codebook[numbers.to(codebook.device)].reshape(1, rows, columns, -1).permute(0, 3, 1, 2)
        else:
            resized = start.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
            pixels = torch.from_numpy(np.array(resized, np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
            with torch.no_grad():
                codes = model.encode(pixels.to(codebook.device)).latents
        self._codes = nn.Parameter(codes.contiguous().clone())

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self._height, self._width

    def parameters(self) -> list[nn.Parameter]:
        """Returns the codes, (1, width of the codebook, height / step, width / step)."""
        return [self._codes]

    def image(self) -> Tensor:
        """Returns the image, (1, 3, height, width) float32 in 0 to 1, with its gradients."""
        kept = torch.maximum(torch.minimum(self._codes, self._high), self._low)
        codes = self._codes + (kept - self._codes).detach()  # a code beyond the codebook can still come back
        decoded: Tensor = self._model.decode(codes).sample
        shown = (decoded.float() + 1) / 2
        return shown + (shown.clamp(0, 1) - shown).detach()


def canvas_on(
    model: VQModel, seed: int, *, size: tuple[int, int] | None = None, start: Image.Image | None = None
) -> VQCanvas:
    """Returns a canvas on an autoencoder, at the size that it was trained at unless another is given.

    Args:
        model: the autoencoder.
        seed: of the first codes.
        size: height and width in pixels.
        start: as in `VQCanvas`.

    Raises:
        GeneratorError: the size does not fit.
    """
    side = int(model.config["sample_size"])
    height, width = size or (side, side)
    return VQCanvas(model, height, width, torch.Generator().manual_seed(seed), start=start)


def step_of(model: VQModel) -> int:
    """Returns how many pixels of a side one code stands for."""
    return int(2 ** (len(model.config["block_out_channels"]) - 1))


def load_autoencoder(source: str | Path, *, revision: str | None = None, device: str | None = None) -> VQModel:
    """Loads a VQ-autoencoder of diffusers; weights in safetensors alone.

    Args:
        source: folder that `VQModel.save_pretrained` wrote, or Hub id, where it may lie in the folder vqvae or movq.
        revision: branch, tag or commit on the Hub.
        device: torch device; None takes the CPU.

    Raises:
        GeneratorError: diffusers is not installed, or there is no such autoencoder.
    """
    if str(source).startswith(("/", "./", "../", "~")) and not Path(source).exists():
        raise GeneratorError(f"expected a VQ-autoencoder in {source}, got no such folder; correct the path")
    diffusers = import_diffusers()
    reasons: list[str] = []
    for subfolder in ("", "vqvae", "movq"):
        options: dict[str, Any] = {"subfolder": subfolder} if subfolder else {}
        if Path(source).is_dir() and not (Path(source) / subfolder / CONFIG).is_file():
            continue
        try:
            config = diffusers.VQModel.load_config(str(source), revision=revision, **options)
            if (name := str(config.get("_class_name"))) != "VQModel":
                reasons.append(f"a {name}")
                continue
            model: VQModel = diffusers.VQModel.from_pretrained(
                str(source), revision=revision, use_safetensors=True, low_cpu_mem_usage=False, **options
            )
        except Exception as error:  # noqa: BLE001 - diffusers, the Hub's client and safetensors each raise their own
            reasons.append(one_line(error))
            continue
        return model.to(device or "cpu").float()
    raise GeneratorError(
        f"expected a VQ-autoencoder (VQModel of diffusers, in safetensors) in {source}, got "
        f"{reasons[0] if reasons else f'no {CONFIG}'}; name a folder or a Hub id that has one"
    )


def import_diffusers() -> Any:
    """Imports diffusers.

    Raises:
        GeneratorError: it is not installed, or fails.
    """
    try:
        import diffusers
    except (ImportError, RuntimeError) as error:  # its lazy modules turn the one into the other
        cause = error if isinstance(error, ImportError) else ImportError(str(error))
        raise GeneratorError(not_imported(cause, "diffusers", "generate", "diffusers")) from error
    return diffusers
