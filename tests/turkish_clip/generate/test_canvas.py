"""The canvas in Fourier space: a start image comes back, the seed decides, coefficients fall with the frequency."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from turkish_clip.generate import FourierCanvas
from turkish_clip.generate.tower import as_image


@pytest.mark.parametrize("size", [(24, 24), (17, 30), (30, 17)])
def test_a_start_image_comes_back(size: tuple[int, int]) -> None:
    height, width = size
    levels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    canvas = FourierCanvas(height, width, torch.Generator(), start=Image.fromarray(levels))
    assert canvas.size == size
    found = np.asarray(as_image(canvas.image()), np.int16)
    assert found.shape == levels.shape
    assert np.abs(found - levels.astype(np.int16)).max() <= 1


def test_an_empty_canvas_is_grey_and_of_its_seed() -> None:
    def image(seed: int) -> torch.Tensor:
        return FourierCanvas(32, 32, torch.Generator().manual_seed(seed)).image().detach()

    assert torch.equal(image(3), image(3))
    assert not torch.equal(image(3), image(4))
    assert float((image(3) - 0.5).abs().max()) < 0.1


def test_a_coefficient_of_twice_the_frequency_has_half_the_effect() -> None:
    canvas = FourierCanvas(32, 32, torch.Generator())
    spans = []
    for frequency in (2, 4):
        with torch.no_grad():
            canvas.parameters()[0].zero_()
            canvas.parameters()[0][0, 0, frequency, 0] = 0.01
            spans.append(float(canvas.image().max() - canvas.image().min()))
    assert spans[0] == pytest.approx(2 * spans[1], rel=1e-3)


def test_luminance_moves_the_three_colours_alike() -> None:
    canvas = FourierCanvas(16, 16, torch.Generator())
    with torch.no_grad():
        canvas.parameters()[0].zero_()
        canvas.parameters()[0][0, 0, 0, 0] = 1.0
    colours = canvas.image().detach()[0, :, 0, 0]
    assert torch.allclose(colours, colours[:1].expand(3), atol=1e-5)
    assert float(colours[0]) > 0.5
