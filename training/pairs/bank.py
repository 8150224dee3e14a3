"""The bank: the stored embeddings of all training images, of which each step's contrastive loss sees all or a draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from turkish_clip.metrics import Vectors

if TYPE_CHECKING:
    import torch

RUN = 64  # neighbouring rows drawn together, so that a store larger than memory is read in blocks, not row by row


class Bank:
    """The unit embeddings of the training images. They never go stale, since the image model is frozen.

    Attributes:
        vectors: (n, dim) float32 of norm 1, memory-mapped.
    """

    def __init__(self, vectors: Vectors, size: int, seed: int) -> None:
        """Keeps the vectors without a copy.

        Args:
            vectors: (n, dim) float32 of norm 1.
            size: most rows that a step sees, at least RUN.
            seed: decides, with the step, which.
        """
        self.vectors = vectors
        self._size = size
        self._seed = seed
        self._all: torch.Tensor | None = None

    def rows(self, step: int) -> NDArray[np.int64]:
        """Returns the row numbers that a step sees, ascending: all, or runs of RUN rows; the same on every rank."""
        count = len(self.vectors)
        if count <= self._size:
            return np.arange(count)
        runs = np.random.default_rng((self._seed, step)).choice(-(-count // RUN), self._size // RUN, replace=False)
        rows = (np.sort(runs)[:, None] * RUN + np.arange(RUN)).ravel()
        return rows[rows < count]

    def at(self, step: int, device: torch.device) -> torch.Tensor:
        """Returns the embeddings that a step sees: (m, dim) float32 of norm 1.

        Args:
            step: number of the optimizer step.
            device: where they are wanted; a bank that a step sees whole is kept there.
        """
        import torch

        if len(self.vectors) > self._size:
            return torch.from_numpy(self.vectors[self.rows(step)]).to(device)
        if self._all is None or self._all.device != device:
            self._all = torch.from_numpy(self.vectors).to(device)
        return self._all
