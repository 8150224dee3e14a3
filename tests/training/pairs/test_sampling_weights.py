"""Sampling weights of sources: how often a caption is seen, in theory, in the trainer, and after a kill."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from killing import run_killed
from samples import paint

from training import distill, embed_images, evaluate
from training.distillation.batches import ShardedBatchSampler
from training.distillation.sharding import BatchSharding
from training.pairs.sampling_weights import (
    order_of_epoch,
    rows_in_epoch,
    rows_of_epoch,
    seen_in_epoch,
    weight_column,
)
from training.run.config import DistillConfig, PretrainConfig, read
from training.run.recipe import ConfigError

WEIGHTS = np.repeat([1.0, 0.5, 2.0, 0.3, 2.5], [7, 10, 5, 9, 4])


def counts(weights: np.ndarray[Any, Any], epochs: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """How often each row was seen after so many epochs."""
    seen = np.concatenate([rows_of_epoch(weights, seed, epoch) for epoch in range(epochs)])
    return np.bincount(seen, minlength=len(weights))


def test_each_epoch_sees_the_stated_number_of_rows() -> None:
    sizes = {len(rows_of_epoch(WEIGHTS, 0, epoch)) for epoch in range(9)}
    assert sizes == {rows_in_epoch(WEIGHTS)} == {7 + 5 + 10 + round(9 * 0.3) + 10}


def test_with_an_integer_weight_each_row_is_seen_that_often_in_every_epoch() -> None:
    seen = counts(WEIGHTS, 1)
    assert seen[:7].tolist() == [1] * 7
    assert seen[17:22].tolist() == [2] * 5
    assert seen[7:17].sum() == 5
    assert set(seen[-4:]) == {2, 3}


@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 10])
def test_after_any_epoch_the_counts_within_a_source_differ_by_one_at_most(epochs: int) -> None:
    seen = counts(WEIGHTS, epochs)
    for start, stop in ((0, 7), (7, 17), (17, 22), (22, 31), (31, 35)):
        assert np.ptp(seen[start:stop]) <= 1


def test_with_weight_one_half_two_epochs_see_all_of_a_source() -> None:
    weights = np.full(100, 0.5)
    first, second, third = (set(rows_of_epoch(weights, 0, epoch).tolist()) for epoch in range(3))
    assert len(first) == 50
    assert first | second == set(range(100))
    assert third not in (first, second)


def test_the_seed_alone_decides_the_rows_of_an_epoch() -> None:
    one, again, other = (rows_of_epoch(WEIGHTS, seed, 3).tolist() for seed in (0, 0, 1))
    assert one == again != other


def test_every_epoch_sees_at_least_one_row_of_a_source() -> None:
    assert rows_in_epoch(np.full(3, 0.01)) == 1
    assert counts(np.full(3, 0.01), 3).tolist() == [1, 1, 1]


def test_there_is_no_column_where_all_weights_are_one() -> None:
    images = [("a", 2), ("a", 1), ("b", 3)]
    assert weight_column(images, {"a": 1.0, "b": 1.0}) == {}
    assert weight_column(images, {"a": 0.5, "b": 2.0})["weight"].tolist() == [0.5] * 3 + [2.0] * 3


def data(weights: np.ndarray[Any, Any] | None) -> Dataset:
    lengths = [5 + 7 * number % 31 for number in range(len(WEIGHTS))]
    columns = {"length": lengths} | ({} if weights is None else {"weight": weights})
    return Dataset.from_dict(columns).with_transform(lambda batch: {})


@pytest.mark.parametrize("length_window", [0, 32])
def test_batches_hold_the_rows_of_their_epoch_and_their_number_is_right(length_window: int) -> None:
    sharding = BatchSharding(rows_in_epoch(WEIGHTS), 4)
    sampler = ShardedBatchSampler(data(WEIGHTS), 1, False, seed=3, sharding=sharding, length_window=length_window)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler) == -(-rows_in_epoch(WEIGHTS) // 4)
        seen = Counter(row for batch in batches for row in batch)
        assert seen == Counter(rows_of_epoch(WEIGHTS, 3, epoch).tolist())
        assert batches == list(sampler)
        assert [row for batch in batches for row in batch] != sorted(seen.elements())


def test_without_weights_the_order_is_a_plain_shuffle() -> None:
    dataset = data(None)
    order = order_of_epoch(dataset, 5, 2, torch.Generator().manual_seed(9))
    assert order.tolist() == torch.randperm(len(dataset), generator=torch.Generator().manual_seed(9)).tolist()
    assert seen_in_epoch(dataset) == len(dataset)


@pytest.mark.parametrize("weight", [0, -1, 101])
def test_weights_out_of_range_are_refused(weight: float, tmp_path: Path) -> None:
    recipe = tmp_path / "x.yaml"
    recipe.write_text(json.dumps({"sources": [{"captions": "a"}, {"captions": "b", "weight": weight}]}))
    with pytest.raises(ConfigError, match=rf"'weight' of b above 0 and at most 100, got {weight}; change it"):
        read(DistillConfig, [str(recipe)])
    with pytest.raises(ConfigError, match="'weight' of a above 0"):
        read(DistillConfig, ["--captions", "a", "--run", "x", "--weight", str(weight)])


def test_pretraining_has_no_sampling_weights() -> None:
    with pytest.raises(ConfigError, match="expected sources of weight 1 for pretraining"):
        read(PretrainConfig, ["--captions", "a", "--run", "x", "--weight", "2"])


SMALL = (
    "--backbone scratch --scratch_layers 1 --scratch_hidden 32 --scratch_vocabulary 200 --max_tokens 32 "
    "--batch_size 8 --epochs 4 --evaluations 4 --device cpu"
)


@pytest.fixture(scope="module")
def recipe(tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources of 20 images, 12 of them for training, with weights 0.5 and 2, and their image embeddings."""
    folder = tmp_path_factory.mktemp("weights")
    for place, name in enumerate(("half", "twice")):
        splits = ["train"] * 12 + ["validation"] * 4 + ["test"] * 4
        for number, split in enumerate(splits):
            paint(folder / name / f"{number}.png", 100 * place + number)
            line = {"path": f"{name}/{number}.png", "caption": f"{name} {number} resim", "split": split}
            with (folder / f"{name}.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
    sources = [
        {"captions": str(folder / f"{name}.jsonl"), "weight": weight} for name, weight in (("half", 0.5), ("twice", 2))
    ]
    path = folder / "two.yaml"
    options = {
        "sources": sources,
        "image_model": str(tiny_clip),
        "embeddings": str(folder / "embeddings"),
        "device": "cpu",
    }
    path.write_text(json.dumps(options), encoding="utf-8")
    embed_images.main([str(path), "--run", str(folder / "run")])
    return path


def test_the_trainer_sees_each_source_as_often_as_its_weight_asks(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentence_transformers.base.data_collator import BaseDataCollator

    seen: list[str] = []
    collate = BaseDataCollator.__call__

    def collate_and_record(self: BaseDataCollator, features: list[dict[str, Any]]) -> dict[str, Any]:
        seen.extend(feature["caption"] for feature in features)
        return collate(self, features)

    monkeypatch.setattr(BaseDataCollator, "__call__", collate_and_record)
    plain = "--ascii_probability 0 --case_probability 0 --full_stop_probability 0 --typo_probability 0"
    plain += " --loader_processes 0"  # whose batches this process would not see
    distill.main([str(recipe), "--run", str(tmp_path), *SMALL.split(), *plain.split()])
    times = Counter(seen)
    assert {times[f"half {number} resim"] for number in range(12)} == {2}
    assert {times[f"twice {number} resim"] for number in range(12)} == {8}
    record = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert [source["weight"] for source in record["config"]["sources"]] == [0.5, 2.0]
    results = evaluate.main([str(recipe), "--run", str(tmp_path), "--device", "cpu"])
    assert {name.rpartition("/")[2]: source["images"] for name, source in results["sources"].items()} == {
        "half.jsonl": 4,
        "twice.jsonl": 4,
    }


@pytest.mark.parametrize("window", ["0", pytest.param("3", marks=pytest.mark.slow)])
def test_killed_and_resumed_gives_the_same_weights(recipe: Path, tmp_path: Path, window: str) -> None:
    argv = [str(recipe), *SMALL.split(), "--length_window", window]
    whole = distill.main([*argv, "--run", str(tmp_path / "whole")])
    run_killed("training.distill", "torch.optim:AdamW.step", 11, [*argv, "--run", str(tmp_path / "cut")])
    resumed = distill.main([*argv, "--run", str(tmp_path / "cut"), "--resume"])
    assert resumed["weights_sha256"] == whole["weights_sha256"]
