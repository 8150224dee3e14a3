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
ALPHABET = "abcçdefgğhıijklmnoöpqrsştuüvwxyz"  # and q, w and x where English has them
WITHOUT_CIRCUMFLEX = str.maketrans("âîû", "aiu")
# Place in the order of the alphabet, all where a is among the code points; other characters are where their own is.
PLACE = {letter: ord("a") * len(ALPHABET) + place for place, letter in enumerate(ALPHABET)}
# Characters that show nothing, from web pages, PDFs and chats: code points, and first and last of ranges. They are
# Unicode's Default_Ignorable_Code_Point (DerivedCoreProperties.txt) and what stands for embedded objects and notes.
# The zero-width joiner, and the tags that make a region's flag of a black one (E0020 to E007F), are not among them.
INVISIBLE_CODES = (
    "00AD 034F 061C 115F-1160 17B4-17B5 180B-180F 200B-200C 200E-200F 202A-202E 2060-206F 3164 FE00-FE0F FEFF FFA0 "
    "FFF0-FFFC 1BCA0-1BCA3 1D173-1D17A E0000-E001F E0080-E0FFF"
)


def nfc(text: str) -> str:
    r"""Composes text (NFC) and makes an i with a combining dot, which has no composed form, a plain i.

    macOS file names and text extracted from PDFs are decomposed; ``"İ".lower()`` leaves a combining dot.

    >>> nfc("s\u0327eker"), nfc("i\u0307stanbul")
    ('şeker', 'istanbul')
    """
    if text.isascii():
        return text
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


def alphabetical(text: str) -> tuple[list[int], str]:
    """Returns a key that sorts words as the Turkish alphabet does, in which ç follows c, ğ g and ı h.

    Case and circumflexes count only where words are equal without; other letters and signs keep their order beside
    the alphabet's.

    >>> sorted(["çay", "ay", "ağaç", "cam", "İzmir", "ışık", "şeker", "su", "araba", "Irmak"], key=alphabetical)
    ['ağaç', 'araba', 'ay', 'cam', 'çay', 'Irmak', 'ışık', 'İzmir', 'su', 'şeker']
    """
    letters = lower(text).translate(WITHOUT_CIRCUMFLEX)
    return [PLACE.get(letter, ord(letter) * len(ALPHABET)) for letter in letters], text


def turkish_normalizer(inner: Normalizer | None = None) -> Normalizer:
    r"""Returns a normalizer for tokenizer.json that composes text as `nfc` does, and more.

    It straightens apostrophes (curly and other look-alike ones become the one that Turkish tokenizers know) and takes
    out invisible characters. `inner`, the tokenizer's own normalizer, is applied last; if it lowercases, text is
    lowercased by Turkish rules before, of which it knows none.

    >>> turkish_normalizer().normalize_str("Ankara\u2019da\u200b")
    "Ankara'da"
    """
    from tokenizers import Regex, normalizers

    steps: list[Normalizer] = [
        normalizers.Replace(Regex(_invisible()), ""),
        normalizers.NFC(),
        normalizers.Replace("i" + COMBINING_DOT, "i"),
    ]
    steps += [normalizers.Replace(apostrophe, "'") for apostrophe in APOSTROPHES]
    if inner is None:
        return normalizers.Sequence(steps)
    if "A" not in inner.normalize_str("A"):
        steps += _turkish_i()
    return normalizers.Sequence([*steps, inner])


def turkish_lowercase() -> Normalizer:
    """Returns a normalizer for tokenizer.json that lowercases composed text as `lower` does."""
    from tokenizers import normalizers

    return normalizers.Sequence([*_turkish_i(), normalizers.Lowercase()])


def _turkish_i() -> list[Normalizer]:
    """Returns the normalizers that lowercase the capitals of ı and i; no other rule of lowercasing knows them."""
    from tokenizers import normalizers

    return [normalizers.Replace("I", "ı"), normalizers.Replace("İ", "i")]


def _invisible() -> str:
    """Returns a regular expression of what is taken out: invisible characters, and joiners beside letters.

    A joiner between signs that are no letters makes one emoji of several. Selectors of variants, which emoji have
    before it, count as marks, but are no part of a letter.
    """
    ranges = [[chr(int(code, 16)) for code in part.split("-")] for part in INVISIBLE_CODES.split()]
    characters = "".join("-".join(ends) for ends in ranges)
    letter = r"[\p{L}\p{M}\p{N}]"
    return rf"[{characters}]|(?<={letter})(?<![\ufe00-\ufe0f])\u200d|\u200d(?={letter})"
