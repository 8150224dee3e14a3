"""The batch sampler: which rows an optimizer step sees, and in which order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from sentence_transformers.base.sampler import DefaultBatchSampler

from training.distillation.sharding import BatchSharding
from training.pairs.sampling_weights import order_of_epoch


class ShardedBatchSampler(DefaultBatchSampler):  # type: ignore[misc]
    """Shuffles the rows by seed and epoch, cuts them into optimizer steps, and yields the shards of each step.

    The trainer's loader gives each of n ranks every n-th shard. The order of the rows depends on seed and epoch alone,
    not on the number of ranks, and is the same after a resume. An epoch sees each row once, or as often as its sampling
    weight asks for; its last step has the rows that are left.

    With a length window, the rows of that many consecutive steps of the shuffle are dealt to these steps anew: sorted
    by length, cut into steps, and the steps shuffled. So a step has rows of similar length, which are padded less, and
    a window of steps has the rows that it would have without.
    """

    def __init__(self, *args: Any, sharding: BatchSharding, length_window: int = 0, **options: Any) -> None:
        """Takes the trainer's arguments for a batch sampler, and ours.

        Args:
            args: the trainer's.
            sharding: of an optimizer step over ranks and micro-batches.
            length_window: number of steps whose rows are sorted by the column `length` together; 0 or 1: none are.
            options: the trainer's.
        """
        super().__init__(*args, **options)
        self.sharding = sharding
        self.length_window = length_window
        self.batch_size = None  # accelerate then takes shards of any size; with a number it drops smaller ones

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = order_of_epoch(self.sampler, self.seed, self.epoch, generator)
        steps = self._by_length(order) if self.length_window > 1 else torch.split(order, self.sharding.batch_size)
        for rows in steps:
            yield from self.sharding.shard_rows(rows.tolist())

    def __len__(self) -> int:
        return self.sharding.steps * self.sharding.shards

    def _by_length(self, order: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yields the rows of each step, window by window."""
        lengths = torch.tensor(self.sampler.with_format("numpy", columns=["length"])[:]["length"])
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + self.epoch)
        size = self.sharding.batch_size
        for rows in torch.split(order, self.length_window * size):
            sorted_rows = rows[torch.argsort(lengths[rows], descending=True, stable=True)]
            full = len(rows) // size
            for number in torch.randperm(full, generator=generator).tolist():
                yield sorted_rows[number * size : (number + 1) * size]
            if len(rows) > full * size:  # a smaller step comes last, as `BatchSharding.rows_in_step` expects
                yield sorted_rows[full * size :]
