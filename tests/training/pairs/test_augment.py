"""The augmentation of training captions and the corruptions of the evaluation do what their names say, repeatably."""

from __future__ import annotations

import difflib

import pytest

from training.evaluation.corruptions import CORRUPTION_TITLES, CORRUPTIONS
from training.pairs.augment import Augmentation, one_typo, other_full_stop

TEXTS = ["Kırmızı bir evin üstünde iki kuş.", "şeker", "Ilık bir gün", "iki kedi var", "çiçeğin solunda bir araba"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_typo_is_one_small_change(text: str) -> None:
    changed = one_typo(text)
    assert changed != text
    assert changed == one_typo(text)
    assert abs(len(changed) - len(text)) <= 1
    assert difflib.SequenceMatcher(None, text, changed).ratio() > 0.8


def test_a_typo_needs_a_word_of_three_letters() -> None:
    assert one_typo("ev") == "ev"
    assert one_typo("") == ""


def test_corruptions() -> None:
    text = "İki ılık çay"
    corrupted = {name: corrupt(text) for name, corrupt in CORRUPTIONS.items()}
    assert corrupted["ascii"] == "Iki ilik cay"
    assert corrupted["upper"] == "İKİ ILIK ÇAY"
    assert corrupted["lower"] == "iki ılık çay"
    assert len(corrupted["nfd"]) > len(text)


def test_a_full_stop_is_added_and_removed() -> None:
    assert other_full_stop(other_full_stop("bir kuş")) == "bir kuş"


def test_augmentation_keeps_its_probabilities_and_depends_on_epoch_and_row_alone() -> None:
    texts = ["Çiçekli bir ev."] * 4000
    rows = range(4000)
    augmentation = Augmentation(
        ascii_probability=0.2, case_probability=0.3, full_stop_probability=0.1, typo_probability=0, seed=5
    )
    first = augmentation.apply(texts, rows)
    assert abs(sum(text.isascii() for text in first) / 4000 - 0.2) < 0.03
    assert not any("CİCEK" in text for text in first)  # ASCII text has no İ in upper case either
    assert abs(sum(text.isupper() or text.islower() for text in first) / 4000 - 0.3) < 0.03
    assert abs(sum(not text.endswith(".") for text in first) / 4000 - 0.1) < 0.03
    assert augmentation.apply(texts[10:20], rows[10:20]) == first[10:20]
    augmentation.set_epoch(1)
    assert augmentation.apply(texts, rows) != first
    assert Augmentation(0, 0, 0, 0, seed=5).apply(texts, rows) == texts


def test_typos_differ_by_epoch() -> None:
    texts = ["Çiçekli bir ev."] * 2000
    augmentation = Augmentation(
        ascii_probability=0, case_probability=0, full_stop_probability=0, typo_probability=0.25, seed=5
    )
    first = augmentation.apply(texts, range(2000))
    assert abs(sum(text != texts[0] for text in first) / 2000 - 0.25) < 0.04
    assert len(set(first)) > 8
    augmentation.set_epoch(1)
    assert augmentation.apply(texts, range(2000)) != first


def test_augmentations_are_drawn_independently_of_each_other_and_of_epochs_and_seeds() -> None:
    texts, rows = ["Çiçekli bir ev."] * 10_000, range(10_000)

    def changed(seed: int, epoch: int, *, case_probability: float = 0, typo_probability: float = 0) -> set[int]:
        augmentation = Augmentation(0, case_probability, 0, typo_probability, seed)
        augmentation.set_epoch(epoch)
        return {row for row, text in enumerate(augmentation.apply(texts, rows)) if text != texts[0]}

    typo = changed(0, 0, typo_probability=0.2)
    for other in (
        changed(0, 0, case_probability=0.2),
        changed(0, 1, typo_probability=0.2),
        changed(1, 0, typo_probability=0.2),
    ):
        assert len(typo & other) == pytest.approx(400, abs=90)


@pytest.mark.parametrize(
    ("text", "stem"),
    [
        ("denizde bir top", "deniz bir top"),
        ("bir evin üstünde", "bir evin üstü"),  # evin is too short for its ending to be certain
        ("arabanın solunda", "araba solunda"),
        ("kırmızı top", "kırmızı top"),
        ("için altın", "için altın"),
    ],
)
def test_suffixes_are_removed(text: str, stem: str) -> None:
    assert CORRUPTIONS["suffix"](text) == stem


def test_every_corruption_has_a_label() -> None:
    assert [name for _, name in CORRUPTION_TITLES] == list(CORRUPTIONS)
