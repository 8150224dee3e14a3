"""The small decoder of image vectors with its loss, and what it measures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.data.samples import Row
from training.drawing.images import ImageRows
from training.embeddings.manifest import EmbeddingsError, Manifest
from training.embeddings.store import ImageEmbeddings
from training.run.config import DecoderConfig
from turkish_clip.dual_encoder import weights_sha256
from turkish_clip.generate.decoder import DecoderRecord, Moments, SmallDecoder, load_decoder
from turkish_clip.generate.tower import DifferentiableTower

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

AT_ONCE = 64


class TrainedDecoder(nn.Module):
    """A decoder with the loss that it is trained by.

    Args:
        decoder: what is trained.
        tower: the frozen image model, which is no part of the weights.
        config: has the weight of the tower's loss, and the noise.
    """

    def __init__(self, decoder: SmallDecoder, tower: DifferentiableTower, config: DecoderConfig) -> None:
        super().__init__()
        self.decoder = decoder
        self.tower_weight, self.noise = config.tower_weight, config.noise
        self._tower = [tower]  # in a list, so that its weights are none of this module's

    def forward(self, pixels: Tensor, vectors: Tensor) -> dict[str, Tensor]:
        """Returns the loss of a batch.

        It is the mean absolute difference of pixels, and the weighted mean of 1 minus the cosine between each vector
        and that of its decoded image.

        Args:
            pixels: (b, 3, side, side) in 0 to 1.
            vectors: (b, dim) of these images.
        """
        length = vectors.norm(dim=1, keepdim=True)
        amount = self.noise * torch.rand_like(length) * length
        noisy = vectors + functional.normalize(torch.randn_like(vectors), dim=1) * amount
        decoded = self.decoder(noisy).float()
        loss = (decoded - pixels).abs().mean()
        if self.tower_weight:
            seen = self._tower[0](decoded)
            loss = loss + self.tower_weight * (1 - (seen * functional.normalize(vectors, dim=1)).sum(dim=1).mean())
        return {"loss": loss}


def with_vectors(images: ImageRows, embeddings: ImageEmbeddings) -> ImageRows:
    """Returns the images with their stored vectors.

    Args:
        images: from `read_images`.
        embeddings: of all of them.

    Raises:
        EmbeddingsError: an image has none.
    """
    return ImageRows(images.pixels, images.rows, vectors_of(images.rows, embeddings))


def vectors_of(rows: Sequence[Row], embeddings: ImageEmbeddings) -> np.ndarray:
    """Returns the (n, dim) float32 stored vectors of images.

    Args:
        rows: the images.
        embeddings: of all of them.

    Raises:
        EmbeddingsError: an image has none.
    """
    vectors = np.empty((len(rows), embeddings.manifest.dim), np.float32)
    for places, stored in embeddings.by_shard(embeddings.rows([row.image_id for row in rows])):
        vectors[places] = stored
    return vectors


def build_decoder(
    images: ImageRows, manifest: Manifest, image_model: SentenceTransformer, config: DecoderConfig
) -> TrainedDecoder:
    """Returns a decoder with fresh weights that the seed decides.

    Args:
        images: with their vectors, whose moments it standardises by.
        manifest: of the embeddings.
        image_model: that made the vectors.
        config: has its sizes and the seed.

    Raises:
        EmbeddingsError: another image model made them.
    """
    from transformers import set_seed

    sha256 = weights_sha256(image_model)
    if manifest.weights_sha256 and sha256 != manifest.weights_sha256:
        raise EmbeddingsError(
            f"expected the image model that made the embeddings ({manifest.image_model}), got other weights; embed "
            "again"
        )
    set_seed(config.seed)
    decoder = SmallDecoder(
        DecoderRecord(dim=manifest.dim, channels=tuple(config.channels), image_weights_sha256=sha256)
    )
    moments = Moments.of(images.vectors if images.vectors is not None else np.empty((0, manifest.dim)))
    decoder.mean.copy_(torch.from_numpy(moments.mean))
    decoder.deviation.copy_(torch.from_numpy(moments.deviation))
    return TrainedDecoder(decoder, DifferentiableTower(image_model), config)


def measure_decoder(
    folder: Path, images: Tensor, rows: Sequence[Row], embeddings: ImageEmbeddings, image_model: SentenceTransformer
) -> dict[str, Any]:
    """Loads the saved decoder as its users do, and measures it on images that it was not trained on.

    Args:
        folder: of the saved decoder.
        images: (n, 3, side, side) in 0 to 1.
        rows: of the images.
        embeddings: of the images.
        image_model: that made them.

    Returns:
        images, their number; difference, the mean absolute one of pixels in 0 to 1; cosine, the mean one between a
        vector and that of its decoded image; bytes, of the weights.
    """
    decoder, tower = load_decoder(folder), DifferentiableTower(image_model)
    differences: list[float] = []
    cosines: list[float] = []
    if len(rows) and isinstance(decoder, SmallDecoder):
        vectors = torch.from_numpy(vectors_of(rows, embeddings))
        for start in range(0, len(rows), AT_ONCE):
            batch, wanted = images[start : start + AT_ONCE], vectors[start : start + AT_ONCE]
            with torch.inference_mode():
                decoded = decoder(wanted)
                cosines += (tower(decoded) * functional.normalize(wanted, dim=1)).sum(dim=1).tolist()
            differences += (decoded - batch).abs().mean((1, 2, 3)).tolist()
    count = len(differences)
    return {
        "images": count,
        "difference": sum(differences) / max(1, count),
        "cosine": sum(cosines) / max(1, count),
        "bytes": sum(path.stat().st_size for path in folder.glob("*.safetensors")),
    }
