"""A scene of the miniature world: what the image shows, how it is drawn, and how people caption it.

Each caption function returns one wording; object names, synonyms, word order, case and full stop are drawn from `rng`.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass

from PIL import Image, ImageDraw

from training.mini.pictograms import DARK, DRAWINGS, LIGHT, Paint, Pen
from training.mini.words import COLOURS, COUNTS, INVERSE, OBJECTS, RELATIONS, SETTINGS, SIZES

IMAGE_PIXELS = 64
SUPERSAMPLING = 3  # drawn larger and shrunk, for smooth edges
HELD_OUT_PERCENT = {"test": 12, "validation": 5}  # of all compositions


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
    """

    first: tuple[str, str]
    second: tuple[str, str] | None
    relation: str
    count: int
    size: str
    setting: str

    @property
    def composition(self) -> str:
        """The scene without size, setting and order of naming; scenes of equal composition are in one split."""
        if self.second is None:
            return f"{self.count} {self.first}"
        if self.relation in ("below", "right"):
            return f"{self.second} {INVERSE[self.relation]} {self.first}"
        return f"{self.first} {self.relation} {self.second}"

    @property
    def objects(self) -> list[str]:
        """The object classes in the scene, each once."""
        return [item[0] for item in (self.first, self.second) if item is not None]

    @property
    def split(self) -> str:
        """The split of the composition, which does not depend on the world's seed."""
        bucket = zlib.crc32(self.composition.encode()) % 100
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
        count = rng.choice(list(COUNTS))
        size = rng.choice(["small", "large"]) if count == 1 else ""
        return Scene(first, None, "", count, size, setting)
    second = first
    while second[0] == first[0]:
        second = (rng.choice(list(OBJECTS)), rng.choice(list(COLOURS)))
    return Scene(first, second, rng.choice(list(RELATIONS)), 1, "", setting)


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
    side = IMAGE_PIXELS * SUPERSAMPLING
    setting = SETTINGS[scene.setting]
    image = Image.new("RGB", (side, side), shade(setting.sky, rng))
    canvas = ImageDraw.Draw(image)
    horizon = side * rng.uniform(0.58, 0.74)
    canvas.rectangle([0, horizon, side, side], fill=shade(setting.ground, rng))
    outline = LIGHT if scene.setting == "night" else DARK

    for (object_class, colour), centre, size in object_placements(scene, rng):
        pen = Pen(
            canvas,
            (centre[0] * side, centre[1] * side),
            size * side,
            rng.uniform(-0.14, 0.14),
            shade(COLOURS[colour].paint, rng),
            outline,
        )
        DRAWINGS[object_class](pen)
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
    if scene.count == 1:
        size = rng.uniform(0.26, 0.36) if scene.size == "small" else rng.uniform(0.66, 0.82)
        return [(scene.first, jittered(0.5, 0.5, 0.16 if scene.size == "small" else 0.06), size)]
    centres = {2: [(0.28, 0.5), (0.72, 0.5)], 3: [(0.5, 0.27), (0.27, 0.71), (0.73, 0.71)]}[scene.count]
    return [(scene.first, jittered(x, y, 0.035), rng.uniform(0.34, 0.42)) for x, y in centres]


def turkish_caption(scene: Scene, rng: random.Random) -> str:
    """Captions the whole scene in Turkish, as a person might type it.

    Args:
        scene: the scene that the caption describes.
        rng: draws the wording.
    """
    setting = rng.choice(SETTINGS[scene.setting].turkish)

    def coloured(item: tuple[str, str], genitive: bool = False, article: bool = True) -> str:
        noun = rng.choice(OBJECTS[item[0]].turkish)
        word = noun.genitive() if genitive else noun.word
        return f"{rng.choice(COLOURS[item[1]].turkish)} {'bir ' if article else ''}{word}"

    if scene.second is None:
        number = COUNTS[scene.count][1]
        if scene.count == 1:
            size = rng.choice(SIZES[scene.size][1])
            what = f"{size} {coloured(scene.first)}"
        else:
            what = f"{number} {coloured(scene.first, article=False)}"
        wordings = [f"{setting} {what}", f"{what}, {setting}", f"{setting} {what} var", f"{setting} duran {what}"]
    else:
        first, relation, second = _either_way(scene, scene.second, rng)
        where = rng.choice(RELATIONS[relation].turkish)
        owner = coloured(second, genitive=True, article=rng.random() < 0.5)
        what = coloured(first)
        wordings = [
            f"{setting} {owner} {where} {what}",
            f"{setting} {owner} {where} {what} var",
            f"{what}, {owner} {where}, {setting}",
            f"{owner} {where} {what}, {setting}",
            f"{setting}, {what} {owner} {where} duruyor",
            f"{owner} {where} {what}",
        ]
    return _as_typed(rng.choice(wordings), rng)


def short_turkish_caption(scene: Scene, rng: random.Random) -> str:
    """Captions the objects, or one of them, in Turkish, without colour, size and setting.

    Args:
        scene: the scene that the caption describes.
        rng: draws the wording.
    """
    number = COUNTS[scene.count][1]
    if scene.second is None:
        return _as_typed(f"{number} {rng.choice(OBJECTS[scene.first[0]].turkish).word}", rng)
    first, relation, second = _either_way(scene, scene.second, rng)
    noun, owner = (rng.choice(OBJECTS[item[0]].turkish) for item in (first, second))
    where = rng.choice(RELATIONS[relation].turkish)
    wordings = [
        f"{owner.genitive()} {where} bir {noun.word}",
        f"bir {owner.genitive()} {where} {noun.word}",
        f"{noun.word} ve {owner.word}",
        f"bir {noun.word}",
    ]
    return _as_typed(rng.choice(wordings), rng)


def english_caption(scene: Scene, rng: random.Random) -> str:
    """Captions the whole scene in English, for the image model's own text tower.

    Args:
        scene: the scene that the caption describes.
        rng: draws the wording.
    """
    setting = rng.choice(SETTINGS[scene.setting].english)

    def coloured(item: tuple[str, str]) -> str:
        return _with_article(f"{COLOURS[item[1]].english} {rng.choice(OBJECTS[item[0]].english)}")

    if scene.second is None:
        colour, object_class = COLOURS[scene.first[1]].english, OBJECTS[scene.first[0]]
        if scene.count == 1:
            what = f"a {SIZES[scene.size][0]} {colour} {object_class.english[0]}"
        else:
            what = f"{COUNTS[scene.count][0]} {colour} {object_class.plural}"
        wordings = [f"{what} {setting}", f"{setting}, {what}", f"there are {what} {setting}"]
        if scene.count == 1:
            wordings[2] = f"there is {what} {setting}"
    else:
        first, relation, second = _either_way(scene, scene.second, rng)
        where = rng.choice(RELATIONS[relation].english)
        what = f"{coloured(first)} {where} {coloured(second)}"
        wordings = [f"{what} {setting}", f"{setting}, {what}", f"there is {what} {setting}", what]
    return _as_typed(rng.choice(wordings), rng)


def short_english_caption(scene: Scene, rng: random.Random) -> str:
    """Captions the objects, or one of them, in English.

    Args:
        scene: the scene that the caption describes.
        rng: draws the wording.
    """
    if scene.second is None:
        only = OBJECTS[scene.first[0]]
        what = _with_article(only.english[0]) if scene.count == 1 else f"{COUNTS[scene.count][0]} {only.plural}"
        return _as_typed(what, rng)
    first, relation, second = _either_way(scene, scene.second, rng)
    what, other = (_with_article(rng.choice(OBJECTS[item[0]].english)) for item in (first, second))
    where = rng.choice(RELATIONS[relation].english)
    wordings = [
        f"{what} {where} {other}",
        f"{other} {rng.choice(RELATIONS[INVERSE[relation]].english)} {what}",
        f"{what} and {other}",
        what,
    ]
    return _as_typed(rng.choice(wordings), rng)


def colour_caption(scene: Scene, rng: random.Random) -> str:
    """Captions the colours, or one of them, and the setting in Turkish, without object names.

    Args:
        scene: the scene that the caption describes.
        rng: draws the wording.
    """
    setting = rng.choice(SETTINGS[scene.setting].turkish)
    colours = [rng.choice(COLOURS[name].turkish) for name in _some_colours(scene, rng)]
    if scene.count > 1:
        what = f"{COUNTS[scene.count][1]} {colours[0]} şey"
    else:
        what = " ve ".join(f"{colour} bir şey" for colour in colours)
        what += " ve başka bir şey" if scene.second is not None and len(colours) == 1 else ""
    return _as_typed(rng.choice([f"{setting} {what}", f"{what}, {setting}", f"{setting} {what} var"]), rng)


def english_colour_caption(scene: Scene, rng: random.Random) -> str:
    """Captions the colours, or one of them, and the setting in English, without object names.

    Args:
        scene: the scene that the caption describes.
        rng: draws the wording.
    """
    setting = rng.choice(SETTINGS[scene.setting].english)
    colours = [COLOURS[name].english for name in _some_colours(scene, rng)]
    if scene.count > 1:
        what = f"{COUNTS[scene.count][0]} {colours[0]} things"
    else:
        what = " and ".join(f"something {colour}" for colour in colours)
        what += " and something else" if scene.second is not None and len(colours) == 1 else ""
    return _as_typed(rng.choice([f"{what} {setting}", f"{setting}, {what}"]), rng)


def _some_colours(scene: Scene, rng: random.Random) -> list[str]:
    """Returns the scene's colours in random order; half the time only the first of them."""
    names = [item[1] for item in (scene.first, scene.second) if item is not None]
    rng.shuffle(names)
    return names[:1] if rng.random() < 0.5 else names


def _either_way(
    scene: Scene, second: tuple[str, str], rng: random.Random
) -> tuple[tuple[str, str], str, tuple[str, str]]:
    """Returns first, relation and second; half the time with the objects swapped and the relation inverted."""
    if rng.random() < 0.5:
        return second, INVERSE[scene.relation], scene.first
    return scene.first, scene.relation, second


def _with_article(words: str) -> str:
    """Returns English words with their indefinite article."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _as_typed(caption: str, rng: random.Random) -> str:
    """Gives half of the captions a capital letter, and half a full stop, as people do."""
    if rng.random() < 0.5:
        # Turkish capital of i; no English caption here begins with an i that is not "in".
        caption = ("İ" if caption.startswith("iki") else caption[0].upper()) + caption[1:]
    return caption + "." if rng.random() < 0.5 else caption
