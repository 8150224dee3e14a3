"""False captions by rules of Turkish: what is changed, what is left, and that case and draw hold."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from training.mini.captions import turkish_caption
from training.mini.scene import random_scene
from training.pairs.negatives import COLOURS, NEAR, RELATIONS, FalseCaptions, false_caption, read_exchanges
from training.run.source import SourceError
from turkish_clip.text import lower, upper


def every(text: str) -> set[str]:
    """Every false caption that the rules allow."""
    return {false_caption(text, number) for number in range(400)}


@pytest.mark.parametrize(
    ("text", "false"),
    [
        ("Kırmızı bir arabanın içindeki mavili kadın", "Mavi bir arabanın içindeki kırmızılı kadın"),
        ("sarı evin üstünde yeşil bir kuş", "yeşil evin üstünde sarı bir kuş"),
        ("masanın altında bir kedi", "masanın üstünde bir kedi"),
        ("MASANIN ALTINDA BİR KEDİ", "MASANIN ÜZERİNDE BİR KEDİ"),
        ("Solunda bir ev", "Sağında bir ev"),
        ("evin sol tarafında bir ağaç", "evin sağ tarafında bir ağaç"),
        ("kutunun dışındaki top", "kutunun içindeki top"),
        ("Üç köpek", "İki köpek"),
        ("İKİ KÖPEK", "DÖRT KÖPEK"),
        ("beyaz bir köpek", "beyaz olmayan bir köpek"),
        ("Siyahlı bir kadın", "Siyahlı olmayan bir kadın"),
        ("Karda bir ev var.", "Karda bir ev yok."),
        ("ARABA KIRMIZI!", "ARABA KIRMIZI DEĞİL!"),
        ("ışıklı, mor bir gece", "ışıklı, yeşil bir gece"),
    ],
)
def test_a_change_that_the_rules_make(text: str, false: str) -> None:
    assert false in every(text)


@pytest.mark.parametrize(
    "text",
    [
        "bir köpek",  # an article is no number
        "altı köpek",  # six, or the underside
        "al bir bayrak",  # red, or take
        "evde",
        "sağ kalan bir adam",  # alive
        "kırmızımsı bir araba",  # no whole word
        "dörtgen ve ikiz evler",
        "ikisi de evde",
        "var",
        "",
    ],
)
def test_what_is_not_certain_is_left(text: str) -> None:
    assert every(text) == {""}


@pytest.mark.parametrize(
    "text",
    [
        "kırmızı ve mavi toplar",
        "kırmızı, mavi bir top",
        "siyah beyaz bir fotoğraf",
        "kırmızı bir top ve mavi bir top",
        "mavi köpek, kırmızı köpeğin yanında",
        "ev kırmızı, araba mavi",
    ],
)
def test_colours_whose_exchange_would_say_the_same_are_not_exchanged(text: str) -> None:
    colours = [word.strip(",") for word in text.split() if word.strip(",") in COLOURS]
    for false in every(text):
        changed = [word.strip(",") for word in false.split() if word.strip(",") in COLOURS]
        assert changed != colours[::-1]


def test_a_single_colour_is_replaced_by_one_that_can_be_told_from_it() -> None:
    others = {text.split()[0] for text in every("mavi araba")}
    assert others == set(COLOURS) - {"mavi", "lacivert", "mor"}
    assert {colour for pair in NEAR for colour in pair} <= set(COLOURS)


def test_relations_turn_back() -> None:
    for word, others in RELATIONS.items():
        assert all(word in RELATIONS[other] for other in others)


def test_captions_of_the_miniature_world_change_in_one_place_and_keep_their_case(rng: random.Random) -> None:
    changed = 0
    for number in range(500):
        text = turkish_caption(random_scene(rng), rng)
        for written in (text, upper(text), lower(text)):
            false = false_caption(written, number)
            if not false:
                continue
            changed += 1
            assert false != written
            assert (false == upper(false)) == (written == upper(written))
            assert false[0].isupper() == written[0].isupper()
            assert false.endswith(".") == written.endswith(".")
            words, others = written.strip(".").split(), false.strip(".").split()
            if len(words) == len(others):  # not one with olmayan or değil
                assert 1 <= sum(one != other for one, other in zip(words, others)) <= 2
    assert changed > 1200


def test_seed_epoch_and_row_decide() -> None:
    made = FalseCaptions(3)
    text = "İki kırmızı elmanın solunda mavi bir top var."
    drawn = {(epoch, row): made.of(text, epoch, row) for epoch in range(3) for row in range(8)}
    assert drawn == {(epoch, row): FalseCaptions(3).of(text, epoch, row) for epoch, row in drawn}
    assert len(set(drawn.values())) > 6
    assert [FalseCaptions(4).of(text, 0, row) for row in range(8)] != [drawn[0, row] for row in range(8)]


def test_the_makers_own_list(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text("\ufeff# hayvanlar\nkedi köpek\nKedi,Tavşan\n\nİnek\tat\n", encoding="utf-8")
    exchanges = read_exchanges(str(path))
    assert exchanges == {
        "kedi": ("köpek", "tavşan"),
        "köpek": ("kedi",),
        "tavşan": ("kedi",),
        "inek": ("at",),
        "at": ("inek",),
    }
    assert {false_caption("Kedi ve kediler", number, exchanges) for number in range(9)} == {
        "Köpek ve kediler",
        "Tavşan ve kediler",
    }
    assert false_caption("İNEK", 0, exchanges) == "AT"
    assert read_exchanges("") == {}
    path.write_text("kedi köpek\nkedi\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"expected two words a line, got 'kedi' in .*pairs.txt, line 2; write two"):
        read_exchanges(str(path))
    with pytest.raises(SourceError, match="expected a UTF-8 file for 'exchanges', got .*nothing.txt, which can't"):
        read_exchanges(str(tmp_path / "nothing.txt"))
