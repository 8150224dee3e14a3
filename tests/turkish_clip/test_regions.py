"""Regions: windows, where their votes meet, and how well that points at the things of the miniature world."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pointing_in_the_world import ENGLISH_NOUNS, Seen, finds, look, points

from training.mini.captions import english_caption
from training.mini.world import SMALL_CLIP, scenes_of
from turkish_clip.bank import TextBank
from turkish_clip.dual_encoder import DualEncoder, load_dual_encoder
from turkish_clip.errors import InputError
from turkish_clip.images import ImageError, open_image
from turkish_clip.regions import (
    FoundThing,
    RegionError,
    ThingFinder,
    Windows,
    boxes_of,
    find_regions,
    intersection_over_union,
    shows,
    windows_of,
    without_overlap,
)
from turkish_clip.zero_shot import ZeroShotClassifier


def made(size: tuple[int, int], boxes: list[tuple[float, ...]], cosines: list[float]) -> tuple[Windows, np.ndarray]:
    """Returns windows of which each has one of these cosines with a text, and the text."""
    vectors = np.array([[cosine, np.sqrt(1 - cosine**2)] for cosine in cosines], np.float32)
    return Windows(size, np.array(boxes, np.float64), vectors), np.array([1, 0], np.float32)


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (64, 640), (1, 7), (5000, 30)])
def test_windows_cover_an_image_to_its_edges_in_steps_of_a_third(size: tuple[int, int]) -> None:
    boxes = boxes_of(*size)
    assert boxes.min() >= 0
    assert boxes[:, 2].max() == pytest.approx(size[0])
    assert boxes[:, 3].max() == pytest.approx(size[1])
    sides = np.round(boxes[:, 2] - boxes[:, 0], 6)
    assert np.allclose(sides, boxes[:, 3] - boxes[:, 1])
    assert np.allclose(np.unique(sides) / min(size), [0.375, 0.5, 0.75, 1.0])
    for side in np.unique(sides):
        for edge in (0, 1):
            starts = np.unique(np.round(boxes[sides == side, edge], 6))
            assert len(starts) <= 24
            if len(starts) < 24:
                assert np.all(np.diff(starts) <= side / 3 + 1e-5)


def test_windows_of_a_square_image() -> None:
    # 1, 2 × 2 of three quarters, 4 × 4 of a half, 6 × 6 of three eighths
    assert len(boxes_of(64, 64)) == 1 + 4 + 16 + 36
    assert boxes_of(64, 64)[1:5].tolist() == [[0, 0, 48, 48], [16, 0, 64, 48], [0, 16, 48, 64], [16, 16, 64, 64]]


def test_the_point_is_where_votes_meet() -> None:
    # By hand: the deviation of (0.5, 0.5, 0, 0) is 0.25, the spread half of it, so that the weights are 1 and exp(-4);
    # the areas are alike. All four windows share 4 to 6 in both directions.
    boxes = [(0, 0, 6, 6), (4, 0, 10, 6), (0, 4, 6, 10), (4, 4, 10, 10)]
    windows, text = made((10, 10), boxes, [0.5, 0.5, 0.0, 0.0])
    (region,) = windows.best(text)
    assert region.point == (5.0, 5.0)
    low = np.exp(-4)
    top = (0 + 0 + 4 * low + 4 * low) / (2 + 2 * low)  # 0.07
    assert 0 < top < 1
    assert region.box == (2, 0, 8, 7)
    assert region.score == pytest.approx(0.5)


def test_small_windows_weigh_more_than_large_ones_of_the_same_cosine() -> None:
    windows, text = made((8, 8), [(0, 0, 8, 8), (0, 0, 2, 2), (6, 6, 8, 8)], [0.3, 0.3, 0.1])
    (region,) = windows.best(text)
    assert region.point == (1.0, 1.0)
    assert region.box[2] <= 3


def test_an_image_that_is_too_long_to_be_looked_at_in_whole_is_said(
    encoder: DualEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    find_regions(encoder, Image.new("RGB", (24 * 5, 5)), "ev")
    assert not caplog.records
    find_regions(encoder, Image.new("RGB", (5, 24 * 5 + 1)), "ev")
    assert "an image of 5 × 121 pixels is so long that parts of it are not looked at" in caplog.text


def test_further_regions_are_elsewhere_and_not_much_worse_than_the_first() -> None:
    corners = [(0, 0, 2, 2), (8, 0, 10, 2), (0, 8, 2, 10), (8, 8, 10, 10)]
    windows, text = made((10, 10), corners, [0.5, 0.49, 0.0, 0.0])
    found = windows.best(text, k=4)
    assert [region.box for region in found] == [(0, 0, 2, 2), (8, 0, 10, 2)]
    assert len(windows.best(text, k=1)) == 1
    level, text = made((10, 10), corners, [0.2] * 4)
    assert {region.box for region in level.best(text, k=9)} == set(corners)


def thing(box: tuple[int, int, int, int], label: str, probability: float) -> FoundThing:
    return FoundThing(box, (0.0, 0.0), 0.3, label, probability)


def test_the_less_certain_of_two_that_overlap_is_left_out() -> None:
    first, same = thing((0, 0, 10, 10), "ev", 0.9), thing((2, 0, 12, 10), "kedi", 0.8)
    apart, touching = thing((10, 0, 20, 10), "kuş", 0.7), thing((6, 0, 16, 10), "top", 0.6)
    assert intersection_over_union(first.box, same.box) == pytest.approx(80 / 120)
    assert intersection_over_union(first.box, touching.box) == pytest.approx(40 / 160)
    assert intersection_over_union(apart.box, touching.box) == pytest.approx(60 / 140)
    assert without_overlap([first, same, apart, touching]) == [first, apart]
    assert without_overlap([first, same, apart, touching], overlap=0.9) == [first, same, apart, touching]
    assert without_overlap([first, same, apart, touching], overlap=0.1, sure=2) == [first, same]


def test_a_large_image_and_a_rotated_one(encoder: DualEncoder, tmp_path: Path) -> None:
    image = Image.radial_gradient("L").resize((600, 300)).convert("RGB")
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by a quarter
    image.save(tmp_path / "turned.jpg", exif=exif)
    windows = windows_of(encoder, tmp_path / "turned.jpg")
    assert windows.size == (300, 600)
    assert windows.whole.sum() == 4
    assert windows.vectors.shape == (len(boxes_of(300, 600)), 16)
    assert np.linalg.norm(windows.vectors, axis=1) == pytest.approx(1, abs=1e-5)
    upright = open_image(tmp_path / "turned.jpg")
    (batch,) = encoder.embed_images([upright.crop((0, 0, 300, 300)), upright.crop((0, 300, 300, 600))])
    whole = windows.vectors[windows.whole]  # they are cut from a smaller copy
    assert float(whole[0] @ batch.vectors[0]) > 0.99 > float(whole[0] @ batch.vectors[1])
    assert float(whole[-1] @ batch.vectors[1]) > 0.99
    (region,) = find_regions(encoder, tmp_path / "turned.jpg", "ev")
    left, top, right, bottom = region.box
    assert 0 <= left <= region.point[0] <= right <= 300
    assert 0 <= top <= region.point[1] <= bottom <= 600
    for tiny in ((1, 1), (3, 200)):
        assert find_regions(encoder, Image.new("RGB", tiny, "red"), "ev")[0].box[2] <= tiny[0]


def test_without_a_text_bank_the_least_cosine_is_to_be_named(encoder: DualEncoder, captioned_folder: Path) -> None:
    image = captioned_folder / "test" / "00000.png"
    with pytest.raises(RegionError, match=r"expected a model with a text bank, .* reject_below \(--reject-below\)"):
        ThingFinder(ZeroShotClassifier(encoder, ["ev", "kuş"]))
    assert shows(windows_of(encoder, image), encoder.encode_texts(["ev"])[0], None) is None
    assert ThingFinder(ZeroShotClassifier(encoder, ["ev", "kuş"], reject_below=1.0)).find(image) == []
    every = ThingFinder(ZeroShotClassifier(encoder, ["ev", "kuş"], reject_below=-1.0)).find(image)
    assert every
    assert all(thing.probability >= 0.5 for thing in every)
    with pytest.raises(ImageError):
        find_regions(encoder, captioned_folder / "metadata.jsonl", "ev")
    assert issubclass(RegionError, InputError)


@pytest.fixture(scope="module")
def small_clip() -> DualEncoder:
    """The miniature world's CLIP with its own English texts."""
    return load_dual_encoder(SMALL_CLIP, device="cpu")


@pytest.fixture(scope="module")
def seen(small_clip: DualEncoder) -> list[Seen]:
    """Every fourth of 160 images that the CLIP was not trained on."""
    return look(small_clip, "test", 160, every=4)


def test_it_points_at_the_things_of_the_miniature_world(seen: list[Seen], small_clip: DualEncoder) -> None:
    for with_colour, least in ((False, 0.85), (True, 0.9)):
        found = points(seen, small_clip, ENGLISH_NOUNS, with_colour=with_colour)
        assert found.right["all"] >= least
        assert found.centred["all"] >= least - 0.05
        assert found.right["all"] > found.best_window["all"]
        assert found.by_chance["all"] < 0.25
        assert found.middle["all"] < 0.35


def test_several_things_in_one_image(seen: list[Seen], small_clip: DualEncoder) -> None:
    nouns, templates = list(ENGLISH_NOUNS.values()), ["a {}", "{}"]
    finder = ThingFinder(ZeroShotClassifier(small_clip, nouns, templates=templates, reject_below=0.1))
    two = [one for one in seen if one.kind == "two"]
    found = [finder.find_in(one.windows) for one in two]
    figures, chance = finds(two, found, ENGLISH_NOUNS)
    assert figures.precision >= 0.8
    assert figures.recall >= 0.8
    assert max(chance.precision, chance.recall) < 0.2
    strict = ThingFinder(ZeroShotClassifier(small_clip, nouns, templates=templates, reject_below=0.99))
    assert not any(strict.find_in(one.windows) for one in two)


def test_a_text_bank_tells_what_may_be_there(seen: list[Seen], small_clip: DualEncoder) -> None:
    scenes = scenes_of("train", 300, 0)
    rng = random.Random(0)
    texts = [english_caption(scene, rng) for scene in scenes]
    with_bank = replace(small_clip)
    vars(with_bank)["bank"] = TextBank.of(texts, small_clip.encode_texts, small_clip.dim, "")
    templates = ["a {}", "{}"]
    classifier = ZeroShotClassifier(with_bank, list(ENGLISH_NOUNS.values()), templates=templates)
    two = [one for one in seen if one.kind == "two"]
    figures, _ = finds(two, [ThingFinder(classifier).find_in(one.windows) for one in two], ENGLISH_NOUNS)
    assert figures.precision >= 0.8
    assert figures.recall >= 0.8
    said: dict[bool, list[bool | None]] = {True: [], False: []}
    for label, vector in zip(ENGLISH_NOUNS, with_bank.encode_texts([f"a {noun}" for noun in ENGLISH_NOUNS.values()])):
        for one in two:
            said[label in one.scene.objects].append(shows(one.windows, vector, with_bank.bank))
    assert np.mean(np.array(said[True], bool)) >= 0.8
    assert np.mean(np.array(said[False], bool)) <= 0.1
