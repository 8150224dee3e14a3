"""Targets stay in their shards and are found from any order; labels are made of them shard by shard."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.data.samples import Reject, Row
from training.data.sources import write_rejects
from training.data.store import Rows
from training.distillation import targets as regression_targets
from training.distillation.dataset import drawn, with_targets
from training.distillation.targets import labels
from training.embeddings.manifest import REJECTS, Manifest, TargetsError, write_shard
from training.embeddings.store import Targets, read_targets
from training.run.config import DistillConfig
from training.run.source import CaptionsError
from turkish_clip.metrics import unit

DIM = 6
NAMES = [f"resim-{number:02d}" for number in range(23)]


@pytest.fixture
def vectors() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((len(NAMES), DIM)).astype(np.float32)


@pytest.fixture
def targets(vectors: np.ndarray, tmp_path: Path) -> Targets:
    """Five shards, one of them without a picture, and two pictures that did not open."""
    sizes = [7, 0, 1, 10, 5]
    manifest = Manifest(
        image_model="x",
        revision="",
        weights_sha256="",
        dim=DIM,
        dtype="float32",
        shard_size=10,
        batch_size=1,
        normalised=False,
        pictures=len(NAMES),
        rejected=2,
        complete=True,
    )
    shards, start = [], 0
    for number, size in enumerate(sizes):
        part = slice(start, start + size)
        shards.append(write_shard(tmp_path / "targets", number, NAMES[part], vectors[part], ""))
        start += size
    replace(manifest, shards=shards).write(tmp_path / "targets")
    write_rejects(tmp_path / "targets" / REJECTS, [Reject(name, "", "") for name in ("bozuk", "boş", NAMES[3])])
    return read_targets(tmp_path / "targets")


def test_found_from_any_order(targets: Targets, vectors: np.ndarray, rng: random.Random) -> None:
    places = [rng.randrange(len(NAMES)) for _ in range(60)]
    asked = [NAMES[place] for place in places]
    assert targets.rows(asked).tolist() == places
    assert np.array_equal(targets.unit_rows(asked), unit(vectors[places]))
    reads = [len(found) for _, found in targets.by_shard(np.array(places))]
    assert len(reads) == 4  # the shard without a picture is not read
    assert sum(reads) == 60
    assert targets.unit_rows([]).shape == (0, DIM)


def test_what_was_rejected_and_opens_now_is_no_reject(targets: Targets, tmp_path: Path) -> None:
    assert targets.rejected == {"bozuk", "boş"}
    rows = [Row(name, None, ("a",), (), "train") for name in ["bozuk", NAMES[3], "boş", NAMES[1]]]
    kept = with_targets(Rows.of(rows, tmp_path), targets)
    assert list(kept.image_ids()) == [NAMES[3], NAMES[1]]
    with pytest.raises(CaptionsError, match="expected pictures that open, got 1 that are all in"):
        with_targets(Rows.of(rows[:1], tmp_path), targets)


def test_pictures_without_a_target_are_counted(targets: Targets) -> None:
    with pytest.raises(TargetsError, match="got none for 2, the first 'yeni'"):
        targets.rows([NAMES[0], "yeni", NAMES[1], "yepyeni"])


@pytest.mark.parametrize("objective", ["mse", "centred"])
def test_labels_are_those_of_one_matrix(
    targets: Targets,
    vectors: np.ndarray,
    tmp_path: Path,
    rng: random.Random,
    monkeypatch: pytest.MonkeyPatch,
    objective: str,
) -> None:
    monkeypatch.setattr(regression_targets, "AT_ONCE", 4)
    places = rng.sample(range(len(NAMES)), 15)
    rows = Rows.of((Row(NAMES[place], None, ("a",), (), "train") for place in places), tmp_path)
    config = DistillConfig(captions="x", run=str(tmp_path / "run"), objective=objective)
    wanted = np.zeros((15, DIM), np.float32)
    wanted += np.float32(1) * unit(vectors[places])
    if objective == "centred":
        wanted -= wanted.mean(axis=0)
    assert labels(rows, targets, config).tobytes() == unit(wanted).tobytes()
    assert not (tmp_path / "run").exists()


def test_drawn_are_those_with_the_least_shares(tmp_path: Path) -> None:
    from training.data.sources import hash_share

    rows = Rows.of((Row(name, None, ("a",), (), "train") for name in NAMES), tmp_path)
    config = DistillConfig(captions="x", run="x", train_pictures=9, split_seed=4)
    best = sorted(NAMES, key=lambda name: hash_share(5, name))[:9]
    assert list(drawn(rows, config).image_ids()) == sorted(best)
