"""Image embeddings stay on disk and are found in any order; regression targets are made of them shard by shard."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.data.samples import Row, SkippedSample
from training.data.sources import write_skipped
from training.data.store import Rows
from training.embeddings.manifest import SKIPPED, EmbeddingsError, Manifest, write_shard
from training.embeddings.store import ImageEmbeddings, read_embeddings
from training.pairs import targets as targets_module
from training.pairs.dataset import sample_images, without_skipped
from training.pairs.targets import regression_targets
from training.run.config import DistillConfig
from training.run.source import SourceError
from turkish_clip.metrics import unit

DIM = 6
NAMES = [f"resim-{number:02d}" for number in range(23)]


@pytest.fixture
def vectors() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((len(NAMES), DIM)).astype(np.float32)


@pytest.fixture
def embeddings(vectors: np.ndarray, tmp_path: Path) -> ImageEmbeddings:
    """Five shards, one of them without an image, and two images that did not open."""
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
        images=len(NAMES),
        skipped=2,
        complete=True,
    )
    shards, start = [], 0
    for number, size in enumerate(sizes):
        part = slice(start, start + size)
        shards.append(write_shard(tmp_path / "embeddings", number, NAMES[part], vectors[part], ""))
        start += size
    replace(manifest, shards=shards).write(tmp_path / "embeddings")
    write_skipped(
        tmp_path / "embeddings" / SKIPPED, [SkippedSample(name, "", "") for name in ("bozuk", "boş", NAMES[3])]
    )
    return read_embeddings(tmp_path / "embeddings")


def test_embeddings_are_found_in_any_order(
    embeddings: ImageEmbeddings, vectors: np.ndarray, rng: random.Random
) -> None:
    places = [rng.randrange(len(NAMES)) for _ in range(60)]
    names = [NAMES[place] for place in places]
    assert embeddings.rows(names).tolist() == places
    assert np.array_equal(embeddings.unit_rows(names), unit(vectors[places]))
    reads = [len(part) for _, part in embeddings.by_shard(np.array(places))]
    assert len(reads) == 4  # the shard without an image is not read
    assert sum(reads) == 60
    assert embeddings.unit_rows([]).shape == (0, DIM)


@pytest.mark.parametrize(("place", "value"), [(0, np.nan), (9, np.inf), (22, -np.inf)])
def test_a_stored_vector_that_is_no_number_is_named(
    embeddings: ImageEmbeddings, vectors: np.ndarray, tmp_path: Path, place: int, value: float
) -> None:
    folder, start = embeddings.folder, 0
    vectors[place, 3] = value
    shards = []
    for shard in embeddings.manifest.shards:
        end = start + shard.images
        shards.append(write_shard(folder, shard.number, NAMES[start:end], vectors[start:end], ""))
        bad = shards[-1].file if start <= place < end else ""
        if bad:
            expected = (
                f"expected numbers in .*{bad}, got NaN or infinity in 1 of its {shard.images} vectors, the first "
            )
        start = end
    replace(embeddings.manifest, shards=tuple(shards)).write(folder)
    with pytest.raises(
        EmbeddingsError, match=f"{expected}of '{NAMES[place]}'; delete that file and run training.embed"
    ):
        read_embeddings(folder)


def test_a_listed_image_with_an_embedding_is_not_skipped(embeddings: ImageEmbeddings, tmp_path: Path) -> None:
    assert embeddings.skipped == {"bozuk", "boş"}
    rows = [Row(name, None, ("a",), (), "train") for name in ["bozuk", NAMES[3], "boş", NAMES[1]]]
    usable = without_skipped(Rows.of(rows, tmp_path), embeddings)
    assert list(usable.image_ids()) == [NAMES[3], NAMES[1]]
    with pytest.raises(SourceError, match="expected images that open, got 1 that are all in"):
        without_skipped(Rows.of(rows[:1], tmp_path), embeddings)


def test_images_without_an_embedding_are_counted(embeddings: ImageEmbeddings) -> None:
    with pytest.raises(
        EmbeddingsError, match="expected an embedding for each image in .*, got none for 2, the first 'yeni'"
    ):
        embeddings.rows([NAMES[0], "yeni", NAMES[1], "yepyeni"])


@pytest.mark.parametrize("objective", ["mse", "centred"])
def test_regression_targets_are_those_of_one_matrix(
    embeddings: ImageEmbeddings,
    vectors: np.ndarray,
    tmp_path: Path,
    rng: random.Random,
    monkeypatch: pytest.MonkeyPatch,
    objective: str,
) -> None:
    monkeypatch.setattr(targets_module, "BLOCK_ROWS", 4)
    places = rng.sample(range(len(NAMES)), 15)
    rows = Rows.of((Row(NAMES[place], None, ("a",), (), "train") for place in places), tmp_path)
    config = DistillConfig(captions="x", run=str(tmp_path / "run"), objective=objective)
    expected = np.zeros((15, DIM), np.float32)
    expected += np.float32(1) * unit(vectors[places])
    if objective == "centred":
        expected -= expected.mean(axis=0)
    assert regression_targets(rows, embeddings, config).tobytes() == unit(expected).tobytes()
    assert not (tmp_path / "run").exists()


def test_the_images_with_the_smallest_hash_fractions_are_drawn(tmp_path: Path) -> None:
    from training.data.sources import hash_fraction

    rows = Rows.of((Row(name, None, ("a",), (), "train") for name in NAMES), tmp_path)
    config = DistillConfig(captions="x", run="x", train_images=9, split_seed=4)
    smallest = sorted(NAMES, key=lambda name: hash_fraction(5, name))[:9]
    assert list(sample_images(rows, config).image_ids()) == sorted(smallest)
