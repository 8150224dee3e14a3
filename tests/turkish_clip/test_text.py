"""Turkish letter case, composition, apostrophes and ASCII spelling follow the rules."""

from __future__ import annotations

import unicodedata

import pytest

from turkish_clip.text import alphabetical, ascii_fold, lower, nfc, turkish_lowercase, turkish_normalizer, upper

CASES = [
    ("IĞDIR", "ığdır"),
    ("İZMİR", "izmir"),
    ("DİYARBAKIR", "diyarbakır"),
    ("ISPARTA İLİ", "ısparta ili"),
    ("ŞÇÖÜĞ", "şçöüğ"),
]


@pytest.mark.parametrize(("capital", "small"), CASES)
def test_case_follows_turkish_rules_both_ways(capital: str, small: str) -> None:
    assert lower(capital) == small
    assert upper(small) == capital
    assert turkish_lowercase().normalize_str(capital) == small


def test_lower_leaves_no_combining_dot() -> None:
    assert "\u0307" in "İ".lower()
    assert lower("İ") == "i"
    assert lower(unicodedata.normalize("NFD", "İZMİR")) == "izmir"


@pytest.mark.parametrize("text", ["şeker", "çığ öğün", "İstanbul", "ağacın", "kâğıt"])
def test_decomposed_text_is_composed_everywhere(text: str) -> None:
    decomposed = unicodedata.normalize("NFD", text)
    assert nfc(decomposed) == text
    assert turkish_normalizer().normalize_str(decomposed) == text
    assert ascii_fold(decomposed) == ascii_fold(text)


def test_a_combining_dot_without_a_composed_form_is_removed() -> None:
    assert nfc("i\u0307stanbul") == "istanbul"
    assert turkish_normalizer().normalize_str("i\u0307stanbul") == "istanbul"


@pytest.mark.parametrize("apostrophe", list("\u2018\u2019\u02bc\u02b9\uff07\u00b4"))
def test_apostrophes_become_straight(apostrophe: str) -> None:
    assert turkish_normalizer().normalize_str(f"Ankara{apostrophe}da") == "Ankara'da"


def test_ascii_fold_is_ascii_and_keeps_length_and_case() -> None:
    text = "ÇĞIİÖŞÜ çğıiöşü kâğıt"
    folded = ascii_fold(text)
    assert folded.isascii()
    assert folded == "CGIIOSU cgiiosu kagit"


def test_the_inner_normalizer_is_applied_last() -> None:
    from tokenizers.normalizers import Lowercase

    assert turkish_normalizer(Lowercase()).normalize_str("S\u0327EKER\u2019") == "şeker'"


@pytest.mark.parametrize(
    "code",
    [0xAD, 0x34F, 0x61C, 0x115F, 0x180E, 0x200B, 0x200C, 0x200E, 0x202E, 0x2060, 0x2064, 0x2069, 0x206A, 0x206F, 0x3164,
     0xFE00, 0xFE0F, 0xFEFF, 0xFFA0, 0xFFFB, 0xFFFC, 0x1D173, 0xE0001, 0xE0100, 0xE01EF],
)  # fmt: skip
def test_invisible_characters_are_taken_out(code: int) -> None:
    letter = chr(code)
    for text in (f"kırmızı{letter}", f"{letter}kırmızı", f"kır{letter}mızı", f"kırmı{letter}{letter}zı"):
        assert turkish_normalizer().normalize_str(text) == "kırmızı"
    assert turkish_normalizer().normalize_str(f"bir {letter}ev") == "bir ev"


def test_what_shows_stays() -> None:
    visible = "ağaç, ev—araba: %5 «ışık» 猫 кот \u0130\ufffd\u2800 🐱"
    assert turkish_normalizer().normalize_str(visible) == visible


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("👩\u200d👧", "👩\u200d👧"),  # one emoji of several
        ("❤\ufe0f\u200d🔥", "❤\u200d🔥"),
        ("👁\ufe0f\u200d🗨\ufe0f", "👁\u200d🗨"),
        ("🏴\U000e0067\U000e0062\U000e007f", "🏴\U000e0067\U000e0062\U000e007f"),  # a region's flag
        ("kır\u200dmızı", "kırmızı"),
        ("❤\ufe0f ev", "❤ ev"),
        ("1\ufe0f\u20e3", "1\u20e3"),
    ],
)
def test_joiners_of_emoji_stay(text: str, kept: str) -> None:
    assert turkish_normalizer().normalize_str(text) == kept


def test_words_are_sorted_by_the_turkish_alphabet() -> None:
    words = "2 ağaç araba ay cam çay dağ göl gölge ğ hâl ırmak Isparta iki İzmir kar kâr kara o ö su şal u ü z".split()
    assert sorted(reversed(words), key=alphabetical) == words
