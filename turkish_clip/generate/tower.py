"""The image model with gradients: what its processor does to an image, as tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from turkish_clip.errors import InputError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

GREYS = (0, 128, 255)  # of the flat images that the processor is measured by
EXACT = 1e-4  # how far the measured line may be from the processor


class TowerError(InputError):
    """An image model that images can't be optimised for."""


class DifferentiableTower:
    """Unit vectors of images that are tensors, through which gradients flow to the pixels.

    What the model's processor does to a colour is measured on flat images; it has to be one line for each channel, as
    scaling and normalising are.

    Args:
        model: an image model, or a pair. Its weights are frozen.

    Raises:
        TowerError: it is none, or the processor does something else.
    """

    def __init__(self, model: SentenceTransformer) -> None:
        if not model.supports("image"):
            raise TowerError("expected an image model, got one that takes texts alone; name another one")
        self._model = model.eval().requires_grad_(False)
        self.device = model.device
        flat = [Image.new("RGB", (64, 64), (grey, grey, grey)) for grey in GREYS]
        features: dict[str, Any] = dict(model.preprocess(flat))
        pixels = features.pop("pixel_values", None)
        if not isinstance(pixels, torch.Tensor) or pixels.ndim != 4 or pixels.shape[1] != 3:
            raise TowerError(
                "expected an image model that takes pixel_values of three channels, got another; name another one"
            )
        self.side = (int(pixels.shape[2]), int(pixels.shape[3]))
        black, grey, white = (pixels[row, :, 0, 0].float() for row in range(3))
        expected = black + (white - black) * (GREYS[1] / 255)
        if not torch.allclose(grey, expected, atol=EXACT * float((white - black).abs().max())):
            raise TowerError(
                "expected an image model whose processor scales and normalises colours, got one that does more; name "
                "another one"
            )
        self._offset = black[None, :, None, None].to(self.device)
        self._scale = (white - black)[None, :, None, None].to(self.device)
        self._rest = features

    def __call__(self, images: Tensor) -> Tensor:
        """Returns the (n, dim) unit vectors of images.

        Args:
            images: (n, 3, height, width) float32 in 0 to 1, of any size; resized to that of the model.
        """
        if tuple(images.shape[2:]) != self.side:
            images = functional.interpolate(images, self.side, mode="bilinear", antialias=True, align_corners=False)
        features = {"pixel_values": images * self._scale + self._offset, **self._rest_for(len(images))}
        return functional.normalize(self._model(features)["sentence_embedding"].float(), dim=-1)

    def _rest_for(self, count: int) -> dict[str, Any]:
        """Returns the other features of `preprocess` for a number of images."""
        rest: dict[str, Any] = {}
        for name, value in self._rest.items():
            repeats = isinstance(value, torch.Tensor) and value.ndim > 0 and len(value) == len(GREYS)
            rest[name] = value[:1].expand(count, *value.shape[1:]).to(self.device) if repeats else value
        return rest


def as_image(pixels: Tensor) -> Image.Image:
    """Returns a (1, 3, height, width) tensor in 0 to 1 as an RGB image."""
    levels = (pixels.detach()[0].clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(np.ascontiguousarray(levels.permute(1, 2, 0).cpu().numpy()))
