"""Writes the miniature world as a folder of images with metadata.jsonl, which is read like any other source."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path

from training.mini.scene import (
    Scene,
    colour_caption,
    draw_scene,
    english_caption,
    english_colour_caption,
    random_scene,
    short_english_caption,
    short_turkish_caption,
    turkish_caption,
)
from training.mini.words import OBJECTS
from turkish_clip.atomic import atomic_folder

SMALL_CLIP = Path(__file__).parent / "clip"
EDITION = 5  # of drawings and wordings: a folder of another edition is drawn again
CAPTIONS_PER_IMAGE = 5
# An image of train has six: two name only the objects, two only the colours. Without the former, a model learns colours
# and never shapes; without the latter, it does not learn what a colour's name alone means.
WHOLE_CAPTIONS, SHORT_CAPTIONS, COLOUR_CAPTIONS = 2, 2, 2


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
    `labels` (the object classes in Turkish). Each image of validation and test has a composition of its own, which no
    image of train shows, and captions of the whole scene; some captions of train name only objects or only colours.

    Args:
        folder: the folder; one of the same edition, size and seed is left as it is, another is replaced.
        size: the number of images in each split, and the seed.
    """
    marker = folder / "world.json"
    described = {"edition": EDITION, **asdict(size)}
    if marker.is_file() and json.loads(marker.read_text(encoding="utf-8")) == described:
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as partial:
        lines = []
        for split in ("train", "validation", "test"):
            (partial / split).mkdir()
            for number, scene in enumerate(_scenes(split, getattr(size, split), size.seed)):
                rng = random.Random(f"{size.seed} {split} {number}")
                name = f"{split}/{number:05d}.png"
                draw_scene(scene, rng).save(partial / name, compress_level=1)
                lines.append(json.dumps(_row(name, split, scene, rng), ensure_ascii=False))
        (partial / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (partial / marker.name).write_text(json.dumps(described), encoding="utf-8")
    return folder


def _scenes(split: str, count: int, seed: int) -> list[Scene]:
    rng = random.Random(f"{seed} {split}")
    seen: set[str] = set()
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = random_scene(rng)
        if scene.split != split or (split != "train" and scene.composition in seen):
            continue
        seen.add(scene.composition)
        scenes.append(scene)
    return scenes


def _row(name: str, split: str, scene: Scene, rng: random.Random) -> dict[str, object]:
    whole, short, coloured = (CAPTIONS_PER_IMAGE, 0, 0)
    if split == "train":
        whole, short, coloured = WHOLE_CAPTIONS, SHORT_CAPTIONS, COLOUR_CAPTIONS
    turkish = [turkish_caption(scene, rng) for _ in range(whole)]
    turkish += [short_turkish_caption(scene, rng) for _ in range(short)]
    turkish += [colour_caption(scene, rng) for _ in range(coloured)]
    english = [english_caption(scene, rng) for _ in range(whole)]
    english += [short_english_caption(scene, rng) for _ in range(short)]
    english += [english_colour_caption(scene, rng) for _ in range(coloured)]
    return {
        "file_name": name,
        "image_id": name.removesuffix(".png").replace("/", "-"),
        "split": split,
        "captions": list(dict.fromkeys(turkish)),
        "captions_en": list(dict.fromkeys(english)),
        "labels": [OBJECTS[object_class].turkish[0].word for object_class in scene.objects],
    }
