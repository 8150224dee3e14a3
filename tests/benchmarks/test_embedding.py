"""Ratios of bulk embedding at full size: CLIP ViT-B/32 from its configuration, random weights, JPEGs like photographs.

`make bench` prints them. Each ratio is of two measurements in one run, taken in turn. How fast images are decoded and
prepared beside a tower on another device is measured on two cores, without a tower.
"""

from __future__ import annotations

import copy
import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
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
from turkish_clip.decoding import decode
from turkish_clip.embed import ImageDecoder, bf16_weights, embed_batches
from turkish_clip.images import open_image
from turkish_clip.metrics import unit
from turkish_clip.preprocessing import FastPreprocessing, preprocessing_for

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


def two_cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))[:2] if hasattr(os, "sched_getaffinity") else []


def parts(things: Sequence, size: int) -> list[Sequence]:
    return [things[start : start + size] for start in range(0, len(things), size)]


def rows_of(files: Sequence[Path]) -> list[Row]:
    return [Row(path.name, path, ("x",), (), "train") for path in files]


def ours(model: SentenceTransformer, files: Sequence[Path], dtype: str, processes: int = 0) -> np.ndarray:
    """As training.embed_images does it, hashes of the files included."""
    threads = torch.get_num_threads()
    batches = parts(rows_of(files), BATCH_ON_CPU)
    how = {"workers": threads, "compute_threads": threads, "decode_processes": processes}
    results = embed_batches(model, batches, dim=512, dtype=dtype, **how)
    return np.concatenate([result.vectors for result in results])


def prepared(decoder: ImageDecoder, files: Sequence[Path]) -> None:
    """Batches of pixels, in order and a few ahead, as a tower takes them."""
    ahead: deque = deque()
    for batch in parts(rows_of(files), BATCH_ON_CPU):
        ahead.append(decoder.begin(batch))
        if len(ahead) > decoder.batches_ahead(BATCH_ON_CPU) + 1:
            ahead.popleft()()
    while ahead:
        ahead.popleft()()


def in_threads(exact: FastPreprocessing, files: Sequence[Path]) -> None:
    """Features from two threads: Pillow's resize, and the values of float32 that are sent to the device."""
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(lambda part: exact(row.load(224).image for row in part), parts(rows_of(files), BATCH_ON_CPU)):
            pass


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


@pytest.mark.skipif(len(two_cores()) < 2, reason="wants two cores")
@pytest.mark.parametrize("dtype", ["float32", "bf16"])
def test_decoding_in_two_processes_against_threads_and_the_limit(
    image_model: SentenceTransformer, files: list[Path], dtype: str
) -> None:
    fast, exact = preprocessing_for(image_model, dtype), preprocessing_for(image_model)
    assert isinstance(fast, FastPreprocessing)
    assert isinstance(exact, FastPreprocessing)
    pixels = np.empty((len(files), 224, 224, 3), np.uint8)
    mine, alone, threads = [], [], []
    all_cores, torch_threads = os.sched_getaffinity(0), torch.get_num_threads()
    try:
        os.sched_setaffinity(0, two_cores())
        torch.set_num_threads(1)
        in_threads(exact, files[:64])
        with ImageDecoder(image_model, processes=2, dtype=dtype) as decoder:
            prepared(decoder, files[:64])
            for _ in range(ROUNDS):
                alone.append(seconds_of(lambda: decode(rows_of(files), pixels, 224, fast)) / IMAGES)
                mine.append(seconds_of(lambda: prepared(decoder, files)) / IMAGES)
                threads.append(seconds_of(lambda: in_threads(exact, files)) / IMAGES)
    finally:
        os.sched_setaffinity(0, all_cores)
        torch.set_num_threads(torch_threads)
    what = f"decoding and preparing a JPEG of {files[0].stat().st_size / 1e6:.2f} MB in two processes, for {dtype}"
    limit = report(what, "half of what one process takes that does nothing else", mine, [one / 2 for one in alone])
    against_threads = report(what, "two threads, with Pillow and float32", mine, threads)
    small_and_fast = dtype == "bf16" and files[0].stat().st_size < 1e6
    assert limit > (0.75 if small_and_fast else 0.9)  # of 1 ms an image, the process that asks takes a fifth (LOG.md)
    assert against_threads > (1.8 if small_and_fast else 1)


@pytest.mark.parametrize("dtype", ["float32", "bf16"])
def test_beside_a_tower_on_the_cpu_threads_are_as_good(
    image_model: SentenceTransformer, files: list[Path], dtype: str
) -> None:
    tower = copy.deepcopy(image_model)
    if dtype == "bf16":
        bf16_weights(tower)
    times: list[list[float]] = [[], []]
    ours(tower, files[:DIFFERENT], dtype)
    for _ in range(ROUNDS):
        for processes in (0, 1):
            times[processes].append(seconds_of(lambda n=processes: ours(tower, files, dtype, n)) / IMAGES)
    what = f"embedding a JPEG of {files[0].stat().st_size / 1e6:.2f} MB on the CPU, {dtype}, threads decode"
    assert report(what, "one process decodes", *times) > 0.9
