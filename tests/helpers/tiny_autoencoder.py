"""A VQ-autoencoder of diffusers' own class with random weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch


def tiny_autoencoder() -> Any:
    """Returns a VQModel of 12 entries, one for each 4 × 4 pixels; without diffusers, the test is skipped."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    return diffusers.VQModel(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        latent_channels=4,
        sample_size=16,
        num_vq_embeddings=12,
        vq_embed_dim=3,
        norm_num_groups=4,
        mid_block_add_attention=False,
    )
