"""Copies of images as they come about: encoded again, resized, cropped, in another format."""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image

from turkish_clip.images import open_image

KINDS = ("quality", "smaller", "larger", "cropped", "cropped JPEG", "WebP", "resized JPEG", "cropped WebP")


def write_copy(image: Path, kind: str, folder: Path, rng: random.Random) -> Path:
    """Writes a copy of an image into a folder.

    Args:
        image: to copy.
        kind: one of KINDS.
        folder: for the copy, which has the name of the image with the kind behind it.
        rng: of quality 40 to 90, size 50 to 200 %, and what is cropped: 5 to 10 % of each side's length.
    """
    copy = open_image(image)
    width, height = copy.size
    if "cropped" in kind:
        across, down = width * rng.uniform(0.05, 0.1), height * rng.uniform(0.05, 0.1)
        left, top = across * rng.random(), down * rng.random()
        copy = copy.crop((round(left), round(top), round(left + width - across), round(top + height - down)))
    scales = {"smaller": (0.5, 0.9), "larger": (1.1, 2.0), "resized JPEG": (0.5, 2.0)}
    if kind in scales:
        scale = rng.uniform(*scales[kind])
        copy = copy.resize((round(width * scale), round(height * scale)), Image.Resampling.LANCZOS)
    suffix = ".jpg" if kind in ("quality", "cropped JPEG", "resized JPEG") else ".webp" if "WebP" in kind else ".png"
    target = folder / f"{image.stem}+{kind.replace(' ', '-')}{suffix}"
    copy.save(target, quality=rng.randint(40, 90))
    return target


def write_copies(images: list[Path], folder: Path) -> None:
    """Writes each image and one copy of it into a folder, the kinds in turn."""
    rng = random.Random(0)
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        (folder / image.name).write_bytes(image.read_bytes())
        write_copy(image, KINDS[number % len(KINDS)], folder, rng)
