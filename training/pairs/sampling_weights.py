"""Sampling weights of sources: which training captions an epoch sees, how often, and in which order."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

WEIGHT = "weight"  # data set column: how often an epoch sees a row on average; without the column, once
Weights = NDArray[np.float64]
Numbers = NDArray[np.int64]


def weight_column(sources: Iterable[tuple[str, int]], weight_of: Mapping[str, float]) -> dict[str, Weights]:
    """Returns the column of the captions' sampling weights by its name, or nothing where all weights are 1.

    Args:
        sources: for each image its source and its number of captions.
        weight_of: sampling weight of each source.
    """
    if all(weight == 1 for weight in weight_of.values()):
        return {}
    images = np.fromiter(((weight_of[name], count) for name, count in sources), np.dtype("f8, i8"))
    return {WEIGHT: np.repeat(images["f0"], images["f1"])}


def order_of_epoch(dataset: Any, seed: int, epoch: int, generator: torch.Generator) -> torch.Tensor:
    """Returns the numbers of the rows that an epoch sees by their sampling weights, shuffled: (n,) int64.

    Args:
        dataset: with or without the column `weight`.
        seed: decides, with the epoch, which rows are seen.
        epoch: from 0.
        generator: shuffles them.
    """
    import torch

    weights = _weights(dataset)
    if weights is None:
        return torch.randperm(len(dataset), generator=generator)
    rows = torch.from_numpy(rows_of_epoch(weights, seed, epoch))
    return rows[torch.randperm(len(rows), generator=generator)]


def seen_in_epoch(dataset: Any) -> int:
    """Returns how many rows of a data set an epoch sees."""
    weights = _weights(dataset)
    return len(dataset) if weights is None else rows_in_epoch(weights)


def _weights(dataset: Any) -> Weights | None:
    if WEIGHT not in getattr(dataset, "column_names", ()):
        return None
    return np.asarray(dataset.with_format("numpy", columns=[WEIGHT])[:][WEIGHT], np.float64)


def rows_in_epoch(weights: Weights) -> int:
    """Returns how many rows each epoch sees, given how often it sees each row on average, (n,).

    >>> rows_in_epoch(np.array([1, 1, 1, 0.5, 0.5, 2.0]))
    6
    """
    return sum(_rows_seen(stop - start, weight) for start, stop, weight in _blocks(weights))


def rows_of_epoch(weights: Weights, seed: int, epoch: int) -> Numbers:
    """Returns the numbers of the rows that an epoch sees, some more than once, ascending: (rows_in_epoch,) int64.

    Consecutive rows of one weight are a block. Shuffles of a block follow each other without end, and each epoch takes
    the next rows of that sequence: after any epoch, how often two rows of a block were seen differs by one at most.

    Args:
        weights: (n,): how often an epoch sees each row on average.
        seed: of the shuffles.
        epoch: from 0.
    """
    parts = []
    for start, stop, weight in _blocks(weights):
        rows, seen = stop - start, _rows_seen(stop - start, weight)
        first, last = epoch * seen, (epoch + 1) * seen
        taken = [
            np.random.default_rng((seed, start, shuffle)).permutation(rows)[
                max(0, first - shuffle * rows) : last - shuffle * rows
            ]
            for shuffle in range(first // rows, -(-last // rows))
        ]
        parts.append(start + np.sort(np.concatenate(taken)))
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _rows_seen(rows: int, weight: float) -> int:
    """Returns how many rows of a block an epoch sees: at least one."""
    return max(1, round(rows * weight))


def _blocks(weights: Weights) -> Iterator[tuple[int, int, float]]:
    """Yields start, stop and weight of each block of consecutive rows of one weight."""
    edges = [0, *(np.flatnonzero(np.diff(weights)) + 1).tolist(), len(weights)]
    for start, stop in itertools.pairwise(edges):
        if stop > start:
            yield start, stop, float(weights[start])
