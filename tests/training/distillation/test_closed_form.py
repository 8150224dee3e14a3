"""The closed form equals a ridge regression computed by hand, and training starts and, if asked, ends with it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer

from training import distill, embed_images
from training.data.sources import read_captions
from training.distillation import closed_form
from training.distillation.closed_form import ClosedForm, NormalEquations, improved
from training.distillation.student import build_student
from training.embeddings.store import read_embeddings
from training.pairs.dataset import load_pairs
from training.run.config import DistillConfig, default_epochs
from training.run.recipe import ConfigError
from training.run.record import RunError
from turkish_clip.dual_encoder import weights_sha256
from turkish_clip.encoder import load_model
from turkish_clip.metrics import unit

SMALL = (
    "--backbone scratch --dense_start ridge --scratch_layers 1 --scratch_hidden 32 --scratch_vocabulary 300 "
    "--max_tokens 32 --batch_size 16 --evaluations 2 --device cpu"
)


def equations_of(inputs: Any, targets: Any, weights: Any) -> NormalEquations:
    equations = NormalEquations(np.shape(inputs)[1], np.shape(targets)[1])
    equations.add(np.array(inputs), np.array(targets), np.array(weights))
    return equations


def test_one_component_by_hand() -> None:
    # x: 0, 2 (variance 1), y: 1, 5: covariance of x and y 2; with penalty 1 the slope is 2 / (1 + 1), and 3 = 1 · 1 + 2
    weight, bias = equations_of([[0.0], [2.0]], [[1.0], [5.0]], [1, 1]).solve(1.0)
    assert weight == pytest.approx(np.array([[1.0]]))
    assert bias == pytest.approx(np.array([2.0]))


def test_a_row_of_weight_two_counts_as_two_rows_and_blocks_as_one() -> None:
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(6, 3)), rng.normal(size=(6, 2))
    twice = equations_of([*inputs, inputs[0]], [*targets, targets[0]], np.ones(7))
    weighted = NormalEquations(3, 2)
    weighted.add(inputs[:2], targets[:2], np.array([2.0, 1.0]))
    weighted.add(inputs[2:], targets[2:], np.ones(4))
    for mine, theirs in zip(weighted.solve(0.1), twice.solve(0.1)):
        assert mine == pytest.approx(theirs)


def test_a_small_penalty_reproduces_a_linear_map() -> None:
    rng = np.random.default_rng(0)
    inputs, slope, shift = rng.normal(size=(50, 4)), rng.normal(size=(4, 3)), rng.normal(size=3)
    weight, bias = equations_of(inputs, inputs @ slope + shift, np.ones(50)).solve(1e-9)
    assert weight == pytest.approx(slope.T, abs=1e-6)
    assert bias == pytest.approx(shift, abs=1e-6)


def test_inputs_that_are_all_equal_give_the_mean_target() -> None:
    weight, bias = equations_of([[1.0, 1.0]] * 3, [[1.0], [2.0], [6.0]], [1, 1, 1]).solve(1e-3)
    assert weight @ np.ones(2) + bias == pytest.approx(3.0)


def test_written_and_read(tmp_path: Path) -> None:
    for mrr in (0.25, 0.0, None):
        transposed = np.arange(6, dtype=np.float32).reshape(3, 2).T  # safetensors writes memory as it lies
        written = ClosedForm(transposed, np.zeros(2, np.float32), 1e-3, mrr)
        written.write(tmp_path / "x.safetensors")
        read = ClosedForm.read(tmp_path / "x.safetensors")
        assert (read.weight.tolist(), read.penalty, read.validation_mrr) == (written.weight.tolist(), 1e-3, mrr)


def form(**changes: Any) -> ClosedForm:
    return replace(ClosedForm(np.ones((2, 3), np.float32), np.zeros(2, np.float32), 1e-3, 0.25), **changes)


@pytest.mark.parametrize(
    "damaged",
    [
        form(weight=np.full((2, 3), np.nan, np.float32)),
        form(weight=np.ones((3, 3), np.float32)),
        form(weight=np.ones(6, np.float32)),
        form(weight=np.ones((2, 3), np.float64)),
        form(bias=np.zeros(2, np.int8)),
        form(bias=np.full(2, np.inf, np.float32)),
        form(penalty=float("inf")),
        form(penalty=-1e-3),
        form(validation_mrr=float("inf")),
        form(validation_mrr=1.5),
    ],
)
def test_a_form_that_no_regression_gives_does_not_pass(tmp_path: Path, damaged: ClosedForm) -> None:
    path = tmp_path / closed_form.FILE
    form().write(path)
    ClosedForm.read(path).check(path, hidden=3, dim=2)
    damaged.write(path)
    with pytest.raises(RunError, match=f"expected a closed form of 2 rows of 3 finite numbers in {path}, got "):
        ClosedForm.read(path).check(path, hidden=3, dim=2)


GOOD = {"penalty": "0.001", "validation_mrr": "0.25"}


@pytest.mark.parametrize(
    "metadata",
    [None, {}, GOOD, GOOD | {"sha256": "0" * 64}, GOOD | {"penalty": "a lot"}, {"penalty": "0.001", "sha256": "x"}],
)
def test_a_file_with_other_metadata_is_damaged(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / closed_form.FILE
    save_file({"weight": form().weight, "bias": form().bias}, path, metadata=metadata)
    with pytest.raises(RunError, match=f"expected a closed form in {path}, got "):
        ClosedForm.read(path)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_file_that_is_no_form_is_damaged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / closed_form.FILE
    path.write_bytes(content)
    with pytest.raises(RunError, match=f"expected a closed form in {path}, got "):
        ClosedForm.read(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(RunError, match=f"expected a closed form in {path}, got "):
        ClosedForm.read(path)


def test_a_changed_number_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / closed_form.FILE
    form().write(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # the last bit of a weight
    path.write_bytes(content)
    with pytest.raises(RunError, match="other numbers than were written"):
        ClosedForm.read(path)


def test_improved_compares_with_the_start() -> None:
    start = ClosedForm(np.ones((1, 1), np.float32), np.zeros(1, np.float32), 1e-3, 0.5)
    assert improved([{"eval_validation_mrr": 0.4}, {"loss": 1}, {"eval_validation_mrr": 0.6}], start)
    assert not improved([{"eval_validation_mrr": 0.4}, {"eval_validation_mrr": 0.5}], start)
    assert improved([], start)


def test_three_epochs_or_a_thousand_steps() -> None:
    assert default_epochs(6_130) == 3
    assert default_epochs(64) * 64 == 1000
    config = DistillConfig(captions="x", run="r")
    assert config.epochs_of(64) * 64 == 1000
    assert replace(config, init="x").epochs_of(50) == 4
    assert replace(config, epochs=2.5).epochs_of(64) == 2.5


def test_no_training_needs_the_closed_form() -> None:
    with pytest.raises(ConfigError, match="expected 'dense_start' ridge with 'epochs' 0"):
        DistillConfig(captions="x", run="r", epochs=0, dense_start="random")
    config = DistillConfig(captions="x", run="r")
    assert config.starts_from_closed_form
    scratch = replace(config, backbone="scratch")
    assert not scratch.starts_from_closed_form
    assert replace(scratch, epochs=0).starts_from_closed_form
    assert replace(scratch, dense_start="ridge").starts_from_closed_form
    assert not replace(config, init="x").starts_from_closed_form


@pytest.fixture(scope="module")
def embeddings(captioned_folder: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("embeddings")
    embed_images.main(f"--captions {captioned_folder} --image_model {tiny_clip} --run {run} --device cpu".split())
    return run / "embeddings"


def arguments(source: Path, clip: Path, embeddings: Path, run: Path, *more: str) -> list[str]:
    return [*f"--captions {source} --image_model {clip} --embeddings {embeddings} --run {run} {SMALL}".split(), *more]


@pytest.mark.parametrize("prompt", ["", "mavi bir ev: "])
def test_epochs_0_is_the_ridge_regression_of_the_pooled_captions(
    captioned_folder: Path, tiny_clip: Path, embeddings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    prompt: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(closed_form, "CAPTIONS_AT_ONCE", 7)  # several blocks
    more = ["--epochs", "0", f"--prompt={prompt}"]
    summary = distill.main(arguments(captioned_folder, tiny_clip, embeddings, tmp_path, *more))
    assert summary["best_validation_mrr"] == summary["closed_form_validation_mrr"] > 0
    assert summary["train_seconds"] is None
    assert not (tmp_path / "checkpoints").exists()
    model = load_model(tmp_path / "model", device="cpu")
    rows = [json.loads(line) for line in (captioned_folder / "metadata.jsonl").read_text("utf-8").splitlines()]
    store = read_embeddings(embeddings)
    record = json.loads((tmp_path / "run.json").read_text("utf-8"))
    trained = [row for row in rows if row["split"] == "train"]
    pairs = [(caption, row["image_id"]) for row in trained for caption in row["captions"]]
    assert record["summary"]["training_captions"] == len(pairs)
    pooled = SentenceTransformer(modules=list(model.children())[:2], device="cpu")
    inputs = pooled.encode([prompt + caption for caption, _ in pairs]).astype(np.float64)
    targets = store.unit_rows([image_id for _, image_id in pairs]).astype(np.float64)
    centred, mean = inputs - inputs.mean(0), targets.mean(0)
    ridge = summary["closed_form_penalty"] * centred.var(0).mean() * np.eye(inputs.shape[1])
    slope = np.linalg.solve(centred.T @ centred / len(inputs) + ridge, centred.T @ (targets - mean) / len(inputs))
    text = ["kırmızı bir ev"]
    expected = unit((pooled.encode([prompt + text[0]]) - inputs.mean(0)) @ slope + mean)
    assert model.encode(text) == pytest.approx(expected, abs=2e-4)


def test_training_starts_with_it_and_a_worse_training_ends_with_it(
    captioned_folder: Path, tiny_clip: Path, embeddings: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    alone = distill.main(arguments(captioned_folder, tiny_clip, embeddings, tmp_path / "alone", "--epochs", "0"))
    wild = ["--epochs", "1", "--learning_rate", "1", "--dense_learning_rate", "1"]
    with caplog.at_level("WARNING", "training"):
        worse = distill.main(arguments(captioned_folder, tiny_clip, embeddings, tmp_path / "worse", *wild))
    assert worse["best_validation_mrr"] == worse["closed_form_validation_mrr"] == alone["closed_form_validation_mrr"]
    assert worse["weights_sha256"] == alone["weights_sha256"]
    assert "no step of the training had a better validation MRR than the closed form" in caplog.text
    still = ["--epochs", "0.1", "--learning_rate", "1e-12", "--dense_learning_rate", "1e-12"]
    distill.main(arguments(captioned_folder, tiny_clip, embeddings, tmp_path / "still", *still))
    models = [load_model(tmp_path / name / "model", device="cpu") for name in ("alone", "still")]
    assert models[0].encode("mavi kuş") == pytest.approx(models[1].encode("mavi kuş"), abs=1e-5)
    random = distill.main(
        arguments(captioned_folder, tiny_clip, embeddings, tmp_path / "random", *still, "--dense_start", "random")
    )
    assert random["closed_form_validation_mrr"] is None
    assert weights_sha256(load_model(tmp_path / "random" / "model", device="cpu")) != alone["weights_sha256"]


def test_without_a_validation_split_the_penalty_is_the_default(
    captioned_folder: Path, tiny_clip: Path, embeddings: Path
) -> None:
    config = DistillConfig(
        captions=str(captioned_folder), run=str(embeddings.parent), image_model=str(tiny_clip), backbone="scratch",
        scratch_layers=1, scratch_hidden=32, scratch_vocabulary=300, max_tokens=32, device="cpu",
    )  # fmt: skip
    store = read_embeddings(embeddings)
    pairs = load_pairs(read_captions(config), store, config)
    encoder = build_student(config, pairs, store.manifest)
    without = SimpleNamespace(texts=pairs.texts, blocks=pairs.blocks, evaluator=None)
    fitted = closed_form.fit(encoder, without, 16)  # type: ignore[arg-type]
    assert (fitted.penalty, fitted.validation_mrr) == (closed_form.DEFAULT_PENALTY, None)


def test_a_damaged_form_is_computed_again_on_resume(
    captioned_folder: Path, tiny_clip: Path, embeddings: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    argv = arguments(captioned_folder, tiny_clip, embeddings, tmp_path / "run", "--epochs", "0")
    first = distill.main(argv)
    record = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))
    (tmp_path / "run" / "run.json").write_text(json.dumps(record | {"status": "running", "summary": None}), "utf-8")
    (tmp_path / "mine.safetensors").write_bytes(b"mine")
    path = tmp_path / "run" / closed_form.FILE
    path.unlink()
    path.symlink_to(tmp_path / "mine.safetensors")
    with caplog.at_level("WARNING", "training"):
        assert distill.main([*argv, "--resume"])["weights_sha256"] == first["weights_sha256"]
    (said,) = [line.getMessage() for line in caplog.records if "closed form" in line.getMessage()]
    assert re.search(
        r"expected a closed form in .*, got .*: it is computed again, and that file stays as .*kept-", said
    )
    assert (tmp_path / "mine.safetensors").read_bytes() == b"mine"
    assert path.is_file()
    assert not path.is_symlink()


def test_patience_ends_a_training_that_no_longer_improves(
    captioned_folder: Path, tiny_clip: Path, embeddings: Path, tmp_path: Path
) -> None:
    wild = "--epochs 4 --evaluations 8 --learning_rate 1 --dense_learning_rate 1 --patience 2".split()
    distill.main(arguments(captioned_folder, tiny_clip, embeddings, tmp_path, *wild))
    curve = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text("utf-8").splitlines()]
    assert 3 <= sum("eval_validation_mrr" in line for line in curve) < 8
