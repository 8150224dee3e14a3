"""The VQ-autoencoder: diffusers' VQModel with its losses, how its codebook begins and is kept in use, what it measures.

Source of the losses: van den Oord et al., "Neural Discrete Representation Learning", 2017; that a network compares the
images beside their pixels is of Esser et al., "Taming Transformers for High-Resolution Image Synthesis", 2021. Entries
that nothing chooses begin again at codes of the batch, as in Dhariwal et al., "Jukebox", 2020.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from training.drawing.images import ImageRows
from training.run.config import AutoencoderConfig
from turkish_clip.atomic import atomic_folder
from turkish_clip.generate.autoencoder import VQModel, import_diffusers, load_autoencoder
from turkish_clip.generate.tower import DifferentiableTower

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

RESTART_EVERY = 100  # steps after which entries that nothing chose begin again
FIRST_IMAGES = 256  # whose codes the codebook begins with
AT_ONCE = 64


class TrainedAutoencoder(nn.Module):
    """An autoencoder with the loss that it is trained by.

    Args:
        model: a VQModel.
        commitment: weight of the distance between codes and their entries.
        tower: a frozen image model that compares the images, too; it is no part of the weights. None: pixels alone do.
        tower_weight: weight of its comparison.
    """

    chosen: Tensor
    steps: Tensor

    def __init__(
        self, model: VQModel, commitment: float, tower: DifferentiableTower | None = None, tower_weight: float = 0.0
    ) -> None:
        super().__init__()
        self.model = model
        self.commitment, self.tower_weight = commitment, tower_weight
        self._towers = [] if tower is None else [tower]  # in a list, so that its weights are none of this module's
        self.register_buffer("chosen", torch.zeros(model.config["num_vq_embeddings"], dtype=torch.int64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Returns the loss of a batch.

        It is the mean absolute difference of pixels in -1 to 1, the weighted commitment, and, with a tower, the
        weighted mean of 1 minus the cosine between its vectors of each image and of the decoded one.

        Args:
            pixels: (b, 3, side, side) in 0 to 1.
        """
        images = pixels * 2 - 1
        codes = self.model.encode(images).latents.float()
        if self.training:
            self._keep_in_use(codes.detach())
        decoded = self.model.decode(codes)
        sample = decoded.sample.float()
        loss = (sample - images).abs().mean() + self.commitment * decoded.commit_loss
        for tower in self._towers:
            with torch.no_grad():
                wanted = tower(pixels)
            loss = loss + self.tower_weight * (1 - (tower((sample + 1) / 2) * wanted).sum(dim=1).mean())
        return {"loss": loss}

    @torch.no_grad()
    def _keep_in_use(self, codes: Tensor) -> None:
        entries = self.model.quantize.embedding.weight
        flat = codes.permute(0, 2, 3, 1).reshape(-1, codes.shape[1])
        self.chosen += torch.bincount(torch.cdist(flat, entries.float()).argmin(dim=1), minlength=len(entries))
        self.steps += 1
        if int(self.steps) % RESTART_EVERY == 0:
            unused = (self.chosen == 0).nonzero()[:, 0]
            if len(unused):
                drawn = torch.randperm(len(flat))[: len(unused)]  # a small batch has fewer codes than are unused
                entries[unused[: len(drawn)]] = flat[drawn].to(entries.dtype)
            self.chosen.zero_()


def build_autoencoder(
    images: ImageRows, config: AutoencoderConfig, image_model: SentenceTransformer | None = None
) -> TrainedAutoencoder:
    """Returns an autoencoder with fresh weights that the seed decides, whose codebook begins with codes of images.

    Args:
        images: that it will be trained on.
        config: has its sizes and the seed.
        image_model: that compares the images beside their pixels; None for none.
    """
    from transformers import set_seed

    tower = None if image_model is None else DifferentiableTower(image_model)
    set_seed(config.seed)
    levels = len(config.channels)
    model = import_diffusers().VQModel(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.channels,
        latent_channels=config.channels[-1] // 2,
        sample_size=config.image_size,
        num_vq_embeddings=config.codes,
        vq_embed_dim=config.code_width,
        norm_num_groups=8,
        mid_block_add_attention=False,
    )
    training = TrainedAutoencoder(model, config.commitment, tower, config.tower_weight)
    numbers = torch.randperm(len(images))[:FIRST_IMAGES].sort().values.tolist()
    with torch.no_grad():
        codes = torch.cat(
            [
                model.encode(images.collate(numbers[start : start + AT_ONCE])["pixels"] * 2 - 1).latents
                for start in range(0, len(numbers), AT_ONCE)
            ]
        )
        flat = codes.permute(0, 2, 3, 1).reshape(-1, config.code_width)
        model.quantize.embedding.weight.copy_(flat[torch.randint(len(flat), (config.codes,))])
    return training


def save_autoencoder(model: VQModel, folder: Path, *, half: bool = False) -> None:
    """Saves a folder that diffusers' VQModel loads as float32.

    Args:
        model: to save.
        folder: where it goes; the caller has checked that an earlier one may be replaced.
        half: write the weights in float16, for half the size.
    """
    saved = copy.deepcopy(model).half() if half else model
    with atomic_folder(folder, None) as partial:
        saved.save_pretrained(partial, safe_serialization=True)


def measure_autoencoder(folder: Path, images: Tensor) -> dict[str, Any]:
    """Loads the saved autoencoder as its users do, and measures it on images that it was not trained on.

    Args:
        folder: of the saved model.
        images: (n, 3, side, side) in 0 to 1.

    Returns:
        images, their number; difference, the mean absolute one of pixels in 0 to 1; psnr in dB, the mean over images;
        codes_used, the entries that they choose; bytes, of the weights.
    """
    model = load_autoencoder(folder)
    differences, ratios, used = [], [], set()
    for start in range(0, len(images), AT_ONCE):
        batch = images[start : start + AT_ONCE]
        with torch.inference_mode():
            codes = model.encode(batch * 2 - 1).latents
            entries = model.quantize(codes)[2][2]
            decoded = ((model.decode(codes).sample + 1) / 2).clamp(0, 1)
        used |= set(entries.flatten().tolist())
        differences += (decoded - batch).abs().mean((1, 2, 3)).tolist()
        ratios += (-10 * (decoded - batch).square().mean((1, 2, 3)).clamp(min=1e-12).log10()).tolist()
    count = len(differences)
    return {
        "images": count,
        "difference": sum(differences) / max(1, count),
        "psnr": sum(ratios) / max(1, count),
        "codes_used": len(used),
        "bytes": sum(path.stat().st_size for path in folder.glob("*.safetensors")),
    }
