"""Points at the things of the miniature world, whose places are known, and finds several in one image.

`python tests/helpers/pointing_in_the_world.py runs/demo` prints the figures of a run; a slow test holds them.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from training.mini.scene import IMAGE_PIXELS, Scene, Thing
from training.mini.words import COLOURS, OBJECTS
from training.mini.world import SMALL_CLIP, images_with_things
from turkish_clip.dual_encoder import load_dual_encoder
from turkish_clip.regions import FoundThing, Region, ThingFinder, Windows, intersection_over_union, windows_of
from turkish_clip.zero_shot import ZeroShotClassifier

if TYPE_CHECKING:
    from turkish_clip.dual_encoder import DualEncoder
    from turkish_clip.metrics import Vectors

TURKISH_NOUNS = {name: of.turkish[0].word for name, of in OBJECTS.items()}
TURKISH_LABELS = {of.turkish[0].word: [noun.word for noun in of.turkish] for of in OBJECTS.values()}
ENGLISH_NOUNS = {name: of.english[0] for name, of in OBJECTS.items()}


@dataclass
class Seen:
    """An image of the world with its windows."""

    scene: Scene
    things: list[Thing]
    windows: Windows

    @property
    def kind(self) -> str:
        """What is in it: two things, several of a class, or one that is small or large."""
        return "two" if self.scene.second is not None else (self.scene.size or "several")


@dataclass
class Pointed:
    """Fractions of texts, by the kind of image and for all.

    Attributes:
        right: the point lies in the box of a thing that the text names.
        centred: the middle of the region's box does.
        overlap: mean intersection over union of the region's box and the best of those boxes.
        best_window: the middle of the window with the largest cosine lies in such a box.
        by_chance: a random point of the image does.
        middle: the middle of the image does.
    """

    right: dict[str, float] = field(default_factory=dict)
    centred: dict[str, float] = field(default_factory=dict)
    overlap: dict[str, float] = field(default_factory=dict)
    best_window: dict[str, float] = field(default_factory=dict)
    by_chance: dict[str, float] = field(default_factory=dict)
    middle: dict[str, float] = field(default_factory=dict)


def look(encoder: DualEncoder, split: str, count: int, every: int = 1) -> list[Seen]:
    """Returns each so many-th image of a split of `count` images, with its windows."""
    images = images_with_things(split, count)
    return [
        Seen(scene, things, windows_of(encoder, image, batch_size=64))
        for number, (scene, image, things) in enumerate(images)
        if number % every == 0
    ]


def in_box(point: tuple[float, float], box: Sequence[float]) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


def centre(box: Sequence[float]) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def named(thing: Thing, nouns: dict[str, str], *, with_colour: bool) -> str:
    """Returns a text that names a thing: bir araba, or mavi bir araba (a car, a blue car)."""
    english = nouns is ENGLISH_NOUNS
    if not with_colour:
        return f"{'a' if english else 'bir'} {nouns[thing.object_class]}"
    colour = COLOURS[thing.colour]
    return f"{'a ' + colour.english if english else colour.turkish[0] + ' bir'} {nouns[thing.object_class]}"


def points(seen: Sequence[Seen], encoder: DualEncoder, nouns: dict[str, str], *, with_colour: bool) -> Pointed:
    """Points once at each class of things in each image."""
    texts = sorted({named(thing, nouns, with_colour=with_colour) for one in seen for thing in one.things})
    vectors: dict[str, Vectors] = dict(zip(texts, encoder.encode_texts(texts, warn=False)))
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in seen:
        for thing in {thing.object_class: thing for thing in one.things}.values():
            vector = vectors[named(thing, nouns, with_colour=with_colour)]
            boxes = [other.box for other in one.things if other.object_class == thing.object_class]
            region = one.windows.best(vector)[0]
            window = one.windows.boxes[int((one.windows.vectors @ vector).argmax())]
            values = {
                "right": _hits(region.point, boxes),
                "centred": _hits(centre(region.box), boxes),
                "overlap": max(intersection_over_union(region.box, box) for box in boxes),
                "best_window": _hits(centre(window), boxes),
                "by_chance": sum((box[2] - box[0]) * (box[3] - box[1]) for box in boxes) / IMAGE_PIXELS**2,
                "middle": _hits((IMAGE_PIXELS / 2, IMAGE_PIXELS / 2), boxes),
            }
            for name, value in values.items():
                for kind in (one.kind, "all"):
                    found[name][kind].append(value)
    return Pointed(**{name: {kind: float(np.mean(of)) for kind, of in by.items()} for name, by in found.items()})


def _hits(point: tuple[float, float], boxes: Sequence[Sequence[float]]) -> float:
    return float(any(in_box(point, box) for box in boxes))


@dataclass
class Found:
    """How many of the things found in some images are right, and how many of those that are there are found."""

    precision: float
    recall: float


def matches(found: Sequence[FoundThing], things: Sequence[Thing], nouns: dict[str, str], least: float = 0.0) -> int:
    """Returns how many found things are right: label and place are those of a thing that no other one is matched with.

    Args:
        found: the most certain first.
        things: that are there.
        nouns: class → label.
        least: 0: the point lies in the thing's box; else their boxes' least intersection over union.
    """
    left, count = list(things), 0
    for one in found:
        for thing in left:
            if one.label == nouns[thing.object_class] and _is_at(one, thing, least):
                left.remove(thing)
                count += 1
                break
    return count


def _is_at(one: Region, thing: Thing, least: float) -> bool:
    if least:
        return intersection_over_union(one.box, thing.box) >= least
    return in_box(one.point, thing.box)


def finds(
    seen: Sequence[Seen], found: Sequence[Sequence[FoundThing]], nouns: dict[str, str], least: float = 0.0
) -> tuple[Found, Found]:
    """Returns what is found in the images, and by chance: what is found in one of half a gallery away."""

    def figures(shift: int) -> Found:
        right = sum(
            matches(found[(number + shift) % len(seen)], one.things, nouns, least) for number, one in enumerate(seen)
        )
        total, there = sum(map(len, found)), sum(len(one.things) for one in seen)
        return Found(right / max(1, total), right / there)

    return figures(0), figures(len(seen) // 2)


def main(run: str, split: str = "test", count: str = "600") -> None:
    encoder = load_dual_encoder(run, str(SMALL_CLIP), device="cpu")
    seen = look(encoder, split, int(count))
    for with_colour in (False, True):
        print("mavi bir araba" if with_colour else "bir araba")
        for name, by in vars(points(seen, encoder, TURKISH_NOUNS, with_colour=with_colour)).items():
            print(f"  {name:<12}", "  ".join(f"{kind} {value:.3f}" for kind, value in sorted(by.items())))
    finder = ThingFinder(ZeroShotClassifier(encoder, TURKISH_LABELS))
    found = [finder.find_in(one.windows) for one in seen]
    groups: dict[str, Callable[[Seen], bool]] = {
        "two things": lambda one: one.kind == "two",
        "two things, as training draws them": lambda one: one.kind == "two" and one.scene.style == "filled",
        "several of a class": lambda one: one.kind == "several",
        "all": lambda one: True,
    }
    for name, belongs in groups.items():
        of = [(one, things) for one, things in zip(seen, found) if belongs(one)]
        for least in (0.0, 0.3, 0.5):
            figures, chance = finds([one for one, _ in of], [things for _, things in of], TURKISH_NOUNS, least)
            print(
                f"{name}; {f'overlap {least}' if least else 'point'}: precision {figures.precision:.3f} "
                f"recall {figures.recall:.3f}; by chance {chance.precision:.3f} {chance.recall:.3f}; {len(of)} images"
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
