"""Captions without an image: read apart from the images, regressed onto English text vectors, mixed by weight."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from samples import write_rows
from sentence_transformers import SentenceTransformer

from training import distill, embed_images, evaluate
from training.data.sources import read_captions
from training.embeddings.store import read_embeddings, remove_cross_split_duplicates
from training.pairs.dataset import Pairs, load_pairs
from training.run.config import DistillConfig, read
from training.run.recipe import ConfigError
from training.run.source import SourceError
from turkish_clip.metrics import unit

TEXTS: list[dict[str, object]] = [
    {"caption": "deniz kıyısında iki kırmızı şemsiye", "caption_en": "two red umbrellas by the sea"},
    {"caption": ["bir kuş", "dalda bir kuş"], "caption_en": ["a bird", "a bird on a branch"]},
    {"caption": "iki balık", "caption_en": ["two fish", "a pair of fish"]},  # of which neither is known to be its own
    {"caption": "ev", "caption_en": ""},
    {"caption": "sınama", "caption_en": "a test", "split": "test"},
]
OPTIONS = (
    "--backbone scratch --scratch_layers 1 --scratch_hidden 32 --scratch_vocabulary 300 --max_tokens 32 "
    "--batch_size 16 --evaluations 1 --device cpu --ascii_probability 0.5 --max_skipped_fraction 0.05"
)


@pytest.fixture(scope="module")
def recipe(captioned_folder: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe of imaged and text-only captions, with the embeddings of its images."""
    folder = tmp_path_factory.mktemp("texts")
    write_rows(folder, TEXTS)
    sources: list[dict[str, Any]] = [
        {"captions": str(captioned_folder)},
        {"captions": str(folder / "metadata.jsonl"), "text_only": True, "weight": 2},
    ]
    settings = {"sources": sources, "image_model": str(tiny_clip), "embeddings": str(folder / "embeddings")}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    embed_images.main([str(path), *OPTIONS.split(), "--run", str(folder / "run")])
    return path


def pairs_of(recipe: Path, run: Path, *options: str) -> tuple[Pairs, DistillConfig]:
    config = read(DistillConfig, [str(recipe), *OPTIONS.split(), "--run", str(run), *options])
    embeddings = read_embeddings(config.embeddings_folder)
    captions = remove_cross_split_duplicates(read_captions(config), embeddings).captions
    return load_pairs(captions, embeddings, config), config


def english_vectors(tiny_clip: Path, *texts: str) -> np.ndarray:
    return unit(SentenceTransformer(str(tiny_clip), device="cpu").encode(list(texts)))


def test_images_alone_are_embedded(recipe: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = read(DistillConfig, [str(recipe), *OPTIONS.split()])
    with caplog.at_level("INFO", logger="training"):
        captions = read_captions(config)
    assert read_embeddings(config.embeddings_folder).manifest.images == len(captions.rows) == 48
    assert captions.texts is not None
    assert [row.captions for row in captions.texts] == [
        ("deniz kıyısında iki kırmızı şemsiye",),
        ("bir kuş", "dalda bir kuş"),
        ("iki balık",),
    ]
    assert [sample.reason for sample in captions.skipped] == ["no English caption"]
    assert "left out: 1 rows, of validation and test in" in caplog.text
    assert "3 rows of text-only sources" in caplog.text


def test_a_text_is_regressed_onto_its_translation(recipe: Path, tiny_clip: Path, tmp_path: Path) -> None:
    pairs, _ = pairs_of(recipe, tmp_path)
    sea, bird, branch, fish, pair = english_vectors(
        tiny_clip, "two red umbrellas by the sea", "a bird", "a bird on a branch", "two fish", "a pair of fish"
    )
    assert pairs.text_only == 4
    blocks = list(pairs.blocks(7))
    texts = [text for block in blocks for text in block.texts]
    targets = np.concatenate([block.targets for block in blocks])
    weights = np.concatenate([block.weights for block in blocks])
    assert texts == list(pairs.texts)
    assert texts[-4:] == ["deniz kıyısında iki kırmızı şemsiye", "bir kuş", "dalda bir kuş", "iki balık"]
    np.testing.assert_allclose(targets[-4:], [sea, bird, branch, unit((fish + pair)[None])[0]], atol=1e-5)
    assert weights.tolist() == [1.0] * (len(texts) - 4) + [2.0] * 4
    for number, label in zip(count(), pairs.train[:]["label"]):
        np.testing.assert_array_equal(label, targets[number])  # the data set's own order and targets


@pytest.mark.parametrize("objective", ["mse", "mse_translation", "centred"])
def test_the_shift_is_the_difference_of_the_means(
    recipe: Path, tiny_clip: Path, tmp_path: Path, objective: str
) -> None:
    """Of the imaged captions' targets, and of their English captions; `centred` always shifts."""
    plain, config = pairs_of(recipe, tmp_path, "--objective", objective)
    shifted, _ = pairs_of(recipe, tmp_path, "--objective", objective, "--text_shift")
    before, after = (next(pairs.blocks(10_000)).targets for pairs in (plain, shifted))
    np.testing.assert_array_equal(before[:-4], after[:-4])
    rows = read_captions(config).split("train")
    vectors = english_vectors(tiny_clip, *(text for row in rows for text in row.english))
    ends = np.cumsum([len(row.english) for row in rows])[:-1]
    english = np.stack([part.mean(axis=0) for part in np.split(vectors, ends)])
    images = plain._targets[: len(before) - 4 if objective == "mse_translation" else len(rows)]
    sea = english_vectors(tiny_clip, "two red umbrellas by the sea")[0]
    expected = unit((sea + images.mean(axis=0) - english.mean(axis=0))[None])[0]
    np.testing.assert_allclose(after[-4], expected, atol=1e-5)
    if objective == "centred":
        np.testing.assert_array_equal(before, after)


def test_labels_say_which_captions_have_an_image_and_a_false_caption(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("kuş\tkedi\n", encoding="utf-8")
    pairs, _ = pairs_of(
        recipe, tmp_path / "run", "--objective", "mse_bank_negatives", f"--exchanges={tmp_path / 'pairs.txt'}"
    )
    rows = pairs.train[:]
    labels = np.stack([label.numpy() for label in rows["label"]])
    assert labels.shape[1] == 2 * 16 + 1
    images, has_false = labels[:, 16:32], labels[:, 32]
    np.testing.assert_allclose(np.linalg.norm(images[:-4], axis=1), 1, atol=1e-5)
    assert not images[-4:].any()
    np.testing.assert_array_equal(images[:-4], labels[:-4, :16])  # with this objective the target is the image
    assert [bool(text) for text in rows["false_caption"]] == has_false.astype(bool).tolist()
    assert not has_false[-4:].any()  # "iki kırmızı" has false captions, but no image that would choose
    assert has_false.mean() > 0.3
    texts = list(pairs.texts)
    assert all(false != text for false, text in zip(rows["false_caption"], texts))
    assert pairs.bank is not None
    assert len(pairs.bank.vectors) == pairs.images
    first = pairs.train[:]["false_caption"]
    pairs.augmentation.set_epoch(1)
    assert pairs.train[:]["false_caption"] != first


def test_a_run_with_everything(recipe: Path, tiny_clip: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    argv = [str(recipe), *OPTIONS.split(), "--run", str(run), "--epochs", "1", "--bf16", "--seed", "1"]
    argv += "--objective mse_bank_negatives --matryoshka 16,8 --bootstrap_samples 0 --report_queries 0".split()
    summary = distill.main(argv)
    assert summary["captions_without_image"] == 4
    results = evaluate.main(argv)
    assert results["images"] == 10
    assert list(results["widths"]) == ["8"]  # the full width is no shorter one
    assert json.loads((run / "model" / "turkish_clip.json").read_text(encoding="utf-8"))["matryoshka"] == [8]
    whole = SentenceTransformer(str(run / "model"), device="cpu")
    short = SentenceTransformer(str(run / "model"), device="cpu", truncate_dim=8)
    vectors = short.encode(["bir kuş", "iki ev"])
    np.testing.assert_array_equal(vectors, whole.encode(["bir kuş", "iki ev"])[:, :8])
    assert (np.linalg.norm(vectors, axis=1) < 0.999).all()  # cut after the normalisation
    np.testing.assert_allclose(short.encode(["iki ev"], normalize_embeddings=True), unit(vectors[1:]), atol=1e-6)
    images = SentenceTransformer(str(tiny_clip), device="cpu", truncate_dim=8).encode(["a bird"])
    np.testing.assert_allclose(short.similarity(vectors, images), unit(vectors) @ unit(images).T, atol=1e-6)


def test_what_does_not_fit_is_refused(captioned_folder: Path, tmp_path: Path) -> None:
    texts = write_rows(tmp_path / "texts", [{"caption": "ev"}]) / "metadata.jsonl"
    with pytest.raises(ConfigError, match="expected a source with images, got .*, text_only; list it in 'sources'"):
        DistillConfig(captions=str(texts), text_only=True, run="x")
    recipe = tmp_path / "recipe.yaml"

    def sources(*more: dict[str, Any]) -> DistillConfig:
        listed = [{"captions": str(captioned_folder)}, *({"text_only": True, **source} for source in more)]
        recipe.write_text(yaml.safe_dump({"sources": listed}), encoding="utf-8")
        return read(DistillConfig, [str(recipe), "--run", str(tmp_path)])

    with pytest.raises(SourceError, match="expected a column captions_en or caption_en in .*english_columns"):
        read_captions(sources({"captions": str(texts)}))
    tests = write_rows(tmp_path / "tests", [{"caption": "ev", "caption_en": "a house", "split": "test"}])
    with pytest.raises(SourceError, match="expected captions to train on in .*, got 1 of validation and test"):
        read_captions(sources({"captions": str(tests / "metadata.jsonl")}))
    several = [
        write_rows(tmp_path / name, [{"caption": name, "caption_en": name}, TEXTS[-1]]) for name in ("bir", "iki")
    ]
    read_back = read_captions(sources(*({"captions": str(path / "metadata.jsonl")} for path in several)))
    assert read_back.texts is not None
    assert [row.captions for row in read_back.texts] == [("bir",), ("iki",)]  # without those of the test split


def test_shorter_widths_want_unit_vectors() -> None:
    with pytest.raises(ConfigError, match="expected an objective of unit vectors for 'matryoshka', got mse_text_raw"):
        DistillConfig(captions="x", run="x", objective="mse_text_raw", matryoshka=(4,))
    with pytest.raises(ConfigError, match="expected widths above 0 for 'matryoshka', got 0"):
        DistillConfig(captions="x", run="x", matryoshka=(4, 0))
