"""Queries of several parts: texts and images to look for, and those to keep away, each with a weight.

They become one vector, the weighted sum of the parts' unit vectors, so that an index of any size finds them as it finds
one text. Projections, probabilities and the least of the scores put the right image first no oftener on minimal sets
(training/LOG.md); the least of standardised scores did by a little, and would need to see more candidates.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from turkish_clip.errors import InputError, printable

if TYPE_CHECKING:
    from turkish_clip.images import ImageLike
    from turkish_clip.metrics import Vectors

# An image's cosines to others spread more widely, and are larger, than those of texts, so that it would drown them out.
IMAGE_WEIGHT = 0.25
MAX_WEIGHT = 1000.0
LEAST_NORM = 0.01  # of a sum; a shorter one has no direction
WEIGHTED = re.compile(r"(?P<text>.*)\^(?P<weight>[^\s^]+)\s*", re.DOTALL)
Kind = Literal["text", "without", "image", "without image"]
KEPT_AWAY: tuple[Kind, ...] = ("without", "without image")
OF_IMAGES: tuple[Kind, ...] = ("image", "without image")


class QueryError(InputError):
    """A query without anything to look for, or with a weight that can't be used."""


@dataclass(frozen=True)
class Part:
    """One part of a query.

    Attributes:
        kind: "text" is looked for, "without" kept away; "image" is what results are to be like, "without image" what
            they are to be unlike.
        value: the text (a str), or the image: a path, bytes of a file or a PIL image.
        weight: above 0.
    """

    kind: Kind
    value: Any
    weight: float

    def __str__(self) -> str:
        """Returns the part for people."""
        if self.kind in OF_IMAGES:
            return str(self.value) if isinstance(self.value, (str, Path)) else "an image"
        return str(self.value)


class Query:
    """What is looked for.

    >>> print(Query("araba", "gece", without=["kırmızı"]))
    araba + gece - kırmızı

    Attributes:
        parts: texts in the order given, then texts that are kept away, then images, then images that are kept away.
    """

    def __init__(
        self,
        *texts: str | tuple[str, float],
        without: Sequence[str | tuple[str, float]] = (),
        image: ImageLike | None = None,
        image_weight: float | None = None,
        images: Sequence[ImageLike] = (),
        without_images: Sequence[ImageLike] = (),
    ) -> None:
        """Checks the parts.

        Args:
            texts: what the images are to show, all of it together; with a weight as (text, weight), else of weight 1.
            without: what they are not to show, likewise.
            image: what they are to be like.
            image_weight: of each image; None takes 0.25 beside texts, and 1 without any.
            images: what they are to be like as well.
            without_images: what they are not to be like.

        Raises:
            QueryError: nothing to look for, an empty text, or a weight that is not above 0.
        """
        alike = [*([] if image is None else [image]), *images]
        if not texts and not alike:
            away = [*map(_shown, without), *(str(Part("without image", value, 1.0)) for value in without_images)]
            got = f"only what is kept away, {away[0]}" if away else "nothing"
            raise QueryError(f"expected words or an image to look for, got {got}; add words")
        alone = not texts and not without
        weight = (1.0 if alone else IMAGE_WEIGHT) if image_weight is None else image_weight
        self.parts = [
            *(_part("text", text) for text in texts),
            *(_part("without", text) for text in without),
            *(Part("image", value, _checked(weight, "the image")) for value in alike),
            *(Part("without image", value, _checked(weight, "the image")) for value in without_images),
        ]

    @property
    def texts(self) -> list[str]:
        """All texts, those that are kept away included."""
        return [part.value for part in self.parts if part.kind not in OF_IMAGES]

    @property
    def wanted(self) -> list[Part]:
        """The texts that are looked for."""
        return [part for part in self.parts if part.kind == "text"]

    @property
    def images(self) -> list[ImageLike]:
        """All images, those that are kept away included."""
        return [part.value for part in self.parts if part.kind in OF_IMAGES]

    def __str__(self) -> str:
        """Returns the query for people, on one line."""
        shown = [(" - " if part.kind in KEPT_AWAY else " + ") + printable(str(part)) for part in self.parts]
        return "".join(shown).removeprefix(" + ").removeprefix(" ")


def weighted(text: str) -> tuple[str, float]:
    """Returns a text and its weight, as people write it: "gece^0.5"; without a number at the end it is 1.

    >>> weighted("gece^0.5"), weighted("gece^0,5"), weighted("gece")
    (('gece', 0.5), ('gece', 0.5), ('gece', 1.0))

    Raises:
        QueryError: the weight is no number, or not above 0.
    """
    found = WEIGHTED.fullmatch(text)
    try:
        weight = float(found["weight"].replace(",", ".")) if found else 1.0
    except ValueError as error:
        raise QueryError(
            f"expected a number after ^, the weight of the words before it, got {text!r:.80}; write 'gece^0.5', or "
            "leave the ^ out"
        ) from error
    return (found["text"] if found else text), _checked(weight, repr(text))


@dataclass(frozen=True)
class Composed:
    """The vector of a query.

    Attributes:
        vector: (dim,) float32, of norm 1.
        hub_weight: by which the correction of hubs for one text is multiplied: the weights of what is looked for less
            those of what is kept away, in the measure of `vector`. An image takes no part in it.
        wanted: (dim,) float32 unit vector of the texts that are looked for; None without any.
        unwanted: (n, dim) float32 unit vectors of those that are kept away.
        has_image: whether an image is among the parts.
    """

    vector: Vectors
    hub_weight: float
    wanted: Vectors | None
    unwanted: Vectors
    has_image: bool = False


def composed(query: Query, vectors: Vectors) -> Composed:
    """Adds the parts of a query up.

    Args:
        query: its parts.
        vectors: (parts, dim) float32 unit vectors of them, in order.

    Raises:
        QueryError: they cancel each other out.
    """
    if len(query.parts) == 1:
        of_text = query.parts[0].kind == "text"
        return Composed(vectors[0], float(of_text), vectors[0] if of_text else None, vectors[:0], not of_text)
    signs = np.array([-1 if part.kind in KEPT_AWAY else 1 for part in query.parts], np.float32)
    weights = signs * np.array([part.weight for part in query.parts], np.float32)
    kinds = np.array([part.kind for part in query.parts])
    of_images = np.isin(kinds, OF_IMAGES)
    total = weights @ vectors
    norm = float(np.linalg.norm(total))
    if norm < LEAST_NORM * float(np.abs(weights).sum()):
        raise QueryError(
            f"expected parts that leave something to look for, got {query}, which cancel each other out; change one"
        )
    looked_for = kinds == "text"
    of_texts = weights[looked_for] @ vectors[looked_for]
    length = float(np.linalg.norm(of_texts))
    return Composed(
        np.asarray(total / norm, np.float32),
        float(weights[~of_images].sum()) / norm,
        np.asarray(of_texts / length, np.float32) if length > 0 else None,
        np.asarray(vectors[kinds == "without"]),
        bool(of_images.any()),
    )


def _part(kind: Kind, text: str | tuple[str, float]) -> Part:
    value, weight = (text, 1.0) if isinstance(text, str) else text
    if not value.strip():
        raise QueryError("expected words to look for or to keep away, got an empty text; write some, or leave it out")
    return Part(kind, value, _checked(weight, repr(value)))


def _checked(weight: float, of: str) -> float:
    if not 0 < weight <= MAX_WEIGHT or not math.isfinite(weight):
        advice = "keep it away instead (--not, or without=)" if weight < 0 else "give another, such as 0.5 or 2"
        raise QueryError(f"expected a weight above 0, up to {MAX_WEIGHT:g}, got {weight:g} for {of}; {advice}")
    return float(weight)


def _shown(text: str | tuple[str, float]) -> str:
    return repr(text if isinstance(text, str) else text[0])
