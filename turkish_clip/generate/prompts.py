"""What a drawing is to show and what not, with weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from turkish_clip.errors import InputError

if TYPE_CHECKING:
    from turkish_clip.dual_encoder import DualEncoder
    from turkish_clip.metrics import Vectors


class PromptError(InputError):
    """Words or weights that can't be drawn."""


@dataclass(frozen=True)
class Wish:
    """One vector that the image is to be like, or not.

    Attributes:
        text: the words, for people.
        vector: (dim,) float32, a unit vector.
        weight: above 0 to be like it, below 0 to be unlike it.
    """

    text: str
    vector: Vectors
    weight: float


def checked_weights(prompts: Sequence[str], weights: Sequence[float] = (), avoid: Sequence[str] = ()) -> list[float]:
    """Returns a weight for each prompt, before any model is loaded.

    Args:
        prompts: what the image is to show.
        weights: of the prompts, above 0; none: all alike.
        avoid: what the image is not to show.

    Raises:
        PromptError: there is no prompt, one is empty, or the weights don't fit.
    """
    if not prompts or not all(text.strip() for text in (*prompts, *avoid)):
        raise PromptError(
            f"expected words to draw, got {'an empty text' if prompts else 'none'}; write what is to be seen"
        )
    weights = list(weights) or [1.0] * len(prompts)
    if len(weights) != len(prompts):
        raise PromptError(f"expected a weight for each of {len(prompts)} prompts, got {len(weights)}; give as many")
    for weight in weights:
        if not (math.isfinite(weight) and weight > 0):
            raise PromptError(f"expected weights above 0, got {weight}; what is to be avoided has an option of its own")
    return weights


def wishes_of(
    encoder: DualEncoder,
    prompts: Sequence[str],
    weights: Sequence[float] = (),
    avoid: Sequence[str] = (),
) -> list[Wish]:
    """Returns the wishes for prompts, whose words are encoded by the Turkish text encoder.

    Args:
        encoder: whose text side encodes them.
        prompts: what the image is to show.
        weights: of the prompts, above 0; none: all alike.
        avoid: what the image is not to show, each with the mean weight of the prompts.

    Raises:
        PromptError: there is no prompt, one is empty, or the weights don't fit.
    """
    weights = checked_weights(prompts, weights, avoid)
    total = sum(weights)
    vectors = encoder.encode_texts([*prompts, *avoid])
    shares = [weight / total for weight in weights] + [-1 / len(prompts)] * len(avoid)
    return [Wish(text, vector, share) for text, vector, share in zip((*prompts, *avoid), vectors, shares)]
