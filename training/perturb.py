"""Captions as other people type them: the perturbations that robustness is measured with, and trained on."""

from __future__ import annotations

import hashlib
import re
import unicodedata
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from turkish_clip.text import ascii_fold, lower, upper

SPELLINGS = (
    ("typed without Turkish letters", "ascii"),
    ("UPPER CASE", "upper"),
    ("lower case", "lower"),
    ("decomposed letters (NFD)", "nfd"),
    ("one typo in each caption", "typo"),
    ("without the first word's ending that has one", "suffix"),
    ("the second half first", "order"),
    ("keywords alone", "keywords"),
    ("other words of the same meaning", "synonyms"),
)
# Genitive, locative and ablative, with the buffer letters of possessives before them.
ENDING = re.compile(r"(?<=\w{3})(?:n?[ıiuü]n|n?[dt][ae]n?)$")
ENDING_LETTERS = 6  # shorter words end so by themselves: için, altın, yakın
FUNCTION_WORDS = frozenset("bir ve ile var vardır bu şu o da de ki olan duran duruyor görünüyor bulunuyor".split())
SYNONYMS = (
    "kırmızı al", "siyah kara", "beyaz ak", "araba otomobil", "küçük ufak", "büyük kocaman", "kalp yürek",
    "üstünde üzerinde", "altında aşağısında", "gece geceleyin", "tekne kayık", "ay hilal",
    "kadın bayan", "fotoğraf resim", "yemek yiyecek", "cadde sokak", "ev konut", "uçak tayyare", "mutlu sevinçli",
)  # fmt: skip
OTHER_WORD = {a: b for pair in SYNONYMS for a, b in (pair.split(), pair.split()[::-1])}


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


def nfd(text: str) -> str:
    """Decomposed letters, as macOS writes file names."""
    return unicodedata.normalize("NFD", text)


def other_full_stop(text: str) -> str:
    """Takes the full stop away, or adds one.

    >>> other_full_stop("bir kuş."), other_full_stop("bir kuş")
    ('bir kuş', 'bir kuş.')
    """
    return text[:-1] if text.endswith(".") else text + "."


def without_ending(text: str) -> str:
    """Takes the case ending off the first word that has one, as hurried people do.

    >>> without_ending("Ağacın üstünde bir kuş.")
    'Ağac üstünde bir kuş.'
    """

    def cut(match: re.Match[str]) -> str:
        word = match[0]
        return ENDING.sub("", word) if len(word) >= ENDING_LETTERS else word

    for match in re.finditer(r"\w+", text):
        bare = cut(match)
        if bare != match[0]:
            return text[: match.start()] + bare + text[match.end() :]
    return text


def other_order(text: str) -> str:
    """Puts the second half of the words first.

    >>> other_order("kırmızı bir evin üstünde bir kuş.")
    'üstünde bir kuş kırmızı bir evin.'
    """
    words = text.rstrip(".").split()
    half = len(words) // 2
    return " ".join(words[half:] + words[:half]) + "." * text.endswith(".")


def keywords(text: str) -> str:
    """Leaves words out that search queries leave out, and the full stop.

    >>> keywords("Evin üstünde bir kuş var.")
    'Evin üstünde kuş'
    """
    kept = [word for word in text.rstrip(".").split() if lower(word.strip(",")) not in FUNCTION_WORDS]
    return " ".join(kept) or text


def synonyms(text: str) -> str:
    """Puts another word in the place of each bare one that has one in a short list.

    >>> synonyms("Kırmızı bir araba, gece")
    'al bir otomobil, geceleyin'
    """
    return re.sub(r"\w+", lambda match: OTHER_WORD.get(lower(match[0]), match[0]), text)


PERTURBATIONS: dict[str, Callable[[str], str]] = {
    "ascii": ascii_fold,
    "upper": upper,
    "lower": lower,
    "nfd": nfd,
    "typo": one_typo,
    "suffix": without_ending,
    "order": other_order,
    "keywords": keywords,
    "synonyms": synonyms,
}


@dataclass
class Variants:
    """Rewrites a share of the training captions; which, depends on the seed, the epoch and the row alone.

    Attributes:
        epoch: set by the trainer as each epoch begins.
    """

    ascii_share: float
    case_share: float
    full_stop_share: float
    typo_share: float
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

        if share("typo") < self.typo_share:
            text = one_typo(text, int(share("which typo") * 2**32))
        if share("full stop") < self.full_stop_share:
            text = other_full_stop(text)
        case = share("case")
        if case < self.case_share:
            text = upper(text) if case < self.case_share / 2 else lower(text)
        if share("ascii") < self.ascii_share:
            text = ascii_fold(text)
        return text
