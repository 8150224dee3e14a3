"""The correction of hubs in an index: its record, and the form of the stored vectors that makes it searchable.

The corrected score of an image is its cosine to the query less `weight` times its hub score. LanceDB finds the largest
of these as it finds the largest cosines, since a stored vector is wider than the image's: [v, h, √(1 - h²), 0 …], of
norm √2 whatever the hub score h. Its dot product with [q, -weight, 0 …] is the corrected score, with [q, 0, 0 …] the
cosine. To re-rank the candidates of largest cosine would not do: the more images, the deeper lie those that it needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from turkish_clip.metrics import HUB_NEIGHBOURS, HUB_WEIGHT, unit

if TYPE_CHECKING:
    from turkish_clip.bank import TextBank
    from turkish_clip.metrics import Vectors

EXTRA, MULTIPLE = 2, 8  # coordinates beside the image's; the codes need a width that is a multiple of this


@dataclass(frozen=True, kw_only=True)
class Correction:
    """The hub correction of an index (`turkish_clip.metrics.hub_scores`), for the queries of one text encoder.

    Attributes:
        text_weights_sha256: of that text encoder.
        bank_sha256: of the vectors of its text bank.
        texts: how many of them there are.
        neighbours: of which the hub score of an image is the mean cosine.
        weight: of the hub score.
    """

    FORMAT: ClassVar[int] = 1

    text_weights_sha256: str
    bank_sha256: str
    texts: int
    neighbours: int
    weight: float

    @classmethod
    def by(cls, bank: TextBank) -> Correction:
        """Returns the correction by a text bank, with the current numbers."""
        return cls(
            text_weights_sha256=bank.weights_sha256,
            bank_sha256=bank.sha256,
            texts=len(bank.vectors),
            neighbours=HUB_NEIGHBOURS,
            weight=HUB_WEIGHT,
        )


def stored_width(dim: int) -> int:
    """Returns the width of the stored vectors of images of `dim` numbers.

    >>> stored_width(512)
    520
    """
    return -(-(dim + EXTRA) // MULTIPLE) * MULTIPLE


def widened(vectors: Vectors, hub_scores: Vectors) -> Vectors:
    """Returns the (n, stored_width) float32 vectors that are stored of images.

    Args:
        vectors: (n, dim) float32 unit vectors.
        hub_scores: (n,) float32, 0 where there are none.
    """
    count, dim = vectors.shape
    stored = np.zeros((count, stored_width(dim)), np.float32)
    stored[:, :dim], stored[:, dim] = vectors, hub_scores
    stored[:, dim + 1] = np.sqrt(np.maximum(0, 1 - np.square(hub_scores)))
    return stored


def widened_query(vector: Vectors, weight: float) -> Vectors:
    """Returns the (stored_width,) float32 vector that is searched.

    Args:
        vector: (dim,) float32.
        weight: of the hub scores; 0 searches by cosine.
    """
    query = np.zeros(stored_width(len(vector)), np.float32)
    query[: len(vector)], query[len(vector)] = unit(vector[None])[0], -weight
    return query
