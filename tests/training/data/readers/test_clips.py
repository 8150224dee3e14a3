"""Videos and sounds as sources: some frames or spectrograms of each, with its captions and in one split."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from films import film
from photographs import patches
from samples import embed_arguments, paint, stored_ids, write_rows
from tones import sweep, tones, write_wav

from training import distill, embed_images, evaluate, pretrain
from training.data.duplicates import digests_of_files, disjoint_splits
from training.data.readers.clips import ClipImage
from training.data.sources import Captions, read_captions
from training.embeddings.manifest import EmbeddingsError
from training.run.recipe import ConfigError
from training.run.source import SourceConfig, SourceError
from turkish_clip.clips import image_at, whole_name
from turkish_clip.images import ImageError
from turkish_clip.sounds import spectrogram


def read(folder: Path, *, check_files: bool = True, **options: Any) -> Captions:
    common: dict[str, Any] = {"run": "unused", "max_skipped_fraction": 1.0}
    common |= {"test_fraction": 0.0, "validation_fraction": 0.0}
    return read_captions(SourceConfig(captions=str(folder), **{**common, **options}), check_files=check_files)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """An image, a video of six pictures for two seconds each, 22 seconds of sound, and what does not open."""
    folder = tmp_path / "mixed"
    paint(folder / "a.png", 0)
    film(folder / "b.mp4", [patches(number) for number in range(6)])
    write_wav(folder / "c.wav", sweep(300, 3000, 22))
    write_wav(folder / "d.wav", np.concatenate([sweep(300, 900, 5), tones([], 5)]))
    (folder / "e.mkv").write_bytes(b"x" * 99)
    (folder / "f.mp3").write_text("metin\n" * 999)
    names = ["a.png", "b.mp4", "c.wav", "d.wav", "e.mkv", "f.mp3", "g.wav"]
    return write_rows(folder, [{"file_name": name, "caption": f"bir {name[0]}"} for name in names])


def test_each_becomes_some_images_with_its_caption(mixed: Path) -> None:
    captions = read(mixed)
    assert [(row.image_id, row.captions) for row in captions.rows] == [
        ("a.png", ("bir a",)),
        *((f"b.mp4#t={second}", ("bir b",)) for second in (2, 6, 10)),  # the middles of three times four seconds
        *((f"c.wav#t={second}", ("bir c",)) for second in (0, 10, 20)),  # of five the first, third and last
        *((f"d.wav#t={second}", ("bir d",)) for second in (0, 5)),
    ]
    assert [(sample.image_id, sample.reason) for sample in captions.skipped] == [
        ("e.mkv", "a truncated or damaged video"),
        ("f.mp3", "a truncated or damaged sound"),
        ("g.wav", "no file"),
    ]
    rows = {row.image_id: row for row in captions.rows}
    frame = rows["b.mp4#t=6"]
    assert frame.image == ClipImage(mixed / "b.mp4", 6.0)
    assert frame.image.place == f"{mixed / 'b.mp4'}#t=6"
    assert frame.size == (mixed / "b.mp4").stat().st_size
    assert (np.asarray(frame.open()) == np.asarray(image_at(mixed / "b.mp4", 6))).all()
    heard = np.asarray(rows["c.wav#t=0"].load().image, np.int16)
    assert np.abs(heard - np.asarray(spectrogram(sweep(300, 3000, 22)[:80_000]))).mean() < 0.1
    with pytest.raises(ImageError, match="nothing but silence"):
        rows["d.wav#t=5"].open()


@pytest.mark.parametrize(
    ("count", "frames", "spectrograms"),
    [(1, [6], [10]), (2, [3, 9], [5, 15]), (0, [1, 3, 5, 7, 9, 11], [0, 5, 10, 15, 20])],
)
def test_how_many_images_there_are_of_each(mixed: Path, count: int, frames: list[int], spectrograms: list[int]) -> None:
    ids = list(read(mixed, clip_images=count).rows.image_ids())
    assert [image_id for image_id in ids if image_id.startswith("b")] == [f"b.mp4#t={second}" for second in frames]
    assert [name for name in ids if name.startswith("c")] == [f"c.wav#t={second}" for second in spectrograms]


def test_a_negative_number_is_refused(mixed: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected .*clip_images.* 0 to 10000, got -1"):
        embed_images.main(f"--captions {mixed} --clip_images -1 --run unused".split())


def test_all_images_of_a_clip_are_in_one_split(tmp_path: Path) -> None:
    sound = write_wav(tmp_path / "0.wav", sweep(300, 3000, 20))
    for number in range(1, 60):
        shutil.copy(sound, tmp_path / f"{number}.wav")
    write_rows(tmp_path, [{"file_name": f"{number}.wav", "caption": f"ses {number}"} for number in range(60)])
    rows = read(tmp_path, test_fraction=0.3, validation_fraction=0.2).rows
    splits = defaultdict(set)
    for row in rows:
        splits[whole_name(row.image_id)].add(row.split)
    assert {len(of_clip) for of_clip in splits.values()} == {1}
    assert {split for of_clip in splits.values() for split in of_clip} == {"train", "validation", "test"}
    named = write_rows(tmp_path, [{"file_name": f"{n}.wav", "caption": "ses", "image_id": f"x{n}"} for n in range(60)])
    of_ids = read(named, test_fraction=0.3).rows
    assert of_ids[0].image_id == "x0#t=0"
    assert len({(whole_name(row.image_id), row.split) for row in of_ids}) == 60


def test_equal_files_of_two_splits_are_found_by_each_of_their_images(tmp_path: Path) -> None:
    one = film(tmp_path / "one.mp4", [patches(number) for number in range(3)])
    shutil.copy(one, tmp_path / "copy.mp4")
    film(tmp_path / "other.mp4", [patches(number) for number in range(10, 13)])
    rows = [("one.mp4", "train"), ("other.mp4", "train"), ("copy.mp4", "test")]
    write_rows(tmp_path, [{"file_name": name, "caption": name, "split": split} for name, split in rows])
    captions = read(tmp_path)
    disjoint = disjoint_splits(captions, digests_of_files(captions.rows, len(captions.rows)))
    assert disjoint.removed == {"train": 3, "validation": 0, "test": 0}
    assert [row.image_id for row in disjoint.captions.split("train")] == [f"other.mp4#t={n}" for n in (1, 3, 5)]


def test_captions_in_rows_of_their_own_are_those_of_one_clip(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav"):
        write_wav(tmp_path / name, sweep(300, 3000, 5))
    write_rows(
        tmp_path, [{"file_name": name, "caption": f"{name} {n}"} for n in range(2) for name in ("a.wav", "b.wav")]
    )
    assert {row.image_id: row.captions for row in read(tmp_path).rows} == {
        f"{name}#t=0": (f"{name} 0", f"{name} 1") for name in ("a.wav", "b.wav")
    }


def test_a_text_beside_each(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_wav(tmp_path / "a.wav", sweep(300, 3000, 5))
    write_wav(tmp_path / "alone.wav", sweep(300, 3000, 5))
    film(tmp_path / "b.mp4", [patches(0)])
    film(tmp_path / "alone.mp4", [patches(0)])
    (tmp_path / "a.txt").write_text("yükselen bir ses", encoding="utf-8")
    (tmp_path / "b.txt").write_text("bir film", encoding="utf-8")
    captions = read(tmp_path)
    assert {row.image_id: row.captions for row in captions.rows} == {
        "a.wav#t=0": ("yükselen bir ses",),
        "b.mp4#t=1": ("bir film",),
    }
    assert not captions.skipped
    assert "not read" not in caplog.text


def test_without_the_library_they_are_skipped_with_what_to_install(
    mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turkish_clip.videos.has_library", lambda kind: False)
    captions = read(mixed)
    assert [row.image_id for row in captions.rows] == ["a.png"]
    reasons = {sample.path.rpartition("/")[2]: sample.reason for sample in captions.skipped}
    assert '[video]"' in reasons["b.mp4"]
    assert '[sound]"' in reasons["c.wav"]


def test_a_source_of_what_does_not_open_is_refused(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", sweep(300, 900, 5))
    (tmp_path / "a.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:20])
    write_rows(tmp_path, [{"file_name": "a.wav", "caption": "ses"}])
    message = r"got none in 1 rows \(1 × a truncated or damaged sound\); play one of its videos or sounds"
    with pytest.raises(SourceError, match=message):
        read(tmp_path)


SMALL = "--backbone scratch --scratch_layers 1 --scratch_hidden 32 --scratch_vocabulary 300 --batch_size 4 --epochs 1"
SMALL_CLIP = "--image_size 16 --vision_layers 1 --vision_hidden 32 --text_layers 1 --text_hidden 32 --vocabulary 530"


@pytest.mark.slow
def test_every_command_runs_on_them(tmp_path: Path, tiny_clip: Path) -> None:
    folder = tmp_path / "clips"
    rows: list[dict[str, object]] = []
    for number in range(12):
        split = ("train", "train", "validation", "test")[number % 4]
        paint(folder / f"{number}.png", number)
        film(folder / f"{number}.mp4", [patches(3 * number + place) for place in range(3)])
        write_wav(folder / f"{number}.wav", sweep(300 + 50 * number, 3000, 7))
        for kind, what in (("png", "resim"), ("mp4", "film"), ("wav", "ses")):
            rows.append({"file_name": f"{number}.{kind}", "caption": f"{what} {number}", "split": split})
    (folder / "bad.wav").write_text("metin")
    rows.append({"file_name": "bad.wav", "caption": "bozuk bir ses", "split": "train"})
    write_rows(folder, rows)
    run, skipping = tmp_path / "run", ["--max_skipped_fraction", "0.1"]
    embed_images.main(embed_arguments(folder, tiny_clip, run, *skipping))
    ids = stored_ids(run / "embeddings")
    assert len(ids) == 12 * (1 + 3 + 2)
    assert {"3.png", "3.mp4#t=3", "3.wav#t=5"} <= set(ids)
    [line] = (run / "embeddings" / "skipped.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["reason"] == "a truncated or damaged sound"
    shared = f"--captions {folder} --run {run} --device cpu --image_model {tiny_clip}".split() + skipping
    distill.main([*shared, *SMALL.split()])
    assert evaluate.main(shared)["images"] == 3 * (1 + 3 + 2)
    with pytest.raises(EmbeddingsError, match=r"got none for .*the first '0.mp4#t=1.5'"):
        distill.main([*shared, *SMALL.split(), "--clip_images", "2", "--run", str(tmp_path / "other"),
                      "--embeddings", str(run / "embeddings")])  # fmt: skip
    clip = tmp_path / "clip"
    pretrain.main(
        [*f"--captions {folder} --run {clip} --device cpu --batch_size 8 --epochs 1 --patch_size 8".split(),
         *SMALL_CLIP.split(), *skipping]
    )  # fmt: skip
    assert json.loads((clip / "model" / "results.json").read_text(encoding="utf-8"))["test"]["images"] == 18
