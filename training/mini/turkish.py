"""The Turkish grammar that the miniature world's captions need: vowel harmony, softening and two cases."""

from __future__ import annotations

from dataclasses import dataclass

BACK_VOWELS = "aıou"
FRONT_VOWELS = "eiöü"
VOWELS = BACK_VOWELS + FRONT_VOWELS
VOICELESS = "fstkçşhp"
SOFTENED = {"p": "b", "ç": "c", "t": "d", "k": "ğ"}
HIGH_VOWEL = {"a": "ı", "ı": "ı", "o": "u", "u": "u", "e": "i", "i": "i", "ö": "ü", "ü": "ü"}


@dataclass(frozen=True)
class Noun:
    """A Turkish noun with what its spelling does not show.

    Attributes:
        word: the bare form, lower case, NFC.
        softens: whether the last consonant softens before a vowel (ağaç → ağacın, but top → topun).
        harmony: the vowel that suffixes harmonize with, where it is not the last one written (kalp → kalbin: "i").
    """

    word: str
    softens: bool = False
    harmony: str = ""

    @property
    def last_vowel(self) -> str:
        return self.harmony or next(letter for letter in reversed(self.word) if letter in VOWELS)

    def genitive(self) -> str:
        """Returns the genitive: the form of an owner.

        >>> [Noun("ev").genitive(), Noun("ağaç", softens=True).genitive(), Noun("araba").genitive()]
        ['evin', 'ağacın', 'arabanın']
        """
        vowel = HIGH_VOWEL[self.last_vowel]
        if self.word[-1] in VOWELS:
            return f"{self.word}n{vowel}n"
        stem = self.word[:-1] + SOFTENED[self.word[-1]] if self.softens else self.word
        return f"{stem}{vowel}n"

    def locative(self) -> str:
        """Returns the locative: the form of a place.

        >>> [Noun("deniz").locative(), Noun("kar").locative(), Noun("çimenlik").locative()]
        ['denizde', 'karda', 'çimenlikte']
        """
        consonant = "t" if self.word[-1] in VOICELESS else "d"
        return f"{self.word}{consonant}{'a' if self.last_vowel in BACK_VOWELS else 'e'}"
