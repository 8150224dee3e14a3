"""Batches of images and captions for contrastive training: decoded once, augmented anew in each epoch."""

from __future__ import annotations

import logging
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch.nn import functional
from torch.utils.data import Dataset
from tqdm import tqdm

from training.data.samples import Row, SkippedSample
from training.data.sources import Captions, check_skipped, write_skipped
from training.run.config import PretrainConfig
from training.run.temp_storage import allocate
from turkish_clip.atomic import atomic_write
from turkish_clip.images import ImageError

if TYPE_CHECKING:
    from transformers import CLIPProcessor

log = logging.getLogger("training")
MAX_SHIFT, MAX_SCALING, MAX_TURN, MAX_SHADE = 0.12, 0.2, math.radians(12), 0.25  # at strength 1


class ClipBatches(Dataset[int]):
    """The trainer's data set (of row numbers) and its collator (row numbers to tensors).

    What a row looks like depends on the seed, the epoch and the row alone, so a resumed run sees the same.
    """

    def __init__(
        self, images: np.ndarray, captions: Sequence[Sequence[str]], processor: CLIPProcessor, config: PretrainConfig
    ) -> None:
        """Takes (n, 3, side, side) uint8 images and the captions of each."""
        self.images = images
        self.captions = captions
        self.tokenizer = processor.tokenizer
        self.mean = torch.tensor(processor.image_processor.image_mean)[:, None, None]
        self.std = torch.tensor(processor.image_processor.image_std)[:, None, None]
        self.config = config
        self.epoch = 0

    @classmethod
    def read(cls, captions: Captions, processor: CLIPProcessor, cache: Path, config: PretrainConfig) -> ClipBatches:
        """Decodes every training image once, at the tower's size, into a file that is mapped, not held in memory.

        An image that does not open goes to skipped.jsonl beside the file, and the others go on.

        Raises:
            SourceError: too many images do not open.
        """
        side, rows = config.image_size, captions.split("train")
        kept: list[Row] = []
        skipped = list(captions.skipped)
        with atomic_write(cache) as partial:
            images = open_memmap(partial, mode="w+", dtype=np.uint8, shape=(len(rows), 3, side, side))
            with partial.open("r+b") as file:
                allocate(file)
            for row in tqdm(rows, desc="images", unit="image", mininterval=1):
                try:
                    image = row.open(min_side=side)
                except ImageError as error:
                    skipped.append(SkippedSample(row.image_id, error.name, error.reason))
                    continue
                pixels = processor.image_processor(image, do_rescale=False, do_normalize=False)["pixel_values"][0]
                images[len(kept)] = np.asarray(pixels, dtype=np.uint8)
                kept.append(row)
            images.flush()
        write_skipped(cache.with_name("skipped.jsonl"), skipped)
        check_skipped(skipped, captions, config)
        log.info("%d images, %d skipped", len(kept), len(skipped))
        return cls(np.load(cache, mmap_mode="r"), [row.captions for row in kept], processor, config)

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: int) -> int:
        return index

    def set_epoch(self, epoch: int) -> None:
        """Chooses the captions and shifts of this epoch."""
        self.epoch = epoch

    def collate(self, rows: list[int]) -> dict[str, Any]:
        """The tensors of one batch, as CLIPModel takes them: pixel_values (b, 3, side, side) float32 and tokens.

        `labels` (b,) int64 goes to the loss: equal numbers are captions that are equal to the tower.
        """
        numbers = torch.stack([self._numbers(row) for row in rows])
        texts = [self._caption(row, number) for row, number in zip(rows, numbers[:, 0].tolist())]
        tokens = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        images = torch.from_numpy(self.images[rows].astype(np.float32)) / 255
        if self.config.augment:
            images = shifted(images, (2 * numbers[:, 1:] - 1) * self.config.augment)
        return {**tokens, "pixel_values": (images - self.mean) / self.std, "labels": equal_rows(tokens["input_ids"])}

    def _caption(self, row: int, number: float) -> str:
        """The caption that a number in [0, 1) chooses among those of this epoch."""
        choices = self.captions[row]
        if self.epoch < self.config.shortest_first * self.config.epochs:
            choices = sorted(choices, key=len)[: max(1, len(choices) // 2)]
        return choices[int(number * len(choices))]

    def _numbers(self, row: int) -> torch.Tensor:
        generator = torch.Generator()
        generator.manual_seed(zlib.crc32(f"{self.config.seed} {self.epoch} {row}".encode()))
        return torch.rand(7, generator=generator)


def equal_rows(ids: torch.Tensor) -> torch.Tensor:
    """A number for each row of (b, n) ids, equal where the rows are: (b,) int64."""
    numbers: torch.Tensor = torch.unique(ids, dim=0, return_inverse=True)[1]
    return numbers


def shifted(images: torch.Tensor, amounts: torch.Tensor) -> torch.Tensor:
    """Moves, scales, turns and shades images; never mirrors them, since left and right have names.

    Args:
        images: (b, 3, side, side) float32 in 0 to 1.
        amounts: (b, 6) float32 in -1 to 1: shift x and y, scaling, turn, brightness, contrast.

    Returns:
        Images of the same shape and range; what moves in from outside repeats the edge.
    """
    x, y, scaling, turn, brightness, contrast = amounts.unbind(1)
    scale, angle = 1 + MAX_SCALING * scaling, MAX_TURN * turn
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    transform = torch.stack(
        [torch.stack([cos, -sin, 2 * MAX_SHIFT * x], 1), torch.stack([sin, cos, 2 * MAX_SHIFT * y], 1)], 1
    )
    grid = functional.affine_grid(transform, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    middle = moved.mean((1, 2, 3), keepdim=True)
    shaded = (moved - middle) * (1 + MAX_SHADE * contrast)[:, None, None, None] + middle
    return (shaded + (MAX_SHADE / 2 * brightness)[:, None, None, None]).clamp(0, 1)
