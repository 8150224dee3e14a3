"""The order of rows: each once in an epoch, the same for any number of ranks and micro-batches."""

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
    rows: int = 1000, batch_size: int = 8, *, length_window: int = 32, seed: int = 0, **shards: int
) -> ShardedBatchSampler:
    rng = random.Random(0)
    dataset = Dataset.from_dict({"length": [rng.randint(5, 80) for _ in range(rows)]})
    sharding = BatchSharding(rows, batch_size, **shards)
    dataset = dataset.with_transform(lambda batch: {})
    return ShardedBatchSampler(dataset, 1, False, seed=seed, sharding=sharding, length_window=length_window)


def lengths_in(batches: ShardedBatchSampler) -> list[int]:
    lengths: list[int] = batches.sampler.with_format(None)["length"][:]
    return lengths


@pytest.mark.parametrize("length_window", [0, 32])
def test_every_row_comes_once_and_the_length_is_right(length_window: int) -> None:
    batches = list(sampler(1003, length_window=length_window))
    assert sorted(row for batch in batches for row in batch) == list(range(1003))
    assert len(batches) == len(sampler(1003, length_window=length_window)) == 126
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


@pytest.mark.parametrize(("rows", "window"), [(1003, 5), (1000, 5), (1003, 1), (1003, 1000), (3, 2)])
def test_a_window_of_steps_has_the_rows_that_it_has_in_the_plain_shuffle(rows: int, window: int) -> None:
    """So no stretch of the training longer than a window is lopsided."""
    plain, windowed = (list(sampler(rows, length_window=steps)) for steps in (0, window))
    assert [len(batch) for batch in windowed] == [len(batch) for batch in plain]
    assert (windowed == plain) == (window == 1)
    for start in range(0, len(plain), window):
        before, after = (
            sorted(row for batch in order[start : start + window] for row in batch) for order in (plain, windowed)
        )
        assert before == after


@pytest.mark.parametrize("length_window", [0, 32])
def test_seed_and_epoch_decide_the_order(length_window: int) -> None:
    first, again, other = (sampler(length_window=length_window, seed=seed) for seed in (0, 0, 1))
    assert list(first) == list(again) != list(other)
    again.set_epoch(1)
    assert list(first) != list(again)
    first.set_epoch(1)
    assert list(first) == list(again)


@pytest.mark.parametrize("length_window", [0, 32])
@pytest.mark.parametrize(
    ("rows", "batch_size", "world_size", "micro_batches"),
    [
        (64, 8, 2, 1),
        (67, 8, 2, 1),  # the last step has three rows: two and one
        (65, 8, 2, 2),  # the last step has one row for four shards
        (100, 7, 3, 1),  # shards of three and two
        (100, 12, 2, 3),
        (5, 8, 4, 1),
        (1, 8, 4, 2),
    ],
)
def test_ranks_and_micro_batches_shard_the_steps_of_one_process(
    rows: int, batch_size: int, world_size: int, micro_batches: int, length_window: int
) -> None:
    """Through accelerate's sharding: the rows of each rank, as many batches for each, and the weight of each row."""
    unsharded = list(sampler(rows, batch_size, length_window=length_window))
    sharded = sampler(rows, batch_size, length_window=length_window, world_size=world_size, micro_batches=micro_batches)
    of_ranks = [list(BatchSamplerShard(sharded, world_size, rank, even_batches=False)) for rank in range(world_size)]
    assert {len(batches) for batches in of_ranks} == {len(unsharded) * micro_batches}
    for step, expected in enumerate(unsharded):
        seen: list[int] = []
        weights: dict[int, float] = {}
        for rank, batches in enumerate(of_ranks):
            sharding = BatchSharding(rows, batch_size, world_size, rank, micro_batches)
            for micro_batch in range(micro_batches):
                batch = batches[step * micro_batches + micro_batch]
                step_state = StepState(sharding, step, micro_batch)
                assert batch  # a rank without a row would not take the step
                if step_state.sizes[rank]:
                    assert len(batch) == step_state.sizes[rank]
                    seen += batch
                else:
                    assert step_state.weight == 0
                for row in batch:  # as the trainer averages: over rows, ranks and micro-batches
                    weight = step_state.weight / len(batch) / world_size / micro_batches
                    weights[row] = weights.get(row, 0) + weight
        assert sorted(seen) == sorted(expected)
        assert weights == pytest.approx({row: 1 / len(expected) for row in expected})


def test_shards_of_batches_by_length_take_equally_long() -> None:
    """No rank waits for one that has all the long captions."""
    grouped = sampler(1024, 32, world_size=2)
    lengths = lengths_in(grouped)
    totals = [sum(lengths[row] for row in shard) for shard in grouped]
    assert abs(sum(totals[::2]) - sum(totals[1::2])) < 0.02 * sum(totals)


def test_it_fits_into_a_checkpoint() -> None:
    """The trainer pickles its arguments."""
    argument = partial(ShardedBatchSampler, sharding=BatchSharding(10, 4), length_window=8)
    assert len(pickle.dumps(argument)) < 500


@pytest.mark.parametrize("seed", [0, 7])
def test_the_plain_shuffle_is_the_trainers_own_order(tiny_bert: Path, tmp_path: Path, seed: int) -> None:
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
        orders = []
        for epoch in (0, 1, 5):
            loader.set_epoch(epoch)
            orders.append(list(loader.batch_sampler))
        return orders

    shuffled = epochs(partial(ShardedBatchSampler, sharding=BatchSharding(101, 8)))
    assert shuffled == epochs("batch_sampler")
    assert len({str(batches) for batches in shuffled}) == 3
