"""Flags images that show something wanted or unwanted, by prompts and contrast prompts; no file is moved."""

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

CONTRAST = ("bir fotoğraf", "bir resim", "herhangi bir şey")  # what fits an image of anything else best


class PromptError(InputError):
    """Prompts or a threshold that can't be used."""


@dataclass(frozen=True)
class Flag:
    """How well one image fits the prompts of a filter.

    Attributes:
        score: the probability of the prompts against the contrast prompts, 0 to 1; 0 if the image did not open.
        cosine: of the image and the best prompt.
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
    """Flags images that fit prompts better than contrast prompts.

    A filter misses some images and flags others wrongly: look at the flagged images, and at some of the others, before
    you act on them.
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
            prompts: what to look for, as whole phrases.
            contrast: what else an image may show; closer phrases separate better ("mutfak" for the prompt "bıçak").
            threshold: images with at least this score are flagged, 0 to 1.
            temperature: of the softmax over cosines; None takes the model's own.

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
        totals: NDArray[np.float64] = softmax(scores / self.temperature)[:, : len(self.prompts)].sum(axis=1)
        best = scores[:, : len(self.prompts)].argmax(axis=1)
        return [
            Flag(float(score), float(row[place]), self.prompts[place], bool(score >= self.threshold))
            for score, row, place in zip(totals, scores, best)
        ]

    def flag(self, images: Iterable[ImageLike], *, batch_size: int = 32, workers: int = 2) -> Iterator[Flag]:
        """Flags images in order, as they are read; one that does not open gives a `Flag` with its error.

        Args:
            images: paths, bytes of files, or PIL images.
            batch_size: images embedded at a time.
            workers: threads that open images.
        """
        batches = self._encoder.embed_images(images, batch_size=batch_size, workers=workers)
        return map_in_order(batches, self.flag_vectors, lambda error: Flag(0.0, 0.0, "", False, error))


def flagged_first(paths: Iterable[Path], flags: Iterable[Flag]) -> list[tuple[Path, Flag]]:
    """Returns the flagged images by descending score, then by descending cosine.

    Args:
        paths: of the images.
        flags: one for each path, in order.
    """
    flagged = [(path, flag) for path, flag in zip(paths, flags) if flag.flagged]
    return sorted(flagged, key=lambda pair: (-pair[1].score, -pair[1].cosine, str(pair[0])))
