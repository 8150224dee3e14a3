"""Turkish letter case, composition, apostrophes and ASCII spelling follow the rules."""

from __future__ import annotations

import unicodedata

import pytest

from turkish_clip.text import ascii_fold, lower, nfc, turkish_lowercase, turkish_normalizer, upper

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
