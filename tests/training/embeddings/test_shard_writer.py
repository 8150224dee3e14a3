"""Embedding under faults: kills, damaged shards, a full disk, files that vanish and files that are no images."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from killing import run_killed
from PIL import Image
from random_kills import run_killed_at_random
from samples import embed_arguments, file_contents, paint, stored_ids, write_rows

from training import embed_images
from training.data.samples import Row
from training.data.sources import read_captions
from training.embeddings import shard_writer
from training.embeddings.manifest import EmbeddingsError, Manifest
from training.embeddings.store import read_embeddings
from training.run.command import run_command
from training.run.config import EmbedConfig, read
from training.run.source import SourceError
from turkish_clip import atomic
from turkish_clip.encoder import load_model


@pytest.mark.parametrize(
    ("target", "nth"),
    [
        ("training.embeddings.shard_writer:write_shard", 3),
        pytest.param("training.embeddings.manifest:sha256_of", 2, marks=pytest.mark.slow),
        pytest.param("training.embeddings.shard_writer:write_skipped", 1, marks=pytest.mark.slow),
        pytest.param("training.embeddings.manifest:write_record", 2, marks=pytest.mark.slow),
        pytest.param("turkish_clip.atomic:_sync", 1, marks=pytest.mark.slow),
        pytest.param("turkish_clip.atomic:_sync", 5, marks=pytest.mark.slow),
        pytest.param("sentence_transformers:SentenceTransformer.forward", 6, marks=pytest.mark.slow),
    ],
)
def test_a_killed_and_repeated_run_gives_the_same_bytes(
    finished: Path, broken_source: Path, tiny_clip: Path, tmp_path: Path, target: str, nth: int
) -> None:
    argv = embed_arguments(broken_source, tiny_clip, tmp_path, "--max_skipped_fraction", "0.1")
    run_killed("training.embed_images", target, nth, argv)
    with pytest.raises(EmbeddingsError, match="run training.embed_images"):
        read_embeddings(tmp_path / "embeddings")
    embed_images.main(argv)
    assert file_contents(tmp_path / "embeddings") == file_contents(finished)


@pytest.mark.slow
def test_a_run_killed_at_ten_random_moments_ends_with_the_same_bytes(
    finished: Path, broken_source: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    argv = embed_arguments(broken_source, tiny_clip, tmp_path, "--max_skipped_fraction", "0.1")
    run_killed_at_random("training.embed_images", tmp_path / "embeddings", argv)
    embed_images.main(argv)
    assert file_contents(tmp_path / "embeddings") == file_contents(finished)


def flipped(shard: bytes) -> bytes:
    return shard[:200] + bytes([shard[200] ^ 1]) + shard[201:]


def cut(shard: bytes) -> bytes:
    return shard[:-100]


@pytest.mark.parametrize("damage", [flipped, cut])
def test_a_damaged_shard_is_found_and_embedded_again(
    finished: Path, broken_source: Path, tiny_clip: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    shutil.copytree(finished, tmp_path / "embeddings")
    shard = tmp_path / "embeddings" / "shard-00001.parquet"
    shard.write_bytes(damage(shard.read_bytes()))
    with pytest.raises(EmbeddingsError, match=r"shard-00001.parquet as written, got other bytes"):
        read_embeddings(tmp_path / "embeddings")
    embed_images.main(embed_arguments(broken_source, tiny_clip, tmp_path, "--max_skipped_fraction", "0.1"))
    assert file_contents(tmp_path / "embeddings") == file_contents(finished)


def test_an_interrupted_repair_is_not_complete(
    finished: Path, broken_source: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "embeddings")
    for number in (1, 3):
        (tmp_path / "embeddings" / f"shard-{number:05d}.parquet").unlink()
    argv = embed_arguments(broken_source, tiny_clip, tmp_path, "--max_skipped_fraction", "0.1")
    run_killed("training.embed_images", "training.embeddings.shard_writer:write_shard", 2, argv)
    with pytest.raises(EmbeddingsError, match="expected finished image embeddings"):
        read_embeddings(tmp_path / "embeddings")
    embed_images.main(argv)
    assert file_contents(tmp_path / "embeddings") == file_contents(finished)


@pytest.mark.parametrize("gone", [["train/00005.png"], ["train", "test", "validation"]], ids=["one", "all"])
def test_images_that_vanish_while_a_run_embeds_are_embedded_when_they_are_back(
    finished: Path, broken_source: Path, tiny_clip: Path, tmp_path: Path, gone: list[str]
) -> None:
    shutil.copytree(broken_source, tmp_path / "source")
    away = tmp_path / "away"
    away.mkdir()
    argv = embed_arguments(tmp_path / "source", tiny_clip, tmp_path, "--max_skipped_fraction", "0.1")
    config = read(EmbedConfig, argv)
    captions, model = read_captions(config), load_model(tiny_clip, device="cpu")
    new_chunk = shard_writer.Chunk

    def vanish(number: int, rows: list[Row], sizes: list[int]) -> shard_writer.Chunk:
        for name in gone:
            if (tmp_path / "source" / name).exists():
                (tmp_path / "source" / name).rename(away / Path(name).name)
        return new_chunk(number, rows, sizes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_writer, "Chunk", vanish)
        manifest = shard_writer.plan(model, config)
        if len(gone) == 1:
            finished_manifest = shard_writer.embed_missing(model, captions, manifest, config)
            assert (finished_manifest.images, finished_manifest.skipped) == (44, 4)
        else:
            with pytest.raises(SourceError, match=r"at most 10.0% skipped .*× no file"):
                shard_writer.embed_missing(model, captions, manifest, config)
    skipped = (tmp_path / "embeddings" / "skipped.jsonl").read_text(encoding="utf-8").splitlines()
    assert "no file" in [json.loads(line)["reason"] for line in skipped]
    for name in gone:
        (away / Path(name).name).rename(tmp_path / "source" / name)
    embed_images.main(argv)
    ours, theirs = (Manifest.read(folder) for folder in (tmp_path / "embeddings", finished))
    assert ours is not None
    assert theirs is not None
    assert [shard.source_sha256 for shard in ours.shards] == [shard.source_sha256 for shard in theirs.shards]
    ids = stored_ids(finished)
    assert stored_ids(tmp_path / "embeddings") == ids
    assert np.array_equal(
        read_embeddings(tmp_path / "embeddings").unit_rows(ids), read_embeddings(finished).unit_rows(ids)
    )


@pytest.mark.parametrize("file", ["shard-00000.parquet", "shard-00002.parquet", "manifest.json", "skipped.jsonl"])
def test_a_full_disk_leaves_nothing_half_written(
    finished: Path,
    broken_source: Path,
    tiny_clip: Path,
    tmp_path: Path,
    file: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = embed_arguments(broken_source, tiny_clip, tmp_path, "--max_skipped_fraction", "0.1")
    (tmp_path / "embeddings").mkdir()
    own = atomic._temporary

    def full(target: Path, kind: str) -> Path:
        path = own(target, kind)
        if target.name == file:
            path.symlink_to("/dev/full")  # where every write fails: no space left
        return path

    with monkeypatch.context() as patched:
        patched.setattr(atomic, "_temporary", full)
        patched.setattr(os, "O_EXCL", 0)
        with pytest.raises(SystemExit, match="2"):
            run_command(embed_images.main, argv)
    assert "error: expected free disk space, got a full disk" in capsys.readouterr().err
    whole = file_contents(finished)
    for name, data in file_contents(tmp_path / "embeddings").items():
        assert name == "manifest.json" or name == "skipped.jsonl" or data == whole[name]
    with pytest.raises(EmbeddingsError, match="run training.embed_images"):
        read_embeddings(tmp_path / "embeddings")
    embed_images.main(argv)
    assert file_contents(tmp_path / "embeddings") == whole


def breakages() -> dict[str, bytes]:
    """Returns the bytes of ten files that are no images, by the kind of damage."""
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
    source, rng, kind_of = tmp_path / "source", random.Random(0), {}
    source.mkdir()
    broken = set(rng.sample(range(20_000), 1000))
    kinds, good = list(breakages().items()), [paint(tmp_path / f"{n}.png", n).read_bytes() for n in range(50)]
    for number in range(20_000):
        name = f"{number:05d}.png"
        kind, data = kinds[len(kind_of) % 10] if number in broken else ("", good[number % 50])
        (source / name).write_bytes(data)
        if kind:
            kind_of[name] = kind
    write_rows(source, [{"file_name": f"{number:05d}.png", "caption": "ev"} for number in range(20_000)])
    argv = f"--captions {source} --image_model {tiny_clip} --run {tmp_path} --device cpu --dtype float32".split()
    embed_images.main([*argv, "--max_skipped_fraction", "0.05"])
    embeddings = read_embeddings(tmp_path / "embeddings")
    assert embeddings.skipped == kind_of.keys()
    assert stored_ids(embeddings.folder) == [f"{number:05d}.png" for number in range(20_000) if number not in broken]
    vectors = embeddings.unit_rows([f"{number:05d}.png" for number in range(20_000) if number not in broken])
    contents = [number % 50 for number in range(20_000) if number not in broken]
    firsts = {content: place for place, content in reversed(list(enumerate(contents)))}
    assert np.allclose(vectors, vectors[[firsts[content] for content in contents]], atol=1e-5)
    lines = (tmp_path / "embeddings" / "skipped.jsonl").read_text(encoding="utf-8").splitlines()
    reasons = {(kind_of[line["image_id"]], line["reason"]) for line in map(json.loads, lines)}
    assert len(lines) == 1000
    assert reasons == {
        ("empty", "an empty file"),
        ("text", "a file that is not an image"),
        ("page", "a file that is not an image"),
        ("cut png", "a truncated or damaged image"),
        ("cut jpeg", "a file that is not an image"),
        ("zeros", "a file that is not an image"),
        ("packed", "a file that is not an image"),
        ("flipped", "a truncated or damaged image"),
        ("bomb", "more than 178956970 pixels"),
        ("drawing", "a file that is not an image"),
    }
