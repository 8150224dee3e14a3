"""The temperature of zero-shot probabilities, fitted on validation pictures and their captions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from turkish_clip.metrics import Relevance, Vectors

CHOICES = 10  # captions that a picture chooses among, as it would among labels
ROUNDS = 20  # of drawing a caption for each picture, and groups of pictures
LOWEST, HIGHEST = 1e-3, 1.0
STEPS = 40  # of the golden section: the bracket shrinks to a billionth
GOLDEN = (5**0.5 - 1) / 2


def fit_temperature(relevance: Relevance, texts: Vectors, pictures: Vectors, *, seed: int = 0) -> float:
    """The temperature at which pictures choose their own among ten captions with the least surprise.

    Args:
        relevance: which texts belong to which pictures.
        texts: (t, dim) float32 unit vectors.
        pictures: (p, dim) float32 unit vectors, at least ten.
        seed: of the drawing.

    Returns:
        What minimises the mean negative log-likelihood of softmax(cosine / temperature).
        Source: Guo et al., On Calibration of Modern Neural Networks, 2017, section 4.2.
    """
    groups = list(_groups(relevance, texts, pictures, np.random.default_rng(seed)))

    def surprise(log_temperature: float) -> float:
        return float(np.mean([_surprise(scores / np.exp(log_temperature)) for scores in groups]))

    return float(np.exp(_lowest_point(surprise, float(np.log(LOWEST)), float(np.log(HIGHEST)))))


def _groups(
    relevance: Relevance, texts: Vectors, pictures: Vectors, rng: np.random.Generator
) -> Sequence[NDArray[np.float64]]:
    """Square matrices of cosines: a picture a row, the caption of each of them a column; its own on the diagonal."""
    groups = []
    for _ in range(ROUNDS):
        order = rng.permutation(len(pictures))
        for start in range(0, len(order) - CHOICES + 1, CHOICES):
            rows = order[start : start + CHOICES]
            columns = [int(rng.choice(relevance.texts_of[row])) for row in rows]
            scores = (pictures[rows] @ texts[columns].T).astype(np.float64)
            for place, row in enumerate(rows):  # another picture's caption that is right for this one, too
                for other, column in enumerate(columns):
                    if other != place and column in relevance.texts_of[row]:
                        scores[place, other] = -np.inf
            groups.append(scores)
    return groups


def _surprise(logits: NDArray[np.float64]) -> float:
    highest = logits.max(axis=1)
    total = highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1))
    return float((total - np.diag(logits)).mean())


def _lowest_point(value: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one valley is lowest, by the golden section.

    >>> round(_lowest_point(lambda x: (x - 2) ** 2, 0, 5), 6)
    2.0
    """
    for _ in range(STEPS):
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        if value(left) < value(right):
            high = right
        else:
            low = left
    return (low + high) / 2
