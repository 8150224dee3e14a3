"""The codebook is kept in use, whatever the size of the batch at which its unused entries begin again."""

from __future__ import annotations

import pytest
import torch
from tiny_autoencoder import tiny_autoencoder

from training.drawing.quantised import RESTART_EVERY, TrainedAutoencoder
from turkish_clip.generate.autoencoder import VQModel
from turkish_clip.generate.tower import DifferentiableTower


@pytest.fixture
def model() -> VQModel:
    return tiny_autoencoder()


class TowerOfColours(DifferentiableTower):
    """Takes the mean colour of an image for its vector."""

    def __init__(self) -> None:
        pass

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(images.mean(dim=(2, 3)), dim=1)


def test_a_tower_compares_the_images_beside_their_pixels(model: VQModel) -> None:
    pixels = torch.rand(2, 3, 8, 8)
    tower = TowerOfColours()
    training = [TrainedAutoencoder(model, 1.0, tower, weight).eval() for weight in (0.0, 2.0)]
    by_pixels, by_both = (module(pixels)["loss"] for module in training)
    decoded = (model(pixels * 2 - 1).sample + 1) / 2
    cosines = (tower(decoded) * tower(pixels)).sum(dim=1)
    assert torch.allclose(by_both - by_pixels, 2 * (1 - cosines.mean()), atol=1e-6)
    assert not [name for name in training[1].state_dict() if "tower" in name]


def test_unused_entries_begin_again_at_codes_of_a_batch_of_fewer_codes_than_entries(model: VQModel) -> None:
    training = TrainedAutoencoder(model, 1.0)
    training.steps += RESTART_EVERY - 1
    before = model.quantize.embedding.weight.detach().clone()
    pixels = torch.rand(1, 3, 8, 8)  # of 2 × 2 codes
    codes = model.encode(pixels * 2 - 1).latents.detach().permute(0, 2, 3, 1).reshape(-1, 3)
    training(pixels)
    after = model.quantize.embedding.weight.detach()
    changed = after[(after != before).any(dim=1)]
    assert len(changed) == 4
    assert float(torch.cdist(changed, codes).min(dim=1).values.max()) < 1e-6
    assert int(training.chosen.sum()) == 0
