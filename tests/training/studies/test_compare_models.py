"""The table for a choice of model: every row measured or with its reason, kept when it is of the same weights."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from training import compare_models
from training.evaluation.published import read_baselines, read_hub_ids
from training.run.config import CompareConfig
from training.run.recipe import ConfigError
from training.run.record import RunError
from training.studies import model_figures, model_table
from training.studies.model_figures import Candidate, ModelRow, files_of_model, measure_times, sha256_of_files
from training.studies.model_process import ModelProcess, ModelProcessError, ModelSubject
from turkish_clip.metrics import Relevance
from turkish_clip.onnx.export import export_onnx
from turkish_clip.verify import RECORD, ModelRecord

QUICK = "--repeats 2 --bootstrap_samples 10 --image_batch_size 2"


def subject(model: Path | str, image_model: Path | str = "", *, onnx: bool = False) -> ModelSubject:
    return ModelSubject(
        model=str(model), image_model=str(image_model), onnx=onnx, text_alone=False, threads=1, device="cpu"
    )


@pytest.fixture
def named(text_folder: Path, tiny_clip: Path, tmp_path: Path) -> Path:
    """The text encoder with a record that names its image model."""
    from turkish_clip.dual_encoder import weights_sha256
    from turkish_clip.encoder import load_model

    folder = tmp_path / "named"
    shutil.copytree(text_folder, folder)
    text, image = (load_model(name, device="cpu") for name in (text_folder, tiny_clip))
    record = ModelRecord(
        kind="text",
        dim=16,
        max_tokens=128,
        weights_sha256=weights_sha256(text),
        image_model={"id": str(tiny_clip), "revision": "", "weights_sha256": weights_sha256(image)},
    )
    (folder / RECORD).write_text(record.to_json(), encoding="utf-8")
    return folder


@pytest.mark.slow  # eight processes that import torch
def test_models_exports_and_what_is_not_there_are_rows_of_one_table(
    pair_folder: Path, named: Path, tiny_clip: Path, captioned_folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    exported = export_onnx(named, tmp_path / "onnx").folder
    run, models = tmp_path / "compared", f"{pair_folder},{named},{exported},nobody/nothing"
    argv = f"--run {run} --models {models} --captions {captioned_folder} {QUICK}".split()
    values = compare_models.main(argv)
    pair, text, onnx, nothing = values["rows"]
    assert [row["form"] for row in values["rows"]] == ["PyTorch", "PyTorch", "ONNX", "PyTorch"]
    assert (values["images"], values["split"]) == (10, "test")
    for row in (pair, text, onnx):
        assert 0 <= row["text_to_image"]["recall_at_1"] <= row["text_to_image"]["recall_at_10"] == 1  # of ten images
        assert row["query_ms"] > 0
        assert row["query_ms_quartiles"][0] <= row["query_ms"] <= row["query_ms_quartiles"][1]
        assert row["text_memory"] > 1 << 20
    assert onnx["text_memory"] < text["text_memory"] / 2  # without torch
    assert onnx["text_to_image"]["mrr"] == pytest.approx(text["text_to_image"]["mrr"])  # image vectors of the row above
    assert onnx["not_measured"] == {"image": "an export of texts alone"}
    assert text["text_bytes"] == sum(path.stat().st_size for path in named.rglob("*") if path.is_file())
    assert text["image_bytes"] == sum(path.stat().st_size for path in tiny_clip.rglob("*") if path.is_file())
    assert (pair["image_bytes"], pair["image_model"], text["image_model"]) == (0, "", str(tiny_clip))
    assert set(nothing["not_measured"]) == {"quality", "size", "memory", "query", "image"}
    assert "expected a model, got nobody/nothing" in nothing["not_measured"]["quality"]
    printed = capsys.readouterr().out
    assert "not measured of nobody/nothing, PyTorch: quality, size, memory, query, image: expected a model" in printed
    page = (run / "compare.html").read_text(encoding="utf-8")
    assert "nobody/nothing" in page
    assert '<li id="why2">' in page

    def never(*_: object) -> None:
        raise RuntimeError("measured again")

    kept = {name: getattr(model_table, name) for name in ("measure_alone", "open_both")}
    for name in kept:
        monkeypatch.setattr(model_table, name, never)
    argv[3] = models.removesuffix(",nobody/nothing")
    assert compare_models.main(argv)["rows"] == [pair, text, onnx]
    changed = tmp_path / "changed"
    shutil.copytree(named, changed)
    with pytest.raises(RuntimeError, match="measured again"):
        compare_models.main([*argv[:3], str(changed), *argv[4:]])
    with pytest.raises(RuntimeError, match="measured again"):
        compare_models.main([*argv, "--query", "bir ev"])

    (run / "compare.json").write_text('{"format": 1, "measured": {}, "rows": 7}', encoding="utf-8")
    with pytest.raises(RunError, match="expected compare.json of format 1 in .*; delete it to measure again"):
        compare_models.main(argv)


@pytest.mark.slow
def test_exports_are_made_and_a_model_without_captions_has_no_quality(
    text_folder: Path,
    tiny_clip: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    argv = f"--run {tmp_path} --models {text_folder} --exports int8 --image_model {tiny_clip} {QUICK}".split()
    with caplog.at_level(logging.INFO):
        torch, int8 = compare_models.main(argv)["rows"]
    assert torch["not_measured"] == int8["not_measured"] == {"quality": "no captions were named"}
    assert int8["text_bytes"] < torch["text_bytes"]
    assert int8["image_bytes"] > 0
    assert int8["files_sha256"] == torch["files_sha256"]  # an export is kept while its model is the same
    monkeypatch.setattr(model_table, "_measure", None)
    assert [row["query_ms"] for row in compare_models.main(argv)["rows"]] == [torch["query_ms"], int8["query_ms"]]
    assert not [record for record in caplog.records if record.name.startswith("onnx") and record.levelno < 30]
    assert [path.name for path in (tmp_path / "exports").iterdir()] == [
        f"{str(text_folder).strip('/').replace('/', '-')}-onnx-int8"
    ]


@pytest.mark.slow
def test_an_interrupted_comparison_keeps_what_it_has(
    text_folder: Path, tiny_clip: Path, captioned_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = f"--run {tmp_path} --models {text_folder} --image_model {tiny_clip} --captions {captioned_folder} {QUICK}"

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(model_table, "measure_times", interrupt)
        with pytest.raises(KeyboardInterrupt):
            compare_models.main(argv.split())
    (half,) = json.loads((tmp_path / "compare.json").read_text(encoding="utf-8"))["rows"]
    assert "text_to_image" in half
    assert "query_ms" not in half
    monkeypatch.setattr(Relevance, "text_to_image", interrupt)  # it is not measured again
    (whole,) = compare_models.main(argv.split())["rows"]
    assert whole["text_to_image"]["mrr"] == half["text_to_image"]["mrr"]
    assert whole["query_ms"] > 0


def test_the_models_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = []

    class Told:
        def __init__(self, name: str, seconds: list[float]) -> None:
            self.name, self.seconds, self.opened = name, iter(seconds), type("", (), {"has_images": name == "a"})

        def seconds_of_text(self, text: str) -> float:
            turns.append(self.name)
            return next(self.seconds)

        def seconds_of_images(self, files: list[bytes]) -> float:
            return 0.004

    warm = [9.0] * model_figures.WARM_UP
    first = Candidate(ModelRow(model="a", form="PyTorch"), None, process=Told("a", [*warm, 0.003, 0.001, 0.002]))  # type: ignore[arg-type]
    second = Candidate(ModelRow(model="b", form="PyTorch"), None, process=Told("b", [*warm, 0.006, 0.004, 0.005]))  # type: ignore[arg-type]
    measure_times([first, second], CompareConfig(run="x", models=("a", "b"), repeats=3, image_batch_size=2))
    assert turns == ["a", "b"] * (model_figures.WARM_UP + 3)
    assert (first.row.query_ms, second.row.query_ms) == pytest.approx((2.0, 5.0))
    assert first.row.query_ms_quartiles == pytest.approx([1.5, 2.5])
    assert (first.row.image_ms, second.row.image_ms) == (pytest.approx(2.0), None)


def test_a_process_answers_errors_as_one_line_and_its_end(text_folder: Path, tiny_clip: Path) -> None:
    with pytest.raises(ModelProcessError, match="expected a model, got nowhere"):
        ModelProcess(subject("nowhere"))
    with ModelProcess(subject(text_folder, "nowhere")) as process:  # texts alone
        assert process.texts(["bir ev"]).shape == (1, 16)
        assert not process.opened.has_images
        assert "nowhere" in process.opened.why_none
        with pytest.raises(ModelProcessError, match="only the text side is loaded"):
            process.images([b""])
        assert np.allclose(process.texts(["bir ev"]), process.texts(["bir ev"]))  # it goes on
        process._process.kill()
        with pytest.raises(ModelProcessError, match="got its end .exit code -9., as where memory is short"):
            process.texts(["bir ev"])
    with ModelProcess(subject(text_folder, tiny_clip)) as process, pytest.raises(ModelProcessError, match="image"):
        process.images([b"no image"])


def test_files_of_a_model(tmp_path: Path) -> None:
    for name in ("model.safetensors", "pytorch_model.bin", ".git/config", "1_Pooling/config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    assert [path.name for path in files_of_model(tmp_path)] == ["config.json", "model.safetensors"]
    before = sha256_of_files(str(tmp_path), "")
    (tmp_path / "model.safetensors").write_text("others", encoding="utf-8")
    assert sha256_of_files(str(tmp_path), "") != before
    assert sha256_of_files("", "") == ""


def test_each_baseline_has_an_id_or_a_reason() -> None:
    hub = read_hub_ids()
    assert hub.keys() == {baseline["model"] for baseline in read_baselines()}
    assert all(how.keys() in ({"why"}, {"id"}, {"id", "image_model"}) for how in hub.values())


def test_a_baseline_that_cannot_be_loaded_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_table, "read_hub_ids", lambda: {"of others": {"why": "it needs the library open_clip"}})
    (row,) = compare_models.main(["--run", str(tmp_path), "--baselines"])["rows"]
    assert row["not_measured"]["query"] == "it needs the library open_clip"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("", "expected 'models' to compare, got none; add --models"),
        ("--models a,a", "expected each of 'models' once, got a twice"),
        ("--models a --exports onyx", "expected 'exports' out of onnx, int8, got 'onyx'"),
        ("--models a --embeddings x", "expected 'captions' beside 'embeddings', got none"),
        ("--models a --threads -1", "expected 'threads' to be 0 to 1024, got -1"),
    ],
)
def test_options_that_cannot_be_compared(more: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        compare_models.main(["--run", str(tmp_path), *more.split()])


def test_a_test_without_images_is_refused(captioned_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected 'split' "):
        compare_models.main(f"--run {tmp_path} --models a --captions {captioned_folder} --split no".split())
