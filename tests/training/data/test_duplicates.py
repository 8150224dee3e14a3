"""An image under several names is in one split only, and counts once in evaluation."""

from __future__ import annotations

import json
import logging
import random
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from samples import paint, write_rows

from training import distill, embed_images, evaluate, pretrain
from training.data.duplicates import digests_of_files, disjoint_splits, first_occurrences, in_last_split
from training.data.samples import Row
from training.data.sources import Captions, read_captions
from training.data.store import Rows
from training.embeddings.store import ImageEmbeddings, deduplicate, read_embeddings, remove_cross_split_duplicates
from training.run.record import Duplicates
from training.run.source import SourceConfig, SourceError
from turkish_clip.metrics import Relevance

# The images of each split: equal numbers are equal files.
NUMBERS = {"train": [*range(20), 3, 40, 41, 50], "validation": [30, 31, 40, 52], "test": [50, 51, 52, 53, 51]}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "images"
    rows: list[dict[str, object]] = []
    for split, numbers in NUMBERS.items():
        for index, number in enumerate(numbers):
            name = f"{split}-{index:02d}.png"
            paint(folder / name, number)
            captions = [f"{number} numaralı resim", f"{split} içindeki {index}. resim"]
            rows.append({"file_name": name, "image_id": name, "split": split, "captions": captions})
    (folder / "train-05.png").write_bytes(b"")  # skipped, and no duplicate of the other empty file
    (folder / "test-03.png").write_bytes(b"")
    return write_rows(folder, rows)


@pytest.fixture(scope="module")
def run(source: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    embed_images.main(arguments(source, tiny_clip, folder))
    return folder


def arguments(source: Path, clip: Path, run: Path) -> list[str]:
    return f"--captions {source} --image_model {clip} --run {run} --max_skipped_fraction 0.1 --device cpu".split()


@pytest.fixture(scope="module")
def embeddings(run: Path) -> ImageEmbeddings:
    return read_embeddings(run / "embeddings")


@pytest.fixture
def captions(source: Path) -> Captions:
    return read_captions(SourceConfig(captions=str(source), run="x"))


def test_an_image_stays_in_the_last_split_that_has_it(
    captions: Captions, embeddings: ImageEmbeddings, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="training"):
        disjoint = remove_cross_split_duplicates(captions, embeddings)
    removed = {row.image_id for row in captions.rows} - {row.image_id for row in disjoint.captions.rows}
    assert removed == {"train-21.png", "train-23.png", "validation-03.png"}
    assert disjoint.duplicates == Duplicates(
        removed={"train": 2, "validation": 1, "test": 0}, repeated={"train": 1, "validation": 0, "test": 1}
    )
    assert "is in validation or test: 2 of train, 1 of validation" in caplog.text
    assert "under another name: 1 of train, 1 of test" in caplog.text
    again = remove_cross_split_duplicates(disjoint.captions, embeddings)
    assert again.captions is disjoint.captions
    assert not any(again.removed.values())


def test_places_and_splits_equal_naive_ones(rng: random.Random) -> None:
    for size in (0, 1, 2, 50):
        content = [rng.choice("abcdefghij") for _ in range(size)]
        split = [rng.randrange(3) for _ in range(size)]
        digests, splits = np.array([text.encode() for text in content], "S16"), np.array(split, np.uint8)
        last = {text: max(s for other, s in zip(content, split) if other == text) for text in content}
        assert in_last_split(digests, splits).tolist() == [last[text] == s for text, s in zip(content, split)]
        pairs = list(zip(content, split))
        assert first_occurrences(digests, splits).tolist() == [pairs.index(pair) for pair in pairs]


def test_a_repeated_image_is_one_image_in_evaluation(captions: Captions, embeddings: ImageEmbeddings) -> None:
    rows = [row for row in captions.split("test") if row.image_id not in embeddings.skipped]
    merged = deduplicate(rows, embeddings)
    assert [row.image_id for row in merged] == ["test-00.png", "test-01.png", "test-02.png"]
    assert merged[1].captions == ("51 numaralı resim", "test içindeki 1. resim", "test içindeki 4. resim")

    def recall(rows: list[Row]) -> float:
        """Returns recall@1 of an encoder that gives each caption the embedding of its image."""
        relevance = Relevance.from_captions([row.captions for row in rows])
        images = embeddings.unit_rows([row.image_id for row in rows])
        texts = images[[numbers[0] for numbers in relevance.images_of]]
        return relevance.text_to_image(texts, images).recall_at_1

    assert recall(rows) < 1
    assert recall(list(merged)) == 1
    assert deduplicate(merged, embeddings) is merged


def test_a_run_records_what_it_removed(source: Path, run: Path, tiny_clip: Path) -> None:
    small = "--backbone scratch --scratch_layers 1 --scratch_hidden 32 --scratch_vocabulary 300 --max_tokens 32"
    argv = arguments(source, tiny_clip, run)
    summary = distill.main([*argv, *small.split(), "--epochs", "1"])
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert record["inputs"]["duplicates"]["removed"] == {"train": 2, "validation": 1, "test": 0}
    assert summary["training_images"] == len(NUMBERS["train"]) - 2 - 1
    results = evaluate.main(argv)
    assert results["duplicates"] == record["inputs"]["duplicates"]
    assert results["images"] == 3
    assert results["captions"] == 7


def test_pretraining_removes_the_same_images(
    source: Path, captions: Captions, embeddings: ImageEmbeddings, tmp_path: Path
) -> None:
    by_files = disjoint_splits(captions, digests_of_files(captions.rows, len(captions.rows)))
    by_embeddings = remove_cross_split_duplicates(captions, embeddings)
    assert by_files.duplicates == by_embeddings.duplicates
    assert [row.image_id for row in by_files.captions.rows] == [row.image_id for row in by_embeddings.captions.rows]
    small = (
        "--image_size 32 --vision_layers 1 --vision_hidden 32 --text_layers 1 --text_hidden 32 --vocabulary 530 "
        "--caption_tokens 24 --dim 16 --epochs 1 --batch_size 8 --device cpu --max_skipped_fraction 0.2"
    )
    results = pretrain.main([*f"--captions {source} --run {tmp_path / 'clip'}".split(), *small.split()])
    record = json.loads((tmp_path / "clip" / "run.json").read_text(encoding="utf-8"))
    assert record["inputs"]["duplicates"] == asdict(by_embeddings.duplicates)  # type: ignore[arg-type]
    assert (results["test"]["images"], results["test"]["captions"]) == (3, 7)


def test_a_split_without_an_image_of_its_own(captions: Captions, embeddings: ImageEmbeddings, tmp_path: Path) -> None:
    rows = [captions.rows[21], *(row for row in captions.rows if row.split != "train")]
    with pytest.raises(SourceError, match=r"images of its own in the train split of .*, got 1 that are all in"):
        remove_cross_split_duplicates(Captions("x", Rows.of(rows, tmp_path)), embeddings)


def test_embeddings_without_hashes_remove_nothing(
    captions: Captions, run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(run / "embeddings", tmp_path / "embeddings")
    path = tmp_path / "embeddings" / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**manifest, "content": ""}), encoding="utf-8")
    older = read_embeddings(tmp_path / "embeddings")
    with caplog.at_level(logging.INFO, logger="training"):
        disjoint = remove_cross_split_duplicates(captions, older)
    assert disjoint.captions is captions
    assert disjoint.duplicates is None
    assert "holds no hashes of the images' files" in caplog.text
    rows = captions.split("test")
    assert deduplicate(rows, older) is rows
