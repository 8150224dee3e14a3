"""Which rows an optimizer step sees, in which order; plugs into the trainer's `batch_sampler`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from sentence_transformers.base.sampler import DefaultBatchSampler

from training.distillation.sampling_weights import order_of_epoch
from training.distillation.sharding import BatchSharding

BATCHES_AT_ONCE = 32  # sorted together: enough to even out lengths, few enough to stay a shuffle


class ShardedBatchSampler(DefaultBatchSampler):  # type: ignore[misc]
    """Shuffles the rows by seed and epoch alone, cuts them into updates, and deals each update out in parts.

    The trainer's loader gives each process every n-th part. The order is that of one process, whatever their number,
    and the same after a resume. An epoch sees each row once, or as often as its source's weight
    says; its last update has what is left.
    """

    def __init__(self, *args: Any, sharding: BatchSharding, by_length: bool = False, **options: Any) -> None:
        """Takes what the trainer gives a sampler.

        Args:
            args: the trainer's.
            sharding: how updates are shared out.
            by_length: sort each stretch of 32 updates by the column `length`, and shuffle those updates.
            options: the trainer's.
        """
        super().__init__(*args, **options)
        self.sharding = sharding
        self.by_length = by_length
        self.batch_size = None  # so accelerate takes parts of any size; told one, it drops what falls short of it

    def __iter__(self) -> Iterator[list[int]]:
        for rows in self._by_length() if self.by_length else self._shuffled():
            yield from self.sharding.deal(rows)

    def __len__(self) -> int:
        return self.sharding.steps * self.sharding.parts

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
        for stretch in torch.split(order, BATCHES_AT_ONCE * self.sharding.batch_size):
            by_length = stretch[torch.argsort(lengths[stretch], descending=True, stable=True)]
            steps += torch.split(by_length, self.sharding.batch_size)
        whole = len(order) // self.sharding.batch_size
        for number in torch.randperm(whole, generator=generator).tolist():
            yield steps[number].tolist()
        for rows in steps[whole:]:  # what is left comes last: `BatchSharding.rows_of` counts on it
            yield rows.tolist()
