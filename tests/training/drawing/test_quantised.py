"""The codebook is kept in use, whatever the size of the batch at which its unused entries begin again."""

from __future__ import annotations

import pytest
import torch

from training.drawing.quantised import RESTART_EVERY, TrainedAutoencoder

diffusers = pytest.importorskip("diffusers")


def test_unused_entries_begin_again_at_codes_of_a_batch_of_fewer_codes_than_entries() -> None:
    torch.manual_seed(0)
    model = diffusers.VQModel(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        latent_channels=4,
        num_vq_embeddings=12,
        vq_embed_dim=3,
        norm_num_groups=4,
        mid_block_add_attention=False,
    )
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
