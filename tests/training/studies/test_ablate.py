"""The ablation measures every cell once, makes a table with spreads, and resumes where it was interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from killing import run_killed

from training import distill
from training.data.samples import Row
from training.data.store import Rows
from training.pairs.dataset import sample_images
from training.run.config import DistillConfig, read
from training.run.recipe import ConfigError
from training.run.record import RunError
from training.studies import ablate
from turkish_clip.encoder import ModelError

SMALL = (
    "--backbone scratch --scratch_layers 1 --scratch_hidden 32 --scratch_vocabulary 300 --max_tokens 32 "
    "--batch_size 16 --epochs 1 --evaluations 1 --bootstrap_samples 10 --device cpu"
)


@pytest.mark.slow
def test_a_table_of_objectives_sizes_and_seeds(
    captioned_folder: Path, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = tmp_path / "ablation"
    argv = f"--captions {captioned_folder} --image_model {tiny_clip} --run {run} {SMALL}".split()
    argv += "--objectives mse,contrastive --seeds 0,1 --sizes 16,0".split()
    result = ablate.main(argv)
    assert [(row["objective"], row["train_images"], row["seeds"]) for row in result["rows"]] == [
        ("mse", 16, 2),
        ("mse", 0, 2),
        ("contrastive", 16, 2),
        ("contrastive", 0, 2),
    ]
    cell = json.loads((run / "contrastive-16-1" / "run.json").read_text(encoding="utf-8"))
    assert cell["summary"]["training_images"] == 16
    assert cell["config"]["epochs"] == pytest.approx(32 / 16)
    figures = result["rows"][0]["text→image recall@1"]
    assert figures["mean"] == pytest.approx(sum(figures["values"]) / 2)
    assert not (run / "mse-all-0" / "checkpoints").exists()
    page = (run / "ablation.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 2
    assert "contrastive" in page
    assert "contrastive, all training images, 2 seeds" in capsys.readouterr().out

    def never(_: list[str]) -> None:
        raise RuntimeError("trained again")

    monkeypatch.setattr(distill, "main", never)
    assert ablate.main(argv) == result
    with pytest.raises(RunError, match="expected .*mse-16-0 to be of these options and embeddings, got others"):
        ablate.main([*argv, "--max_tokens", "30"])
    with pytest.raises(RunError, match="expected 'sizes' of at most 32 training images, got 33"):
        ablate.main([*argv, "--sizes", "33"])

    path = run / "mse-16-0" / "cell.json"
    whole = json.loads(path.read_text(encoding="utf-8"))
    results = whole["results"]
    for damaged in (
        "", "[]", "null", '{"of": {}}', "[" * 5000, json.dumps(whole)[:-20],
        json.dumps({**whole, "results": []}),
        json.dumps({**whole, "results": {**results, "text_to_image": 7}}),
        json.dumps({**whole, "results": {**results, "train_seconds": "a lot"}}),
        json.dumps({**whole, "results": {**results, "train_seconds": float("nan")}}),
        json.dumps({**whole, "results": {**results, "temperature": {"accuracy": True}}}),
        json.dumps({**whole, "results": {**results, "hubness": {"text_to_image": float("inf"), "image_to_text": 0.0}}}),
    ):  # fmt: skip
        path.write_text(damaged, encoding="utf-8")
        with pytest.raises(RunError, match=f"expected the results of a cell in {path}, got .*; delete it to measure"):
            ablate.main(argv)


def test_the_static_row_is_made_from_the_backbone(captioned_folder: Path, tiny_clip: Path, tmp_path: Path) -> None:
    base = f"--captions {captioned_folder} --image_model {tiny_clip} --run {tmp_path} {SMALL} --learning_rate 1e-4"
    result = ablate.main([*base.split(), "--objectives", "static,mse", "--seeds", "0"])
    assert [row["objective"] for row in result["rows"]] == ["static", "mse"]
    static, mse = (
        json.loads((tmp_path / f"{name}-all-0" / "run.json").read_text())["config"] for name in ("static", "mse")
    )
    assert (static["backbone"], static["static_from"], static["objective"]) == ("static", "scratch", "mse")
    assert (static["learning_rate"], mse["learning_rate"]) == (0, 1e-4)  # that of a BERT is none for token vectors
    assert (mse["backbone"], mse["static_from"]) == ("scratch", "")


def test_poolings_and_word_vectors_are_rows_beside_the_objectives(
    captioned_folder: Path, tiny_clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "w.vec").write_text("kırmızı 1 0\nmavi 0 1\nbir 1 1\n", encoding="utf-8")
    argv = f"--captions {captioned_folder} --image_model {tiny_clip} --run {tmp_path} {SMALL} --seeds 0".split()
    more = f"--objectives mse,words,static --poolings mean,cls --word_vectors {tmp_path / 'w.vec'}"
    result = ablate.main([*argv, *more.split()])
    named = [(row["objective"], row["pooling"]) for row in result["rows"]]
    assert named == [("mse", "mean"), ("mse", "cls"), ("words", "mean"), ("static", "mean")]
    configs = {
        name: json.loads((tmp_path / f"{name}-all-0" / "run.json").read_text(encoding="utf-8"))["config"]
        for name in ("mse", "mse-cls", "words", "static")
    }
    assert [configs[name]["pooling"] for name in configs] == ["mean", "cls", "mean", "mean"]
    assert [configs[name]["backbone"] for name in configs] == ["scratch", "scratch", "static", "static"]
    assert [bool(configs[name]["word_vectors"]) for name in configs] == [False, False, True, False]
    pooling = json.loads((tmp_path / "mse-cls-all-0/model/1_Pooling/config.json").read_text(encoding="utf-8"))
    assert pooling["pooling_mode"] == "cls"
    assert "mse, [CLS], all training images, 1 seeds" in capsys.readouterr().out
    assert "mse, [CLS]" in (tmp_path / "ablation.html").read_text(encoding="utf-8")
    init = [*argv[:4], "--embeddings", str(tmp_path / "embeddings"), "--run", str(tmp_path / "tuned")]
    with pytest.raises(ModelError, match="expected the pooling that .* was trained with, cls, got mean; give it as"):
        distill.main([*init, "--init", str(tmp_path / "mse-cls-all-0")])


def test_a_killed_ablation_resumes_its_cell(captioned_folder: Path, tiny_clip: Path, tmp_path: Path) -> None:
    def argv(name: str) -> list[str]:
        base = f"--captions {captioned_folder} --image_model {tiny_clip} --run {tmp_path / name} {SMALL}"
        return [*base.split(), "--objectives", "mse", "--seeds", "0"]

    whole = ablate.main(argv("whole"))
    run_killed("training.studies.ablate", "training.studies.ablate:write_page", 1, argv("measured"))
    run_killed("training.studies.ablate", "training.evaluation.retrieval:measure_robustness", 1, argv("killed"))
    for name, timed in (("measured", True), ("killed", False)):
        (row,) = ablate.main(argv(name))["rows"]
        assert row["image→text MRR"] == whole["rows"][0]["image→text MRR"]
        assert (row["training seconds"]["mean"] is not None) == timed


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--objectives mse,msa", "expected 'objectives' out of closed_form, static, words, mse, .*got"),
        ("--poolings mean,max", "expected 'poolings' out of mean, cls, got 'max'"),
        ("--objectives mse,words", "expected 'word_vectors' for the row words, got none; add --word_vectors FILE"),
        ("--sizes -1", "expected 'sizes' to be at least 0, got -1"),
    ],
)
def test_options_that_cannot_be_compared(more: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        ablate.main(["--captions", "x", "--run", str(tmp_path), *more.split()])


def test_a_larger_subset_contains_the_smaller_one(tmp_path: Path) -> None:
    rows = Rows.of((Row(str(number), None, ("a",), (), "train") for number in range(50)), tmp_path)

    def subset(images: int) -> list[str]:
        config = read(DistillConfig, ["--captions", "x", "--run", str(tmp_path), "--train_images", str(images)])
        return [row.image_id for row in sample_images(rows, config)]

    assert len(subset(0)) == len(subset(70)) == 50
    assert set(subset(5)) < set(subset(20))
    assert len(subset(20)) == 20
    assert subset(20) == sorted(subset(20), key=int)
