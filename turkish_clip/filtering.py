"""Flags images that show something wanted or unwanted, by prompts and contrast prompts; no file is moved."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from turkish_clip.dual_encoder import map_in_order, with_image_side
from turkish_clip.errors import InputError
from turkish_clip.images import ImageError, ImageLike
from turkish_clip.metrics import Vectors
from turkish_clip.text import lower
from turkish_clip.text_side import TextSide, log_cautions
from turkish_clip.zero_shot import softmax

log = logging.getLogger("turkish_clip")
LIKELIER = 0.5  # probability from which on an image is flagged, where nothing else is asked for
CONTRAST = ("bir fotoğraf", "bir resim", "herhangi bir şey")  # what fits an image of anything else best


class PromptError(InputError):
    """Prompts or a threshold that can't be used."""


@dataclass(frozen=True)
class Flag:
    """How well one image fits the prompts of a filter.

    Attributes:
        score: the cosine of the image and the prompt that fits it best; 0 if the image did not open. It orders images.
        probability: of the prompts against the contrast prompts, 0 to 1; 0 if the image did not open. Of images that
            fit much better or worse it is 1 or 0, however much.
        prompt: the prompt that fits best.
        flagged: whether the score and the probability are as high as was asked for.
        error: why the image did not open.
    """

    score: float
    probability: float
    prompt: str
    flagged: bool
    error: ImageError | None = None


class ImageFilter:
    """Flags images that fit prompts better than contrast prompts, or that reach a cosine.

    What the text encoder does not read of the prompts stands in `cautions`, and is logged as warnings.

    A filter misses some images and flags others wrongly: look at the flagged images, and at some of the others, before
    you act on them.
    """

    def __init__(
        self,
        encoder: TextSide,
        prompts: Sequence[str],
        *,
        contrast: Sequence[str] = CONTRAST,
        threshold: float | None = None,
        min_probability: float | None = None,
        temperature: float | None = None,
        warn: bool = True,
    ) -> None:
        """Encodes the prompts.

        Args:
            encoder: from `load_dual_encoder`; for `flag_vectors`, its text side is enough.
            prompts: what to look for, as whole phrases.
            contrast: what else an image may show; closer phrases separate better ("mutfak" for the prompt "bıçak").
            threshold: the least score, a cosine, with which an image is flagged; None sets none.
            min_probability: the least probability with which an image is flagged, 0 to 1; None sets none if there is a
                threshold, else takes 0.5: what fits a prompt better than the contrast.
            temperature: of the softmax over cosines; None takes the model's own.
            warn: log the `cautions` as warnings.

        Raises:
            PromptError: no prompt or no contrast, the same text as both, a threshold that is no cosine, or a
                probability outside 0 to 1.
        """
        self.prompts, self.contrast = [p for p in prompts if p.strip()], [c for c in contrast if c.strip()]
        if not self.prompts or not self.contrast:
            raise PromptError(
                "expected something to look for and a contrast, got an empty list; give a phrase for each"
            )
        if same := [
            prompt for prompt in self.prompts if lower(prompt.strip()) in map(lower, map(str.strip, self.contrast))
        ]:
            raise PromptError(
                f"expected a contrast of other images, got {same[0]!r} as both; name another with --contrast"
            )
        if threshold is not None and not -1 <= threshold <= 1:
            raise PromptError(f"expected a threshold of -1 to 1, a cosine, got {threshold}; leave it out to see scores")
        if min_probability is not None and not 0 <= min_probability <= 1:
            raise PromptError(
                f"expected a probability of 0 to 1, got {min_probability}; 0.5 flags what fits better than the contrast"
            )
        self.threshold = threshold
        self._asked_probability = min_probability
        self.min_probability = LIKELIER if threshold is None and min_probability is None else min_probability
        self.temperature = encoder.temperature if temperature is None else temperature
        self._encoder = encoder
        self.cautions = encoder.cautions([*self.prompts, *self.contrast] if contrast is not CONTRAST else self.prompts)
        log_cautions(self.cautions if warn else ())
        self._vectors = encoder.encode_texts([*self.prompts, *self.contrast], warn=False)

    def flag_vectors(self, vectors: Vectors) -> list[Flag]:
        """Flags (n, dim) float32 unit vectors of images."""
        cosines = vectors @ self._vectors.T
        totals: NDArray[np.float64] = softmax(cosines / self.temperature)[:, : len(self.prompts)].sum(axis=1)
        best = cosines[:, : len(self.prompts)].argmax(axis=1)
        return [
            Flag(
                float(row[place]), float(total), self.prompts[place], self._is_flagged(float(row[place]), float(total))
            )
            for total, row, place in zip(totals, cosines, best)
        ]

    def _is_flagged(self, score: float, probability: float) -> bool:
        likely = self.min_probability is None or probability >= self.min_probability
        return likely and (self.threshold is None or score >= self.threshold)

    def warn_of_none(self, flags: Sequence[Flag]) -> None:
        """Logs a warning if no image has the score or probability that was asked for, with the highest there is."""
        opened = [flag for flag in flags if flag.error is None]
        scores, probabilities = [flag.score for flag in opened], [flag.probability for flag in opened]
        too_high = False
        if self.threshold is not None and opened and max(scores) < self.threshold:
            too_high = True
            log.warning(
                "no image has a score of %g: the highest cosine is %.3f; lower the threshold",
                self.threshold,
                max(scores),
            )
        asked = self._asked_probability
        if asked is not None and opened and max(probabilities) < asked:
            too_high = True
            log.warning(
                "no image has a probability of %g: the highest is %.8g; lower it, or order by scores with --threshold",
                asked,
                max(probabilities),
            )
        if None not in (self.threshold, asked) and opened and not too_high and not any(flag.flagged for flag in opened):
            log.warning("no image has both the score and the probability that were asked for; lower one of them")

    def flag(
        self,
        images: Iterable[ImageLike],
        *,
        batch_size: int = 32,
        workers: int = 2,
        decode_processes: int = -1,
        seen: Callable[[Vectors], None] | None = None,
    ) -> Iterator[Flag]:
        """Flags images in order, as they are read; one that does not open gives a `Flag` with its error.

        Args:
            images: paths, bytes of files, or PIL images.
            batch_size: images embedded at a time.
            workers: threads that open images, where processes do not.
            decode_processes: as in `DualEncoder.embed_images`.
            seen: is given the vectors of each batch's images that open, in order, for another filter.
        """
        batches = with_image_side(self._encoder, "look at images").embed_images(
            images, batch_size=batch_size, workers=workers, decode_processes=decode_processes
        )

        def flag(vectors: Vectors) -> list[Flag]:
            if seen is not None:
                seen(vectors)
            return self.flag_vectors(vectors)

        return map_in_order(batches, flag, lambda error: Flag(0.0, 0.0, "", False, error))


def flagged_first(paths: Iterable[Path], flags: Iterable[Flag]) -> list[tuple[Path, Flag]]:
    """Returns the flagged images by descending score.

    Args:
        paths: of the images.
        flags: one for each path, in order.
    """
    flagged = [(path, flag) for path, flag in zip(paths, flags) if flag.flagged]
    return sorted(flagged, key=lambda pair: (-pair[1].score, str(pair[0])))


def best_of_each(names: Sequence[str], flags: Sequence[Flag]) -> list[tuple[int, Flag]]:
    """Returns the best flag for each name, with its place: of a video's frames one that is flagged, if any is.

    Args:
        names: of files, a video's once for each frame.
        flags: one for each name, in order.
    """
    best: dict[str, tuple[int, Flag]] = {}
    for place, (name, flag) in enumerate(zip(names, flags)):
        before = best.get(name)
        if before is None or (flag.flagged, flag.score) > (before[1].flagged, before[1].score):
            best[name] = place, flag
    return list(best.values())
