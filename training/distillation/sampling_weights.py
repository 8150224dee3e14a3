"""Weighted sources: which training captions an epoch sees, how often, and in which order."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

WEIGHT = "weight"  # the column of a data set that says how often a row is seen in an epoch; without it, once
Weights = NDArray[np.float64]
Numbers = NDArray[np.int64]


def weight_column(sources: Iterable[tuple[str, int]], weight_of: Mapping[str, float]) -> dict[str, Weights]:
    """The column of the training captions' weights; none where each is seen once.

    Args:
        sources: of each image its source, and how many captions it has.
        weight_of: of each source.
    """
    if all(weight == 1 for weight in weight_of.values()):
        return {}
    images = np.fromiter(((weight_of[name], count) for name, count in sources), np.dtype("f8, i8"))
    return {WEIGHT: np.repeat(images["f0"], images["f1"])}


def order_of_epoch(dataset: Any, seed: int, epoch: int, generator: torch.Generator) -> torch.Tensor:
    """The rows that an epoch sees by their weights, some twice and some not, shuffled by the generator: int64."""
    import torch

    weights = _weights(dataset)
    if weights is None:
        return torch.randperm(len(dataset), generator=generator)
    rows = torch.from_numpy(rows_of_epoch(weights, seed, epoch))
    return rows[torch.randperm(len(rows), generator=generator)]


def seen_in_epoch(dataset: Any) -> int:
    """How many rows an epoch sees of a data set."""
    weights = _weights(dataset)
    return len(dataset) if weights is None else rows_in_epoch(weights)


def _weights(dataset: Any) -> Weights | None:
    if WEIGHT not in getattr(dataset, "column_names", ()):
        return None
    return np.asarray(dataset.with_format("numpy", columns=[WEIGHT])[:][WEIGHT], np.float64)


def rows_in_epoch(weights: Weights) -> int:
    """How many rows an epoch sees: the same in each.

    >>> rows_in_epoch(np.array([1, 1, 1, 0.5, 0.5, 2.0]))
    6
    """
    return sum(_share(stop - start, weight) for start, stop, weight in _stretches(weights))


def rows_of_epoch(weights: Weights, seed: int, epoch: int) -> Numbers:
    """The rows that an epoch sees, some of them more than once, in the order of the rows: (rows_in_epoch,) int64.

    Neighbours of one weight are a stretch. Each epoch takes the next part of an endless row of its shuffles, so that
    after any number of epochs no two of its rows differ by more than one in how often they were seen.

    Args:
        weights: of each row, (n,): how often it is seen in an epoch.
        seed: of the shuffles.
        epoch: from 0.
    """
    parts = []
    for start, stop, weight in _stretches(weights):
        rows, share = stop - start, _share(stop - start, weight)
        first, last = epoch * share, (epoch + 1) * share
        taken = [
            np.random.default_rng((seed, start, shuffle)).permutation(rows)[
                max(0, first - shuffle * rows) : last - shuffle * rows
            ]
            for shuffle in range(first // rows, -(-last // rows))
        ]
        parts.append(start + np.sort(np.concatenate(taken)))
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _share(rows: int, weight: float) -> int:
    return max(1, round(rows * weight))


def _stretches(weights: Weights) -> Iterator[tuple[int, int, float]]:
    edges = [0, *(np.flatnonzero(np.diff(weights)) + 1).tolist(), len(weights)]
    for start, stop in itertools.pairwise(edges):
        if stop > start:
            yield start, stop, float(weights[start])
