"""Targets: right vectors, listed rejects, and the same bytes after any kill."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import paint, run_killed, stored_ids, stored_vectors, write_rows
from PIL import Image

from training import embed_images
from training.captions import read_captions
from training.command import run_command
from training.config import EmbedConfig, SourceConfig, read
from training.rows import CaptionsError, Row
from training.targets import Manifest, TargetsError, read_targets
from turkish_clip.encoder import load_model


def arguments(source: Path, clip: Path, run: Path, *more: str) -> list[str]:
    base = f"--captions {source} --image_model {clip} --run {run} --image_batch_size 4 --shard_size 10 --device cpu"
    return [*base.split(), "--dtype", "float32", *more]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def broken_source(captioned_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The captioned folder with a truncated, an empty and a text file among its pictures."""
    folder = tmp_path_factory.mktemp("broken") / "pictures"
    shutil.copytree(captioned_folder, folder)
    whole = (folder / "train" / "00003.png").read_bytes()
    (folder / "train" / "00003.png").write_bytes(whole[:400])
    (folder / "train" / "00011.png").write_bytes(b"")
    (folder / "test" / "00002.png").write_text("merhaba", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def finished(broken_source: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("finished")
    embed_images.main(arguments(broken_source, tiny_clip, run, "--max_reject_share", "0.1"))
    return run / "targets"


def test_vectors_are_those_of_the_image_model(finished: Path, broken_source: Path, tiny_clip: Path) -> None:
    targets = read_targets(finished, image_model=str(tiny_clip), dim=16)
    config = SourceConfig(captions=str(broken_source), run="x")
    rows = [row for row in read_captions(config).rows if row.image_id not in targets.rejected]
    expected = load_model(tiny_clip, device="cpu").encode([row.open() for row in rows])
    ids = [row.image_id for row in rows]
    raw = np.zeros_like(expected)
    for places, vectors in targets.by_shard(targets.rows(ids)):
        raw[places] = vectors
    assert np.allclose(raw, expected, atol=1e-5)
    norms = np.linalg.norm(targets.unit_rows(ids), axis=1)
    assert np.allclose(norms, 1, atol=1e-6)
    assert not targets.manifest.normalised


def test_rejects_are_listed_with_reasons(finished: Path) -> None:
    lines = [json.loads(line) for line in (finished / "rejects.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {(line["image_id"], line["reason"]) for line in lines} == {
        ("train-00003", "a truncated or damaged picture"),
        ("train-00011", "an empty file"),
        ("test-00002", "a file that is not a picture"),
    }
    assert all(Path(line["path"]).name.endswith(".png") for line in lines)
    manifest = Manifest.read(finished)
    assert manifest is not None
    assert (manifest.pictures, manifest.rejected, manifest.complete) == (45, 3, True)


def test_again_changes_nothing(finished: Path, broken_source: Path, tiny_clip: Path) -> None:
    before = contents(finished)
    embed_images.main(arguments(broken_source, tiny_clip, finished.parent, "--max_reject_share", "0.1"))
    assert contents(finished) == before


@pytest.mark.parametrize(
    ("target", "nth"),
    [
        ("training.embed_images:write_shard", 3),
        pytest.param("training.targets:sha256_of", 2, marks=pytest.mark.slow),
        pytest.param("training.embed_images:write_rejects", 1, marks=pytest.mark.slow),
        pytest.param("training.targets:write_json", 2, marks=pytest.mark.slow),
        pytest.param("turkish_clip.atomic:_sync", 1, marks=pytest.mark.slow),
        pytest.param("turkish_clip.atomic:_sync", 5, marks=pytest.mark.slow),
        pytest.param("sentence_transformers:SentenceTransformer.forward", 6, marks=pytest.mark.slow),
    ],
)
def test_killed_and_started_again_gives_the_same_bytes(
    finished: Path, broken_source: Path, tiny_clip: Path, tmp_path: Path, target: str, nth: int
) -> None:
    argv = arguments(broken_source, tiny_clip, tmp_path, "--max_reject_share", "0.1")
    run_killed("training.embed_images", target, nth, argv)
    with pytest.raises(TargetsError, match="run training.embed_images"):
        read_targets(tmp_path / "targets")
    embed_images.main(argv)
    assert contents(tmp_path / "targets") == contents(finished)


@pytest.mark.slow
def test_killed_at_ten_random_moments_it_ends_with_the_same_bytes(
    finished: Path, broken_source: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    argv = arguments(broken_source, tiny_clip, tmp_path, "--max_reject_share", "0.1")
    program = [sys.executable, str(Path(__file__).with_name("random_kills.py")), "training.embed_images", "10", "0"]
    done = subprocess.run([*program, str(tmp_path / "targets"), *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    embed_images.main(argv)
    assert contents(tmp_path / "targets") == contents(finished)


def flipped(shard: bytes) -> bytes:
    return shard[:200] + bytes([shard[200] ^ 1]) + shard[201:]


def cut(shard: bytes) -> bytes:
    return shard[:-100]


@pytest.mark.parametrize("damage", [flipped, cut])
def test_a_damaged_shard_is_found_and_redone(
    finished: Path, broken_source: Path, tiny_clip: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    shutil.copytree(finished, tmp_path / "targets")
    shard = tmp_path / "targets" / "shard-00001.parquet"
    shard.write_bytes(damage(shard.read_bytes()))
    with pytest.raises(TargetsError, match=r"shard-00001.parquet as written, got other bytes"):
        read_targets(tmp_path / "targets")
    embed_images.main(arguments(broken_source, tiny_clip, tmp_path, "--max_reject_share", "0.1"))
    assert contents(tmp_path / "targets") == contents(finished)


def test_a_mended_picture_is_taken_up(broken_source: Path, tiny_clip: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(broken_source, source)
    argv = arguments(source, tiny_clip, tmp_path, "--max_reject_share", "0.1")
    embed_images.main(argv)
    shutil.copy(source / "train" / "00004.png", source / "train" / "00003.png")
    embed_images.main(argv)
    targets = read_targets(tmp_path / "targets")
    assert targets.rejected == {"train-00011", "test-00002"}
    assert np.array_equal(targets.unit_rows(["train-00003"]), targets.unit_rows(["train-00004"]))


def test_a_repair_that_is_cut_off_is_not_complete(
    finished: Path, broken_source: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "targets")
    for number in (1, 3):
        (tmp_path / "targets" / f"shard-{number:05d}.parquet").unlink()
    argv = arguments(broken_source, tiny_clip, tmp_path, "--max_reject_share", "0.1")
    run_killed("training.embed_images", "training.embed_images:write_shard", 2, argv)
    with pytest.raises(TargetsError, match="expected finished targets"):
        read_targets(tmp_path / "targets")
    embed_images.main(argv)
    assert contents(tmp_path / "targets") == contents(finished)


def test_rows_rejected_while_reading_are_listed_too(tiny_clip: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    Image.new("RGB", (8, 8)).save(source / "0.png")
    write_rows(source, [{"file_name": f"{n}.png", "caption": "ev"} for n in range(2)])
    embed_images.main(arguments(source, tiny_clip, tmp_path, "--max_reject_share", "0.5"))
    assert json.loads((tmp_path / "targets" / "rejects.jsonl").read_text(encoding="utf-8"))["reason"] == "no file"


def test_a_picture_with_a_rejected_row_and_a_good_one_is_listed_once(tiny_clip: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(2):
        Image.new("RGB", (8, 8)).save(source / f"{number}.png")
    rows = [("0.png", ""), ("0.png", "ev"), ("1.png", "kuş")]
    write_rows(source, [{"file_name": name, "caption": caption} for name, caption in rows])
    for _ in range(3):
        embed_images.main(arguments(source, tiny_clip, tmp_path, "--max_reject_share", "0.5"))
        lines = (tmp_path / "targets" / "rejects.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line)["reason"] for line in lines] == ["no caption"]


def test_float16_halves_the_file_and_keeps_the_direction(
    finished: Path, broken_source: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    argv = arguments(broken_source, tiny_clip, tmp_path, "--max_reject_share", "0.1", "--target_dtype", "float16")
    embed_images.main(argv)
    half, whole = read_targets(tmp_path / "targets"), read_targets(finished)
    assert {vectors.dtype for _, vectors in half.by_shard(np.arange(len(half.ids)))} == {np.dtype(np.float16)}
    ids = stored_ids(finished)
    assert np.allclose(half.unit_rows(ids), whole.unit_rows(ids), atol=2e-3)


def test_too_many_rejects_stop_and_keep_what_was_done(broken_source: Path, tiny_clip: Path, tmp_path: Path) -> None:
    with pytest.raises(
        CaptionsError, match=r"at most 2.0% rejects .*1 × a truncated or damaged picture; the first: .*00003.png"
    ):
        embed_images.main(arguments(broken_source, tiny_clip, tmp_path))
    manifest = Manifest.read(tmp_path / "targets")
    assert manifest is not None
    assert not manifest.complete


def test_another_models_targets_are_refused(finished: Path, broken_source: Path, tiny_clip: Path) -> None:
    with pytest.raises(TargetsError, match="expected targets of the image model clip-ViT-B-32, got those of"):
        read_targets(finished, image_model="clip-ViT-B-32")
    with pytest.raises(TargetsError, match="expected targets of width 512, got 16"):
        read_targets(finished, dim=512)
    with pytest.raises(TargetsError, match="got dtype float16 instead of float32"):
        embed_images.main(arguments(broken_source, tiny_clip, finished.parent, "--target_dtype", "float16"))


def test_a_picture_without_a_target(finished: Path) -> None:
    with pytest.raises(TargetsError, match="got none for 1, the first 'unknown'"):
        read_targets(finished).rows(["train-00000", "unknown"])


def test_no_targets_and_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(TargetsError, match="run training.embed_images first"):
        read_targets(tmp_path)
    (tmp_path / "manifest.json").write_text("{}", encoding="utf-8")
    with pytest.raises(TargetsError, match="expected a manifest of targets"):
        read_targets(tmp_path)


def test_a_manifest_that_lies_about_norms(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "targets")
    path = tmp_path / "targets" / "manifest.json"
    path.write_text(
        path.read_text(encoding="utf-8").replace('"normalised": false', '"normalised": true'), encoding="utf-8"
    )
    with pytest.raises(TargetsError, match="expected unit vectors"):
        read_targets(tmp_path / "targets")


def test_a_text_model_as_the_image_model(broken_source: Path, tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetsError, match="expected an image model"):
        embed_images.main(arguments(broken_source, tiny_bert, tmp_path))


def test_a_shard_without_one_good_picture(tiny_clip: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(15):
        Image.new("RGB", (8, 8), (number * 10, 0, 0)).save(source / f"{number:02d}.png")
        if number < 10:
            (source / f"{number:02d}.png").write_bytes(b"")
    write_rows(source, [{"file_name": f"{n:02d}.png", "caption": "ev"} for n in range(15)])
    embed_images.main(arguments(source, tiny_clip, tmp_path, "--max_reject_share", "0.9"))
    targets = read_targets(tmp_path / "targets")
    assert stored_ids(targets.folder) == [f"{n:02d}.png" for n in range(10, 15)]
    assert len(targets.rejected) == 10


def test_the_hash_of_each_file_is_kept(finished: Path, broken_source: Path) -> None:
    rows = read_captions(SourceConfig(captions=str(broken_source), run="x")).rows
    targets = read_targets(finished)
    stored = targets.contents(32)
    assert stored is not None
    for row, place in zip(rows, targets.find([row.image_id for row in rows])):
        assert (place < 0) == (row.image_id in targets.rejected)
        if place >= 0:
            assert stored[place] == hashlib.sha256(row.image.read_bytes()).digest()


def test_the_hash_of_a_picture_inside_a_table(captioned_folder: Path, tiny_clip: Path, tmp_path: Path) -> None:
    pictures = [path.read_bytes() for path in sorted((captioned_folder / "test").glob("*.png"))]
    table = {"image": [{"bytes": data, "path": None} for data in pictures], "caption": ["ev"] * len(pictures)}
    pq.write_table(pa.table(table), tmp_path / "data.parquet")
    embed_images.main(arguments(tmp_path / "data.parquet", tiny_clip, tmp_path))
    stored = read_targets(tmp_path / "targets").contents(32)
    assert stored is not None
    assert stored.tolist() == [hashlib.sha256(data).digest() for data in pictures]


def test_the_dtype_of_the_computation_is_part_of_the_work(
    finished: Path, broken_source: Path, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("--max_reject_share", "0.1")
    with pytest.raises(TargetsError, match="got computed_in bf16 instead of float32"):
        embed_images.main(arguments(broken_source, tiny_clip, finished.parent, *more, "--dtype", "bf16"))
    before = contents(finished)
    monkeypatch.setattr(embed_images, "fast_dtype", lambda device: "bf16")  # of another machine
    embed_images.main(arguments(broken_source, tiny_clip, finished.parent, *more, "--dtype", "auto"))
    assert contents(finished) == before
    embed_images.main(arguments(broken_source, tiny_clip, tmp_path, *more, "--dtype", "auto"))
    low, exact = read_targets(tmp_path / "targets"), read_targets(finished)
    assert low.manifest.computed_in == "bf16"
    ids = stored_ids(finished)
    cosines = (low.unit_rows(ids) * exact.unit_rows(ids)).sum(axis=1)
    assert 0.9999 < cosines.min() < 1 - 1e-7


def without_hashes(folder: Path) -> None:
    """Makes of targets what they were before they held hashes of the files and a shard its rejects."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    del manifest["content"], manifest["computed_in"]
    for shard in manifest["shards"]:
        path = folder / shard["file"]
        pq.write_table(pq.read_table(path).drop(["content"]).replace_schema_metadata(None), path)
        shard["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def test_targets_without_hashes_are_read_and_gone_on_with(
    finished: Path, broken_source: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    older, rejects = tmp_path / "targets", (finished / "rejects.jsonl").read_bytes()
    shutil.copytree(finished, older)
    without_hashes(older)
    assert read_targets(older).contents(32) is None
    vectors = stored_vectors(finished)
    before = (older / "shard-00000.parquet").read_bytes()
    (older / "shard-00003.parquet").unlink()
    for again in range(2):
        more = ("--max_reject_share", "0.1" if again else "0")
        if again:
            embed_images.main(arguments(broken_source, tiny_clip, tmp_path, *more))
        else:
            with pytest.raises(CaptionsError, match="at most 0.0% rejects"):
                embed_images.main(arguments(broken_source, tiny_clip, tmp_path, *more))
        assert (older / "rejects.jsonl").read_bytes() == rejects
    assert np.array_equal(stored_vectors(older), vectors)
    assert read_targets(older).contents(32) is None
    assert (older / "shard-00000.parquet").read_bytes() == before


@pytest.mark.parametrize("gone", [["train/00005.png"], ["train", "test", "validation"]], ids=["one", "all"])
def test_pictures_that_vanish_meanwhile_are_taken_up_when_they_are_back(
    finished: Path, broken_source: Path, tiny_clip: Path, tmp_path: Path, gone: list[str]
) -> None:
    shutil.copytree(broken_source, tmp_path / "source")
    away = tmp_path / "away"
    away.mkdir()
    argv = arguments(tmp_path / "source", tiny_clip, tmp_path, "--max_reject_share", "0.1")
    config = read(EmbedConfig, argv)
    captions, model = read_captions(config), load_model(tiny_clip, device="cpu")
    sized = embed_images.Chunk

    def vanish(number: int, rows: list[Row], sizes: list[int]) -> embed_images.Chunk:
        for name in gone:
            if (tmp_path / "source" / name).exists():
                (tmp_path / "source" / name).rename(away / Path(name).name)
        return sized(number, rows, sizes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embed_images, "Chunk", vanish)
        manifest = embed_images.plan(model, config)
        if len(gone) == 1:
            done = embed_images.embed_missing(model, captions, manifest, config)
            assert (done.pictures, done.rejected) == (44, 4)
        else:
            with pytest.raises(CaptionsError, match=r"at most 10.0% rejects .*× no file"):
                embed_images.embed_missing(model, captions, manifest, config)
    rejects = (tmp_path / "targets" / "rejects.jsonl").read_text(encoding="utf-8").splitlines()
    assert "no file" in [json.loads(line)["reason"] for line in rejects]
    for name in gone:
        (away / Path(name).name).rename(tmp_path / "source" / name)
    embed_images.main(argv)
    ours, theirs = (Manifest.read(folder) for folder in (tmp_path / "targets", finished))
    assert ours is not None
    assert theirs is not None
    assert [shard.source_sha256 for shard in ours.shards] == [shard.source_sha256 for shard in theirs.shards]
    assert np.array_equal(stored_vectors(tmp_path / "targets"), stored_vectors(finished))


@pytest.mark.parametrize("file", ["shard-00000.parquet", "shard-00002.parquet", "manifest.json", "rejects.jsonl"])
def test_a_full_disk_leaves_nothing_half_written(
    finished: Path, broken_source: Path, tiny_clip: Path, tmp_path: Path, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = arguments(broken_source, tiny_clip, tmp_path, "--max_reject_share", "0.1")
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / f"{file}.partial").symlink_to("/dev/full")  # where every write says: no space left
    with pytest.raises(SystemExit, match="2"):
        run_command(embed_images.main, argv)
    assert "error: expected free disk space, got a full disk" in capsys.readouterr().err
    whole = contents(finished)
    for name, data in contents(tmp_path / "targets").items():
        assert name == "manifest.json" or name == "rejects.jsonl" or data == whole[name]
    with pytest.raises(TargetsError, match="run training.embed_images"):
        read_targets(tmp_path / "targets")
    embed_images.main(argv)
    assert contents(tmp_path / "targets") == whole


def breakages() -> dict[str, bytes]:
    """Ten ways in which a file is no picture."""
    buffer = io.BytesIO()
    Image.effect_noise((48, 48), 60).convert("RGB").save(buffer, "JPEG")
    jpeg = buffer.getvalue()
    buffer = io.BytesIO()
    Image.effect_noise((48, 48), 60).save(buffer, "PNG")
    png = buffer.getvalue()
    bomb = png[:16] + struct.pack(">II", 60_000, 60_000) + png[24:]
    bomb = bomb[:29] + struct.pack(">I", zlib.crc32(bomb[12:29])) + bomb[33:]
    return {
        "empty": b"",
        "text": "merhaba, ben bir resim değilim".encode(),
        "page": b"<html><title>404</title></html>",
        "cut png": png[: len(png) // 2],
        "cut jpeg": jpeg[:150],
        "zeros": bytes(2000),
        "packed": gzip.compress(png),
        "flipped": png[:60] + bytes(byte ^ 0x55 for byte in png[60:]),
        "bomb": bomb,
        "drawing": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    }


@pytest.mark.slow
def test_a_thousand_broken_files_among_twenty_thousand(tiny_clip: Path, tmp_path: Path) -> None:
    source, rng, bad = tmp_path / "source", random.Random(0), {}
    source.mkdir()
    broken = set(rng.sample(range(20_000), 1000))
    ways, good = list(breakages().items()), [paint(tmp_path / f"{n}.png", n).read_bytes() for n in range(50)]
    for number in range(20_000):
        name = f"{number:05d}.png"
        kind, data = ways[len(bad) % 10] if number in broken else ("", good[number % 50])
        (source / name).write_bytes(data)
        if kind:
            bad[name] = kind
    write_rows(source, [{"file_name": f"{number:05d}.png", "caption": "ev"} for number in range(20_000)])
    argv = f"--captions {source} --image_model {tiny_clip} --run {tmp_path} --device cpu --dtype float32".split()
    embed_images.main([*argv, "--max_reject_share", "0.05"])
    targets = read_targets(tmp_path / "targets")
    assert targets.rejected == bad.keys()
    assert set(stored_ids(targets.folder)) == {f"{number:05d}.png" for number in range(20_000)} - bad.keys()
    vectors = targets.unit_rows([f"{number:05d}.png" for number in range(20_000) if number not in broken])
    same = [number % 50 for number in range(20_000) if number not in broken]
    firsts = {kind: place for place, kind in reversed(list(enumerate(same)))}
    assert np.allclose(vectors, vectors[[firsts[kind] for kind in same]], atol=1e-5)
    lines = (tmp_path / "targets" / "rejects.jsonl").read_text(encoding="utf-8").splitlines()
    reasons = {(bad[line["image_id"]], line["reason"]) for line in map(json.loads, lines)}
    assert len(lines) == 1000
    assert reasons == {
        ("empty", "an empty file"),
        ("text", "a file that is not a picture"),
        ("page", "a file that is not a picture"),
        ("cut png", "a truncated or damaged picture"),
        ("cut jpeg", "a file that is not a picture"),
        ("zeros", "a file that is not a picture"),
        ("packed", "a file that is not a picture"),
        ("flipped", "a truncated or damaged picture"),
        ("bomb", "more than 178956970 pixels"),
        ("drawing", "a file that is not a picture"),
    }
