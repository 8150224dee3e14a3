"""Batches of images and captions for contrastive training: decoded once, augmented anew in each epoch."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import Dataset

from training.data.samples import Row
from training.data.sources import Captions
from training.run.config import PretrainConfig
from training.small_models.decoded_images import decode_images

if TYPE_CHECKING:
    from PIL import Image
    from transformers import CLIPProcessor

# At --augment 1.
MAX_SHIFT = 0.12  # of the side
MAX_SCALING = 0.2
MAX_ROTATION = math.radians(12)
MAX_SHADE = 0.25


class ClipBatches(Dataset[int]):
    """The trainer's data set (of row numbers) and its collator (from row numbers to tensors).

    The caption and the augmentation of a row depend on seed, epoch and row alone, so that a resumed run sees the same.
    """

    def __init__(
        self,
        images: np.ndarray,
        captions: Sequence[dict[str, tuple[str, ...]]],
        processor: CLIPProcessor,
        config: PretrainConfig,
        labels: Sequence[Sequence[str]] = (),
    ) -> None:
        """Keeps the images and captions.

        Args:
            images: (n, 3, side, side) uint8.
            captions: of each image, at least one; caption → its hard negatives, of which one is drawn.
            processor: of the model that is trained.
            config: has the seed, the strength of the augmentation, and for how long short and long captions come alone.
            labels: of each image; empty: none are trained on.
        """
        self.images = images
        self.captions = captions
        self.tokenizer = processor.tokenizer
        self.mean = torch.tensor(processor.image_processor.image_mean)[:, None, None]
        self.std = torch.tensor(processor.image_processor.image_std)[:, None, None]
        self.config = config
        self.epoch = 0
        self.label_names = sorted({name for row in labels for name in row})
        numbers = {name: number for number, name in enumerate(self.label_names)}
        self.label_numbers = [[numbers[name] for name in row] for row in labels]

    @classmethod
    def read(cls, captions: Captions, processor: CLIPProcessor, cache: Path, config: PretrainConfig) -> ClipBatches:
        """Decodes every training image once, at the tower's size, into a memory-mapped file.

        Args:
            captions: of all splits; those of the training split are used.
            processor: of the model that is trained.
            cache: the file, beside which skipped.jsonl lists the images that do not open.
            config: has the image size and the fraction of images that may be skipped.

        Raises:
            SourceError: too many images do not open.
        """

        def pixels_of(image: Image.Image) -> Any:
            return processor.image_processor(image, do_rescale=False, do_normalize=False)["pixel_values"][0]

        images, opened = decode_images(captions, cache, config.image_size, pixels_of, config)
        choices = [captions_with_negatives(row, hard=bool(config.negative_columns)) for row in opened]
        labels = [row.labels for row in opened] if config.label_weight else []
        return cls(images, choices, processor, config, labels)

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: int) -> int:
        return index

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, for which captions and augmentation are drawn anew."""
        self.epoch = epoch

    def collate(self, rows: list[int]) -> dict[str, Any]:
        """Returns the tensors of a batch, as CLIPModel takes them: tokens, pixel_values (b, 3, side, side) float32.

        The tokens are of b captions, and below them of those captions' h hard negatives. `labels`, int64 of shape
        (b + h, 1 + n), are for `ClipLoss`: a number, equal where the tokens are equal, and for each of n labels 1 if
        the image has it.
        """
        draws = torch.stack([self._draws(row) for row in rows])
        texts: list[str] = []
        negatives: list[str] = []
        for row, (caption_draw, negative_draw) in zip(rows, draws[:, :2].tolist()):
            texts.append(self._caption(row, caption_draw))
            hard = self.captions[row][texts[-1]]
            negatives += hard[int(negative_draw * len(hard)) :][:1]
        tokens = self.tokenizer(texts + negatives, padding=True, truncation=True, return_tensors="pt")
        images = torch.from_numpy(self.images[rows].astype(np.float32)) / 255
        if self.config.augment:
            images = augmented(images, (2 * draws[:, 2:] - 1) * self.config.augment)
        labels = torch.zeros(len(tokens["input_ids"]), 1 + len(self.label_names), dtype=torch.int64)
        labels[:, 0] = equal_rows(tokens["input_ids"])
        for place, row in enumerate(rows if self.label_names else ()):
            labels[place, [1 + number for number in self.label_numbers[row]]] = 1
        return {**tokens, "pixel_values": (images - self.mean) / self.std, "labels": labels}

    def label_vectors(self) -> torch.Tensor:
        """Returns a fixed random vector of norm 1 for each label: (n, dim)."""
        generator = torch.Generator().manual_seed(self.config.seed)
        return functional.normalize(torch.randn(len(self.label_names), self.config.dim, generator=generator), dim=1)

    def _caption(self, row: int, draw: float) -> str:
        """Returns the caption that a draw from [0, 1) chooses among those that a row has in this epoch."""
        choices, half = list(self.captions[row]), max(1, len(self.captions[row]) // 2)
        progress = self.epoch / self.config.epochs
        if progress < self.config.shortest_first:
            choices = sorted(choices, key=len)[:half]
        elif progress < self.config.shortest_first + self.config.longest_next:
            choices = sorted(choices, key=len)[-half:]
        return choices[int(draw * len(choices))]

    def _draws(self, row: int) -> torch.Tensor:
        """Returns a row's random numbers of this epoch, uniform in [0, 1): caption, negative, six for the image."""
        generator = torch.Generator()
        generator.manual_seed(zlib.crc32(f"{self.config.seed} {self.epoch} {row}".encode()))
        return torch.rand(8, generator=generator)


def captions_with_negatives(row: Row, *, hard: bool) -> dict[str, tuple[str, ...]]:
    """Returns the captions of a row, each with its hard negatives.

    Args:
        row: read by `reading_negatives`; its English captions are the negatives.
        hard: whether there are negatives; without them each caption has none.
    """
    if not hard:
        return dict.fromkeys(row.captions, ())
    if row.translations:
        of_caption = row.translated()
        return {text: (of_caption[text],) if text in of_caption else () for text in row.captions}
    return dict.fromkeys(row.captions, row.english)


def equal_rows(ids: torch.Tensor) -> torch.Tensor:
    """Returns a number for each row of (b, n) ids, equal where the rows are: (b,) int64."""
    numbers: torch.Tensor = torch.unique(ids, dim=0, return_inverse=True)[1]
    return numbers


def augmented(images: torch.Tensor, amounts: torch.Tensor) -> torch.Tensor:
    """Shifts, scales, rotates and shades images; never mirrors them, since captions name left and right.

    Pixels from outside the image repeat its edge.

    Args:
        images: (b, 3, side, side) float32 in 0 to 1.
        amounts: (b, 6) float32 in -1 to 1: shift x and y, scaling, rotation, brightness, contrast.
    """
    x, y, scaling, turn, brightness, contrast = amounts.unbind(1)
    scale, angle = 1 + MAX_SCALING * scaling, MAX_ROTATION * turn
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    transform = torch.stack(
        [torch.stack([cos, -sin, 2 * MAX_SHIFT * x], 1), torch.stack([sin, cos, 2 * MAX_SHIFT * y], 1)], 1
    )
    grid = functional.affine_grid(transform, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    middle = moved.mean((1, 2, 3), keepdim=True)
    shaded = (moved - middle) * (1 + MAX_SHADE * contrast)[:, None, None, None] + middle
    return (shaded + (MAX_SHADE / 2 * brightness)[:, None, None, None]).clamp(0, 1)
