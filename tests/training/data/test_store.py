"""Rows on disk are the rows that were written, with every kind of image, and take little memory."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from memory import peak_of, write_source

from training.data.readers.hub_datasets import DatasetImage
from training.data.samples import SPLITS, Negative, Row, SkippedSample
from training.data.store import Rows, SkippedSamples, SkippedWriter
from training.run import temp_storage

MB = 1_000_000


def random_rows(rng: random.Random, count: int) -> list[Row]:
    """Returns rows with images of every kind, several captions and Turkish letters."""
    data_set = object()
    rows = []
    for number in range(count):
        image = rng.choice(
            [
                None,
                Path(f"resimler/ığdır {number}.png"),
                Path(os.fsdecode(b"not-utf8-\xff.png")),
                DatasetImage(data_set, number, "image"),
            ]
        )
        captions = tuple(f"başlık {number} {k}" for k in range(rng.randrange(1, 4)))
        english = tuple(f"caption {number} {k}" for k in range(rng.randrange(3)))
        indices = tuple(rng.randrange(-1, len(english)) for _ in captions) if rng.random() < 0.5 else ()
        texts = [f"değişik {number} {k}" for k in range(4)]
        negatives = tuple(Negative("renk", *texts[: rng.choice([2, 4])]) for _ in range(rng.randrange(3)))
        slices = tuple("çizim boya"[: 5 * k] for k in range(1, rng.randrange(1, 4)))
        where = (rng.choice(SPLITS), rng.choice("ab"))
        others = {"translations": indices, "negatives": negatives, "slices": slices}
        rows.append(Row(f"resim-{number}", image, captions, english, *where, **others))
    return rows


def test_rows_are_read_as_written(tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temp_storage, "BATCH_ROWS", 16)
    expected = random_rows(rng, 100)
    rows = Rows.of(expected, tmp_path)
    assert list(rows) == expected
    assert list(rows.image_ids()) == [row.image_id for row in expected]
    for split in SPLITS:
        assert list(rows.of_split(split)) == [row for row in expected if row.split == split]
        assert list(rows[10:60].of_split(split)) == [row for row in expected[10:60] if row.split == split]
    stored = [row.image for row in rows if isinstance(row.image, DatasetImage)]
    assert len({id(image.dataset) for image in stored}) == 1
    assert list(rows[::-2].image_ids()) == [row.image_id for row in expected[::-2]]
    part = rows.take(np.array([70, 3, 3]))
    assert [row.image_id for row in part] == ["resim-70", "resim-3", "resim-3"] == list(part.image_ids())


def test_sources_are_joined(tmp_path: Path, rng: random.Random) -> None:
    first, second = random_rows(rng, 10), random_rows(rng, 10)
    joined = Rows.joined([Rows.of(first, tmp_path)])
    assert list(joined) == first
    splits = np.full(len(second), SPLITS.index("test"), np.uint8)
    moved = Rows.of(second, tmp_path).with_splits(splits)
    assert {row.split for row in moved} == {"test"}


def test_skipped_samples_are_read_as_written(tmp_path: Path) -> None:
    expected = [SkippedSample(f"{number}", f"{number}.png", "no file") for number in range(20)]
    writer = SkippedWriter(tmp_path)
    for sample in expected:
        writer.add(sample)
    skipped = writer.finish()
    assert isinstance(skipped, SkippedSamples)
    assert list(skipped) == expected
    assert skipped[-1] == expected[-1]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from Linux's /proc")
def test_two_hundred_thousand_rows_take_little_memory(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from training.data.sources import read_captions\n"
        "from training.run.config import EmbedConfig, read\n"
        "captions = read_captions(read(EmbedConfig, sys.argv[1:]))\n"
        "assert len(captions.split('train')) + 200 == len(captions.rows) == int(sys.argv[-1].rpartition('/')[2])\n"
        "assert sum(len(row.captions) for row in captions.rows) == 2 * len(captions.rows)\n"
    )
    peaks = []
    for rows in (1_000, 200_000):
        table = write_source(tmp_path / "source" / str(rows), rows)
        argv = ["--captions", str(table), "--run", str(tmp_path / "run" / str(rows))]
        peaks.append(peak_of([sys.executable, "-c", program, *argv]).own)
    assert peaks[1] - peaks[0] < 60 * MB
    assert not (tmp_path / "run").exists()
