"""Writes the miniature world as an ordinary captioned image folder, which the ordinary reader then reads."""

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
EDITION = 5  # of the drawings and wordings: a folder of another one is drawn again
CAPTIONS_PER_IMAGE = 5
# In train there are six: two name the things alone and two the colours. Without the first, colours win and shapes are
# never learnt; without the second, a colour's name alone means nothing.
WHOLE_CAPTIONS, SHORT_CAPTIONS, COLOUR_CAPTIONS = 2, 2, 2


@dataclass(frozen=True)
class WorldSize:
    """How many images each split holds, and the seed they are drawn with."""

    train: int = 8000
    validation: int = 300
    test: int = 600
    seed: int = 0


def write_world(folder: Path, size: WorldSize) -> Path:
    """Draws the images and writes them with metadata.jsonl; a folder of the same size and seed is left as it is.

    The columns are `file_name`, `image_id`, `split`, `captions` (Turkish, a list), `captions_en` (English, a
    list) and `labels` (the things in it, in Turkish, a list). The images of validation and test are of compositions
    that no image of train shows, each of another, and all their captions tell the whole scene; those of train name
    things or colours alone, too.

    Returns:
        The folder.
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
        "labels": [OBJECTS[thing].turkish[0].word for thing in scene.objects],
    }
