"""A fine-tuning goes on from the weights of a published text encoder, and replays a fraction of its old captions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from samples import write_rows

from training import distill, embed_images, evaluate
from training.distillation.student import build_student
from training.embeddings.manifest import EmbeddingsError
from training.embeddings.store import read_embeddings
from training.pairs.replay import read_replay, replay_weight
from training.run.config import DistillConfig, read
from training.run.recipe import ConfigError
from turkish_clip.encoder import ModelError, build_text_encoder, load_model, save_text_encoder
from turkish_clip.evaluator import MeanOfBoth

SMALL = (
    "--backbone scratch --scratch_layers 1 --scratch_hidden 32 --scratch_vocabulary 300 --max_tokens 32 "
    "--batch_size 16 --evaluations 2 --bootstrap_samples 5 --report_queries 0 --device cpu"
)
NEW = {"epochs": 2.0, "replay_fraction": 0.75}


@pytest.fixture(scope="module")
def old(captioned_folder: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("old")
    argv = f"--captions {captioned_folder} --image_model {tiny_clip} --run {run} --epochs 1 {SMALL}".split()
    embed_images.main(argv)
    distill.main(argv)
    return run


@pytest.fixture(scope="module")
def source(captioned_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve of the images, with captions of a new subject."""
    folder = write_rows(tmp_path_factory.mktemp("new") / "source", [])
    rows = [json.loads(line) for line in (captioned_folder / "metadata.jsonl").read_text("utf-8").splitlines()]
    shutil.copytree(captioned_folder / "train", folder / "train")
    chosen = [row for row in rows if row["split"] == "train"][:12]
    splits = ["train"] * 8 + ["validation"] * 2 + ["test"] * 2
    names = [f"kuantum {number}" for number in range(len(chosen))]
    write_rows(folder, [{**row, "captions": [name], "split": split} for row, name, split in zip(chosen, names, splits)])
    return folder


def arguments(source: Path, clip: Path, run: Path, old: Path, **options: Any) -> list[str]:
    base = f"--captions {source} --image_model {clip} --run {run} --init {old} --replay {old} {SMALL}".split()
    return base + [f"--{name}={value}" for name, value in options.items()]


def test_how_often_old_captions_are_seen() -> None:
    assert replay_weight(new=200, old=1000, fraction=0.5) == pytest.approx(0.2)  # 200 old ones beside 200 new ones
    assert replay_weight(new=200, old=100, fraction=0.75) == pytest.approx(6)  # 600 beside 200


def test_the_best_checkpoint_is_the_best_of_both() -> None:
    new, old = (lambda *_: {"validation_mrr": 0.8, "validation_x": 1.0}), (lambda *_: {"replayed_mrr": 0.2})
    new.primary_metric, old.primary_metric = "validation_mrr", "replayed_mrr"  # type: ignore[attr-defined]
    both = MeanOfBoth(new, old)  # type: ignore[arg-type]
    assert both(None) == {"validation_mrr": 0.5, "validation_x": 1.0, "replayed_mrr": 0.2, "new_mrr": 0.8}
    assert both.primary_metric == "validation_mrr"


def test_a_fine_tuning_from_its_start_to_its_table(source: Path, old: Path, tiny_clip: Path, tmp_path: Path) -> None:
    argv = arguments(source, tiny_clip, tmp_path, old, **NEW)
    embed_images.main(argv)
    summary = distill.main(argv)
    before = json.loads((old / "run.json").read_text("utf-8"))["summary"]
    assert summary["training_captions"] == 8
    assert summary["captions_replayed"] == before["training_captions"]
    assert summary["closed_form_penalty"] is None
    curve = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text("utf-8").splitlines()]
    measured = [line for line in curve if "eval_validation_mrr" in line]
    for line in measured:
        assert line["eval_validation_mrr"] == pytest.approx((line["eval_new_mrr"] + line["eval_replayed_mrr"]) / 2)
    # 8 new captions and 24 old ones an epoch: two steps of 16
    assert measured[-1]["step"] == 4
    tuned = evaluate.main(argv)["fine_tuning"]
    assert tuned["init"] == str(old)
    assert tuned["before"]["images"] == 2
    assert tuned["old_before"]["images"] == tuned["old_after"]["images"] > 2
    whole = evaluate.main([f"--run={old}", str(old), "--split=test"])
    assert tuned["old_before"]["text_to_image"]["mrr"] == pytest.approx(whole["text_to_image"]["mrr"])
    assert "fine_tuning" not in whole


def test_it_starts_with_the_weights_of_init(source: Path, old: Path, tiny_clip: Path, tmp_path: Path) -> None:
    still = {"epochs": 0.1, "learning_rate": 1e-12, "replay_fraction": 0}
    argv = arguments(source, tiny_clip, tmp_path, old, **still)
    embed_images.main(argv)
    assert "captions_replayed" not in distill.main(argv)
    models = [load_model(run / "model", device="cpu") for run in (old, tmp_path)]
    vectors = [model.encode(["kırmızı ev", "iki mavi kuş"]) for model in models]
    assert np.abs(vectors[0] - vectors[1]).max() < 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init": ""}, "expected 'replay' beside 'init'"),
        ({"epochs": 0}, "expected 'init' to be trained, got 'epochs' 0"),
    ],
)
def test_options_that_contradict(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        read(DistillConfig, arguments(tmp_path, tmp_path, tmp_path, tmp_path, **options))


def test_another_width_image_model_or_prompt_is_refused(old: Path, tiny_clip: Path, tmp_path: Path) -> None:
    config = read(DistillConfig, arguments(tmp_path, tiny_clip, tmp_path, old))
    manifest = read_embeddings(old / "embeddings").manifest
    for changed, message in (
        ({"dim": 8, "weights_sha256": manifest.weights_sha256}, "expected a text encoder of width 8"),
        ({"dim": manifest.dim, "weights_sha256": "0" * 64}, "expected embeddings of the image model that .* trained"),
    ):
        other = SimpleNamespace(image_model="other", **changed)
        with pytest.raises(ModelError, match=message):
            build_student(config, None, other)  # type: ignore[arg-type]
    asked = read(DistillConfig, arguments(tmp_path, tiny_clip, tmp_path, old, prompt="query: "))
    with pytest.raises(ModelError, match="expected the prompt that .* was trained with, '', got 'query: '"):
        build_student(asked, None, manifest)  # type: ignore[arg-type]
    with pytest.raises(EmbeddingsError, match="expected 'replay' of the same image model"):
        read_replay(config, SimpleNamespace(manifest=SimpleNamespace(weights_sha256="0" * 64)))  # type: ignore[arg-type]


def test_a_model_of_other_modules_is_refused(old: Path, tiny_clip: Path, tmp_path: Path) -> None:
    config = read(DistillConfig, arguments(tmp_path, tiny_clip, tmp_path, tiny_clip))
    with pytest.raises(ModelError, match="expected a text encoder of Transformer, Pooling, Dense and Normalize"):
        build_student(config, None, read_embeddings(old / "embeddings").manifest)  # type: ignore[arg-type]
    backbone = build_text_encoder(old / "backbone", dim=16, max_tokens=32, device="cpu")
    save_text_encoder(backbone, tmp_path / "plain")  # without a record: only its width can be compared
    config = read(DistillConfig, arguments(tmp_path, tiny_clip, tmp_path, tmp_path / "plain"))
    assert build_student(config, None, read_embeddings(old / "embeddings").manifest)  # type: ignore[arg-type]
