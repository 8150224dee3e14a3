"""Batches: each row once, the host's own order, or by length with little padding; the same for a seed and an epoch."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments

from training.batches import GroupByLength, Shuffled


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


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("seed", [0, 7])
def test_shuffled_is_the_hosts_own_order(tiny_bert: Path, tmp_path: Path, seed: int, drop_last: bool) -> None:
    model = SentenceTransformer(str(tiny_bert), device="cpu")

    def epochs(batch_sampler: Any) -> list[list[list[int]]]:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=str(tmp_path),
            per_device_train_batch_size=8,
            batch_sampler=batch_sampler,
            dataloader_drop_last=drop_last,
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

    shuffled = epochs(Shuffled)
    assert shuffled == epochs("batch_sampler")
    assert len({str(batches) for batches in shuffled}) == 3
    assert sorted(row for batch in Shuffled(Dataset.from_dict({"row": range(101)}), 8, False) for row in batch) == list(
        range(101)
    )
