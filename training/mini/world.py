"""Writes the miniature world as a folder of images with metadata.jsonl, which is read like any other source."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from PIL import Image

from training.mini.captions import (
    english_caption,
    english_colour_caption,
    short_english_caption,
    turkish_caption,
)
from training.mini.negatives import colour_claims_of, false_caption, probes
from training.mini.scene import Scene, Thing, changes, draw_scene, draw_with_things, random_scene
from training.mini.words import INVERSE, OBJECTS
from turkish_clip.atomic import atomic_folder
from turkish_clip.strict_json import json_text

SMALLEST_GROUP = 4
MOST_TRIES = 5000
SMALL_CLIP = Path(__file__).parent / "clip"
EDITION = 8  # of drawings and wordings: a folder of another edition is drawn again
FILES = re.compile(r"(train|validation|test)/\d{5}\.png|metadata\.jsonl|world\.json")  # of a world
CAPTIONS_PER_IMAGE = 5
# Of the English captions of a training image two name only the objects and one only the colours. Without the former,
# `pretrain` learns colours and never shapes; without the latter, not what a colour's name alone means. Their shorter
# half are those of the objects, the longer half those of the whole scene, which matters to it. A student of frozen
# image embeddings, which tell shapes from colours already, learns both from whole scenes, and from these alone whose a
# colour is.
WHOLE_ENGLISH, SHORT_ENGLISH = 2, 2
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
    is to be measured apart. Some English captions of train name only objects or only colours; its list
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
            for number, scene in enumerate(scenes_of(split, getattr(size, split), size.seed)):
                key, name = _key(split, number, size.seed), f"{split}/{number:05d}.png"
                draw_scene(scene, random.Random(key)).save(partial / name, compress_level=1)
                row = _row(name, split, scene, random.Random(f"{key} captions"))
                lines.append(json_text(row))
        (partial / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (partial / marker.name).write_text(json_text(described, ascii_only=True), encoding="utf-8")
    return folder


def images_with_things(split: str, count: int, seed: int = 0) -> Iterator[tuple[Scene, Image.Image, list[Thing]]]:
    """Yields the images of a split as `write_world` draws them, with their scenes and where their objects are.

    Args:
        split: train, validation or test.
        count: images of the split; which ones validation and test have depends on it.
        seed: of the world.
    """
    for number, scene in enumerate(scenes_of(split, count, seed)):
        image, things = draw_with_things(scene, random.Random(_key(split, number, seed)))
        yield scene, image, things


def _key(split: str, number: int, seed: int) -> str:
    """Returns what an image is drawn with."""
    return f"{seed} {split} {number}"


def scenes_of(split: str, count: int, seed: int) -> list[Scene]:
    """Returns the scenes of a split's images, in order.

    Args:
        split: train, validation or test.
        count: number of images.
        seed: of the world.
    """
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
    false: dict[str, str] = {}
    for caption in [english_caption] * WHOLE_ENGLISH + [short_english_caption] * SHORT_ENGLISH:
        seed = rng.random()
        if caption is short_english_caption and rng.random() < NEGATED:
            _, (_, denial), (_, false_denial) = colour_claims_of(scene, rng)
            false.setdefault(denial, false_denial)
        else:
            false.setdefault(caption(scene, random.Random(seed)), false_caption(scene, caption, seed, rng))
    false.setdefault(english_colour_caption(scene, rng), "")
    turkish = dict.fromkeys(turkish_caption(scene, rng) for _ in range(CAPTIONS_PER_IMAGE))
    return {"captions": list(turkish), "captions_en": list(false), "negative_captions_en": list(false.values())}
