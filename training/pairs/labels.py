"""The column `label` of the training data set: the regression target, and what losses against images need beside it.

The trainer passes one tensor of labels to the loss. For an objective without a loss against images it is the target,
(dim,); for the others (2 · dim + 1,): the target, the unit embedding of the caption's image (zeros for a caption
without one), and 1 if the caption has a false caption, else 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Labels:
    """The labels of b captions.

    Attributes:
        targets: (b, dim) regression targets.
        images: (b, dim) unit embeddings of their images; zeros where there is none. None: no loss needs them.
        has_false: (b,) 1 for captions with a false caption, else 0; None as for images.
    """

    targets: Tensor
    images: Tensor | None = None
    has_false: Tensor | None = None

    def joined(self) -> Tensor:
        """Returns the labels as one tensor: (b, dim), or (b, 2 · dim + 1) with images."""
        import torch

        if self.images is None or self.has_false is None:
            return self.targets
        return torch.cat([self.targets, self.images, self.has_false[:, None]], dim=1)

    @classmethod
    def split(cls, labels: Tensor, dim: int) -> Labels:
        """Returns what `joined` has joined.

        Args:
            labels: (b, dim) or (b, 2 · dim + 1).
            dim: width of the embeddings.
        """
        if labels.shape[1] == dim:
            return cls(labels)
        return cls(labels[:, :dim], labels[:, dim : 2 * dim], labels[:, 2 * dim])

    @property
    def has_image(self) -> Tensor:
        """(b,) bool: which captions have an image; all of them where no loss needs images."""
        import torch

        if self.images is None:
            return torch.ones(len(self.targets), dtype=torch.bool, device=self.targets.device)
        return self.images.abs().sum(dim=1) > 0
