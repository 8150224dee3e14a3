"""How an optimizer step's rows are sharded over ranks and micro-batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class BatchSharding:
    """The shards of an optimizer step: one for each rank and micro-batch, as equal in size as they can be.

    The rows of a step are dealt one by one to its micro-batches, and the rows of a micro-batch one by one to the ranks.
    So shards differ by one row at most, long and short rows are spread evenly over them, and neither a step nor a
    micro-batch depends on the number of ranks.

    Attributes:
        rows: rows of an epoch.
        batch_size: rows of a step, over all ranks and micro-batches; the last step of an epoch has what is left.
        world_size: number of ranks.
        rank: number of this process, from 0.
        micro_batches: number of micro-batches of a step (gradient accumulation).
    """

    rows: int
    batch_size: int
    world_size: int = 1
    rank: int = 0
    micro_batches: int = 1

    @property
    def shards(self) -> int:
        """The number of shards of an optimizer step: one for each rank and micro-batch."""
        return self.world_size * self.micro_batches

    @property
    def largest_shard(self) -> int:
        """The number of rows of the largest shard."""
        return math.ceil(self.batch_size / self.shards)

    @property
    def steps(self) -> int:
        """The number of optimizer steps of an epoch."""
        return math.ceil(self.rows / self.batch_size)

    def rows_in_step(self, step: int) -> int:
        """Returns how many rows a step sees, by its number from the beginning of the training.

        >>> sharding = BatchSharding(rows=250, batch_size=100)
        >>> [sharding.rows_in_step(step) for step in range(4)]
        [100, 100, 50, 100]
        """
        return min(self.batch_size, self.rows - step % self.steps * self.batch_size)

    def shard_size(self, rows: int, micro_batch: int, rank: int) -> int:
        """Returns how many rows of a step are in one shard.

        >>> sharding = BatchSharding(rows=250, batch_size=100, world_size=2, micro_batches=2)
        >>> [[sharding.shard_size(51, micro_batch, rank) for rank in (0, 1)] for micro_batch in (0, 1)]
        [[13, 13], [13, 12]]

        Args:
            rows: rows of the step.
            micro_batch: number of the shard's micro-batch within the step, from 0.
            rank: number of the shard's rank, from 0.
        """
        return rows // self.shards + (self._offset(micro_batch, rank) < rows % self.shards)

    def shard_rows(self, rows: Sequence[int]) -> Iterator[list[int]]:
        """Yields the rows of each shard of a step: micro-batch by micro-batch, and in each of them rank by rank.

        A shard without rows gets the step's first row, with weight 0 (`StepState.weight`), since every rank has to take
        every step.

        >>> list(BatchSharding(rows=5, batch_size=5, world_size=2).shard_rows([7, 3, 9, 1, 4]))
        [[7, 9, 4], [3, 1]]
        """
        for micro_batch in range(self.micro_batches):
            for rank in range(self.world_size):
                yield list(rows[self._offset(micro_batch, rank) :: self.shards]) or [rows[0]]

    def _offset(self, micro_batch: int, rank: int) -> int:
        """Returns the place in a step of a shard's first row; the others follow at distances of `shards`."""
        return micro_batch + self.micro_batches * rank


@dataclass
class StepState:
    """Which micro-batch of which optimizer step is being computed; `TrackStepState` keeps it up to date.

    Attributes:
        sharding: of the steps.
        step: number of the step from the beginning of the training.
        micro_batch: number of the micro-batch within the step.
    """

    sharding: BatchSharding
    step: int = 0
    micro_batch: int = 0

    @property
    def sizes(self) -> list[int]:
        """The number of rows of each rank in this micro-batch."""
        rows = self.sharding.rows_in_step(self.step)
        return [self.sharding.shard_size(rows, self.micro_batch, rank) for rank in range(self.sharding.world_size)]

    @property
    def weight(self) -> float:
        """The factor of this rank's mean loss over its rows.

        The trainer averages over ranks and micro-batches. With this factor, that average is the mean over the rows of
        the step, though its shards differ in size.

        >>> [StepState(BatchSharding(rows=5, batch_size=5, world_size=2, rank=number)).weight for number in (0, 1)]
        [1.2, 0.8]
        """
        return self.sizes[self.sharding.rank] * self.sharding.shards / self.sharding.rows_in_step(self.step)

    @property
    def weight_of_all(self) -> float:
        """The factor of a mean loss over the rows of all ranks in this micro-batch."""
        return sum(self.sizes) * self.sharding.micro_batches / self.sharding.rows_in_step(self.step)
