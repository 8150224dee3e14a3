"""How near the vectors of an exported graph are to those of its model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from turkish_clip.onnx.runtime import OnnxError

if TYPE_CHECKING:
    from turkish_clip.metrics import Vectors


@dataclass(frozen=True)
class Parity:
    """How near the vectors of a graph are to those of its model, on the golden sentences or images.

    Attributes:
        cosine: the least between a vector of the graph and the model's.
        difference: largest absolute difference of a component.
    """

    cosine: float
    difference: float

    @classmethod
    def of(cls, own: Vectors, found: Vectors) -> Parity:
        """Compares unit vectors of the model with those of a graph.

        Args:
            own: of the model.
            found: of the graph.
        """
        return cls(float((own * found).sum(axis=1).min()), float(np.abs(own - found).max()))

    def check(self, what: str, *, int8: bool, cosine: float, tolerance: float) -> None:
        """Checks that they are near enough.

        Args:
            what: the golden sentences, or images.
            int8: whether the cosine counts; else the difference does.
            cosine: at least.
            tolerance: the largest difference.

        Raises:
            OnnxError: they are not, or are no numbers.
        """
        if int8 and not self.cosine >= cosine:
            raise OnnxError(
                f"expected int8 vectors with a cosine of at least {cosine} to the model's own, got {self.cosine:.3f} "
                f"on the golden {what}; nothing was written: export it without --int8"
            )
        if not int8 and not self.difference <= tolerance:
            raise OnnxError(
                f"expected the model's own vectors from its graph, got components that differ by {self.difference:.1e} "
                f"on the golden {what}; nothing was written: this architecture can't be exported"
            )
