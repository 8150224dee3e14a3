"""Captions of scenes in Turkish and English, as people might type them.

Each function returns one wording; object names, synonyms, word order, case and full stop are drawn from `rng`. Of one
seed, the captions of two scenes differ only in what the scenes differ in: each draw is one number, whatever it chooses.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from training.mini.scene import Scene
from training.mini.words import COLOURS, COUNTS, INVERSE, OBJECTS, PLACES, RELATIONS, SETTINGS, SIZES

T = TypeVar("T")


def turkish_caption(scene: Scene, rng: random.Random, *, complete: bool = False) -> str:
    """Captions the objects with their colours, where they are and mostly the setting, in Turkish.

    Args:
        scene: the scene that the caption describes.
        rng: draws the wording.
        complete: name the setting in any case, so that the caption tells all of the scene.
    """
    setting, synonym = _pick(SETTINGS[scene.setting].turkish, rng), rng.random()

    def coloured(item: tuple[str, str], genitive: bool = False, article: bool = True) -> str:
        noun = _pick(OBJECTS[item[0]].turkish, rng)
        word = noun.genitive() if genitive else noun.word
        return f"{_at(COLOURS[item[1]].turkish, synonym)} {'bir ' if article else ''}{word}"

    if scene.second is None:
        what = coloured(scene.first, article=scene.count == 1)
        what = f"{_pick(SIZES[scene.size][1], rng) if scene.size else COUNTS[scene.count][1]} {what}"
        place = f"{_pick(PLACES[scene.place].turkish, rng)} " if scene.place else ""
        wordings = [
            f"{setting} {place}{what}",
            f"{place}{what}, {setting}",
            f"{setting} {place}{what} var",
            f"{setting} {place}duran {what}",
        ]
    else:
        first, relation, second = _either_way(scene, scene.second, rng)
        where = _pick(RELATIONS[relation].turkish, rng)
        owner = coloured(second, genitive=True, article=rng.random() < 0.5)
        what = coloured(first)
        wordings = [
            f"{setting} {owner} {where} {what}",
            f"{setting} {owner} {where} {what} var",
            f"{what}, {owner} {where}, {setting}",
            f"{owner} {where} {what}, {setting}",
            f"{setting}, {what} {owner} {where} duruyor",
        ]
        if not complete:
            wordings.append(f"{owner} {where} {what}")
    return _as_typed(_pick(wordings, rng), rng)


def english_caption(scene: Scene, rng: random.Random, *, complete: bool = False) -> str:
    """Captions the objects with their colours, where they are and mostly the setting, in English.

    Args:
        scene: the scene that the caption describes.
        rng: draws the wording.
        complete: name the setting in any case, so that the caption tells all of the scene.
    """
    setting = _pick(SETTINGS[scene.setting].english, rng)

    def coloured(item: tuple[str, str]) -> str:
        return with_article(f"{COLOURS[item[1]].english} {_pick(OBJECTS[item[0]].english, rng)}")

    if scene.second is None:
        colour, object_class = COLOURS[scene.first[1]].english, OBJECTS[scene.first[0]]
        if scene.count == 1:
            what = f"a {SIZES[scene.size][0]} {colour} {object_class.english[0]}"
            what += f" {PLACES[scene.place].english}" if scene.place else ""
        else:
            what = f"{COUNTS[scene.count][0]} {colour} {object_class.plural}"
        verb = "is" if scene.count == 1 else "are"
        wordings = [f"{what} {setting}", f"{setting}, {what}", f"there {verb} {what} {setting}"]
    else:
        first, relation, second = _either_way(scene, scene.second, rng)
        where = _pick(RELATIONS[relation].english, rng)
        what = f"{coloured(first)} {where} {coloured(second)}"
        wordings = [f"{what} {setting}", f"{setting}, {what}", f"there is {what} {setting}"]
        if not complete:
            wordings.append(what)
    return _as_typed(_pick(wordings, rng), rng)


def short_english_caption(scene: Scene, rng: random.Random) -> str:
    """Captions the objects, or one of them, in English, without colour, size and setting.

    Args:
        scene: the scene that the caption describes.
        rng: draws the wording.
    """
    if scene.second is None:
        only, one = OBJECTS[scene.first[0]], _pick((with_article, "one {}".format), rng)
        what = one(only.english[0]) if scene.count == 1 else f"{COUNTS[scene.count][0]} {only.plural}"
        return _as_typed(what, rng)
    first, relation, second = _either_way(scene, scene.second, rng)
    what, other = (with_article(_pick(OBJECTS[item[0]].english, rng)) for item in (first, second))
    where = rng.random()
    wordings = [
        f"{what} {_at(RELATIONS[relation].english, where)} {other}",
        f"{other} {_at(RELATIONS[INVERSE[relation]].english, where)} {what}",
        f"{what} and {other}",
        what,
    ]
    return _as_typed(_pick(wordings, rng), rng)


def english_colour_caption(scene: Scene, rng: random.Random) -> str:
    """Captions the colours, or one of them, and the setting in English, without object names.

    Args:
        scene: the scene that the caption describes.
        rng: draws the wording.
    """
    setting = _pick(SETTINGS[scene.setting].english, rng)
    colours = [COLOURS[name].english for name in _some_colours(scene, rng)]
    if scene.count > 1:
        what = f"{COUNTS[scene.count][0]} {colours[0]} things"
    else:
        what = " and ".join(f"something {colour}" for colour in colours)
        what += " and something else" if scene.second is not None and len(colours) == 1 else ""
    return _as_typed(_pick([f"{what} {setting}", f"{setting}, {what}"], rng), rng)


def colour_claims(scene: Scene, colour: str, rng: random.Random, *, denied: bool) -> tuple[str, str]:
    """Returns captions which say of the first object that it has a colour, or has not, in Turkish and in English.

    Args:
        scene: the scene that the captions describe.
        colour: the name of the colour, which may be another than the object's.
        rng: draws the wording.
        denied: say that it does not have the colour.
    """
    object_class, own = OBJECTS[scene.first[0]], COLOURS[colour]
    noun, one = _pick(object_class.turkish, rng).word, scene.count == 1
    name = object_class.english[0] if one else object_class.plural
    number, turkish_number = COUNTS[scene.count]
    if denied:
        turkish = f"{own.turkish[0]} olmayan {turkish_number} {noun}"
        english = f"{name} that {'is' if one else 'are'} not {own.english}"
    else:
        turkish = " ".join([own.turkish[0], turkish_number][:: 1 if one else -1]) + f" {noun}"
        english = f"{own.english} {name}"
    return turkish, with_article(english) if one else f"{number} {english}"


def counting_captions(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """Returns captions that tell of one object class how many there are, in Turkish and in English.

    Args:
        scene: the scene that the captions describe, with one object class.
        rng: draws the wording.
    """
    (name, colour), draw = scene.first, rng.random()
    setting = SETTINGS[scene.setting]
    turkish = f"{COUNTS[scene.count][1]} {COLOURS[colour].turkish[0]} {_pick(OBJECTS[name].turkish, rng).word}"
    number = "one" if scene.count == 1 else COUNTS[scene.count][0]
    noun = OBJECTS[name].english[0] if scene.count == 1 else OBJECTS[name].plural
    english = f"{number} {COLOURS[colour].english} {noun} {_at(setting.english, draw)}"
    return f"{_at(setting.turkish, draw)} {turkish}", english


def with_article(words: str) -> str:
    """Returns English words with their indefinite article."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _some_colours(scene: Scene, rng: random.Random) -> list[str]:
    """Returns the scene's colours in random order; half the time only the first of them."""
    names = [item[1] for item in (scene.first, scene.second) if item is not None]
    if rng.random() < 0.5:
        names.reverse()
    return names[:1] if rng.random() < 0.5 else names


def _either_way(
    scene: Scene, second: tuple[str, str], rng: random.Random
) -> tuple[tuple[str, str], str, tuple[str, str]]:
    """Returns first, relation and second; half the time with the objects swapped and the relation inverted."""
    if rng.random() < 0.5:
        return second, INVERSE[scene.relation], scene.first
    return scene.first, scene.relation, second


def _pick(options: Sequence[T], rng: random.Random) -> T:
    return _at(options, rng.random())


def _at(options: Sequence[T], draw: float) -> T:
    """Returns the option that a draw from [0, 1) chooses."""
    return options[int(draw * len(options))]


def _as_typed(caption: str, rng: random.Random) -> str:
    """Gives half of the captions a capital letter, and half a full stop, as people do."""
    if rng.random() < 0.5:
        # Turkish capital of i; no English caption here begins with an i that is not "in".
        caption = ("İ" if caption.startswith("iki") else caption[0].upper()) + caption[1:]
    return caption + "." if rng.random() < 0.5 else caption
