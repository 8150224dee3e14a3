"""How an optimizer step's rows are sharded over ranks and micro-batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class BatchSharding:
    """How updates are shared out: `batch_size` is what one update sees, however many processes there are.

    An update's rows are dealt as cards are, to the micro-batches, and each micro-batch's to the processes. So the parts
    differ by one row at most, each has its share of long and short rows, and a micro-batch holds the same rows however
    many processes there are.

    Attributes:
        rows: of an epoch.
        batch_size: rows of an update; the last update of an epoch has what is left.
        world_size: that train together.
        rank: the number of this one.
        micro_batches: in which a process takes its share of an update.
    """

    rows: int
    batch_size: int
    world_size: int = 1
    rank: int = 0
    micro_batches: int = 1

    @property
    def parts(self) -> int:
        """Of an update, over processes and micro-batches."""
        return self.world_size * self.micro_batches

    @property
    def largest(self) -> int:
        """Rows of the largest part."""
        return math.ceil(self.batch_size / self.parts)

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return math.ceil(self.rows / self.batch_size)

    def rows_in_step(self, step: int) -> int:
        """How many rows the update of that number sees, counted from the training's beginning.

        >>> sharding = BatchSharding(rows=250, batch_size=100)
        >>> [sharding.rows_in_step(step) for step in range(4)]
        [100, 100, 50, 100]
        """
        return min(self.batch_size, self.rows - step % self.steps * self.batch_size)

    def size(self, rows: int, micro_batch: int, rank: int) -> int:
        """How many of an update's rows are in one part.

        >>> sharding = BatchSharding(rows=250, batch_size=100, world_size=2, micro_batches=2)
        >>> [[sharding.size(51, micro_batch, rank) for rank in (0, 1)] for micro_batch in (0, 1)]
        [[13, 13], [13, 12]]
        """
        return rows // self.parts + (self._offset(micro_batch, rank) < rows % self.parts)

    def deal(self, rows: Sequence[int]) -> Iterator[list[int]]:
        """Deals the rows of an update to its parts, in the order in which processes take them.

        A part for which there is no row gets one that weighs nothing (`StepState.weight`), since every process has to take
        every step.

        >>> list(BatchSharding(rows=5, batch_size=5, world_size=2).deal([7, 3, 9, 1, 4]))
        [[7, 9, 4], [3, 1]]
        """
        for micro_batch in range(self.micro_batches):
            for rank in range(self.world_size):
                yield list(rows[self._offset(micro_batch, rank) :: self.parts]) or [rows[0]]

    def _offset(self, micro_batch: int, rank: int) -> int:
        """The place in an update of a part's first row; the others follow at distances of `parts`."""
        return micro_batch + self.micro_batches * rank


@dataclass
class StepState:
    """The micro-batch that is being computed: what part of its update it is. `TrackStepState` moves it on.

    Attributes:
        step: its number, from the training's beginning.
        micro_batch: its number within the update.
    """

    sharding: BatchSharding
    step: int = 0
    micro_batch: int = 0

    @property
    def sizes(self) -> list[int]:
        """The rows that each process has in this micro-batch."""
        rows = self.sharding.rows_in_step(self.step)
        return [self.sharding.size(rows, self.micro_batch, rank) for rank in range(self.sharding.world_size)]

    @property
    def weight(self) -> float:
        """By which this process multiplies the mean over its rows.

        The trainer averages over processes and micro-batches; with this weight, that is the mean over the update's
        rows, though its parts differ.

        >>> [StepState(BatchSharding(rows=5, batch_size=5, world_size=2, rank=number)).weight for number in (0, 1)]
        [1.2, 0.8]
        """
        return self.sizes[self.sharding.rank] * self.sharding.parts / self.sharding.rows_in_step(self.step)

    @property
    def weight_of_all(self) -> float:
        """By which a mean over the rows of all processes in this micro-batch is multiplied."""
        return sum(self.sizes) * self.sharding.micro_batches / self.sharding.rows_in_step(self.step)
