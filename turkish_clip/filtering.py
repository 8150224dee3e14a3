"""Looks through images for something, or for something unwanted, by prompts and contrast prompts. Moves nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from turkish_clip.dual_encoder import DualEncoder, map_in_order
from turkish_clip.errors import InputError
from turkish_clip.images import ImageError, ImageLike
from turkish_clip.metrics import Vectors, unit
from turkish_clip.zero_shot import softmax

CONTRAST = ("bir fotoğraf", "bir resim", "herhangi bir şey")  # what an image is taken for that shows nothing special


class PromptError(InputError):
    """Prompts that can't be looked for."""


@dataclass(frozen=True)
class Flag:
    """How well one image fits what was looked for.

    Attributes:
        score: the probability of the prompts against the contrast prompts, 0 to 1; 0 where it did not open.
        cosine: to the best prompt.
        prompt: the prompt that fits best.
        flagged: whether `score` reaches the threshold.
        error: why the image did not open.
    """

    score: float
    cosine: float
    prompt: str
    flagged: bool
    error: ImageError | None = None


class ImageFilter:
    """Flags images that fit prompts better than their contrast.

    A filter can't promise to find everything, nor that what it flags is what was meant: look at the flagged images,
    and at some of the others, before anything is done with them.
    """

    def __init__(
        self,
        encoder: DualEncoder,
        prompts: Sequence[str],
        *,
        contrast: Sequence[str] = CONTRAST,
        threshold: float = 0.5,
        temperature: float | None = None,
    ) -> None:
        """Encodes the prompts.

        Args:
            encoder: from `load_dual_encoder`.
            prompts: what is looked for, as whole phrases.
            contrast: what stands against it; the closer it is, the sharper the line ("bıçak" against "mutfak").
            threshold: images from this score on are flagged, 0 to 1.
            temperature: of the softmax; None takes the model's own.

        Raises:
            PromptError: no prompt or no contrast, or a threshold outside 0 to 1.
        """
        self.prompts, self.contrast = [p for p in prompts if p.strip()], [c for c in contrast if c.strip()]
        if not self.prompts or not self.contrast:
            raise PromptError(
                "expected something to look for and a contrast, got an empty list; give a phrase for each"
            )
        if not 0 <= threshold <= 1:
            raise PromptError(f"expected a threshold of 0 to 1, got {threshold}; 0.5 flags what fits better than not")
        self.threshold = threshold
        self.temperature = encoder.temperature if temperature is None else temperature
        self._encoder = encoder
        self._vectors = unit(encoder.encode_texts([*self.prompts, *self.contrast]))

    def flag_vectors(self, vectors: Vectors) -> list[Flag]:
        """Flags (n, dim) float32 unit vectors of images."""
        scores = vectors @ self._vectors.T
        wanted: NDArray[np.float64] = softmax(scores / self.temperature)[:, : len(self.prompts)].sum(axis=1)
        best = scores[:, : len(self.prompts)].argmax(axis=1)
        return [
            Flag(float(score), float(row[place]), self.prompts[place], bool(score >= self.threshold))
            for score, row, place in zip(wanted, scores, best)
        ]

    def flag(self, images: Iterable[ImageLike], *, batch_size: int = 32, workers: int = 2) -> Iterator[Flag]:
        """Flags images as they come, in order; one that does not open is an entry with its error."""
        batches = self._encoder.embed_images(images, batch_size=batch_size, workers=workers)
        return map_in_order(batches, self.flag_vectors, lambda error: Flag(0.0, 0.0, "", False, error))


def flagged_first(paths: Iterable[Path], flags: Iterable[Flag]) -> list[tuple[Path, Flag]]:
    """The flagged images, the best first; of equal scores, those of the larger cosine."""
    flagged = [(path, flag) for path, flag in zip(paths, flags) if flag.flagged]
    return sorted(flagged, key=lambda pair: (-pair[1].score, -pair[1].cosine, str(pair[0])))
