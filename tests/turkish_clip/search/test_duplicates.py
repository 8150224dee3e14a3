"""Copies of an image are found, and different images of one thing are not."""

from __future__ import annotations

import csv
import io
import json
import os
import random
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from copies import KINDS, write_copies, write_copy
from photographs import patches
from PIL import Image, ImageDraw
from samples import paint
from typer.testing import CliRunner, Result

from turkish_clip.cli import entry
from turkish_clip.dual_encoder import DualEncoder
from turkish_clip.images import open_image
from turkish_clip.likeness import LARGE, SIDE, near_duplicates, small_copy
from turkish_clip.search import duplicates
from turkish_clip.search.duplicates import similar_pairs
from turkish_clip.search.index import ImageIndex
from turkish_clip.search.storage import ImageIndexError

ROOT = Path(__file__).parents[3]


def run(*argv: object) -> Result:
    result = CliRunner().invoke(entry.app, ["duplicates", *map(str, argv)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def scene(seed: int, thing: tuple[int, int, int] = (200, 30, 30), at: tuple[int, int] = (60, 60)) -> Image.Image:
    """A drawing of 128 pixels: a disc on a background of smooth noise."""
    noise = np.random.default_rng(seed).integers(60, 256, (6, 6, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((128, 128), Image.Resampling.BICUBIC)
    image.paste(thing, (at[0], at[1], at[0] + 24, at[1] + 24))
    return image


def is_same(first: Image.Image, second: Image.Image) -> bool:
    large = np.array([min(*first.size, *second.size) >= LARGE])
    return bool(near_duplicates(small_copy(first)[None], small_copy(second)[None], large)[0])


def face(mouth: tuple[int, int]) -> Image.Image:
    """A drawn face of 512 pixels; the mouth is an arc from one angle to another."""
    drawn = Image.new("RGB", (512, 512), "white")
    canvas = ImageDraw.Draw(drawn)
    canvas.ellipse((20, 20, 492, 492), fill="#ffcc22")
    for left in (150, 310):
        canvas.ellipse((left, 170, left + 50, 240), fill="#664400")
    middle = 250 if mouth[0] == 30 else 410
    canvas.arc((160, middle - 90, 352, middle + 90), *mouth, fill="#664400", width=16)
    return drawn


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_copy_is_the_same_picture(kind: str, tmp_path: Path) -> None:
    rng = random.Random(1)
    for seed in range(8):
        scene(seed).save(tmp_path / f"{seed}.png")
        copy = open_image(write_copy(tmp_path / f"{seed}.png", kind, tmp_path, rng))
        assert is_same(scene(seed), copy)
        assert is_same(copy, scene(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_a_smile_is_no_copy_of_a_frown_but_of_itself(kind: str, tmp_path: Path) -> None:
    smile, frown = face((30, 150)), face((210, 330))
    smile.save(tmp_path / "smile.png")
    copy = open_image(write_copy(tmp_path / "smile.png", kind, tmp_path, random.Random(2)))
    assert is_same(smile, copy)
    assert not is_same(frown, copy)
    pair = small_copy(smile)[None], small_copy(frown)[None]
    assert near_duplicates(*pair, np.array([False]))[0]  # which the coarser comparison alone can't tell


@pytest.mark.parametrize(
    "other",
    [
        scene(0, thing=(30, 30, 200)),
        scene(0, at=(20, 60)),
        scene(0, at=(60, 76)),
        scene(1),
        scene(0).transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        scene(0).transpose(Image.Transpose.ROTATE_90),
        scene(0).crop((0, 0, 80, 80)),
        Image.new("RGB", (64, 64), (128, 128, 128)),
    ],
    ids="colour place near background mirrored turned part grey".split(),
)
def test_another_picture_is_not_the_same(other: Image.Image) -> None:
    assert not is_same(scene(0), other)
    assert not is_same(other, scene(0))


def test_dark_pictures_are_compared_by_what_they_show() -> None:
    dark = [scene(seed).point([level // 16 for level in range(256)] * 3) for seed in (0, 1)]
    assert not is_same(*dark)
    assert is_same(dark[0], dark[0].resize((90, 90)))
    assert is_same(Image.new("RGB", (64, 64), "white"), Image.new("RGB", (32, 48), "white"))
    none = np.empty((0, SIDE, 3, SIDE), np.uint8)
    assert len(near_duplicates(none, none)) == 0


def test_pairs_are_the_same_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    monkeypatch.setattr(duplicates, "NEAREST", 5)
    cosines = vectors @ vectors.T - 3 * np.eye(50)
    near = {(i, j) for i in range(50) for j in np.argsort(-cosines[i])[:5].tolist() if cosines[i, j] >= 0.5}
    expected = sorted({(min(pair), max(pair)) for pair in near})
    assert [tuple(pair) for pair in similar_pairs(vectors).tolist()] == expected
    monkeypatch.setattr(duplicates, "COSINES_AT_ONCE", 150)  # three rows at a time
    assert [tuple(pair) for pair in similar_pairs(vectors).tolist()] == expected
    for count in (0, 1):
        assert similar_pairs(vectors[:count]).shape == (0, 2)
    assert similar_pairs(vectors[[0, 0]]).tolist() == [[0, 1]]


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Two pictures, the first with a smaller JPEG and two files of its bytes, and one picture alone."""
    (folder := tmp_path / "photos").mkdir()
    for name, seed in (("a.png", 0), ("b.png", 1), ("c.png", 2)):
        scene(seed).save(folder / name)
    scene(0).resize((90, 90)).save(folder / "a-small.jpg", quality=70)
    (folder / "=copy.png").write_bytes((folder / "a.png").read_bytes())
    scene(1).crop((4, 4, 124, 126)).save(folder / "b-part.webp", quality=80)
    for number, name in enumerate(("a.png", "=copy.png")):
        os.utime(folder / name, (1_700_000_000 + number, 1_700_000_000 + number))
    return folder


def test_groups_name_the_file_to_keep_first(copied: Path, encoder: DualEncoder, tmp_path: Path) -> None:
    index = ImageIndex.open(tmp_path / "index", encoder)
    index.add(copied)
    done = list[tuple[int, int]]()
    found = index.duplicates(progress=lambda *counts: done.append(counts))
    named = [[(Path(file.path).name, file.same) for file in group] for group in found.groups]
    first = [("a.png", ""), ("=copy.png", "bytes"), ("a-small.jpg", "image")]
    assert sorted(named) == sorted([first, [("b.png", ""), ("b-part.webp", "image")]])
    assert (found.images, found.gone, found.unread, done[-1]) == (5, 0, [], (5, 5))
    assert found.spare_bytes == sum(file.bytes for group in found.groups for file in group[1:])
    exact = index.duplicates(exact=True)
    assert [[Path(file.path).name for file in group] for group in exact.groups] == [["a.png", "=copy.png"]]


def test_what_is_gone_or_damaged_is_said(copied: Path, encoder: DualEncoder, tmp_path: Path) -> None:
    index = ImageIndex.open(tmp_path / "index", encoder)
    assert ImageIndex.open(tmp_path / "none").duplicates().groups == []
    index.add(copied)
    (copied / "a.png").unlink()
    (copied / "b-part.webp").write_bytes(b"x")
    found = index.duplicates()
    assert (found.gone, [Path(file.path).name for file in found.unread]) == (1, ["b-part.webp"])
    assert [[Path(file.path).name for file in group] for group in found.groups] == [["=copy.png", "a-small.jpg"]]


def test_the_command(copied: Path, encoder: DualEncoder, tmp_path: Path) -> None:
    with pytest.raises(ImageIndexError, match="got none; make one: turkish-clip index"):
        run(copied)
    ImageIndex.open(copied / ".turkish-clip", encoder).add(copied)
    before = sorted(path.name for path in copied.iterdir())
    shown = run(copied, "--sheet", tmp_path / "sheet.html")
    assert shown.exit_code == 0
    assert (
        "2 groups of 5 files among 5 images, copies or near copies; all but the first of each take 19.0 kB; nothing "
        "was moved or deleted"
    ) in shown.stderr
    assert shown.stdout.count("(copy or near copy)") == 2
    assert shown.stdout.count("(identical file)") == 1
    assert (tmp_path / "sheet.html").is_file()
    as_json = json.loads(run(copied, "--json").stdout)
    assert (as_json["images"], as_json["gone"], as_json["skipped"]) == (5, 0, [])
    assert [file["same"] for file in as_json["groups"][0]] in (["", "bytes", "image"], ["", "image"])
    assert as_json["groups"][0][0].keys() == {"path", "bytes", "modified", "taken", "same", "second"}
    rows = list(csv.DictReader(io.StringIO(run(copied, "--csv", "--exact").stdout)))
    assert [(row["group"], row["same"]) for row in rows] == [("1", ""), ("1", "bytes")]
    (copied / "b.png").write_bytes(b"x")
    damaged = run(copied)
    assert (damaged.exit_code, "1 file could not be read" in damaged.stderr) == (1, True)
    assert before == sorted(path.name for path in copied.iterdir())
    with pytest.raises(ValueError, match="expected --csv or --json, got both"):
        run(copied, "--csv", "--json")


def pairs_of(groups: Sequence[Sequence[str]]) -> set[tuple[str, str]]:
    return {pair for group in groups for pair in combinations(sorted(group), 2)}


def identical(paths: Sequence[Path]) -> dict[str, str]:
    """The name of the first of the images with the same pixels, by name."""
    first: dict[bytes, str] = {}
    return {path.stem: first.setdefault(open_image(path).tobytes(), path.stem) for path in paths}


@pytest.mark.slow
def test_precision_and_recall_on_the_miniature_world(tmp_path: Path) -> None:
    from turkish_clip.dual_encoder import load_dual_encoder

    run_folder = ROOT / "runs" / "demo"
    if not run_folder.is_dir():
        pytest.skip("needs `make demo`")
    images = sorted((run_folder / "data" / "test").glob("*.png"))
    write_copies(images, tmp_path / "copies")
    precision, recall = measured(tmp_path, images, load_dual_encoder(run_folder, device="cpu"))
    assert precision >= 0.95, precision
    assert recall >= 0.95, recall


def measured(folder: Path, images: list[Path], encoder: DualEncoder) -> tuple[float, float]:
    """Precision and recall of pairs among images and their copies; images of the same pixels are copies, too."""
    index = ImageIndex.open(folder / "index", encoder)
    index.add(folder / "copies")
    picture = identical(images)
    members: dict[str, list[str]] = {}
    for path in (folder / "copies").iterdir():
        members.setdefault(picture[path.stem.partition("+")[0]], []).append(path.name)
    found = pairs_of([[Path(file.path).name for file in group] for group in index.duplicates().groups])
    true = pairs_of(list(members.values()))
    print(f"{len(found)} pairs found, {len(true)} true ones; wrong: {sorted(found - true)[:9]}")
    return len(found & true) / len(found), len(found & true) / len(true)


def test_noise_has_no_duplicates(tmp_path: Path, encoder: DualEncoder) -> None:
    for number in range(6):
        paint(tmp_path / "photos" / f"{number}.png", number)
        patches(number).save(tmp_path / "photos" / f"patches-{number}.png")
    index = ImageIndex.open(tmp_path / "index", encoder)
    index.add(tmp_path / "photos")
    assert index.duplicates().groups == []
