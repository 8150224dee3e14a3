"""The images that a generator is trained on: decoded once into a memory-mapped file, and how the trainer is set up."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Dataset

from training.data.samples import Row
from training.data.sources import Captions
from training.run.config import AutoencoderConfig, DecoderConfig
from training.run.record import Run
from training.small_models.clip_training import arguments_of_small_models, steps_of
from training.small_models.decoded_images import IMAGES, decode_images
from turkish_clip.atomic import write_text
from turkish_clip.images import ImageError

if TYPE_CHECKING:
    from PIL import Image

log = logging.getLogger("training")
FIGURES = {  # of the cards
    "images": "images",
    "difference": "mean absolute difference of pixels, of 1",
    "psnr": "peak signal-to-noise ratio, dB",
    "codes_used": "entries of the codebook that they use",
    "cosine": "mean cosine between an image's vector and that of its decoded image",
    "bytes": "bytes of the weights",
}


class ImageRows(Dataset[int]):
    """The trainer's data set (of row numbers) and its collator (from row numbers to tensors).

    Args:
        pixels: (n, 3, side, side) uint8, memory-mapped.
        rows: what they show, in the same order.
        vectors: (n, dim) float32 of the images; None for none.
    """

    def __init__(self, pixels: np.ndarray, rows: Sequence[Row], vectors: np.ndarray | None = None) -> None:
        self.pixels = pixels
        self.rows = rows
        self.vectors = vectors

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> int:
        return index

    def collate(self, numbers: list[int]) -> dict[str, torch.Tensor]:
        """Returns `pixels`, (b, 3, side, side) float32 in 0 to 1, and `vectors`, (b, dim), if there are any."""
        batch = {"pixels": torch.from_numpy(self.pixels[numbers].astype(np.float32)) / 255}
        if self.vectors is not None:
            batch["vectors"] = torch.from_numpy(self.vectors[numbers])
        return batch


def read_images(captions: Captions, run: Run, config: AutoencoderConfig | DecoderConfig) -> ImageRows:
    """Decodes every training image once, cut to a square, into a file of the run that `train` removes.

    Args:
        captions: of all splits; the images of the training split are used.
        run: whose folder gets the file, and skipped.jsonl for the images that do not open.
        config: has the image size and the fraction of images that may be skipped.

    Raises:
        SourceError: too many images do not open.
    """
    pixels, opened = decode_images(
        captions, run.folder / IMAGES, config.image_size, partial(square, side=config.image_size), config
    )
    return ImageRows(pixels, opened)


def square(image: Image.Image, side: int) -> NDArray[np.uint8]:
    """Returns the middle of an image as (3, side, side) levels of RGB.

    Args:
        image: of any size.
        side: in pixels.
    """
    from PIL import Image, ImageOps

    fitted = ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)
    return np.asarray(fitted.convert("RGB"), np.uint8).transpose(2, 0, 1)


def train(model: nn.Module, images: ImageRows, run: Run, config: AutoencoderConfig | DecoderConfig) -> None:
    """Trains a module whose `forward(pixels, …)` returns {"loss": …}, and removes the decoded images.

    Args:
        model: in which the trained weights are left.
        images: from `read_images`.
        run: gets checkpoints and log.jsonl.
        config: of the run.
    """
    from transformers import Trainer

    from training.distillation.callbacks import SaveLog
    from training.distillation.checkpoints import last_checkpoint, train_sealed

    steps = steps_of(config, len(images))
    args = arguments_of_small_models(config, run.checkpoints, steps, warmup_steps=steps // 20, weight_decay=0.01)
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=images,
        data_collator=images.collate,
        callbacks=[SaveLog(run.folder / "log.jsonl")],
    )
    train_sealed(trainer, last_checkpoint(run, args.max_steps))
    (run.folder / IMAGES).unlink()


def held_out(captions: Captions, side: int, most: int = 512) -> tuple[torch.Tensor, list[Row]]:
    """Returns images of the validation and test splits, (n, 3, side, side) in 0 to 1, and their rows.

    Args:
        captions: of all splits.
        side: in pixels.
        most: how many at the most.
    """
    pixels: list[Any] = []
    rows: list[Row] = []
    for split in ("test", "validation"):
        for row in captions.split(split):
            if len(rows) == most:
                break
            try:
                pixels.append(square(row.open(min_side=side), side).astype(np.float32) / 255)
            except ImageError as error:
                log.warning("left out: %s", error)
                continue
            rows.append(row)
    return (torch.from_numpy(np.stack(pixels)) if pixels else torch.empty(0, 3, side, side)), rows


def write_card(folder: Path, what: str, use: str, results: dict[str, Any]) -> None:
    """Writes a README with what was measured into the folder of a generator.

    Args:
        folder: of the saved weights.
        what: the generator, for a sentence "… trained from scratch on ….".
        use: a sentence that says who loads it.
        results: the data set and figures of `measure_autoencoder` or `measure_decoder`.
    """
    figures = {name: value for name, value in results.items() if name not in ("model", "dataset")}
    lines = [
        f"{what} trained from scratch on {results['dataset']}. {use}",
        "It can show only what those images show.",
        "",
        "| on validation and test images | value |",
        "|---|---|",
        *(f"| {FIGURES[name]} | {value:.4g} |" for name, value in figures.items() if name != "bytes"),
        f"| {FIGURES['bytes']} | {results['bytes']:,} |",
    ]
    write_text(folder / "README.md", "\n".join(lines) + "\n")
