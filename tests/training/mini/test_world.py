"""The miniature world: its grammar, its held-out compositions, and what the committed small CLIP reaches on it."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from training.mini.captions import (
    english_caption,
    english_colour_caption,
    short_english_caption,
    turkish_caption,
)
from training.mini.negatives import probes
from training.mini.pictograms import STYLES
from training.mini.scene import FAMILY_OF, IMAGE_PIXELS, Scene, changes, draw_scene, draw_with_things, random_scene
from training.mini.turkish import Noun
from training.mini.words import COLOURS, INVERSE, OBJECTS, RELATIONS, SETTINGS
from training.mini.world import SMALL_CLIP, WorldSize, images_with_things, tags, write_world
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
    assert scene.meaning != turned.meaning
    assert scene.meaning == replace(turned, setting="day", style="bold").meaning
    assert replace(scene, relation="above").composition != scene.composition


def test_every_class_is_of_one_family_with_others() -> None:
    assert set(FAMILY_OF) == set(OBJECTS)
    assert all(len(family) >= 2 for family in FAMILY_OF.values())


@pytest.mark.parametrize(
    ("scene", "changed"),
    [
        (
            Scene(("sun", "red"), ("fish", "blue"), "above", 1, "", "day"),
            {
                "binding": Scene(("sun", "blue"), ("fish", "red"), "above", 1, "", "day"),
                "relation": Scene(("sun", "red"), ("fish", "blue"), "below", 1, "", "day"),
                "fine": Scene(("star", "red"), ("fish", "blue"), "above", 1, "", "day"),
                "setting": Scene(("sun", "red"), ("fish", "blue"), "above", 1, "", "sea"),
            },
        ),
        (
            Scene(("fish", "red"), ("bird", "red"), "left", 1, "", "day"),  # no other class of their shape, no colours
            {
                "relation": Scene(("fish", "red"), ("bird", "red"), "right", 1, "", "day"),
                "setting": Scene(("fish", "red"), ("bird", "red"), "left", 1, "", "sea"),
            },
        ),
        (
            Scene(("car", "red"), None, "", 1, "small", "day", "left"),
            {
                "counting": Scene(("car", "red"), None, "", 2, "", "day"),
                "position": Scene(("car", "red"), None, "", 1, "small", "day", "right"),
                "size": Scene(("car", "red"), None, "", 1, "large", "day"),
                "fine": Scene(("boat", "red"), None, "", 1, "small", "day", "left"),
                "setting": Scene(("car", "red"), None, "", 1, "small", "sea", "left"),
            },
        ),
        (
            Scene(("car", "red"), None, "", 3, "", "day"),
            {
                "counting": Scene(("car", "red"), None, "", 2, "", "day"),
                "fine": Scene(("boat", "red"), None, "", 3, "", "day"),
                "setting": Scene(("car", "red"), None, "", 3, "", "sea"),
            },
        ),
    ],
)
def test_changed_scenes_differ_in_one_attribute(scene: Scene, changed: dict[str, Scene]) -> None:
    drawn = [changes(scene, random.Random(seed)) for seed in range(60)]
    assert all(set(one) == set(changed) for one in drawn)
    assert all(any(one[name] == expected for one in drawn) for name, expected in changed.items())
    assert {member.split for one in drawn for member in one.values()} == {scene.split}


def read_rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("world") / "data"
    return read_rows(write_world(folder, WorldSize(train=60, validation=100, test=150)))


def test_a_caption_of_a_gallery_is_true_of_one_image(world: list[dict[str, Any]]) -> None:
    for split in ("validation", "test"):
        gallery = [row for row in world if row["split"] == split]
        for column in ("captions", "captions_en"):
            owners = Counter(
                caption for row in gallery for caption in {text.lower().strip(".") for text in row[column]}
            )
            assert set(owners.values()) == {1}


def test_galleries_are_of_near_neighbours_and_have_all_probes(world: list[dict[str, Any]]) -> None:
    gallery = [row for row in world if row["split"] == "validation"]
    alike = Counter(tuple(sorted(row["labels"])) for row in gallery)
    assert sum(count for count in alike.values() if count >= 3) >= 0.5 * len(gallery)
    assert {record["probe"] for row in gallery for record in row["negatives"]} == {
        "binding", "relation", "counting", "position", "fine", "negation"
    }  # fmt: skip


def changed_words(record: dict[str, str], suffix: str = "") -> list[set[str]]:
    """Returns the words that only the true, and only the false caption has."""
    true, false = (
        Counter(re.findall(r"\w+", record[name + suffix].lower().replace("i̇", "i"))) for name in ("caption", "negative")
    )
    return [set(true - false), set(false - true)]


def test_probes_change_what_they_are_named_for(world: list[dict[str, Any]]) -> None:
    relations = {word for relation in RELATIONS.values() for phrase in relation.turkish for word in phrase.split()}
    colours = {word for colour in COLOURS.values() for word in colour.turkish}
    measured = [(row, record) for row in world if row["split"] != "train" for record in row["negatives"]]
    for row, record in measured:
        true, false = changed_words(record)
        if record["probe"] == "binding":
            assert not true
            assert not false
            first, second = record["caption"].lower().split(), record["negative"].lower().split()
            assert {a for a, b in zip(first, second) if a != b} <= colours | {f"{colour}." for colour in colours}
        elif record["probe"] in ("relation", "position"):
            assert len(true) == len(false) == 1
            assert true | false <= relations | {"solda", "sağda", "sol", "sağ"}
        elif record["probe"] == "counting":
            assert len(true) == len(false) == 1
            assert true | false <= {"bir", "iki", "üç"}
        elif record["probe"] == "negation":
            assert "olmayan" in record["negative"]
            assert (true == set()) == ("olmayan" not in record["caption"])
        else:
            assert len(true) == len(false) == 1
        assert record["caption_en"] != record["negative_en"]
        assert row["labels"]


def plain(caption: str) -> str:
    """Returns a caption without its capital letter and full stop."""
    return caption[0].lower() + caption[1:].rstrip(".")


def test_probes_of_a_scene() -> None:
    scene = Scene(("tree", "green"), ("heart", "red"), "above", 1, "", "night")
    drawn = [record for seed in range(800) for record in probes(scene, random.Random(seed))]
    pairs = {(record["probe"], plain(record["caption"]), plain(record["negative"])) for record in drawn}
    assert (
        "binding",
        "gece yeşil ağacın altında kırmızı bir kalp",
        "gece kırmızı ağacın altında yeşil bir kalp",
    ) in pairs
    assert ("negation", "yeşil bir ağaç", "yeşil olmayan bir ağaç") in pairs
    assert ("negation", "mavi olmayan bir ağaç", "yeşil olmayan bir ağaç") in pairs
    english = {(record["probe"], plain(record["caption_en"]), plain(record["negative_en"])) for record in drawn}
    assert ("relation", "a green tree above a red heart at night", "a green tree below a red heart at night") in english
    assert ("negation", "a green tree", "a tree that is not green") in english
    cars = Scene(("car", "red"), None, "", 1, "small", "snow", "left")
    drawn = [record for seed in range(800) for record in probes(cars, random.Random(seed))]
    pairs = {(record["probe"], plain(record["caption"]), plain(record["negative"])) for record in drawn}
    assert ("counting", "karda bir kırmızı araba", "karda iki kırmızı araba") in pairs
    assert ("position", "karda solda küçük kırmızı bir araba", "karda sağda küçük kırmızı bir araba") in pairs
    assert ("fine", "karda solda küçük kırmızı bir araba", "karda solda küçük kırmızı bir tekne") in pairs
    english = {(record["probe"], plain(record["caption_en"]), plain(record["negative_en"])) for record in drawn}
    assert ("counting", "one red car in the snow", "two red cars in the snow") in english


def test_held_out_styles_are_slices_of_test_alone(world: list[dict[str, Any]]) -> None:
    styles = {split: Counter[str]() for split in ("validation", "test")}
    for row in world:
        if row["split"] in styles:
            styles[row["split"]].update(row["slices"])
    assert {name for name in styles["validation"] if name.startswith("style")} == {"style: filled"}
    assert {name for name in styles["test"] if name.startswith("style")} == {f"style: {name}" for name in STYLES}
    assert styles["test"]["style: filled"] >= 110


def test_false_captions_of_train_stand_in_the_place_of_true_ones(world: list[dict[str, Any]]) -> None:
    train = [row for row in world if row["split"] == "train"]
    for row in train:
        captions, false = row["captions_en"], row["negative_captions_en"]
        assert len(captions) == len(false)
        assert not [text for text in false if text in captions]
    filled = [text != "" for row in train for text in row["negative_captions_en"]]
    assert 0.6 <= sum(filled) / len(filled) <= 0.8
    assert not any("negative_captions_en" in row for row in world if row["split"] != "train")
    assert not any("negatives" in row for row in train)


def test_tags_say_what_belongs_to_what() -> None:
    pair = Scene(("tree", "green"), ("heart", "red"), "above", 1, "", "night")
    assert tags(pair) == ["green tree", "red heart", "tree above", "heart below"]
    assert tags(Scene(("car", "red"), None, "", 1, "small", "snow", "left")) == ["red car", "car left"]
    assert tags(Scene(("car", "red"), None, "", 1, "large", "snow")) == ["red car", "car large"]
    assert tags(Scene(("car", "red"), None, "", 3, "", "snow")) == ["red car", "car 3"]


def test_splits_share_no_kind_and_no_caption(tmp_path: Path) -> None:
    rows = read_rows(write_world(tmp_path / "data", WorldSize(train=1500, validation=100, test=150)))
    assert Counter(row["split"] for row in rows) == {"train": 1500, "validation": 100, "test": 150}
    seen = {caption.lower().strip(".") for row in rows if row["split"] == "train" for caption in row["captions"]}
    unseen = [caption for row in rows if row["split"] == "test" for caption in row["captions"]]
    assert not [caption for caption in unseen if caption.lower().strip(".") in seen]
    assert all(2 <= len(row["captions"]) <= 5 for row in rows)
    rng = random.Random(0)
    kinds: dict[str, set[str]] = {}
    for _ in range(3000):
        scene = random_scene(rng)
        kinds.setdefault(scene.split, set()).add(scene.kind)
    assert not kinds["train"] & (kinds["validation"] | kinds["test"])


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
    assert short_english_caption(apples, random.Random(0)).lower().strip(".") == "three apples"
    apple = Scene(("apple", "red"), None, "", 1, "small", "day")
    one = {short_english_caption(apple, random.Random(seed)).lower().strip(".") for seed in range(20)}
    assert one == {"an apple", "one apple"}


def test_colour_captions_name_no_object() -> None:
    scene = Scene(("tree", "green"), ("heart", "red"), "above", 1, "", "night")
    english = {english_colour_caption(scene, random.Random(seed)).lower().strip(".") for seed in range(200)}
    assert "something red and something green at night" in english
    birds = Scene(("bird", "blue"), None, "", 2, "", "day")
    assert (
        english_colour_caption(birds, random.Random(0)).lower().strip(".").startswith(("two blue", "by day", "in day"))
    )


def test_only_english_captions_of_train_are_short(tmp_path: Path) -> None:
    write_world(tmp_path / "data", WorldSize(train=60, validation=20, test=20))
    turkish = {word for colour in COLOURS.values() for word in colour.turkish}
    english = {colour.english for colour in COLOURS.values()}
    for line in (tmp_path / "data" / "metadata.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        words = {
            column: [text.lower().strip(".").split() for text in row[column]] for column in ("captions", "captions_en")
        }
        assert all(turkish & set(text) for text in words["captions"])
        short = [text for text in words["captions_en"] if "not" in text or not english & {w.strip(",") for w in text}]
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


def test_the_places_of_things_change_no_image(tmp_path: Path) -> None:
    size = WorldSize(train=3, validation=4, test=20)
    folder = write_world(tmp_path / "world", size)
    for split in ("train", "test"):
        images = list(images_with_things(split, getattr(size, split)))
        assert len(images) == getattr(size, split)
        for number, (scene, image, things) in enumerate(images):
            with Image.open(folder / split / f"{number:05d}.png") as written:
                assert written.tobytes() == image.tobytes()
            assert len(things) == (scene.count if scene.second is None else 2)
            assert {(thing.object_class, thing.colour) for thing in things} == {scene.first, scene.second} - {None}


def test_a_thing_is_inside_its_box_and_nothing_of_it_outside() -> None:
    scene = Scene(("ball", "red"), None, "", 1, "small", "day", "left")
    image, (ball,) = draw_with_things(scene, random.Random(5))
    empty, _ = draw_with_things(replace(scene, place="right"), random.Random(5))  # the same ground, the ball elsewhere
    left, top, right, bottom = ball.box
    assert 0 <= left < right <= IMAGE_PIXELS / 2
    assert right - left == pytest.approx(bottom - top, abs=1)  # it is round
    drawn = np.asarray(image, np.int16)
    reds = (drawn[..., 0] > 180) & (drawn[..., 1] < 90)
    rows, columns = np.nonzero(reds)
    assert left <= columns.min() <= left + 4
    assert right - 5 <= columns.max() <= right
    assert top <= rows.min() <= top + 4
    assert bottom - 5 <= rows.max() <= bottom
    changed = np.abs(drawn - np.asarray(empty, np.int16)).sum(axis=2)[:, : IMAGE_PIXELS // 2] > 30
    assert not changed[:, int(right) + 2 :].any()


def test_things_are_where_the_relation_says() -> None:
    for relation, axis, sign in (("above", 1, -1), ("below", 1, 1), ("left", 0, -1), ("right", 0, 1)):
        scene = Scene(("car", "red"), ("moon", "blue"), relation, 1, "", "sea")
        _, things = draw_with_things(scene, random.Random(relation))
        centre = {thing.object_class: (thing.box[axis] + thing.box[axis + 2]) / 2 for thing in things}
        assert sign * (centre["car"] - centre["moon"]) > 15
