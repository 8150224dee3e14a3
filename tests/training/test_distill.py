"""Distillation learns, is reproducible bit for bit, and a killed run resumes to the same weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killing import run_killed
from random_kills import run_killed_at_random
from samples import write_rows
from sentence_transformers import SentenceTransformer

from training import distill, embed_images
from training.distillation.losses import ShardedMSELoss
from training.embeddings.manifest import EmbeddingsError
from training.embeddings.store import read_embeddings
from training.run.recipe import ConfigError
from training.run.record import RunError
from training.run.source import SourceError
from turkish_clip.encoder import load_model

SMALL = (
    "--backbone scratch --scratch_layers 1 --scratch_hidden 32 --scratch_vocabulary 300 --max_tokens 32 "
    "--batch_size 16 --epochs 2 --evaluations 4 --learning_rate 1e-3 --device cpu"
)


def arguments(source: Path, clip: Path, embeddings: Path, run: Path, *more: str) -> list[str]:
    base = f"--captions {source} --image_model {clip} --embeddings {embeddings} --run {run} {SMALL}"
    return [*base.split(), *more]


@pytest.fixture(scope="module")
def embeddings(captioned_folder: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("embeddings")
    embed_images.main(f"--captions {captioned_folder} --image_model {tiny_clip} --run {run} --device cpu".split())
    return run / "embeddings"


@pytest.fixture(scope="module")
def finished(
    captioned_folder: Path, tiny_clip: Path, embeddings: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    run = tmp_path_factory.mktemp("finished")
    summary = distill.main(arguments(captioned_folder, tiny_clip, embeddings, run))
    return {**summary, "run": run}


@pytest.mark.slow
def test_eight_pairs_overfit(captioned_folder: Path, tiny_clip: Path, embeddings: Path, tmp_path: Path) -> None:
    rows = (captioned_folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()[:8]
    source = write_rows(tmp_path / "source", [])
    shutil.copytree(captioned_folder / "train", source / "train")
    eight = [{**json.loads(row), "captions": json.loads(row)["captions"][:1]} for row in rows]
    write_rows(source, eight)
    more = "--epochs 200 --learning_rate 3e-3 --batch_size 8 --validation_fraction 0 --test_fraction 0"
    more += " --ascii_probability 0 --case_probability 0 --full_stop_probability 0 --typo_probability 0"
    argv = arguments(source, tiny_clip, embeddings, tmp_path / "run", *more.split())
    distill.main(argv)
    model = load_model(tmp_path / "run" / "model", device="cpu")
    vectors = model.encode([row["captions"][0] for row in eight])
    expected = read_embeddings(embeddings).unit_rows([row["image_id"] for row in eight])
    assert ((vectors - expected) ** 2).sum(axis=1).mean() < 0.005


def test_a_prompt_is_trained_with_and_saved(
    captioned_folder: Path, tiny_bert: Path, tiny_clip: Path, embeddings: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Each vector of a training step, without dropout and at a rate of nothing, is what the saved model encodes."""
    backbone = shutil.copytree(tiny_bert, tmp_path / "bert")
    settings = json.loads((backbone / "config.json").read_text(encoding="utf-8"))
    settings |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (backbone / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    seen: list[tuple[list[int], np.ndarray]] = []

    def forward(loss: ShardedMSELoss, features: Iterable[dict[str, Any]], labels: Any) -> Any:
        (one,) = features
        vectors = loss.model(dict(one))["sentence_embedding"]
        lengths = one["attention_mask"].sum(dim=1).tolist()
        seen.extend((ids[:n].tolist(), v.numpy(force=True)) for ids, n, v in zip(one["input_ids"], lengths, vectors))
        return (vectors - labels).square().mean()

    monkeypatch.setattr(ShardedMSELoss, "forward", forward)
    more = "--epochs 1 --learning_rate 1e-12 --dense_learning_rate 1e-12 --max_tokens 12"
    more += " --ascii_probability 0 --case_probability 0 --full_stop_probability 0 --typo_probability 0"
    more += f" --backbone {backbone}"
    argv = arguments(captioned_folder, tiny_clip, embeddings, tmp_path / "run", *more.split(), "--prompt", "bir kuş: ")
    summary = distill.main(argv)
    model = SentenceTransformer(str(tmp_path / "run" / "model"), device="cpu")
    rows = [json.loads(line) for line in (captioned_folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = list(dict.fromkeys(text for row in rows if row["split"] == "train" for text in row["captions"]))
    ids = [tuple(model.tokenizer(f"bir kuş: {text}", truncation=True)["input_ids"]) for text in texts]
    expected = dict(zip(ids, model.encode(texts)))
    assert {tuple(one) for one, _ in seen} == set(expected)
    assert max(np.abs(vector - expected[tuple(one)]).max() for one, vector in seen) < 1e-5
    assert summary["captions_truncated"] == sum(
        len(model.tokenizer(f"bir kuş: {text}", truncation=False)["input_ids"]) > 12
        for row in rows if row["split"] == "train" for text in dict.fromkeys(row["captions"])
    ) > 0  # fmt: skip
    assert json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["config"]["prompt"] == "bir kuş: "


def test_the_files_of_a_run(finished: dict[str, Any], embeddings: Path) -> None:
    run: Path = finished["run"]
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert record["status"] == "finished"
    assert record["config"]["batch_size"] == 16
    assert record["libraries"]["torch"]
    assert set(record["git"]) == {"commit", "changed"}
    assert len(record["inputs"]["manifest_sha256"]) == len(record["summary"]["weights_sha256"]) == 64
    curve = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert sum("eval_validation_mrr" in entry for entry in curve) >= 4
    model = SentenceTransformer(str(run / "model"), device="cpu")
    assert model.encode(["kırmızı ev"]).shape == (1, 16)
    assert model.max_seq_length == 32


def test_random_weights_of_the_dense_layer_learn(
    captioned_folder: Path, tiny_clip: Path, embeddings: Path, tmp_path: Path
) -> None:
    distill.main(arguments(captioned_folder, tiny_clip, embeddings, tmp_path, "--dense_start", "random"))
    curve = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [entry["loss"] for entry in curve if "loss" in entry]
    assert losses[-1] < losses[0]


def test_same_seed_same_weights_other_seed_others(
    finished: dict[str, Any], captioned_folder: Path, tiny_clip: Path, embeddings: Path, tmp_path: Path
) -> None:
    again = distill.main(arguments(captioned_folder, tiny_clip, embeddings, tmp_path / "again"))
    other = distill.main(arguments(captioned_folder, tiny_clip, embeddings, tmp_path / "other", "--seed", "1"))
    assert again["weights_sha256"] == finished["weights_sha256"] != other["weights_sha256"]


@pytest.mark.parametrize(
    ("target", "nth"),
    [
        ("torch.optim:AdamW.step", 14),
        pytest.param("torch.optim:AdamW.step", 1, marks=pytest.mark.slow),
        pytest.param("torch.optim:AdamW.step", 11, marks=pytest.mark.slow),
        pytest.param("transformers:Trainer._save_optimizer_and_scheduler", 2, marks=pytest.mark.slow),
        pytest.param("transformers:Trainer._save_rng_state", 3, marks=pytest.mark.slow),
        pytest.param("training.distillation.checkpoints:no_longer_needed", 3, marks=pytest.mark.slow),
        pytest.param("turkish_clip.evaluator:RetrievalEvaluator.__call__", 3, marks=pytest.mark.slow),
        pytest.param("turkish_clip.encoder:save_text_encoder", 1, marks=pytest.mark.slow),
        pytest.param("training.run.record:Run.finish", 1, marks=pytest.mark.slow),
    ],
)
def test_killed_and_resumed_gives_the_same_weights(
    finished: dict[str, Any],
    captioned_folder: Path,
    tiny_clip: Path,
    embeddings: Path,
    tmp_path: Path,
    target: str,
    nth: int,
) -> None:
    argv = arguments(captioned_folder, tiny_clip, embeddings, tmp_path)
    run_killed("training.distill", target, nth, argv)
    with pytest.raises(RunError, match="holds a run; add --resume"):
        distill.main(argv)
    summary = distill.main([*argv, "--resume"])
    assert summary["weights_sha256"] == finished["weights_sha256"]
    whole, resumed = (load_model(path / "model", device="cpu") for path in (finished["run"], tmp_path))
    assert np.array_equal(whole.encode(["iki mavi kuş"]), resumed.encode(["iki mavi kuş"]))
    curves = [(path / "log.jsonl").read_text(encoding="utf-8").splitlines() for path in (finished["run"], tmp_path)]
    steps = [[json.loads(line)["step"] for line in curve if '"loss"' in line] for curve in curves]
    assert steps[0] == steps[1]


def test_a_damaged_checkpoint_changes_no_weights(
    finished: dict[str, Any], captioned_folder: Path, tiny_clip: Path, embeddings: Path, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    argv = arguments(captioned_folder, tiny_clip, embeddings, tmp_path)
    run_killed("training.distill", "torch.optim:AdamW.step", 14, argv)
    sealed = (tmp_path / "checkpoints").glob("checkpoint-*/sealed.json")  # the killed thread may not have come to one
    newest = max((seal.parent for seal in sealed), key=lambda path: int(path.name.split("-")[1]))
    state = json.loads((newest / "trainer_state.json").read_text(encoding="utf-8")) | {"global_step": 10**18}
    (newest / "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
    with caplog.at_level("WARNING", "training"):
        assert distill.main([*argv, "--resume"])["weights_sha256"] == finished["weights_sha256"]
    assert f"{newest.name} is damaged (trainer_state.json has changed since it was written)" in caplog.text


@pytest.mark.slow
def test_a_run_killed_at_ten_random_moments_ends_with_the_same_weights(
    finished: dict[str, Any], captioned_folder: Path, tiny_clip: Path, embeddings: Path, tmp_path: Path
) -> None:
    argv = arguments(captioned_folder, tiny_clip, embeddings, tmp_path / "run", "--resume")
    run_killed_at_random("training.distill", tmp_path / "run", argv)
    assert distill.main(argv)["weights_sha256"] == finished["weights_sha256"]


def test_resuming_a_finished_run_changes_nothing(
    finished: dict[str, Any], captioned_folder: Path, tiny_clip: Path, embeddings: Path
) -> None:
    weights = (finished["run"] / "model" / "model.safetensors").read_bytes()
    argv = arguments(captioned_folder, tiny_clip, embeddings, finished["run"], "--resume")
    assert distill.main(argv)["weights_sha256"] == finished["weights_sha256"]
    assert (finished["run"] / "model" / "model.safetensors").read_bytes() == weights


def test_resume_with_another_configuration(
    finished: dict[str, Any], captioned_folder: Path, tiny_clip: Path, embeddings: Path
) -> None:
    argv = arguments(captioned_folder, tiny_clip, embeddings, finished["run"], "--resume", "--epochs", "3")
    with pytest.raises(RunError, match=r"got epochs = 3.0 instead of 2.0"):
        distill.main(argv)


def test_resume_with_other_captions(captioned_folder: Path, tiny_clip: Path, embeddings: Path, tmp_path: Path) -> None:
    shutil.copytree(captioned_folder, tmp_path / "source")
    argv = arguments(tmp_path / "source", tiny_clip, embeddings, tmp_path / "run")
    run_killed("training.distill", "torch.optim:AdamW.step", 3, argv)
    path = tmp_path / "source" / "metadata.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("bir", "tek"), encoding="utf-8")
    with pytest.raises(RunError, match="expected the captions_sha256 that .* was begun with"):
        distill.main([*argv, "--resume"])


def test_an_image_without_an_embedding(
    captioned_folder: Path, tiny_clip: Path, embeddings: Path, tmp_path: Path
) -> None:
    shutil.copytree(captioned_folder, tmp_path / "source")
    shutil.copy(tmp_path / "source" / "train" / "00000.png", tmp_path / "source" / "new.png")
    with (tmp_path / "source" / "metadata.jsonl").open("a", encoding="utf-8") as file:
        file.write(
            json.dumps({"file_name": "new.png", "image_id": "new", "captions": ["yeni"], "split": "train"}) + "\n"
        )
    with pytest.raises(
        EmbeddingsError, match="expected an embedding for each image .* got none for 1, the first 'new'"
    ):
        distill.main(arguments(tmp_path / "source", tiny_clip, embeddings, tmp_path / "run"))


def test_embeddings_of_another_image_model(captioned_folder: Path, embeddings: Path, tmp_path: Path) -> None:
    with pytest.raises(EmbeddingsError, match="expected image embeddings of the image model other, got those of"):
        distill.main(arguments(captioned_folder, Path("other"), embeddings, tmp_path / "run"))


def test_no_training_split(captioned_folder: Path, tiny_clip: Path, embeddings: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (captioned_folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    shutil.copytree(captioned_folder, tmp_path / "source")
    write_rows(tmp_path / "source", [row for row in rows if row["split"] == "test"])
    with pytest.raises(SourceError, match="images in the train split"):
        distill.main(arguments(tmp_path / "source", tiny_clip, embeddings, tmp_path / "run"))


def test_a_shorter_width_that_is_longer_than_the_embeddings(
    captioned_folder: Path, tiny_clip: Path, embeddings: Path, tmp_path: Path
) -> None:
    for epochs in ("0", "0.1"):
        options = ("--matryoshka", "4096", "--epochs", epochs)
        with pytest.raises(ConfigError, match="for 'matryoshka', got 4096; take it out"):
            distill.main(arguments(captioned_folder, tiny_clip, embeddings, tmp_path, *options))


def test_truncated_captions_are_reported_once(
    captioned_folder: Path, tiny_clip: Path, embeddings: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING", logger="training"):
        summary = distill.main(
            arguments(captioned_folder, tiny_clip, embeddings, tmp_path, "--max_tokens", "8", "--epochs", "0.1")
        )
    assert summary["captions_truncated"] > 0
    assert len([record for record in caplog.records if "are cut" in record.message]) == 1
