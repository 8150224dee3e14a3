"""Asks a model of the miniature world as people ask: for what is not there, and for this but not that.

`python tests/helpers/asking_the_world.py runs/demo` prints the figures of a run; a slow test holds them.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from training.mini.captions import turkish_caption
from training.mini.scene import Scene, draw_scene
from training.mini.words import COLOURS, OBJECTS, SETTINGS
from training.mini.world import scenes_of
from turkish_clip.cutoff import Cutoff
from turkish_clip.dual_encoder import load_dual_encoder
from turkish_clip.search import Query
from turkish_clip.search.composition import composed

if TYPE_CHECKING:
    from turkish_clip.dual_encoder import DualEncoder
    from turkish_clip.metrics import Vectors

IMAGES, SETS, DRAWS, ASKED = 600, 150, 6, 60


@dataclass(frozen=True)
class Asked:
    """A query of the cut-off's test.

    Attributes:
        text: the words.
        objects: the object classes that they name.
        is_right: whether a scene shows what they say.
    """

    text: str
    objects: frozenset[str]
    is_right: Callable[[Scene], bool]


def _items(scene: Scene) -> list[tuple[str, str]]:
    return [item for item in (scene.first, scene.second) if item is not None]


def queries(scenes: Sequence[Scene]) -> dict[str, list[Asked]]:
    """Returns queries by their kind: the name of an object by itself, with one attribute, and whole captions."""
    nouns = [(name, noun.word) for name, of in OBJECTS.items() for noun in of.turkish]
    rng = random.Random(1)
    return {
        "araba": [Asked(word, frozenset([name]), lambda s, name=name: name in s.objects) for name, word in nouns],
        "bir araba": [
            Asked(f"bir {word}", frozenset([name]), lambda s, name=name: name in s.objects) for name, word in nouns
        ],
        "mavi bir araba": [
            Asked(f"{of.turkish[0]} bir {word}", frozenset([name]), lambda s, item=(name, colour): item in _items(s))
            for name, word in nouns
            for colour, of in COLOURS.items()
        ],
        "gece bir araba": [
            Asked(
                f"{of.turkish[0]} bir {word}",
                frozenset([name]),
                lambda s, name=name, setting=setting: name in s.objects and s.setting == setting,
            )
            for name, word in nouns
            for setting, of in SETTINGS.items()
        ],
        "a caption": [
            Asked(
                turkish_caption(scene, rng, complete=True),
                frozenset(scene.objects),
                lambda s, meaning=scene.meaning: s.meaning == meaning,
            )
            for scene in scenes
        ],
    }


def attributes() -> dict[str, list[Asked]]:
    """Returns queries that name nothing but a colour or a setting, which are there in any case."""
    return {
        "kırmızı": [
            Asked(of.turkish[0], frozenset(), lambda s, colour=colour: colour in {c for _, c in _items(s)})
            for colour, of in COLOURS.items()
        ],
        "gece": [
            Asked(word, frozenset(), lambda s, setting=setting: s.setting == setting)
            for setting, of in SETTINGS.items()
            for word in of.turkish
        ],
    }


@dataclass
class Tally:
    """How many queries there were, and what became of them."""

    absent: int = 0
    said: int = 0  # of those, that nothing fits was said
    present: int = 0
    right: int = 0  # of those, have a right first answer
    lost: int = 0  # of those, that nothing fits was said


def cut_off_figures(encoder: DualEncoder, *, alone: bool = False) -> dict[str, Tally]:
    """Counts, by the kind of query, with half of the object classes gone from the test images, drawn several times.

    Args:
        encoder: with a text bank.
        alone: ask for attributes alone instead.
    """
    scenes = scenes_of("test", IMAGES, 0)
    vectors = _vectors_of(encoder, scenes)
    asked = attributes() if alone else queries(scenes)
    texts = sorted({one.text for kind in asked.values() for one in kind})
    vector_of = dict(zip(texts, encoder.encode_texts(texts, warn=False)))
    if encoder.bank is None:
        raise ValueError("expected a model with a text bank, got one without")
    cutoff, rng = Cutoff(encoder.bank), random.Random(0)
    tallies = {kind: Tally() for kind in asked}
    for _ in range(DRAWS):
        gone = set(rng.sample(list(OBJECTS), len(OBJECTS) // 2))
        kept = [number for number, scene in enumerate(scenes) if not gone & set(scene.objects)]
        for kind, all_of_kind in asked.items():
            for one in rng.sample(all_of_kind, min(ASKED, len(all_of_kind))):
                _count(tallies[kind], one, gone, [scenes[i] for i in kept], vectors[kept], vector_of[one.text], cutoff)
    return tallies


def _count(
    tally: Tally, one: Asked, gone: set[str], scenes: list[Scene], vectors: Vectors, query: Vectors, cutoff: Cutoff
) -> None:
    cosines = vectors @ query
    best = np.argsort(-cosines)[:10]
    nothing = not cutoff.fits(query, vectors[best]).any()
    if one.objects and one.objects <= gone:
        tally.absent += 1
        tally.said += nothing
    elif not one.objects & gone and any(map(one.is_right, scenes)):
        tally.present += 1
        right = one.is_right(scenes[int(best[0])])
        tally.right += right
        tally.lost += right and nothing


@dataclass(frozen=True)
class MinimalSet:
    """A query, and images of which the first alone is right."""

    query: Query
    like: Scene | None
    scenes: list[Scene]


def minimal_sets() -> Iterator[tuple[str, MinimalSet]]:
    """Yields minimal sets with their kind."""
    rng = random.Random(0)

    def one(object_class: str, colour: str, setting: str) -> Scene:
        return Scene((object_class, colour), None, "", 1, "large", setting)

    def two(first: tuple[str, str], second: tuple[str, str], setting: str) -> Scene:
        return Scene(first, second, rng.choice(["above", "left"]), 1, "", setting)

    for _ in range(SETS):
        a, b, other = rng.sample(list(OBJECTS), 3)
        red, blue, green = rng.sample(list(COLOURS), 3)
        day, night = rng.sample(list(SETTINGS), 2)
        thing, second = OBJECTS[a].turkish[0].word, OBJECTS[b].turkish[0].word
        colour, blue_word = COLOURS[red].turkish[0], COLOURS[blue].turkish[0]
        dark = SETTINGS[night].turkish[0]
        by_colour = [one(a, blue, day), one(a, red, day), one(b, blue, day), one(b, red, day)]
        by_setting = [one(a, red, day), one(a, red, night), one(b, red, day), one(b, red, night)]
        at_night = [by_setting[place] for place in (1, 0, 3, 2)]
        with_other = two((a, red), (other, blue), day)
        both = two((a, red), (b, blue), day)
        yield "araba --not kırmızı", MinimalSet(Query(thing, without=[colour]), None, by_colour)
        yield "araba --not gece", MinimalSet(Query(thing, without=[dark]), None, by_setting)
        yield (
            "araba --not ağaç",
            MinimalSet(
                Query(thing, without=[second]),
                None,
                [with_other, both, two((other, red), (b, blue), day), one(other, blue, day)],
            ),
        )
        yield (
            "araba --not kırmızı --not gece",
            MinimalSet(
                Query(thing, without=[colour, dark]),
                None,
                [one(a, blue, day), one(a, red, day), one(a, blue, night), one(a, red, night), one(b, blue, day)],
            ),
        )
        yield "araba --and gece", MinimalSet(Query(thing, dark), None, at_night)
        yield "araba --and mavi", MinimalSet(Query(thing, blue_word), None, by_colour)
        yield (
            "gece --image",
            MinimalSet(
                Query(dark, image="like"),
                one(a, red, day),
                [one(a, red, night), one(a, red, day), one(b, blue, night), one(b, red, day), one(a, blue, day)],
            ),
        )
        yield "mavi --image", MinimalSet(Query(blue_word, image="like"), one(a, red, day), by_colour)
        yield (
            "--image --not kırmızı",
            MinimalSet(Query(without=[colour], image="like"), one(a, red, day), by_colour),
        )
        yield (
            "--image --not ağaç",
            MinimalSet(
                Query(without=[second], image="like"),
                both,
                [one(a, red, day), both, one(other, green, night), one(b, blue, day)],
            ),
        )


def composition_figures(encoder: DualEncoder) -> dict[str, tuple[float, float]]:
    """Returns for each kind of minimal set how often the right image comes first, and how often by chance."""
    sets = list(minimal_sets())
    texts = sorted({text for _, one in sets for text in one.query.texts})
    vector_of = dict(zip(texts, encoder.encode_texts(texts, warn=False)))
    scenes = [scene for _, one in sets for scene in [*one.scenes, *([one.like] if one.like else [])]]
    vectors = iter(_vectors_of(encoder, scenes))
    first: dict[str, list[bool]] = {}
    chance: dict[str, float] = {}
    for kind, one in sets:
        images = np.stack([next(vectors) for _ in one.scenes])
        parts = [vector_of[text] for text in one.query.texts] + ([next(vectors)] if one.like else [])
        scores = images @ composed(one.query, np.stack(parts)).vector
        first.setdefault(kind, []).append(bool(scores[0] > scores[1:].max()))
        chance[kind] = 1 / len(images)
    return {kind: (float(np.mean(hits)), chance[kind]) for kind, hits in first.items()}


def _vectors_of(encoder: DualEncoder, scenes: Sequence[Scene]) -> Vectors:
    drawn = (draw_scene(scene, random.Random(f"asking {number}")) for number, scene in enumerate(scenes))
    return np.concatenate([batch.vectors for batch in encoder.embed_images(drawn)])


def main() -> None:
    """Prints the figures of a run."""
    encoder = load_dual_encoder(sys.argv[1], device="cpu")
    for alone in (False, True):
        tallies = cut_off_figures(encoder, alone=alone)
        whole = Tally(*(sum(getattr(tally, name) for tally in tallies.values()) for name in Tally.__annotations__))
        for kind, tally in [*tallies.items(), ("all", whole)]:
            said = f"{tally.said / tally.absent:.3f}" if tally.absent else "–"
            print(
                f"{kind:<16} not there {tally.absent:4}: said {said}; there {tally.present:4}: first right "
                f"{tally.right / tally.present:.3f}, lost {tally.lost / tally.present:.3f}"
            )
    for kind, (found, chance) in composition_figures(encoder).items():
        print(f"{kind:<32} {found:.3f}  (chance {chance:.3f})")


if __name__ == "__main__":
    main()
