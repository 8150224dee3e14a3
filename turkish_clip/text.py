"""Rules of Turkish text: canonical composition, letter case, and spelling in ASCII letters.

The tokenizer stores the rules that it needs (`turkish_normalizer`), so a published model runs without this module.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers.normalizers import Normalizer

COMBINING_DOT = "\u0307"
APOSTROPHES = "\u2018\u2019\u02bc\u02b9\uff07\u00b4"  # what word processors and phones write in place of '
ASCII_FOLD = str.maketrans("çğıöşüâîûÇĞİÖŞÜÂÎÛ", "cgiosuaiuCGIOSUAIU")


def nfc(text: str) -> str:
    r"""Composes text (NFC) and makes an i with a combining dot, which has no composed form, a plain i.

    macOS file names and text extracted from PDFs are decomposed; ``"İ".lower()`` leaves a combining dot.

    >>> nfc("s\u0327eker"), nfc("i\u0307stanbul")
    ('şeker', 'istanbul')
    """
    return unicodedata.normalize("NFC", text).replace("i" + COMBINING_DOT, "i")


def lower(text: str) -> str:
    """Lowercases text by Turkish rules: I → ı, İ → i.

    >>> lower("ISPARTA'DA İKİ KEDİ")
    "ısparta'da iki kedi"
    """
    return nfc(text).replace("I", "ı").replace("İ", "i").lower()


def upper(text: str) -> str:
    """Uppercases text by Turkish rules: i → İ, ı → I.

    >>> upper("ılık bir gün, iki kedi")
    'ILIK BİR GÜN, İKİ KEDİ'
    """
    return nfc(text).replace("i", "İ").replace("ı", "I").upper()


def ascii_fold(text: str) -> str:
    """Replaces Turkish letters by those that people type without a Turkish keyboard.

    >>> ascii_fold("Kırmızı çiçeğin üstünde bir kuş")
    'Kirmizi cicegin ustunde bir kus'
    """
    return nfc(text).translate(ASCII_FOLD)


def turkish_normalizer(inner: Normalizer | None = None) -> Normalizer:
    r"""Returns a normalizer for tokenizer.json that composes text as `nfc` does and straightens apostrophes.

    Curly and other look-alike apostrophes become the one that Turkish tokenizers know. `inner`, the tokenizer's own
    normalizer, is applied last.

    >>> turkish_normalizer().normalize_str("Ankara\u2019da")
    "Ankara'da"
    """
    from tokenizers import normalizers

    steps: list[Normalizer] = [normalizers.NFC(), normalizers.Replace("i" + COMBINING_DOT, "i")]
    steps += [normalizers.Replace(apostrophe, "'") for apostrophe in APOSTROPHES]
    return normalizers.Sequence(steps if inner is None else [*steps, inner])


def turkish_lowercase() -> Normalizer:
    """Returns a normalizer for tokenizer.json that lowercases composed text as `lower` does."""
    from tokenizers import normalizers

    return normalizers.Sequence([normalizers.Replace("I", "ı"), normalizers.Replace("İ", "i"), normalizers.Lowercase()])
