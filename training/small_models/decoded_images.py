"""The training images of a small model: decoded once, into a memory-mapped file that lasts as long as the training."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from tqdm import tqdm

from training.data.samples import Row, SkippedSample
from training.data.sources import Captions, check_skipped, write_skipped
from training.run.source import SourceConfig
from training.run.temp_storage import allocate
from turkish_clip.atomic import atomic_write
from turkish_clip.images import ImageError
from turkish_clip.ownership import CACHE

if TYPE_CHECKING:
    from PIL import Image

log = logging.getLogger("training")
IMAGES = f"images{CACHE}"  # the decoded images, while a run trains on them


def decode_images(
    captions: Captions, cache: Path, side: int, pixels_of: Callable[[Image.Image], Any], config: SourceConfig
) -> tuple[NDArray[np.uint8], list[Row]]:
    """Decodes every training image once.

    Args:
        captions: of all splits; those of the training split are used.
        cache: the file, beside which skipped.jsonl lists the images that do not open.
        side: of the images in pixels.
        pixels_of: returns the (3, side, side) levels, 0 to 255, of an opened image.
        config: has the fraction of images that may be skipped.

    Returns:
        The images that opened, (n, 3, side, side), memory-mapped, with room for others behind them; and their n rows.

    Raises:
        SourceError: too many images do not open.
    """
    rows = captions.split("train")
    opened: list[Row] = []
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
            images[len(opened)] = np.asarray(pixels_of(image), dtype=np.uint8)
            opened.append(row)
        images.flush()
    write_skipped(cache.with_name("skipped.jsonl"), skipped)
    check_skipped(skipped, captions, config)
    log.info("%d images, %d skipped", len(opened), len(skipped))
    return np.load(cache, mmap_mode="r"), opened
