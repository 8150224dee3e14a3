"""What an image is optimised through: a canvas has parameters, and gives an image that gradients flow through."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

# Luminance, blue against yellow, red against green: channels that are hardly correlated in images, so that a step does
# not move all three colours as one. Rows are orthogonal and of unit length, so that the transpose is the inverse.
OPPONENT = (
    (0.57735027, 0.57735027, 0.57735027),
    (0.40824829, 0.40824829, -0.81649658),
    (0.70710678, -0.70710678, 0.0),
)
DEVIATION = 0.01  # of the random coefficients that a canvas begins with: almost grey
CONTRAST = 0.25  # of a coefficient's effect, as in lucid: small steps of Adam are small in the image
NEAR = 1e-3  # how near to black and white a start image may come: the logit of either is infinite


class Canvas(Protocol):
    """A generator of images, behind which any decoder may stand.

    Attributes:
        smoothness: weight of the mean absolute difference of neighbouring pixels that suits it: the less it knows of
            images, the more.
    """

    smoothness: float

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        ...

    def parameters(self) -> list[nn.Parameter]:
        """Returns what is optimised."""
        ...

    def image(self) -> Tensor:
        """Returns the image, (1, 3, height, width) float32 in 0 to 1, with its gradients."""
        ...


class FourierCanvas:
    """An image as the coefficients of its Fourier transform, which needs no weights.

    Coefficients are scaled by the inverse of their frequency, as those of natural images fall, so that a step changes
    large shapes and fine detail alike; pixels by themselves would end as noise. The parametrisation is that of Olah,
    Mordvintsev and Schubert, "Feature Visualization" (Distill, 2017), and Mordvintsev et al., "Differentiable Image
    Parameterizations" (Distill, 2018).

    Args:
        height: of the image in pixels.
        width: of the image in pixels.
        generator: source of the first coefficients, on the CPU.
        device: where the image is computed.
        start: an image to begin with, which is resized; None begins with grey.
        decay: the power of the frequency by which coefficients fall; above 1 gives softer images.
    """

    smoothness = 10.0

    def __init__(
        self,
        height: int,
        width: int,
        generator: torch.Generator,
        *,
        device: torch.device | str = "cpu",
        start: Image.Image | None = None,
        decay: float = 1.0,
    ) -> None:
        self._height, self._width = height, width
        frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None, :])
        scale = frequency.clamp(min=1 / max(height, width)) ** -decay
        self._scale = (scale * CONTRAST)[None, :, :, None].to(device)
        self._colours = torch.tensor(OPPONENT, device=device)
        coefficients = DEVIATION * torch.randn(3, *frequency.shape, 2, generator=generator)
        if start is not None:
            coefficients = coefficients * 0 + self._coefficients(start)
        self._coefficient = nn.Parameter(coefficients.to(device))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self._height, self._width

    def parameters(self) -> list[nn.Parameter]:
        """Returns the coefficients, (3, height, width // 2 + 1, 2): real and imaginary parts of opponent colours."""
        return [self._coefficient]

    def image(self) -> Tensor:
        """Returns the image, (1, 3, height, width) float32 in 0 to 1, with its gradients."""
        spectrum = torch.view_as_complex(self._coefficient * self._scale)
        channels = torch.fft.irfft2(spectrum, s=self.size, norm="ortho")
        return torch.sigmoid(torch.einsum("oc,ohw->chw", self._colours, channels))[None]

    def _coefficients(self, start: Image.Image) -> Tensor:
        resized = start.convert("RGB").resize((self._width, self._height), Image.Resampling.LANCZOS)
        pixels = torch.from_numpy(np.asarray(resized, np.float32) / 255).clamp(NEAR, 1 - NEAR)
        channels = torch.einsum("oc,hwc->ohw", self._colours.cpu(), torch.logit(pixels))
        spectrum = torch.view_as_real(torch.fft.rfft2(channels, norm="ortho"))
        return spectrum / self._scale.cpu()
