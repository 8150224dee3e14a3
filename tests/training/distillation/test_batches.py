"""The order of rows: each once in an epoch, the same for any number of processes and micro-batches."""

from __future__ import annotations

import pickle
import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from accelerate.data_loader import BatchSamplerShard
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments

from training.distillation.batches import ShardedBatchSampler
from training.distillation.sharding import BatchSharding, StepState


def sampler(
    rows: int = 1000, batch_size: int = 8, *, by_length: bool = True, seed: int = 0, **of: int
) -> ShardedBatchSampler:
    rng = random.Random(0)
    dataset = Dataset.from_dict({"length": [rng.randint(5, 80) for _ in range(rows)]})
    sharding = BatchSharding(rows, batch_size, **of)
    dataset = dataset.with_transform(lambda batch: {})
    return ShardedBatchSampler(dataset, 1, False, seed=seed, sharding=sharding, by_length=by_length)


def lengths_in(batches: ShardedBatchSampler) -> list[int]:
    lengths: list[int] = batches.sampler.with_format(None)["length"][:]
    return lengths


@pytest.mark.parametrize("by_length", [False, True])
def test_every_row_once_and_the_length_is_told(by_length: bool) -> None:
    batches = list(sampler(1003, by_length=by_length))
    assert sorted(row for batch in batches for row in batch) == list(range(1003))
    assert len(batches) == len(sampler(1003, by_length=by_length)) == 126
    assert [len(batch) for batch in batches] == [8] * 125 + [3]


def test_batches_hold_similar_lengths_in_mixed_order() -> None:
    grouped = sampler()
    lengths = lengths_in(grouped)
    batches = [[lengths[row] for row in batch] for batch in grouped]
    padded = sum(len(batch) * max(batch) for batch in batches)
    assert padded < 1.1 * sum(map(sum, batches))
    longest = [max(batch) for batch in batches]
    assert longest != sorted(longest)
    assert longest != sorted(longest, reverse=True)


@pytest.mark.parametrize("by_length", [False, True])
def test_seed_and_epoch_decide_the_order(by_length: bool) -> None:
    first, again, other = (sampler(by_length=by_length, seed=seed) for seed in (0, 0, 1))
    assert list(first) == list(again) != list(other)
    again.set_epoch(1)
    assert list(first) != list(again)
    first.set_epoch(1)
    assert list(first) == list(again)


@pytest.mark.parametrize("by_length", [False, True])
@pytest.mark.parametrize(
    ("rows", "batch_size", "world_size", "micro_batches"),
    [
        (64, 8, 2, 1),
        (67, 8, 2, 1),  # three rows are left: two and one
        (65, 8, 2, 2),  # one row is left for four parts
        (100, 7, 3, 1),  # parts of three and two
        (100, 12, 2, 3),
        (5, 8, 4, 1),
        (1, 8, 4, 2),
    ],
)
def test_processes_share_the_updates_of_one(
    rows: int, batch_size: int, world_size: int, micro_batches: int, by_length: bool
) -> None:
    """Through accelerate's own sharding: what each process gets, in step with the others, and what it weighs."""
    alone = list(sampler(rows, batch_size, by_length=by_length))
    shared = sampler(rows, batch_size, by_length=by_length, world_size=world_size, micro_batches=micro_batches)
    taken = [list(BatchSamplerShard(shared, world_size, number, even_batches=False)) for number in range(world_size)]
    assert {len(batches) for batches in taken} == {len(alone) * micro_batches}
    for update, whole in enumerate(alone):
        seen: list[int] = []
        weights: dict[int, float] = {}
        for number, batches in enumerate(taken):
            sharding = BatchSharding(rows, batch_size, world_size, number, micro_batches)
            for micro_batch in range(micro_batches):
                batch = batches[update * micro_batches + micro_batch]
                step_state = StepState(sharding, update, micro_batch)
                assert batch  # a process without a row would not take the step
                if step_state.sizes[number]:
                    assert len(batch) == step_state.sizes[number]
                    seen += batch
                else:
                    assert step_state.weight == 0
                for row in batch:  # as the trainer counts it: a mean of means of means
                    share = step_state.weight / len(batch) / world_size / micro_batches
                    weights[row] = weights.get(row, 0) + share
        assert sorted(seen) == sorted(whole)
        assert weights == pytest.approx({row: 1 / len(whole) for row in whole})


def test_parts_of_batches_by_length_are_alike() -> None:
    """No process waits for one that has all the long captions."""
    grouped = sampler(1024, 32, world_size=2)
    lengths = lengths_in(grouped)
    parts = [sum(lengths[row] for row in part) for part in grouped]
    assert abs(sum(parts[::2]) - sum(parts[1::2])) < 0.02 * sum(parts)


def test_it_goes_into_a_checkpoint() -> None:
    """The trainer pickles its arguments."""
    kept = partial(ShardedBatchSampler, sharding=BatchSharding(10, 4), by_length=True)
    assert len(pickle.dumps(kept)) < 500


@pytest.mark.parametrize("seed", [0, 7])
def test_shuffled_is_the_hosts_own_order(tiny_bert: Path, tmp_path: Path, seed: int) -> None:
    model = SentenceTransformer(str(tiny_bert), device="cpu")

    def epochs(batch_sampler: Any) -> list[list[list[int]]]:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=str(tmp_path),
            per_device_train_batch_size=8,
            batch_sampler=batch_sampler,
            seed=seed,
            use_cpu=True,
            report_to="none",
        )
        rows = Dataset.from_dict({"caption": ["ev"] * 101, "label": [0.0] * 101})
        trainer = SentenceTransformerTrainer(model=model, args=arguments, train_dataset=rows)
        loader = trainer.get_train_dataloader()
        found = []
        for epoch in (0, 1, 5):
            loader.set_epoch(epoch)
            found.append(list(loader.batch_sampler))
        return found

    shuffled = epochs(partial(ShardedBatchSampler, sharding=BatchSharding(101, 8)))
    assert shuffled == epochs("batch_sampler")
    assert len({str(batches) for batches in shuffled}) == 3
