"""Augmentation of the training captions: typed without Turkish letters, in other case, with a typo."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from turkish_clip.text import ascii_fold, lower, upper


def one_typo(text: str, number: int | None = None) -> str:
    """Swaps, drops or doubles one letter inside a word; a number decides which, or else the text itself.

    >>> one_typo("kırmızı bir araba") != "kırmızı bir araba"
    True
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
    """Takes the full stop away, or adds one.

    >>> other_full_stop("bir kuş."), other_full_stop("bir kuş")
    ('bir kuş', 'bir kuş.')
    """
    return text[:-1] if text.endswith(".") else text + "."


@dataclass
class Augmentation:
    """Rewrites a share of the training captions; which, depends on the seed, the epoch and the row alone.

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
        """Chooses the captions of this epoch."""
        self.epoch = epoch

    def of(self, texts: Sequence[str], rows: Sequence[int]) -> list[str]:
        """The captions of the given rows, some of them rewritten."""
        return [self._one(text, row) for text, row in zip(texts, rows)]

    def _one(self, text: str, row: int) -> str:
        def share(name: str) -> float:
            # not CRC32, which is linear: whoever had a typo would always be in capitals
            digest = hashlib.blake2b(f"{self.seed} {self.epoch} {row} {name}".encode(), digest_size=8).digest()
            return int.from_bytes(digest, "big") / 2**64

        if share("typo") < self.typo_probability:
            text = one_typo(text, int(share("which typo") * 2**32))
        if share("full stop") < self.full_stop_probability:
            text = other_full_stop(text)
        case = share("case")
        if case < self.case_probability:
            text = upper(text) if case < self.case_probability / 2 else lower(text)
        if share("ascii") < self.ascii_probability:
            text = ascii_fold(text)
        return text
