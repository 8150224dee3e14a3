"""Ratios of bulk embedding at full size: CLIP ViT-B/32 from its configuration, random weights, JPEGs like photographs.

`make bench` prints them. Each ratio is of two measurements in one run, taken in turn.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops
from ratios import report, seconds_of
from sentence_transformers import SentenceTransformer

from training.data.samples import Row
from training.embeddings.shard_writer import BATCH_ON_CPU
from turkish_clip.embed import bf16_weights, embed_batches
from turkish_clip.images import open_image
from turkish_clip.metrics import unit

pytestmark = pytest.mark.bench

IMAGES = int(os.environ.get("BENCH_IMAGES", "256"))  # fewer for a try
DIFFERENT = 8
ROUNDS = 3
ENCODE_BATCH = 32  # the default of SentenceTransformer.encode
GRAIN = 6  # of 255 levels: 3.3 MB at 12 megapixels, 90 KB at 640×480, as phones and data sets have them
ROUGHNESS = 0.8  # of the large shapes: how their contrast grows with their size


@dataclass(frozen=True)
class Way:
    """One way from files to vectors, and what it gave."""

    seconds: list[float]
    vectors: list[np.ndarray]


def photograph(size: tuple[int, int], seed: int) -> Image.Image:
    """Shapes of all sizes in colour under fine grain."""
    rng = np.random.default_rng(seed)
    width, height = size[0] // 4, size[1] // 4
    shapes = np.zeros((height, width, 3), np.float32)
    for cell in (2**octave for octave in range(1, 10)):
        layer = rng.standard_normal((height // cell + 2, width // cell + 2, 3)).astype(np.float32) * cell**ROUGHNESS
        for channel in range(3):
            grown = Image.fromarray(layer[:, :, channel]).resize((width, height), Image.Resampling.BICUBIC)
            shapes[:, :, channel] += np.asarray(grown)
    levels = (127 + 50 * shapes / shapes.std()).clip(0, 255).astype(np.uint8)
    grain = Image.effect_noise(size, GRAIN)
    return ImageChops.add(Image.fromarray(levels).resize(size), Image.merge("RGB", [grain] * 3), offset=-128)


@pytest.fixture(scope="module", params=[(640, 480), (4000, 3000)], ids=["data-set", "phone"])
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photographs")
    for seed in range(DIFFERENT):
        photograph(request.param, seed).save(folder / f"{seed}.jpg", quality=90)
    return [folder / f"{number % DIFFERENT}.jpg" for number in range(IMAGES)]


def parts(things: Sequence, size: int) -> list[Sequence]:
    return [things[start : start + size] for start in range(0, len(things), size)]


def ours(model: SentenceTransformer, files: Sequence[Path], dtype: str) -> np.ndarray:
    """As training.embed_images does it, hashes of the files included."""
    rows = [Row(path.name, path, ("x",), (), "train") for path in files]
    threads = torch.get_num_threads()
    batches = parts(rows, BATCH_ON_CPU)
    results = embed_batches(model, batches, dim=512, workers=threads, compute_threads=threads, dtype=dtype)
    return np.concatenate([result.vectors for result in results])


def plain(model: SentenceTransformer, files: Sequence[Path]) -> np.ndarray:
    """What one would write."""
    encode = (model.encode([Image.open(path) for path in part], batch_size=ENCODE_BATCH) for part in parts(files, 32))
    return np.concatenate(list(encode))


def bare(model: SentenceTransformer, batches: Sequence[torch.Tensor], dtype: str) -> np.ndarray:
    """The tower alone, on pixels that are ready."""
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
        found = [model({"pixel_values": batch, "modality": "image"})["sentence_embedding"] for batch in batches]
    return torch.cat(found).float().numpy()


def measured(way: Way, action: object) -> None:
    way.seconds.append(seconds_of(lambda: way.vectors.append(action())) / IMAGES)


@pytest.mark.parametrize("dtype", ["float32", "bf16"])
def test_embedding_against_plain_encode_and_the_bare_tower(
    image_model: SentenceTransformer,
    files: list[Path],
    dtype: str,
) -> None:
    tower = copy.deepcopy(image_model)
    if dtype == "bf16":
        bf16_weights(tower)
    opened = [open_image(path) for path in files[:DIFFERENT]]
    size, pixels = opened[0].size, image_model.preprocess(opened)["pixel_values"]
    ready = parts(pixels[torch.arange(IMAGES) % DIFFERENT], BATCH_ON_CPU)
    ways = [Way([], []) for _ in range(3)]
    ours(tower, files[:DIFFERENT], dtype)
    bare(tower, ready[:1], dtype)
    for _ in range(ROUNDS):
        measured(ways[0], lambda: ours(tower, files, dtype))
        measured(ways[1], lambda: plain(image_model, files))
        measured(ways[2], lambda: bare(tower, ready, dtype))
    mine, encoded, alone = ways
    what = f"embedding a JPEG of {size[0]}×{size[1]}, {files[0].stat().st_size / 1e6:.2f} MB, {dtype}"
    against_encode = report(what, "encode in float32 on opened images", mine.seconds, encoded.seconds)
    against_bare = report(what, f"the bare tower on ready pixels, {dtype}", mine.seconds, alone.seconds)
    cosines = (unit(mine.vectors[0]) * unit(encoded.vectors[0])).sum(axis=1)
    print(f"cosine to encode's vectors: {cosines.min():.6f} at least")
    assert cosines.min() > 0.9999
    assert against_encode > (3 if max(size) > 1000 else 1)
    assert against_bare > 0.5  # by how much JPEGs of 12 megapixels fall short of 1: training/LOG.md
