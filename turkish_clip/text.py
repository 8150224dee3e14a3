"""Turkish text: canonical composition, Turkish letter case, typing without Turkish letters.

The tokenizer carries the rules it needs (`turkish_normalizer`), so a published model needs nothing of this to run.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers.normalizers import Normalizer

COMBINING_DOT = "\u0307"
APOSTROPHES = "\u2018\u2019\u02bc\u02b9\uff07\u00b4"  # what word processors and phones type for '
ASCII_FOLD = str.maketrans("çğıöşüâîûÇĞİÖŞÜÂÎÛ", "cgiosuaiuCGIOSUAIU")


def nfc(text: str) -> str:
    r"""Composes text (NFC); an i with a combining dot, which has no composed form, becomes a plain i.

    macOS file names and text taken out of PDFs come decomposed; ``"İ".lower()`` leaves the combining dot.

    >>> nfc("s\u0327eker"), nfc("i\u0307stanbul")
    ('şeker', 'istanbul')
    """
    return unicodedata.normalize("NFC", text).replace("i" + COMBINING_DOT, "i")


def lower(text: str) -> str:
    """Lower case by Turkish rules: I → ı, İ → i.

    >>> lower("ISPARTA'DA İKİ KEDİ")
    "ısparta'da iki kedi"
    """
    return nfc(text).replace("I", "ı").replace("İ", "i").lower()


def upper(text: str) -> str:
    """Upper case by Turkish rules: i → İ, ı → I.

    >>> upper("ılık bir gün, iki kedi")
    'ILIK BİR GÜN, İKİ KEDİ'
    """
    return nfc(text).replace("i", "İ").replace("ı", "I").upper()


def ascii_fold(text: str) -> str:
    """Writes Turkish letters as people type them without a Turkish keyboard.

    >>> ascii_fold("Kırmızı çiçeğin üstünde bir kuş")
    'Kirmizi cicegin ustunde bir kus'
    """
    return nfc(text).translate(ASCII_FOLD)


def straight_apostrophes(text: str) -> str:
    r"""Turns curly and other look-alike apostrophes into the one that Turkish tokenizers know.

    >>> straight_apostrophes("Ankara\u2019da")
    "Ankara'da"
    """
    return text.translate(str.maketrans(APOSTROPHES, "'" * len(APOSTROPHES)))


def turkish_normalizer(inner: Normalizer | None = None) -> Normalizer:
    """`nfc` and `straight_apostrophes` as a `tokenizers` normalizer, to be stored in tokenizer.json.

    Args:
        inner: the tokenizer's own normalizer, applied after ours.
    """
    from tokenizers import normalizers

    steps: list[Normalizer] = [normalizers.NFC(), normalizers.Replace("i" + COMBINING_DOT, "i")]
    steps += [normalizers.Replace(apostrophe, "'") for apostrophe in APOSTROPHES]
    return normalizers.Sequence(steps if inner is None else [*steps, inner])


def turkish_lowercase() -> Normalizer:
    """`lower` for composed text as a `tokenizers` normalizer, for a vocabulary without capitals."""
    from tokenizers import normalizers

    return normalizers.Sequence([normalizers.Replace("I", "ı"), normalizers.Replace("İ", "i"), normalizers.Lowercase()])
