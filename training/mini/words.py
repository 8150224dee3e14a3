"""The Turkish and English words of the miniature world: object classes, colours, numbers, settings and relations."""

from __future__ import annotations

from dataclasses import dataclass

from training.mini.pictograms import Paint
from training.mini.turkish import Noun


@dataclass(frozen=True)
class ObjectClass:
    """The names of one pictogram: in English, the English plural, and in Turkish."""

    english: tuple[str, ...]
    plural: str
    turkish: tuple[Noun, ...]


@dataclass(frozen=True)
class Colour:
    paint: Paint
    english: str
    turkish: tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    """A background: sky above, ground below, and the phrases that name it."""

    sky: Paint
    ground: Paint
    english: tuple[str, ...]
    turkish: tuple[str, ...]


@dataclass(frozen=True)
class Relation:
    """Where the first object is, seen from the second; `offset` in fractions of the image (x right, y down)."""

    offset: tuple[float, float]
    english: tuple[str, ...]
    turkish: tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """Where in the image a small object lies; `x` in fractions of the image's width."""

    x: float
    english: str
    turkish: tuple[str, ...]


OBJECTS = {
    "house": ObjectClass(("house",), "houses", (Noun("ev"),)),
    "tree": ObjectClass(("tree",), "trees", (Noun("ağaç", softens=True),)),
    "sun": ObjectClass(("sun",), "suns", (Noun("güneş"),)),
    "moon": ObjectClass(("moon",), "moons", (Noun("ay"), Noun("hilal", harmony="i"))),
    "car": ObjectClass(("car",), "cars", (Noun("araba"), Noun("otomobil"))),
    "boat": ObjectClass(("boat",), "boats", (Noun("tekne"), Noun("kayık", softens=True))),
    "fish": ObjectClass(("fish",), "fish", (Noun("balık", softens=True),)),
    "flower": ObjectClass(("flower",), "flowers", (Noun("çiçek", softens=True),)),
    "bird": ObjectClass(("bird",), "birds", (Noun("kuş"),)),
    "cat": ObjectClass(("cat",), "cats", (Noun("kedi"),)),
    "star": ObjectClass(("star",), "stars", (Noun("yıldız"),)),
    "heart": ObjectClass(("heart",), "hearts", (Noun("kalp", softens=True, harmony="i"), Noun("yürek", softens=True))),
    "ball": ObjectClass(("ball",), "balls", (Noun("top"),)),
    "cup": ObjectClass(("cup",), "cups", (Noun("fincan"), Noun("bardak", softens=True))),
    "umbrella": ObjectClass(("umbrella",), "umbrellas", (Noun("şemsiye"),)),
    "mushroom": ObjectClass(("mushroom",), "mushrooms", (Noun("mantar"),)),
    "apple": ObjectClass(("apple",), "apples", (Noun("elma"),)),
    "flag": ObjectClass(("flag",), "flags", (Noun("bayrak", softens=True),)),
}

COLOURS = {
    "red": Colour((214, 40, 40), "red", ("kırmızı", "al")),
    "orange": Colour((245, 140, 30), "orange", ("turuncu",)),
    "yellow": Colour((250, 215, 50), "yellow", ("sarı",)),
    "green": Colour((40, 150, 60), "green", ("yeşil",)),
    "blue": Colour((45, 95, 215), "blue", ("mavi",)),
    "purple": Colour((130, 60, 170), "purple", ("mor",)),
    "pink": Colour((245, 150, 195), "pink", ("pembe",)),
    "brown": Colour((125, 75, 40), "brown", ("kahverengi",)),
    "white": Colour((250, 250, 250), "white", ("beyaz",)),
}

SETTINGS = {
    "day": Setting((170, 215, 245), (215, 200, 165), ("by day", "in daylight"), ("gündüz", "gündüz vakti")),
    "night": Setting((22, 26, 58), (48, 44, 66), ("at night", "in the dark"), ("gece", "geceleyin")),
    "sea": Setting(
        (195, 228, 240),
        (20, 105, 150),
        ("at sea", "on the water"),
        (Noun("deniz").locative(), f"açık {Noun('deniz').locative()}"),
    ),
    "grass": Setting(
        (210, 236, 225),
        (120, 190, 85),
        ("on the grass", "in a meadow"),
        (Noun("çimen").locative(), Noun("çayır").locative()),
    ),
    "snow": Setting(
        (185, 192, 205), (238, 242, 248), ("in the snow", "on snow"), (Noun("kar").locative(), "karlı yerde")
    ),
}

RELATIONS = {
    "above": Relation((0.0, -0.46), ("above", "over"), ("üstünde", "üzerinde")),
    "below": Relation((0.0, 0.46), ("below", "under"), ("altında",)),
    "left": Relation((-0.46, 0.0), ("to the left of", "left of"), ("solunda", "sol tarafında")),
    "right": Relation((0.46, 0.0), ("to the right of", "right of"), ("sağında", "sağ tarafında")),
}

FAMILIES = (
    ("sun", "star", "flower"),
    ("moon", "ball"),
    ("heart", "apple"),
    ("umbrella", "mushroom"),
    ("car", "boat"),
    ("fish", "bird"),
    ("tree", "flag"),
    ("house", "cat", "cup"),
)  # classes of like shape; what is drawn of one family and colour is in one split

PLACES = {
    "left": Place(0.27, "on the left", ("solda", "sol tarafta")),
    "right": Place(0.73, "on the right", ("sağda", "sağ tarafta")),
}

INVERSE = {"above": "below", "below": "above", "left": "right", "right": "left"}

COUNTS = {1: ("a", "bir"), 2: ("two", "iki"), 3: ("three", "üç")}

SIZES = {"small": ("small", ("küçük", "ufak")), "large": ("large", ("büyük", "kocaman"))}
