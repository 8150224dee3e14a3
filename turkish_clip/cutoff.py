"""The cut-off of a search: whether an image fits words at all, or is merely the nearest that there is.

How near an image that fits comes to a text differs from model to model, image to image and text to text, so no cosine
tells. What tells is by how many standard deviations of an image's cosines to the bank's typical texts the query stands
out above their mean. A text of what the bank has often can't stand out far: where a fraction f of the texts tells of
it, its own are among those that it is compared with, and the most is √((1 - f) / f). The least is lower for such a one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from turkish_clip.metrics import SCORES_PER_CHUNK

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from turkish_clip.bank import TextBank
    from turkish_clip.metrics import Vectors

# The numbers were measured (training/LOG.md): of queries for what is there, few lose a right answer.
LEAST = 3.2  # standard deviations, of a text of something rare
COMMON = 0.8  # of the most that a text of something common can reach
TELLS = 2.0  # standard deviations from which on a text of the bank, taken for an image, counts as telling of it
LEAST_DEVIATION = 0.005  # below it, the texts of a bank are hardly different ones
COMPARED = 256  # texts of the bank among which those are counted


class Cutoff:
    """The cut-off for the texts of one text encoder.

    Args:
        bank: its text bank.
    """

    def __init__(self, bank: TextBank) -> None:
        self._texts = bank.unit_vectors
        some = self._texts[:COMPARED]
        self._some = some, *self._spread(some)

    def _spread(self, images: Vectors) -> tuple[Vectors, Vectors]:
        """Returns the mean and the standard deviation of each vector's cosines to the bank: (n,) float32 each."""
        mean, deviation = np.empty(len(images), np.float32), np.empty(len(images), np.float32)
        step = max(1, SCORES_PER_CHUNK // len(self._texts))
        for start in range(0, len(images), step):
            cosines = images[start : start + step] @ self._texts.T
            mean[start : start + step], deviation[start : start + step] = cosines.mean(axis=1), cosines.std(axis=1)
        return mean, np.maximum(deviation, np.float32(LEAST_DEVIATION))

    def distances(self, query: Vectors, images: Vectors) -> Vectors:
        """Returns how far the query stands out among the bank's texts for each image, in standard deviations: (n,).

        Args:
            query: (dim,) float32 unit vector of words.
            images: (n, dim) float32 unit vectors.
        """
        mean, deviation = self._spread(images)
        return np.asarray((images @ query - mean) / deviation, np.float32)

    def least(self, query: Vectors) -> float:
        """Returns the distance from which on an image fits words, by their (dim,) float32 unit vector."""
        texts, mean, deviation = self._some
        tells = float(np.mean((texts @ query - mean) / deviation >= TELLS))
        return LEAST if tells == 0 else float(min(LEAST, COMMON * np.sqrt((1 - tells) / tells)))

    def fits(self, query: Vectors, images: Vectors) -> NDArray[np.bool_]:
        """Returns whether each image fits words: (n,).

        Args:
            query: (dim,) float32 unit vector of words.
            images: (n, dim) float32 unit vectors.
        """
        return np.asarray(self.distances(query, images) >= self.least(query))
