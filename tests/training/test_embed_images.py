"""Image embeddings: the image model's vectors, the skipped samples, and what another run continues or refuses."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from samples import embed_arguments, file_contents, stored_ids, stored_vectors, write_rows

from training import embed_images
from training.data.sources import read_captions
from training.embeddings import shard_writer
from training.embeddings.manifest import EmbeddingsError, Manifest
from training.embeddings.store import read_embeddings
from training.run.record import locate_model
from training.run.source import SourceConfig, SourceError
from turkish_clip.embed import EmbeddedBatch, embed_batches
from turkish_clip.encoder import load_model
from turkish_clip.ownership import ForeignFileError
from turkish_clip.resolve import ModelError


def test_vectors_are_those_of_the_image_model(finished: Path, broken_source: Path, tiny_clip: Path) -> None:
    embeddings = read_embeddings(finished, image_model=str(tiny_clip), dim=16)
    config = SourceConfig(captions=str(broken_source), run="x")
    rows = [row for row in read_captions(config).rows if row.image_id not in embeddings.skipped]
    expected = load_model(tiny_clip, device="cpu").encode([row.open() for row in rows])
    ids = [row.image_id for row in rows]
    raw = np.zeros_like(expected)
    for places, vectors in embeddings.by_shard(embeddings.rows(ids)):
        raw[places] = vectors
    assert np.allclose(raw, expected, atol=1e-5)
    norms = np.linalg.norm(embeddings.unit_rows(ids), axis=1)
    assert np.allclose(norms, 1, atol=1e-6)
    assert not embeddings.manifest.normalised


def test_skipped_samples_are_listed_with_reasons(finished: Path) -> None:
    lines = [json.loads(line) for line in (finished / "skipped.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {(line["image_id"], line["reason"]) for line in lines} == {
        ("train-00003", "a truncated or damaged image"),
        ("train-00011", "an empty file"),
        ("test-00002", "a file that is not an image"),
    }
    assert all(Path(line["path"]).name.endswith(".png") for line in lines)
    manifest = Manifest.read(finished)
    assert manifest is not None
    assert (manifest.images, manifest.skipped, manifest.complete) == (45, 3, True)


def test_a_second_run_changes_nothing(finished: Path, broken_source: Path, tiny_clip: Path) -> None:
    before = file_contents(finished)
    embed_images.main(embed_arguments(broken_source, tiny_clip, finished.parent, "--max_skipped_fraction", "0.1"))
    assert file_contents(finished) == before


def test_a_repaired_image_is_embedded(broken_source: Path, tiny_clip: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(broken_source, source)
    argv = embed_arguments(source, tiny_clip, tmp_path, "--max_skipped_fraction", "0.1")
    embed_images.main(argv)
    shutil.copy(source / "train" / "00004.png", source / "train" / "00003.png")
    embed_images.main(argv)
    embeddings = read_embeddings(tmp_path / "embeddings")
    assert embeddings.skipped == {"train-00011", "test-00002"}
    assert np.array_equal(embeddings.unit_rows(["train-00003"]), embeddings.unit_rows(["train-00004"]))


def test_rows_skipped_while_reading_are_listed_too(tiny_clip: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    Image.new("RGB", (8, 8)).save(source / "0.png")
    write_rows(source, [{"file_name": f"{n}.png", "caption": "ev"} for n in range(2)])
    embed_images.main(embed_arguments(source, tiny_clip, tmp_path, "--max_skipped_fraction", "0.5"))
    assert json.loads((tmp_path / "embeddings" / "skipped.jsonl").read_text(encoding="utf-8"))["reason"] == "no file"


def test_an_image_with_a_skipped_row_and_a_good_one_is_listed_once(tiny_clip: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(2):
        Image.new("RGB", (8, 8)).save(source / f"{number}.png")
    rows = [("0.png", ""), ("0.png", "ev"), ("1.png", "kuş")]
    write_rows(source, [{"file_name": name, "caption": caption} for name, caption in rows])
    for _ in range(3):
        embed_images.main(embed_arguments(source, tiny_clip, tmp_path, "--max_skipped_fraction", "0.5"))
        lines = (tmp_path / "embeddings" / "skipped.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line)["reason"] for line in lines] == ["no caption"]


def test_float16_halves_the_file_and_keeps_the_direction(
    finished: Path, broken_source: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    argv = embed_arguments(
        broken_source, tiny_clip, tmp_path, "--max_skipped_fraction", "0.1", "--embedding_dtype", "float16"
    )
    embed_images.main(argv)
    half, whole = read_embeddings(tmp_path / "embeddings"), read_embeddings(finished)
    assert {vectors.dtype for _, vectors in half.by_shard(np.arange(len(half.ids)))} == {np.dtype(np.float16)}
    ids = stored_ids(finished)
    assert np.allclose(half.unit_rows(ids), whole.unit_rows(ids), atol=2e-3)


@pytest.mark.parametrize(
    ("value", "dtype", "reason"),
    [
        (np.nan, "float32", "the image model gives no numbers of float32"),
        (1e6, "float16", "the image model gives no numbers of float16"),
        (0.0, "float32", "the image model gives zeros"),
    ],
)
def test_images_of_which_the_image_model_makes_nothing_are_listed(
    captioned_folder: Path, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    value: float, dtype: str, reason: str,
) -> None:  # fmt: skip
    real = embed_batches

    def spoilt(*arguments: Any, **options: Any) -> Iterator[EmbeddedBatch]:
        for number, batch in enumerate(real(*arguments, **options)):
            if number == 0:
                batch.vectors[2] = value
            yield batch

    monkeypatch.setattr("training.embeddings.embed.embed_batches", spoilt)
    argv = embed_arguments(captioned_folder, tiny_clip, tmp_path, "--max_skipped_fraction", "0.1")
    argv += ["--embedding_dtype", dtype]
    embed_images.main(argv)
    (line,) = (tmp_path / "embeddings" / "skipped.jsonl").read_text(encoding="utf-8").splitlines()
    skipped = json.loads(line)
    assert skipped["reason"] == reason
    monkeypatch.undo()
    embeddings = read_embeddings(tmp_path / "embeddings")
    assert embeddings.skipped == {skipped["image_id"]}
    assert embeddings.manifest.images == 47
    before = file_contents(tmp_path / "embeddings")
    embed_images.main(argv)
    assert file_contents(tmp_path / "embeddings") == before


def test_a_relative_image_model_is_found_from_elsewhere_or_named(
    captioned_folder: Path, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "project" / "towers").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    shutil.copytree(tiny_clip, tmp_path / "project" / "towers" / "clip")
    monkeypatch.chdir(tmp_path / "elsewhere")
    run = tmp_path / "project" / "runs" / "mine"
    embed_images.main(embed_arguments(captioned_folder, Path("towers/clip"), run))
    assert read_embeddings(run / "embeddings", image_model="towers/clip").manifest.image_model == "towers/clip"
    assert locate_model("training/mini/clip", run) == str(Path(shard_writer.__file__).parents[1] / "mini" / "clip")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("towers/other", "towers/no/clip", "../clip"):
        expected = f"expected a model, got {name}, which is no folder in {tmp_path / 'elsewhere'}"
        with pytest.raises(ModelError, match=f"{re.escape(expected)}.*; check the path") as no:
            embed_images.main(embed_arguments(captioned_folder, Path(name), tmp_path / "new"))
        assert "\n" not in str(no.value)


def test_too_many_skipped_samples_stop_the_run_and_finished_shards_stay(
    broken_source: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        SourceError, match=r"at most 2.0% skipped .*1 × a truncated or damaged image; the first: .*00003.png"
    ):
        embed_images.main(embed_arguments(broken_source, tiny_clip, tmp_path))
    manifest = Manifest.read(tmp_path / "embeddings")
    assert manifest is not None
    assert not manifest.complete


def test_embeddings_of_another_model_are_refused(finished: Path, broken_source: Path, tiny_clip: Path) -> None:
    with pytest.raises(
        EmbeddingsError, match="expected image embeddings of the image model clip-ViT-B-32, got those of"
    ):
        read_embeddings(finished, image_model="clip-ViT-B-32")
    with pytest.raises(EmbeddingsError, match="expected image embeddings of width 512, got 16"):
        read_embeddings(finished, dim=512)
    with pytest.raises(EmbeddingsError, match="got dtype float16 instead of float32"):
        embed_images.main(embed_arguments(broken_source, tiny_clip, finished.parent, "--embedding_dtype", "float16"))


def test_an_image_without_an_embedding(finished: Path) -> None:
    with pytest.raises(
        EmbeddingsError, match="expected an embedding for each image .* got none for 1, the first 'unknown'"
    ):
        read_embeddings(finished).rows(["train-00000", "unknown"])


def test_no_embeddings_and_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(EmbeddingsError, match="run training.embed_images first"):
        read_embeddings(tmp_path)
    (tmp_path / "manifest.json").write_text("{}", encoding="utf-8")
    with pytest.raises(
        EmbeddingsError,
        match=r"expected manifest.json of format 4 in .*, got an older one; delete the folder and embed again",
    ):
        read_embeddings(tmp_path)


def test_a_file_of_others_is_refused_before_the_work(
    broken_source: Path, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed_images, "embed_missing", None)
    (tmp_path / "embeddings").mkdir()
    (tmp_path / "mine.txt").write_text("mine")
    argv = f"--captions {broken_source} --image_model {tiny_clip} --run {tmp_path} --device cpu".split()
    for make in (lambda path: path.write_text("mine"), lambda path: path.symlink_to(tmp_path / "mine.txt")):
        make(tmp_path / "embeddings" / "skipped.jsonl")
        with pytest.raises(ForeignFileError, match="which turkish-clip did not write"):
            embed_images.main(argv)
        (tmp_path / "embeddings" / "skipped.jsonl").unlink()
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_another_image_processor_is_told_of_when_a_run_goes_on(
    finished: Path, broken_source: Path, tiny_clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(finished, tmp_path / "embeddings")
    argv = embed_arguments(broken_source, tiny_clip, tmp_path, "--max_skipped_fraction", "0.1")
    assert embed_images.main(argv)["image_processor"] == "CLIPImageProcessorPil"
    assert "prepared" not in caplog.text
    path = tmp_path / "embeddings" / "manifest.json"
    path.write_text(path.read_text(encoding="utf-8").replace("ProcessorPil", "Processor"), encoding="utf-8")
    embed_images.main(argv)
    assert "embeddings: images were prepared by CLIPImageProcessor, and are now by CLIPImageProcessorPil" in caplog.text


def test_a_manifest_that_is_wrong_about_norms(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "embeddings")
    path = tmp_path / "embeddings" / "manifest.json"
    path.write_text(
        path.read_text(encoding="utf-8").replace('"normalised": false', '"normalised": true'), encoding="utf-8"
    )
    with pytest.raises(EmbeddingsError, match="expected unit vectors"):
        read_embeddings(tmp_path / "embeddings")


def test_a_text_model_as_the_image_model(broken_source: Path, tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(EmbeddingsError, match="expected an image model"):
        embed_images.main(embed_arguments(broken_source, tiny_bert, tmp_path))


def test_a_shard_without_one_good_image(tiny_clip: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(15):
        Image.new("RGB", (8, 8), (number * 10, 0, 0)).save(source / f"{number:02d}.png")
        if number < 10:
            (source / f"{number:02d}.png").write_bytes(b"")
    write_rows(source, [{"file_name": f"{n:02d}.png", "caption": "ev"} for n in range(15)])
    embed_images.main(embed_arguments(source, tiny_clip, tmp_path, "--max_skipped_fraction", "0.9"))
    embeddings = read_embeddings(tmp_path / "embeddings")
    assert stored_ids(embeddings.folder) == [f"{n:02d}.png" for n in range(10, 15)]
    assert len(embeddings.skipped) == 10


def test_the_hash_of_each_file_is_kept(finished: Path, broken_source: Path) -> None:
    rows = read_captions(SourceConfig(captions=str(broken_source), run="x")).rows
    embeddings = read_embeddings(finished)
    stored = embeddings.contents(32)
    assert stored is not None
    for row, place in zip(rows, embeddings.find([row.image_id for row in rows])):
        assert (place < 0) == (row.image_id in embeddings.skipped)
        if place >= 0:
            assert stored[place] == hashlib.sha256(row.image.read_bytes()).digest()


def test_the_hash_of_an_image_inside_a_table(captioned_folder: Path, tiny_clip: Path, tmp_path: Path) -> None:
    images = [path.read_bytes() for path in sorted((captioned_folder / "test").glob("*.png"))]
    table = {"image": [{"bytes": data, "path": None} for data in images], "caption": ["ev"] * len(images)}
    pq.write_table(pa.table(table), tmp_path / "data.parquet")
    embed_images.main(embed_arguments(tmp_path / "data.parquet", tiny_clip, tmp_path))
    stored = read_embeddings(tmp_path / "embeddings").contents(32)
    assert stored is not None
    assert stored.tolist() == [hashlib.sha256(data).digest() for data in images]


def test_the_dtype_of_the_computation_is_part_of_the_settings(
    finished: Path, broken_source: Path, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("--max_skipped_fraction", "0.1")
    with pytest.raises(EmbeddingsError, match="got compute_dtype bf16 instead of float32"):
        embed_images.main(embed_arguments(broken_source, tiny_clip, finished.parent, *more, "--dtype", "bf16"))
    before = file_contents(finished)
    monkeypatch.setattr(shard_writer, "fast_dtype", lambda device: "bf16")  # of another machine
    embed_images.main(embed_arguments(broken_source, tiny_clip, finished.parent, *more, "--dtype", "auto"))
    assert file_contents(finished) == before
    embed_images.main(embed_arguments(broken_source, tiny_clip, tmp_path, *more, "--dtype", "auto"))
    bf16, exact = read_embeddings(tmp_path / "embeddings"), read_embeddings(finished)
    assert bf16.manifest.compute_dtype == "bf16"
    ids = stored_ids(finished)
    cosines = (bf16.unit_rows(ids) * exact.unit_rows(ids)).sum(axis=1)
    assert 0.9999 < cosines.min() < 1 - 1e-7


def without_hashes(folder: Path) -> None:
    """Removes from image embeddings the hashes of the files and the shards' lists of skipped samples."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    del manifest["content"], manifest["compute_dtype"]
    for shard in manifest["shards"]:
        path = folder / shard["file"]
        pq.write_table(pq.read_table(path).drop(["content"]).replace_schema_metadata(None), path)
        shard["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def test_embeddings_without_hashes_are_read_and_continued(
    finished: Path, broken_source: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    folder, skipped = tmp_path / "embeddings", (finished / "skipped.jsonl").read_bytes()
    shutil.copytree(finished, folder)
    without_hashes(folder)
    assert read_embeddings(folder).contents(32) is None
    vectors = stored_vectors(finished)
    before = (folder / "shard-00000.parquet").read_bytes()
    (folder / "shard-00003.parquet").unlink()
    for again in range(2):
        more = ("--max_skipped_fraction", "0.1" if again else "0")
        if again:
            embed_images.main(embed_arguments(broken_source, tiny_clip, tmp_path, *more))
        else:
            with pytest.raises(SourceError, match="at most 0.0% skipped"):
                embed_images.main(embed_arguments(broken_source, tiny_clip, tmp_path, *more))
        assert (folder / "skipped.jsonl").read_bytes() == skipped
    assert np.array_equal(stored_vectors(folder), vectors)
    assert read_embeddings(folder).contents(32) is None
    assert (folder / "shard-00000.parquet").read_bytes() == before
