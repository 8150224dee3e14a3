"""Augmentation of the training captions: no Turkish letters, another case, no full stop, or a typo."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from turkish_clip.text import ascii_fold, lower, upper


def one_typo(text: str, number: int | None = None) -> str:
    """Swaps, drops or doubles one letter inside a word of three letters or more; without one, changes nothing.

    >>> one_typo("kırmızı bir araba") != "kırmızı bir araba"
    True

    Args:
        text: a caption.
        number: non-negative; decides which letter and which typo; None: the CRC-32 of the text.
    """
    places = [i for i in range(1, len(text) - 1) if text[i - 1 : i + 2].isalpha()]
    if not places:
        return text
    number = zlib.crc32(text.encode()) if number is None else number
    place = places[number % len(places)]
    kind = number // len(places) % 3
    if kind == 0 and text[place] != text[place + 1]:
        return text[:place] + text[place + 1] + text[place] + text[place + 2 :]
    if kind == 1:
        return text[:place] + text[place + 1 :]
    return text[:place] + text[place] + text[place:]


def other_full_stop(text: str) -> str:
    """Removes the full stop at the end, or adds one.

    >>> other_full_stop("bir kuş."), other_full_stop("bir kuş")
    ('bir kuş', 'bir kuş.')
    """
    return text[:-1] if text.endswith(".") else text + "."


@dataclass
class Augmentation:
    """Rewrites training captions with the given probabilities; seed, epoch and row alone decide which and how.

    Attributes:
        epoch: set by the trainer as each epoch begins.
    """

    ascii_probability: float
    case_probability: float
    full_stop_probability: float
    typo_probability: float
    seed: int
    epoch: int = 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, for which the rewritten captions are drawn anew."""
        self.epoch = epoch

    def apply(self, texts: Sequence[str], rows: Sequence[int]) -> list[str]:
        """Returns the captions in order, some of them rewritten.

        Args:
            texts: captions as written.
            rows: the row number of each in the training data set.
        """
        return [self._one(text, row) for text, row in zip(texts, rows)]

    def _one(self, text: str, row: int) -> str:
        def draw(name: str) -> float:
            # not CRC-32: it is linear, so the draws of one row would depend on each other
            digest = hashlib.blake2b(f"{self.seed} {self.epoch} {row} {name}".encode(), digest_size=8).digest()
            return int.from_bytes(digest, "big") / 2**64

        if draw("typo") < self.typo_probability:
            text = one_typo(text, int(draw("which typo") * 2**32))
        if draw("full stop") < self.full_stop_probability:
            text = other_full_stop(text)
        case = draw("case")
        if case < self.case_probability:
            text = upper(text) if case < self.case_probability / 2 else lower(text)
        if draw("ascii") < self.ascii_probability:
            text = ascii_fold(text)
        return text
