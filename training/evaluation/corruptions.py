"""Corruptions of captions, as other people type them, by which robustness is measured."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from training.pairs.augment import one_typo
from turkish_clip.text import ascii_fold, lower, upper

CORRUPTION_TITLES = (
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
ENDING_LETTERS = 6  # shorter words often end so without a case ending: için, altın, yakın
FUNCTION_WORDS = frozenset("bir ve ile var vardır bu şu o da de ki olan duran duruyor görünüyor bulunuyor".split())
SYNONYMS = (
    "kırmızı al", "siyah kara", "beyaz ak", "araba otomobil", "küçük ufak", "büyük kocaman", "kalp yürek",
    "üstünde üzerinde", "altında aşağısında", "gece geceleyin", "tekne kayık", "ay hilal",
    "kadın bayan", "fotoğraf resim", "yemek yiyecek", "cadde sokak", "ev konut", "uçak tayyare", "mutlu sevinçli",
)  # fmt: skip
OTHER_WORD = {a: b for pair in SYNONYMS for a, b in (pair.split(), pair.split()[::-1])}


def nfd(text: str) -> str:
    """Decomposes letters, as macOS writes file names."""
    return unicodedata.normalize("NFD", text)


def _without_ending(text: str) -> str:
    """Removes the case ending of the first word that has one, as hurried people do.

    >>> _without_ending("Ağacın üstünde bir kuş.")
    'Ağac üstünde bir kuş.'
    """
    for match in re.finditer(r"\w+", text):
        bare = ENDING.sub("", match[0]) if len(match[0]) >= ENDING_LETTERS else match[0]
        if bare != match[0]:
            return text[: match.start()] + bare + text[match.end() :]
    return text


def _other_order(text: str) -> str:
    """Puts the second half of the words first.

    >>> _other_order("kırmızı bir evin üstünde bir kuş.")
    'üstünde bir kuş kırmızı bir evin.'
    """
    words = text.rstrip(".").split()
    half = len(words) // 2
    return " ".join(words[half:] + words[:half]) + "." * text.endswith(".")


def _keywords(text: str) -> str:
    """Removes the full stop and the words that search queries leave out.

    >>> _keywords("Evin üstünde bir kuş var.")
    'Evin üstünde kuş'
    """
    words = [word for word in text.rstrip(".").split() if lower(word.strip(",")) not in FUNCTION_WORDS]
    return " ".join(words) or text


def _synonyms(text: str) -> str:
    """Replaces each uninflected word by its synonym, if a short list has one.

    >>> _synonyms("Kırmızı bir araba, gece")
    'al bir otomobil, geceleyin'
    """
    return re.sub(r"\w+", lambda match: OTHER_WORD.get(lower(match[0]), match[0]), text)


CORRUPTIONS: dict[str, Callable[[str], str]] = {
    "ascii": ascii_fold,
    "upper": upper,
    "lower": lower,
    "nfd": nfd,
    "typo": one_typo,
    "suffix": _without_ending,
    "order": _other_order,
    "keywords": _keywords,
    "synonyms": _synonyms,
}
