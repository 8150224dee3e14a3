"""Writes the miniature world as a folder of images with metadata.jsonl, which is read like any other source."""

from __future__ import annotations

import json
import random
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from training.mini.captions import (
    colour_caption,
    english_caption,
    english_colour_caption,
    short_english_caption,
    short_turkish_caption,
    turkish_caption,
)
from training.mini.negatives import colour_claims_of, false_caption, probes
from training.mini.scene import Scene, changes, draw_scene, random_scene
from training.mini.words import INVERSE, OBJECTS
from turkish_clip.atomic import atomic_folder

SMALLEST_GROUP = 4
MOST_TRIES = 5000
SMALL_CLIP = Path(__file__).parent / "clip"
EDITION = 7  # of drawings and wordings: a folder of another edition is drawn again
FILES = re.compile(r"(train|validation|test)/\d{5}\.png|metadata\.jsonl|world\.json")  # of a world
CAPTIONS_PER_IMAGE = 5


@dataclass(frozen=True)
class Mixture:
    """How many captions of each kind a training image has: of the whole scene, of objects alone, of colours alone."""

    whole: int
    short: int
    coloured: int


# Without short captions, a model learns colours and never shapes; without those of colours, it does not learn what a
# colour's name alone means. The shorter half of the English ones are those of the objects, the longer half those of the
# whole scene, which matters to `pretrain`. Whose a colour is can be learnt from whole scenes alone: a student that
# meets frozen image embeddings, whose shapes are learnt already, needs more of them.
ENGLISH, TURKISH = Mixture(2, 2, 1), Mixture(4, 1, 1)
NEGATED = 0.15  # fraction of the short captions that say which colour an object does not have
HELD_OUT_STYLES = {"bold": 0.1, "contour": 0.1}  # fractions of the test images


@dataclass(frozen=True)
class WorldSize:
    """The number of images in each split, and the seed that they are drawn with."""

    train: int = 8000
    validation: int = 300
    test: int = 600
    seed: int = 0


def write_world(folder: Path, size: WorldSize) -> Path:
    """Draws the images, writes them with metadata.jsonl, and returns the folder.

    The columns are `file_name`, `image_id`, `split`, and the lists `captions` (Turkish), `captions_en` (English) and
    `labels` (the object classes in Turkish). No image of train shows a scene of a kind (`Scene.kind`) that validation
    or test shows. Those two are galleries of near neighbours: most images differ from others in one attribute
    alone, and each caption is true of one image. Their lists `negatives` (records of `probes`) and `slices` say what
    is to be measured apart. Some captions of train name only objects or only colours; its list
    `negative_captions_en` has in the place of each English caption one that is false for the image, or an empty text;
    its list `tags` says what belongs to what ("red car", "car above").

    Args:
        folder: the folder; one of the same edition, size and seed is left as it is, another is replaced.
        size: the number of images in each split, and the seed.
    """
    marker = folder / "world.json"
    described = {"edition": EDITION, **asdict(size)}
    if marker.is_file() and json.loads(marker.read_text(encoding="utf-8")) == described:
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder, marker.name, FILES) as partial:
        lines = []
        for split in ("train", "validation", "test"):
            (partial / split).mkdir()
            for number, scene in enumerate(_scenes(split, getattr(size, split), size.seed)):
                key, name = f"{size.seed} {split} {number}", f"{split}/{number:05d}.png"
                draw_scene(scene, random.Random(key)).save(partial / name, compress_level=1)
                row = _row(name, split, scene, random.Random(f"{key} captions"))
                lines.append(json.dumps(row, ensure_ascii=False))
        (partial / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (partial / marker.name).write_text(json.dumps(described), encoding="utf-8")
    return folder


def _scenes(split: str, count: int, seed: int) -> list[Scene]:
    rng = random.Random(f"{seed} {split}")
    if split != "train":
        return _gallery(split, count, rng)
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = random_scene(rng)
        if scene.split == split:
            scenes.append(scene)
    return scenes


def _gallery(split: str, count: int, rng: random.Random) -> list[Scene]:
    """Returns distinct scenes in groups: one, and those that differ from it in one attribute; a group has one style.

    In every fourth group it is one object class, in every eighth a small object, as long as there are such.
    """
    seen: set[str] = set()
    scenes: list[Scene] = []
    group, tries = 0, 0
    while len(scenes) < count:
        scene, tries = random_scene(rng), tries + 1
        wanted = (group % 4 == 0, group % 8 == 0) if tries < MOST_TRIES else (False, False)
        if scene.split != split or (scene.second is None, scene.size == "small") != wanted:
            continue
        if scene.second is not None and scene.first[1] == scene.second[1]:
            continue  # the colours could not be exchanged
        members = [scene, *changes(scene, rng).values()]
        if len(members) < SMALLEST_GROUP or any(member.meaning in seen for member in members):
            continue
        seen.update(member.meaning for member in members)
        style = _style(len(scenes) / count) if split == "test" else "filled"
        scenes += [replace(member, style=style) for member in members]
        group, tries = group + 1, 0
    return scenes[:count]


def _style(progress: float) -> str:
    """Returns the style of the drawings at a fraction of the gallery: the held-out ones are its last."""
    for style, fraction in HELD_OUT_STYLES.items():
        if progress >= 1 - fraction:
            return style
        progress += fraction
    return "filled"


def _row(name: str, split: str, scene: Scene, rng: random.Random) -> dict[str, object]:
    row: dict[str, object] = {
        "file_name": name,
        "image_id": name.removesuffix(".png").replace("/", "-"),
        "split": split,
    }
    if split == "train":
        row |= {**_training_captions(scene, rng), "tags": tags(scene)}
    else:
        for column, caption in (("captions", turkish_caption), ("captions_en", english_caption)):
            row[column] = list(dict.fromkeys(caption(scene, rng, complete=True) for _ in range(CAPTIONS_PER_IMAGE)))
        row["negatives"] = probes(scene, rng)
        row["slices"] = [f"style: {scene.style}", _objects(scene)]
    return row | {"labels": [OBJECTS[object_class].turkish[0].word for object_class in scene.objects]}


def tags(scene: Scene) -> list[str]:
    """Returns what belongs to what: of each object its colour, and where it is or how many there are."""
    object_class, colour = scene.first
    if scene.second is None:
        return [f"{colour} {object_class}", f"{object_class} {scene.place or scene.size or scene.count}"]
    where = {object_class: scene.relation, scene.second[0]: INVERSE[scene.relation]}
    places = [f"{name} {relation}" for name, relation in where.items()]
    return [f"{colour} {object_class}", f"{scene.second[1]} {scene.second[0]}", *places]


def _objects(scene: Scene) -> str:
    if scene.second is not None:
        return "objects: of two classes"
    return "objects: one" if scene.count == 1 else "objects: several of a class"


def _training_captions(scene: Scene, rng: random.Random) -> dict[str, list[str]]:
    """Returns the columns of captions, Turkish and English, and of false captions, English."""
    english = _true_and_false(scene, ENGLISH, rng, english=True)
    english |= {english_colour_caption(scene, rng): "" for _ in range(ENGLISH.coloured)}
    turkish = [*_true_and_false(scene, TURKISH, rng, english=False)]
    turkish += [colour_caption(scene, rng) for _ in range(TURKISH.coloured)]
    return {
        "captions": list(dict.fromkeys(turkish)),
        "captions_en": list(english),
        "negative_captions_en": list(english.values()),
    }


def _true_and_false(scene: Scene, mixture: Mixture, rng: random.Random, *, english: bool) -> dict[str, str]:
    """Returns captions of the whole scene and of its objects alone, each with a false one, or with an empty text."""
    whole, short = (english_caption, short_english_caption) if english else (turkish_caption, short_turkish_caption)
    captions: dict[str, str] = {}
    for caption in [whole] * mixture.whole + [short] * mixture.short:
        seed = rng.random()
        if caption is short and rng.random() < NEGATED:
            _, *denials = colour_claims_of(scene, rng)
            true, false = (denial[1 if english else 0] for denial in denials)
        else:
            true, false = caption(scene, random.Random(seed)), false_caption(scene, caption, seed, rng)
        captions.setdefault(true, false)
    return captions
