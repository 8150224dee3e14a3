"""What a row costs in memory: the commands on sources of different sizes, each in a process of its own.

`make bench` prints the table for 1,000 to 100,000 rows; MEMORY_ROWS=10000,1000000 chooses others.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from datasets.table import InMemoryTable
from memory import Peak, peak_of, write_source
from ratios import report

from training.data.samples import Row
from training.data.store import Rows
from training.distillation.batches import ShardedBatchSampler
from training.distillation.sharding import BatchSharding
from training.pairs.augment import Augmentation
from training.pairs.dataset import TargetLookup, caption_table
from training.run.config import PretrainConfig
from training.run.temp_storage import unnamed_array
from training.small_models.models import build_clip, build_processor, save_clip
from turkish_clip.metrics import unit

pytestmark = [
    pytest.mark.bench,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from Linux's /proc"),
]

SIZES = [int(size) for size in os.environ.get("MEMORY_ROWS", "1000,10000,100000").split(",")]
DIM = 512
STEPS = 20
BATCH = 128
MB = 1_000_000
LARGEST_GROWTH = 300 * MB
ROUNDS = 3


@pytest.fixture(scope="module")
def wide_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP with vectors as wide as those of a real one."""
    config = PretrainConfig(
        captions="x",
        run="x",
        image_size=32,
        vision_layers=1,
        vision_hidden=32,
        text_layers=1,
        text_hidden=32,
        dim=DIM,
    )
    processor = build_processor(["a red house above a blue bird"], config)
    folder = tmp_path_factory.mktemp("clip") / "model"
    save_clip(build_clip(processor, config), processor, folder)
    return folder


def peaks(rows: int, clip: Path, folder: Path) -> dict[str, Peak]:
    """The peak memory of each command on so many rows."""
    table = write_source(folder / "source", rows)
    base = f"--captions {table} --image_model {clip} --run {folder / 'run'} --device cpu".split()
    student = "--backbone scratch --scratch_layers 1 --scratch_hidden 32 --scratch_vocabulary 300 --max_tokens 32"
    epochs = max(0.001, STEPS * BATCH / (2 * rows))
    training = f"{student} --batch_size {BATCH} --evaluations 1 --epochs {epochs}".split()
    stub = str(Path(__file__).parents[1] / "helpers" / "memory.py")
    return {
        "embed_images": peak_of([sys.executable, stub, "embed_images", *base]),
        "distill": peak_of([sys.executable, "-m", "training.distill", *base, *training]),
        "evaluate": peak_of([sys.executable, "-m", "training.evaluate", *base, "--report_queries", "2"]),
    }


def test_memory_does_not_grow_with_the_rows(wide_clip: Path, tmp_path: Path) -> None:
    measured = {rows: peaks(rows, wide_clip, tmp_path / str(rows)) for rows in SIZES}
    print("\npeak memory in MB: of the process's own (with the pages of mapped files, which the system can take back)")
    for command in next(iter(measured.values())):
        cells = [f"{found[command].own / MB:.0f} ({found[command].resident / MB:.0f})" for found in measured.values()]
        print(f"{command:<14}" + "".join(f"{rows:>10,}: {cell}" for rows, cell in zip(measured, cells)))
    smaller = 10_000 if 10_000 in measured else min(measured)
    small, large = measured[smaller], measured[max(measured)]
    for command in ("embed_images", "distill"):
        growth = large[command].own - small[command].own
        print(f"{command}: own memory grows by {growth / MB:.0f} MB from {smaller:,} rows")
        assert growth < LARGEST_GROWTH


def seconds_of_an_epoch(dataset: Dataset) -> float:
    """Of the processor, for every batch of an epoch, as the trainer's loader takes it."""
    began = time.process_time()
    for batch in ShardedBatchSampler(dataset, 1, False, sharding=BatchSharding(len(dataset), BATCH)):
        dataset.__getitems__(batch)
    return time.process_time() - began


@pytest.mark.parametrize("rows", [10_000, 100_000])
def test_an_epoch_of_captions_from_disk_against_the_same_in_memory(rows: int, tmp_path: Path) -> None:
    vectors = unit(np.random.default_rng(0).standard_normal((rows, DIM), np.float32))
    texts = [(f"kırmızı bir ev ve {number} kuş", f"{number} kuş bir evin üstünde") for number in range(rows)]
    augmentation = Augmentation(0.1, 0.2, 0.1, 0.1, 0)
    on_disk = unnamed_array(vectors.shape, np.float32, tmp_path)
    on_disk[:] = vectors
    table = caption_table(
        Rows.of((Row(str(n), None, two, (), "train") for n, two in enumerate(texts)), tmp_path), tmp_path
    )
    ours = Dataset(InMemoryTable(table), fingerprint="ours").with_transform(TargetLookup(on_disk, "ours", augmentation))
    tensor = torch.from_numpy(vectors)
    columns = {"caption": [text for two in texts for text in two], "image": np.arange(2 * rows) // 2}
    other = Dataset.from_dict({**columns, "row": np.arange(2 * rows), "length": np.zeros(2 * rows, np.int64)})

    def look_up(batch: dict[str, Any]) -> dict[str, Any]:
        return {"caption": augmentation.apply(batch["caption"], batch["row"]), "label": list(tensor[batch["image"]])}

    times = [[seconds_of_an_epoch(dataset) for dataset in (ours, other.with_transform(look_up))] for _ in range(ROUNDS)]
    disk, memory = zip(*times)
    what = f"an epoch's batches of {2 * rows:,} captions from disk, without the training, processor time"
    assert report(what, "the same in memory", disk, memory) > 1 / 1.5
