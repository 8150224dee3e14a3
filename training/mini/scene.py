"""A scene of the miniature world: what the image shows, how it is drawn, and the scenes that differ little from it."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from PIL import Image, ImageChops, ImageDraw

from training.mini.pictograms import DARK, DRAWINGS, LIGHT, STYLES, Paint, Pen
from training.mini.words import COLOURS, FAMILIES, INVERSE, OBJECTS, PLACES, RELATIONS, SETTINGS

IMAGE_PIXELS = 64
SUPERSAMPLING = 3  # drawn larger and shrunk, for smooth edges
HELD_OUT_PERCENT = {"test": 12, "validation": 5}  # of all kinds of scenes
FAMILY_OF = {object_class: family for family in FAMILIES for object_class in family}


@dataclass(frozen=True)
class Thing:
    """One drawn object.

    Attributes:
        object_class: of OBJECTS.
        colour: of COLOURS.
        box: left, top, right and bottom of what is drawn of it, in pixels of the image; also of what another hides.
    """

    object_class: str
    colour: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Scene:
    """One or two coloured objects in a setting.

    Attributes:
        first: (object class, colour) of the only or first-named object.
        second: (object class, colour) of the other object, or None.
        relation: where `first` is, seen from `second`; empty without a second object.
        count: how many of `first` there are (1 where there is a second object).
        size: "small" or "large" for a single object, else empty.
        setting: the background.
        place: "left" or "right" for a small object, else empty.
        style: how it is drawn, of STYLES; captions do not tell.
    """

    first: tuple[str, str]
    second: tuple[str, str] | None
    relation: str
    count: int
    size: str
    setting: str
    place: str = ""
    style: str = "filled"

    @property
    def composition(self) -> str:
        """The scene without size, place, setting, style and order of naming."""
        if self.second is None:
            return f"{self.count} {self.first}"
        if self.relation in ("below", "right"):
            return f"{self.second} {INVERSE[self.relation]} {self.first}"
        return f"{self.first} {self.relation} {self.second}"

    @property
    def meaning(self) -> str:
        """All that a caption of the whole scene tells."""
        return f"{self.composition} {self.size} {self.place} {self.setting}"

    @property
    def kind(self) -> str:
        """The families of classes and the colours that the scene has, in no order: what decides its split.

        Scenes that differ in the colours' assignment, the relation, the count, the size, the setting, or in a class by
        one of like shape are of one kind.
        """
        items = [item for item in (self.first, self.second) if item is not None]
        families = sorted(FAMILY_OF[object_class][0] for object_class, _ in items)
        return " ".join(families + sorted(colour for _, colour in items))

    @property
    def objects(self) -> list[str]:
        """The object classes in the scene, each once."""
        return [item[0] for item in (self.first, self.second) if item is not None]

    @property
    def split(self) -> str:
        """The split of the scene's kind, which does not depend on the world's seed."""
        bucket = zlib.crc32(self.kind.encode()) % 100
        for split, percent in HELD_OUT_PERCENT.items():
            if bucket < percent:
                return split
            bucket -= percent
        return "train"


def random_scene(rng: random.Random) -> Scene:
    """Draws a random scene: three in ten have one object class (one to three objects), the others two."""
    first = (rng.choice(list(OBJECTS)), rng.choice(list(COLOURS)))
    setting = rng.choice(list(SETTINGS))
    if rng.random() < 0.3:
        count = rng.choice([1, 1, 2, 3])
        size = rng.choice(["small", "small", "large"]) if count == 1 else ""
        return Scene(first, None, "", count, size, setting, rng.choice(list(PLACES)) if size == "small" else "")
    second = first
    while second[0] == first[0]:
        second = (rng.choice(list(OBJECTS)), rng.choice(list(COLOURS)))
    return Scene(first, second, rng.choice(list(RELATIONS)), 1, "", setting)


def changes(scene: Scene, rng: random.Random) -> dict[str, Scene]:
    """Returns the scenes that differ from a scene in one attribute, by the name of what is changed.

    "binding" has the colours exchanged, "relation" is turned round, "counting" has another number, "position" another
    side, "fine" a class of like shape, "size" and "setting" others. What a scene does not have can't be changed.

    Args:
        scene: the scene to change.
        rng: draws the class, the number and the setting.
    """
    object_class, colour = scene.first
    changed = {"setting": replace(scene, setting=_other(SETTINGS, scene.setting, rng))}
    similar = [name for name in FAMILY_OF[object_class] if name not in scene.objects]
    if similar:
        changed["fine"] = replace(scene, first=(rng.choice(similar), colour))
    if scene.second is not None:
        changed["relation"] = replace(scene, relation=INVERSE[scene.relation])
        if colour != scene.second[1]:
            exchanged = ((object_class, scene.second[1]), (scene.second[0], colour))
            changed["binding"] = replace(scene, first=exchanged[0], second=exchanged[1])
        return changed
    if scene.count > 1:
        changed["counting"] = replace(scene, count={2: 3, 3: 2}[scene.count])
        return changed
    changed["counting"] = replace(scene, count=2, size="", place="")
    if scene.size == "small":
        changed["size"] = replace(scene, size="large", place="")
        changed["position"] = replace(scene, place=_other(PLACES, scene.place, rng))
    else:
        changed["size"] = replace(scene, size="small", place=rng.choice(list(PLACES)))
    return changed


def _other(names: Iterable[str], name: str, rng: random.Random) -> str:
    return rng.choice([other for other in names if other != name])


def shade(paint: Paint, rng: random.Random, spread: int = 14) -> Paint:
    """Returns a colour made a little lighter or darker.

    Args:
        paint: the colour.
        rng: draws the shift.
        spread: the largest shift of a channel (0 to 255).
    """
    shift = rng.randint(-spread, spread)
    red, green, blue = (min(255, max(0, channel + shift)) for channel in paint)
    return red, green, blue


def draw_scene(scene: Scene, rng: random.Random) -> Image.Image:
    """Draws a scene as an RGB image of 64 by 64 pixels, with jitter in position, size, rotation and shade.

    Args:
        scene: the scene to draw.
        rng: draws the jitter.
    """
    return _drawn(scene, rng, None)


def draw_with_things(scene: Scene, rng: random.Random) -> tuple[Image.Image, list[Thing]]:
    """Draws what `draw_scene` draws, and returns it with the objects and where they are.

    Args:
        scene: the scene to draw.
        rng: draws the jitter.
    """
    things: list[Thing] = []
    return _drawn(scene, rng, things), things


def _drawn(scene: Scene, rng: random.Random, things: list[Thing] | None) -> Image.Image:
    """Draws a scene, and adds its objects to a list, if there is one."""
    side = IMAGE_PIXELS * SUPERSAMPLING
    setting, style = SETTINGS[scene.setting], STYLES[scene.style]
    image = Image.new("RGB", (side, side), shade(setting.sky, rng))
    canvas = ImageDraw.Draw(image)
    horizon = side * rng.uniform(0.58, 0.74)
    canvas.rectangle([0, horizon, side, side], fill=shade(setting.ground, rng))
    outline = LIGHT if (scene.setting == "night") != style.inverted else DARK

    for (object_class, colour), centre, size in object_placements(scene, rng):
        pen = Pen(
            canvas,
            (centre[0] * side, centre[1] * side),
            size * side,
            rng.uniform(-0.14, 0.14),
            shade(COLOURS[colour].paint, rng),
            outline,
            style,
        )
        before = None if things is None else image.copy()
        DRAWINGS[object_class](pen)
        if things is not None and before is not None:
            changed = ImageChops.difference(before, image).getbbox() or (0, 0, 0, 0)
            left, top, right, bottom = (edge / SUPERSAMPLING for edge in changed)
            things.append(Thing(object_class, colour, (left, top, right, bottom)))
    return image.resize((IMAGE_PIXELS, IMAGE_PIXELS), Image.Resampling.LANCZOS)


def object_placements(scene: Scene, rng: random.Random) -> list[tuple[tuple[str, str], tuple[float, float], float]]:
    """Returns for each object ((object class, colour), centre, size), the latter two in fractions of the image's side.

    Args:
        scene: the scene to draw.
        rng: draws the jitter.
    """

    def jittered(x: float, y: float, spread: float) -> tuple[float, float]:
        return x + rng.uniform(-spread, spread), y + rng.uniform(-spread, spread)

    if scene.second is not None:
        dx, dy = RELATIONS[scene.relation].offset
        return [
            (scene.second, jittered(0.5 - dx / 2, 0.5 - dy / 2, 0.035), rng.uniform(0.38, 0.46)),
            (scene.first, jittered(0.5 + dx / 2, 0.5 + dy / 2, 0.035), rng.uniform(0.38, 0.46)),
        ]
    if scene.size == "small":
        x, y = PLACES[scene.place].x, 0.5
        return [(scene.first, (x + rng.uniform(-0.08, 0.08), y + rng.uniform(-0.2, 0.2)), rng.uniform(0.26, 0.36))]
    if scene.size == "large":
        return [(scene.first, jittered(0.5, 0.5, 0.06), rng.uniform(0.66, 0.82))]
    centres = {2: [(0.28, 0.5), (0.72, 0.5)], 3: [(0.5, 0.27), (0.27, 0.71), (0.73, 0.71)]}[scene.count]
    return [(scene.first, jittered(x, y, 0.035), rng.uniform(0.34, 0.42)) for x, y in centres]
