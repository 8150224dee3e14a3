"""The batch sampler: which rows an optimizer step sees, and in which order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from sentence_transformers.base.sampler import DefaultBatchSampler

from training.distillation.sharding import BatchSharding
from training.pairs.sampling_weights import order_of_epoch

BATCHES_AT_ONCE = 32  # sorted together: enough for batches of similar lengths, few enough to stay a shuffle


class ShardedBatchSampler(DefaultBatchSampler):  # type: ignore[misc]
    """Shuffles the rows by seed and epoch, cuts them into optimizer steps, and yields the shards of each step.

    The trainer's loader gives each of n ranks every n-th shard. The order of the rows depends on seed and epoch alone,
    not on the number of ranks, and is the same after a resume. An epoch sees each row once, or as often as its sampling
    weight asks for; its last step has the rows that are left.
    """

    def __init__(self, *args: Any, sharding: BatchSharding, by_length: bool = False, **options: Any) -> None:
        """Takes the trainer's arguments for a batch sampler, and ours.

        Args:
            args: the trainer's.
            sharding: of an optimizer step over ranks and micro-batches.
            by_length: sort the rows of every 32 steps by the column `length`, and shuffle the steps.
            options: the trainer's.
        """
        super().__init__(*args, **options)
        self.sharding = sharding
        self.by_length = by_length
        self.batch_size = None  # accelerate then takes shards of any size; with a number it drops smaller ones

    def __iter__(self) -> Iterator[list[int]]:
        for rows in self._by_length() if self.by_length else self._shuffled():
            yield from self.sharding.shard_rows(rows)

    def __len__(self) -> int:
        return self.sharding.steps * self.sharding.shards

    def _shuffled(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = order_of_epoch(self.sampler, self.seed, self.epoch, generator)
        for rows in torch.split(order, self.sharding.batch_size):
            yield rows.tolist()

    def _by_length(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + self.epoch)
        lengths = torch.tensor(self.sampler.with_format("numpy", columns=["length"])[:]["length"])
        steps: list[torch.Tensor] = []
        order = order_of_epoch(self.sampler, self.seed, self.epoch, generator)
        for rows in torch.split(order, BATCHES_AT_ONCE * self.sharding.batch_size):
            by_length = rows[torch.argsort(lengths[rows], descending=True, stable=True)]
            steps += torch.split(by_length, self.sharding.batch_size)
        full = len(order) // self.sharding.batch_size
        for number in torch.randperm(full, generator=generator).tolist():
            yield steps[number].tolist()
        for rows in steps[full:]:  # a smaller step comes last, as `BatchSharding.rows_in_step` expects
            yield rows.tolist()
