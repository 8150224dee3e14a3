"""The miniature world: its grammar, its held-out compositions, and what the committed small CLIP reaches on it."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

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
from training.mini.turkish import Noun
from training.mini.words import COLOURS, INVERSE, OBJECTS, SETTINGS
from training.mini.world import SMALL_CLIP, WorldSize, write_world
from training.run.provenance import sha256_of

# Written by hand from the rules of Turkish, not by the program.
GENITIVES = (
    "evin ağacın güneşin ayın hilalin arabanın otomobilin teknenin kayığın balığın çiçeğin kuşun kedinin yıldızın "
    "kalbin yüreğin topun fincanın bardağın şemsiyenin mantarın elmanın bayrağın"
).split()


def test_every_genitive() -> None:
    nouns = [noun for object_class in OBJECTS.values() for noun in object_class.turkish]
    assert [noun.genitive() for noun in nouns] == GENITIVES


@pytest.mark.parametrize(
    ("noun", "locative"),
    [
        ("deniz", "denizde"),
        ("kar", "karda"),
        ("ağaç", "ağaçta"),
        ("ev", "evde"),
        ("sokak", "sokakta"),
        ("çöl", "çölde"),
    ],
)
def test_locatives(noun: str, locative: str) -> None:
    assert Noun(noun).locative() == locative


def test_the_world_has_enough_objects_colours_and_settings() -> None:
    assert len(OBJECTS) >= 16
    assert len(COLOURS) >= 8
    assert len(SETTINGS) >= 4


def test_naming_order_size_and_setting_make_no_new_composition() -> None:
    scene = Scene(("house", "red"), ("cat", "blue"), "left", 1, "", "day")
    turned = Scene(("cat", "blue"), ("house", "red"), INVERSE["left"], 1, "", "night")
    assert scene.composition == turned.composition
    assert scene.split == turned.split
    assert replace(scene, relation="above").composition != scene.composition


def test_splits_share_no_composition_and_no_caption(tmp_path: Path) -> None:
    write_world(tmp_path / "data", WorldSize(train=1500, validation=100, test=150))
    rows = [
        json.loads(line) for line in (tmp_path / "data" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert Counter(row["split"] for row in rows) == {"train": 1500, "validation": 100, "test": 150}
    seen = {caption.lower().strip(".") for row in rows if row["split"] == "train" for caption in row["captions"]}
    unseen = [caption for row in rows if row["split"] == "test" for caption in row["captions"]]
    assert not [caption for caption in unseen if caption.lower().strip(".") in seen]
    assert all(2 <= len(row["captions"]) <= (6 if row["split"] == "train" else 5) for row in rows)


def test_the_same_seed_draws_the_same_world(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_world(tmp_path / name, WorldSize(train=20, validation=2, test=3))
    files = [sorted(path for path in (tmp_path / name).rglob("*") if path.is_file()) for name in ("one", "two")]
    assert [sha256_of(path) for path in files[0]] == [sha256_of(path) for path in files[1]]
    before = files[0][0].stat().st_mtime_ns
    write_world(tmp_path / "one", WorldSize(train=20, validation=2, test=3))
    assert files[0][0].stat().st_mtime_ns == before


def test_one_caption_has_many_images(rng: random.Random) -> None:
    scene = random_scene(rng)
    assert draw_scene(scene, random.Random(1)).tobytes() != draw_scene(scene, random.Random(2)).tobytes()


def test_captions_describe_the_whole_scene() -> None:
    scene = Scene(("tree", "green"), ("heart", "red"), "above", 1, "", "night")
    turkish = {turkish_caption(scene, random.Random(seed)) for seed in range(60)}
    english = {english_caption(scene, random.Random(seed)) for seed in range(60)}
    assert len(turkish) > 30
    stems = ("yeşil", "ağa")
    assert all(all(stem in caption.lower() for stem in stems) for caption in turkish)
    assert any("ağacın altında" in caption for caption in turkish)
    assert any("kalbin üstünde" in caption for caption in turkish)
    assert any(caption.endswith(".") for caption in turkish)
    assert any(caption[0].isupper() for caption in turkish)
    assert all("green tree" in caption.lower() and "red heart" in caption.lower() for caption in english)


def test_short_captions_name_only_the_objects() -> None:
    scene = Scene(("tree", "green"), ("heart", "red"), "above", 1, "", "night")
    turkish = {short_turkish_caption(scene, random.Random(seed)).lower().strip(".") for seed in range(200)}
    assert {"ağaç ve kalp", "yürek ve ağaç", "bir ağacın altında kalp", "yüreğin üzerinde bir ağaç"} <= turkish
    english = {short_english_caption(scene, random.Random(seed)).lower().strip(".") for seed in range(200)}
    assert english == {
        "a tree above a heart",
        "a tree over a heart",
        "a heart below a tree",
        "a heart under a tree",
        "a tree and a heart",
        "a heart and a tree",
        "a tree",
        "a heart",
    }
    apples = Scene(("apple", "red"), None, "", 3, "", "day")
    assert short_turkish_caption(apples, random.Random(0)).lower().strip(".") == "üç elma"
    assert short_english_caption(apples, random.Random(0)).lower().strip(".") == "three apples"
    apple = Scene(("apple", "red"), None, "", 1, "small", "day")
    assert short_english_caption(apple, random.Random(0)).lower().strip(".") == "an apple"


def test_colour_captions_name_no_object() -> None:
    scene = Scene(("tree", "green"), ("heart", "red"), "above", 1, "", "night")
    turkish = {colour_caption(scene, random.Random(seed)).lower().strip(".") for seed in range(200)}
    assert {"gece yeşil bir şey ve al bir şey", "kırmızı bir şey ve yeşil bir şey, geceleyin"} <= turkish
    english = {english_colour_caption(scene, random.Random(seed)).lower().strip(".") for seed in range(200)}
    assert "something red and something green at night" in english
    birds = Scene(("bird", "blue"), None, "", 2, "", "day")
    assert (
        english_colour_caption(birds, random.Random(0)).lower().strip(".").startswith(("two blue", "by day", "in day"))
    )


def test_only_images_of_train_have_short_captions(tmp_path: Path) -> None:
    write_world(tmp_path / "data", WorldSize(train=60, validation=20, test=20))
    colours = [word for colour in COLOURS.values() for word in colour.turkish]
    for line in (tmp_path / "data" / "metadata.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        short = [text for text in row["captions"] if not any(word in text.lower().split() for word in colours)]
        assert (1 <= len(short) <= 2) if row["split"] == "train" else not short


def test_a_world_of_an_older_edition_is_drawn_again(tmp_path: Path) -> None:
    folder = write_world(tmp_path / "data", WorldSize(train=3, validation=1, test=1))
    marker = folder / "world.json"
    older = {**json.loads(marker.read_text(encoding="utf-8")), "edition": 1}
    marker.write_text(json.dumps(older), encoding="utf-8")
    (folder / "metadata.jsonl").write_text("", encoding="utf-8")
    write_world(folder, WorldSize(train=3, validation=1, test=1))
    assert (folder / "metadata.jsonl").read_text(encoding="utf-8")


def test_iki_is_capitalized_with_a_dotted_i() -> None:
    scene = Scene(("bird", "blue"), None, "", 2, "", "day")
    captions = {turkish_caption(scene, random.Random(seed)) for seed in range(80)}
    assert any(caption.startswith("İki mavi kuş") for caption in captions)
    assert not any(caption.startswith("Iki") for caption in captions)


def test_the_committed_small_clip_reaches_the_results_of_its_card(tmp_path: Path) -> None:
    """Measured on the card's test images, drawn again, with the code that wrote the card."""
    from training.data.duplicates import digests_of_files, disjoint_splits
    from training.data.sources import read_captions
    from training.run.config import PretrainConfig, read
    from training.small_models.clip_training import evaluate_clip

    card = json.loads((SMALL_CLIP / "results.json").read_text(encoding="utf-8"))
    weights = SMALL_CLIP / "model.safetensors"
    assert weights.stat().st_size <= 3_000_000
    config = read(PretrainConfig, ["mini-clip", "--run", str(tmp_path), "--captions", "mini:1"])
    captions = read_captions(config)
    disjoint = disjoint_splits(captions, digests_of_files(captions.rows, len(captions.rows)))
    measured = evaluate_clip(SMALL_CLIP, disjoint, config)["test"]
    for direction in ("text_to_image", "image_to_text"):
        for metric in ("recall_at_1", "recall_at_5", "recall_at_10"):
            # another processor may round a near tie differently
            assert measured[direction][metric] == pytest.approx(card["test"][direction][metric], abs=0.003)
    readme = (SMALL_CLIP / "README.md").read_text(encoding="utf-8")
    assert f"{card['test']['text_to_image']['recall_at_1']:.4f}" in readme
