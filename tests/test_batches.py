"""Batches by length: each row once, little padding, the same order for the same seed and epoch."""

from __future__ import annotations

import random

from datasets import Dataset

from training.batches import GroupByLength


def sampler(rows: int = 1000, batch_size: int = 8, *, drop_last: bool = False, seed: int = 0) -> GroupByLength:
    rng = random.Random(0)
    dataset = Dataset.from_dict({"length": [rng.randint(5, 80) for _ in range(rows)]})
    return GroupByLength(dataset.with_transform(lambda batch: {}), batch_size, drop_last, seed=seed)


def test_every_row_once_and_the_length_is_told() -> None:
    batches = list(sampler(1003))
    assert sorted(row for batch in batches for row in batch) == list(range(1003))
    assert len(batches) == len(sampler(1003)) == 126
    whole = list(sampler(1003, drop_last=True))
    assert len(whole) == len(sampler(1003, drop_last=True)) == 125
    assert {len(batch) for batch in whole} == {8}


def test_batches_hold_similar_lengths_in_mixed_order() -> None:
    grouped = sampler()
    lengths = grouped.sampler.with_format(None)["length"]
    batches = [[lengths[row] for row in batch] for batch in grouped]
    padded = sum(len(batch) * max(batch) for batch in batches)
    assert padded < 1.1 * sum(map(sum, batches))
    longest = [max(batch) for batch in batches]
    assert longest != sorted(longest)
    assert longest != sorted(longest, reverse=True)


def test_seed_and_epoch_decide_the_order() -> None:
    first, again, other = sampler(), sampler(), sampler(seed=1)
    assert list(first) == list(again) != list(other)
    again.set_epoch(1)
    assert list(first) != list(again)
    first.set_epoch(1)
    assert list(first) == list(again)
