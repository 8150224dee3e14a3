"""How an optimizer step's rows are sharded over ranks and micro-batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Shares:
    """How updates are shared out: `batch_size` is what one update sees, however many processes there are.

    An update's rows are dealt as cards are, to the micro-batches, and each micro-batch's to the processes. So the parts
    differ by one row at most, each has its share of long and short rows, and a micro-batch holds the same rows however
    many processes there are.

    Attributes:
        rows: of an epoch.
        batch_size: rows of an update; the last update of an epoch has what is left.
        processes: that train together.
        process: the number of this one.
        micro_batches: in which a process takes its share of an update.
    """

    rows: int
    batch_size: int
    processes: int = 1
    process: int = 0
    micro_batches: int = 1

    @property
    def parts(self) -> int:
        """Of an update, over processes and micro-batches."""
        return self.processes * self.micro_batches

    @property
    def largest(self) -> int:
        """Rows of the largest part."""
        return math.ceil(self.batch_size / self.parts)

    @property
    def updates(self) -> int:
        """Of an epoch."""
        return math.ceil(self.rows / self.batch_size)

    def rows_of(self, update: int) -> int:
        """How many rows the update of that number sees, counted from the training's beginning.

        >>> shares = Shares(rows=250, batch_size=100)
        >>> [shares.rows_of(update) for update in range(4)]
        [100, 100, 50, 100]
        """
        return min(self.batch_size, self.rows - update % self.updates * self.batch_size)

    def size(self, rows: int, micro_batch: int, process: int) -> int:
        """How many of an update's rows are in one part.

        >>> shares = Shares(rows=250, batch_size=100, processes=2, micro_batches=2)
        >>> [[shares.size(51, micro_batch, process) for process in (0, 1)] for micro_batch in (0, 1)]
        [[13, 13], [13, 12]]
        """
        return rows // self.parts + (self._first(micro_batch, process) < rows % self.parts)

    def deal(self, rows: Sequence[int]) -> Iterator[list[int]]:
        """Deals the rows of an update to its parts, in the order in which processes take them.

        A part for which there is no row gets one that weighs nothing (`Turn.weight`), since every process has to take
        every step.

        >>> list(Shares(rows=5, batch_size=5, processes=2).deal([7, 3, 9, 1, 4]))
        [[7, 9, 4], [3, 1]]
        """
        for micro_batch in range(self.micro_batches):
            for process in range(self.processes):
                yield list(rows[self._first(micro_batch, process) :: self.parts]) or [rows[0]]

    def _first(self, micro_batch: int, process: int) -> int:
        """The place in an update of a part's first row; the others follow at distances of `parts`."""
        return micro_batch + self.micro_batches * process


@dataclass
class Turn:
    """The micro-batch that is being computed: what part of its update it is. `FollowTurns` moves it on.

    Attributes:
        update: its number, from the training's beginning.
        micro_batch: its number within the update.
    """

    shares: Shares
    update: int = 0
    micro_batch: int = 0

    @property
    def sizes(self) -> list[int]:
        """The rows that each process has in this micro-batch."""
        rows = self.shares.rows_of(self.update)
        return [self.shares.size(rows, self.micro_batch, process) for process in range(self.shares.processes)]

    @property
    def weight(self) -> float:
        """By which this process multiplies the mean over its rows.

        The trainer averages over processes and micro-batches; with this weight, that is the mean over the update's
        rows, though its parts differ.

        >>> [Turn(Shares(rows=5, batch_size=5, processes=2, process=number)).weight for number in (0, 1)]
        [1.2, 0.8]
        """
        return self.sizes[self.shares.process] * self.shares.parts / self.shares.rows_of(self.update)

    @property
    def weight_of_all(self) -> float:
        """By which a mean over the rows of all processes in this micro-batch is multiplied."""
        return sum(self.sizes) * self.shares.micro_batches / self.shares.rows_of(self.update)
