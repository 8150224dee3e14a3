"""Image embeddings stay on disk and are found in any order; regression targets are made of them shard by shard."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.data.samples import Row, SkippedSample
from training.data.sources import read_skipped, write_skipped
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
        images=0,
        skipped=2,
        complete=True,
    )
    shards, start = [], 0
    for number, size in enumerate(sizes):
        part = slice(start, start + size)
        shards.append(write_shard(tmp_path / "embeddings", number, NAMES[part], vectors[part], ""))
        start += size
    replace(manifest, images=len(NAMES), shards=shards).write(tmp_path / "embeddings")
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


def changed(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "manifest.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({0: 6}, "got 23 images, and shards of 22"),
        (
            {0: 6, 3: 11},
            "expected 6 vectors of width 6 in .*shard-00000.parquet, as manifest.json says, got 7 of width 6",
        ),
        ({0: -1, 3: 18}, "a shard of fewer than no images"),
    ],
)
def test_a_manifest_of_other_counts_than_its_shards_is_refused(
    embeddings: ImageEmbeddings, counts: dict[int, int], said: str
) -> None:
    def change(values: dict[str, Any]) -> None:
        for number, images in counts.items():
            values["shards"][number]["images"] = images

    changed(embeddings.folder, change)
    with pytest.raises(EmbeddingsError, match=said):
        read_embeddings(embeddings.folder)


def test_a_manifest_of_a_doubled_shard_or_of_another_width_is_refused(embeddings: ImageEmbeddings) -> None:
    whole = (embeddings.folder / "manifest.json").read_bytes()
    changed(embeddings.folder, lambda values: values["shards"].append(values["shards"][0]))
    with pytest.raises(EmbeddingsError, match=r"got the shard shard-00000.parquet twice; delete the folder"):
        read_embeddings(embeddings.folder)
    (embeddings.folder / "manifest.json").write_bytes(whole)
    changed(embeddings.folder, lambda values: values.update(dim=DIM // 2))
    with pytest.raises(EmbeddingsError, match=f"expected 7 vectors of width {DIM // 2} .* got 7 of width {DIM};"):
        read_embeddings(embeddings.folder)
    (embeddings.folder / "manifest.json").write_bytes(whole)
    for name, value in (
        ("dtype", "../x"), ("dtype", "float64"), ("compute_dtype", "int4"), ("content", "md5"), ("skipped", -5),
        ("images", -1),
    ):  # fmt: skip
        changed(embeddings.folder, lambda values, change={name: value}: values.update(change))
        with pytest.raises(EmbeddingsError, match=f"got '?{value}'? as '{name}', not "):
            read_embeddings(embeddings.folder)
        (embeddings.folder / "manifest.json").write_bytes(whole)
    for name in ("dim", "shard_size"):
        changed(embeddings.folder, lambda values, name=name: values.update({name: 0}))
        with pytest.raises(EmbeddingsError, match=f"got 0 as '{name}', not 1 or more"):
            read_embeddings(embeddings.folder)
        (embeddings.folder / "manifest.json").write_bytes(whole)


@pytest.mark.parametrize(
    "line",
    [
        b'{"a": 1}',
        b"[1]",
        b'{"image_id": "x"',
        b"\xff",
        b'{"image_id": "x", "path": "", "reason": 5}',
        b"",
        b"[" * 5000,
    ],
)
def test_a_damaged_list_of_skipped_images_is_one_line(embeddings: ImageEmbeddings, line: bytes) -> None:
    path = embeddings.folder / SKIPPED
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(
        SourceError, match=r"^expected a skipped image in line \d of .*skipped.jsonl, got .*again$"
    ) as error:
        read_embeddings(embeddings.folder)
    assert "\n" not in str(error.value)


def test_a_separator_of_lines_in_a_reason_is_no_end_of_one(embeddings: ImageEmbeddings) -> None:
    sample = SkippedSample("a\u2028b", "c\x0bd", "e\x85f")
    write_skipped(embeddings.folder / SKIPPED, [sample, sample])
    assert read_skipped(embeddings.folder / SKIPPED) == [sample, sample]


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
