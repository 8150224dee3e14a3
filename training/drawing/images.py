"""The images that a generator is trained on: decoded once into a memory-mapped file, and how the trainer is set up."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import nn
from torch.utils.data import Dataset
from tqdm import tqdm

from training.data.samples import Row, SkippedSample
from training.data.sources import Captions, check_skipped, write_skipped
from training.run.config import AutoencoderConfig, DecoderConfig
from training.run.record import Run
from training.run.temp_storage import allocate
from turkish_clip.atomic import atomic_write
from turkish_clip.images import ImageError
from turkish_clip.ownership import CACHE

if TYPE_CHECKING:
    from transformers import Trainer

log = logging.getLogger("training")
IMAGES = f"images{CACHE}"  # the decoded images, while a run trains on them


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
    """Decodes every training image once, cut to a square, into a file of the run that `without_images` removes.

    Args:
        captions: of all splits; the images of the training split are used.
        run: whose folder gets the file, and skipped.jsonl for the images that do not open.
        config: has the image size and the fraction of images that may be skipped.

    Raises:
        SourceError: too many images do not open.
    """
    from PIL import Image, ImageOps

    side, rows = config.image_size, captions.split("train")
    opened: list[Row] = []
    skipped = list(captions.skipped)
    with atomic_write(run.folder / IMAGES) as partial:
        pixels = open_memmap(partial, mode="w+", dtype=np.uint8, shape=(len(rows), 3, side, side))
        with partial.open("r+b") as file:
            allocate(file)
        for row in tqdm(rows, desc="images", unit="image", mininterval=1):
            try:
                image = ImageOps.fit(row.open(min_side=side), (side, side), Image.Resampling.BICUBIC)
            except ImageError as error:
                skipped.append(SkippedSample(row.image_id, error.name, error.reason))
                continue
            pixels[len(opened)] = np.asarray(image.convert("RGB"), np.uint8).transpose(2, 0, 1)
            opened.append(row)
        pixels.flush()
    write_skipped(run.folder / "skipped.jsonl", skipped)
    check_skipped(skipped, captions, config)
    log.info("%d images, %d skipped", len(opened), len(skipped))
    return ImageRows(np.load(run.folder / IMAGES, mmap_mode="r"), opened)


def train(model: nn.Module, images: ImageRows, run: Run, config: AutoencoderConfig | DecoderConfig) -> None:
    """Trains a module whose `forward(pixels, …)` returns {"loss": …}, and removes the decoded images.

    Args:
        model: in which the trained weights are left.
        images: from `read_images`.
        run: gets checkpoints and log.jsonl.
        config: of the run.
    """
    from transformers import Trainer, TrainingArguments

    from training.distillation.callbacks import SaveLog, with_progress_bar
    from training.distillation.checkpoints import SealCheckpoints, last_checkpoint

    steps = max(1, math.ceil(len(images) / config.batch_size * config.epochs))
    args = TrainingArguments(
        output_dir=str(run.checkpoints),
        max_steps=steps,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=steps // 20,
        weight_decay=0.01,
        save_steps=math.ceil(steps / config.evaluations),
        logging_steps=max(1, steps // 100),
        bf16=config.bf16,
        use_cpu=config.device == "cpu",
        seed=config.seed,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        report_to="none",
    )
    trainer: Trainer = Trainer(
        model=model,
        args=args,
        train_dataset=images,
        data_collator=images.collate,
        callbacks=[SaveLog(run.folder / "log.jsonl")],
    )
    checkpoint = last_checkpoint(run, args.max_steps)
    with SealCheckpoints() as sealing:
        trainer.add_callback(sealing)
        with_progress_bar(trainer).train(resume_from_checkpoint=checkpoint)
    (run.folder / IMAGES).unlink()


def held_out(captions: Captions, side: int, most: int = 512) -> tuple[torch.Tensor, list[Row]]:
    """Returns images of the validation and test splits, (n, 3, side, side) in 0 to 1, and their rows.

    Args:
        captions: of all splits.
        side: in pixels.
        most: how many at the most.
    """
    from PIL import Image, ImageOps

    pixels: list[Any] = []
    rows: list[Row] = []
    for split in ("test", "validation"):
        for row in captions.split(split):
            if len(rows) == most:
                break
            try:
                image = ImageOps.fit(row.open(min_side=side), (side, side), Image.Resampling.BICUBIC)
            except ImageError as error:
                log.warning("left out: %s", error)
                continue
            pixels.append(np.asarray(image.convert("RGB"), np.float32).transpose(2, 0, 1) / 255)
            rows.append(row)
    return (torch.from_numpy(np.stack(pixels)) if pixels else torch.empty(0, 3, side, side)), rows
