"""Subjects learnt one after another: each training once, the matrix of what is known, and going on after a kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killing import run_killed

import training
from training import distill
from training.data.samples import Row
from training.embeddings.store import read_embeddings
from training.mini.world import WorldSize, write_world
from training.run.config import ContinualConfig, read
from training.run.recipe import ConfigError
from training.run.record import RunError
from training.studies import continual
from training.studies.forgetting import Continual, Summary, summarise, write_page
from training.studies.subjects import divide, subject_of
from turkish_clip.encoder import load_model
from turkish_clip.metrics import unit
from turkish_clip.records import from_json
from turkish_clip.text import alphabetical

SMALL = (
    "--backbone scratch --scratch_layers 1 --scratch_hidden 32 --scratch_vocabulary 300 --max_tokens 32 "
    "--batch_size 32 --epochs 1 --evaluations 1 --bootstrap_samples 10 --device cpu --subject_count 2"
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world") / "data", WorldSize(train=60, validation=12, test=40))


@pytest.fixture(scope="module")
def argv(world: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("continual")
    return f"--captions {world} --image_model {tiny_clip} --run {folder} {SMALL}".split()


@pytest.fixture(scope="module")
def result(argv: list[str]) -> dict[str, Any]:
    return continual.main(argv)


def folder_of(argv: list[str]) -> Path:
    return Path(argv[argv.index("--run") + 1])


def test_figures_of_a_matrix_by_hand() -> None:
    """Three subjects; the first is known best after the second, the last is half known before it is learnt."""
    matrix = [[0.6, 0.2, 0.1], [0.8, 0.7, 0.5], [0.4, 0.6, 0.9]]
    found = summarise(matrix, [0.1, 0.1, 0.1])
    assert found.average == pytest.approx((0.4 + 0.6 + 0.9) / 3)
    assert found.backward_transfer == pytest.approx(((0.4 - 0.6) + (0.6 - 0.7)) / 2)
    assert found.forgetting == pytest.approx(((0.8 - 0.4) + (0.7 - 0.6)) / 2)
    assert found.forward_transfer == pytest.approx(((0.2 - 0.1) + (0.5 - 0.1)) / 2)
    assert summarise(matrix).forward_transfer is None
    assert summarise([[0.5, 0.7]], [0.1, 0.1]) == Summary(average=0.6)  # all at once


def row(*labels: str) -> Row:
    return Row("x", None, ("a",), (), "train", labels=labels)


def config(*more: str) -> ContinualConfig:
    return read(ContinualConfig, ["--captions", "x", "--run", "x", *more])


def test_labels_are_divided_by_the_alphabet_or_as_configured() -> None:
    labels = ["ev", "kuş", "at", "ev", "göl", "kedi"]
    assert divide(labels, config("--subject_count", "2")) == [("at", "ev"), ("göl", "kedi", "kuş")]
    turkish = divide(["araba", "ağaç", "şal", "su", "çan", "cam"], config("--subject_count", "2"))
    assert turkish == [("ağaç", "araba", "cam"), ("çan", "su", "şal")]
    named = divide(labels, config("--subjects", "kuş+kedi,ev"))
    assert named == [("kuş", "kedi"), ("ev",)]
    found = [subject_of(one, named) for one in (row("kedi"), row("kuş", "kedi"), row("ev"), row("kuş", "ev"), row())]
    assert found == [0, 0, 1, -1, -1]
    assert subject_of(row("ev", "göl"), named) == -1  # the lake belongs to no subject
    for given, got in (("kuş+ev,ev", "'ev', which is none or is repeated"), ("kuş,uçak", "'uçak'"), ("kuş,+", "empty")):
        with pytest.raises(RunError, match=f"expected 'subjects' of other labels each, out of at, ev.*got .*{got}"):
            divide(labels, config("--subjects", given))
    with pytest.raises(RunError, match="expected 9 labels or more for 9 subjects, got 5 in x; .*--label_column"):
        divide(labels, config("--subject_count", "9"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--methods naive,all", "expected 'methods' out of naive, replay, joint, got .'all'"),
        ("--replay other.yaml --init x", "expected no 'replay' and a 'replay_fraction' above 0"),
        ("--replay_fraction 0", "expected no 'replay' and a 'replay_fraction' above 0"),
        ("--epochs 0", "expected subjects that are trained on, got 'epochs' 0"),
        ("--subjects kuş", "expected two 'subjects' or more"),
        ("--train_images 5", "expected subjects of all their images, got 'train_images' 5"),
        ("--backbone static", "expected a BERT or scratch as 'backbone'"),
    ],
)
def test_options_of_no_sequence(more: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(*more.split())


def test_each_subject_after_each(result: dict[str, Any], argv: list[str], world: Path) -> None:
    folder = folder_of(argv)
    assert json.loads((folder / "continual.json").read_text(encoding="utf-8")) == json.loads(json.dumps(result))
    assert {path.parent.name for path in folder.glob("*/stage.json")} == {"joint", "first", "naive-2", "replay-2"}
    assert list(result["methods"]) == ["naive", "replay", "joint"]
    assert [len(learnt["known"]) for learnt in result["methods"].values()] == [2, 2, 1]
    assert result["methods"]["naive"]["known"][0] == result["methods"]["replay"]["known"][0]

    rows = [json.loads(line) for line in (world / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    labels = sorted({label for one in rows if one["split"] == "train" for label in one["labels"]}, key=alphabetical)
    first, second = (set(subject["labels"]) for subject in result["subjects"])
    assert first == set(labels[: len(labels) // 2])
    assert second == set(labels) - first
    own = [[one for one in rows if set(one["labels"]) <= subject] for subject in (first, second)]
    counts = [[sum(one["split"] == split for one in part) for split in ("train", "test")] for part in own]
    assert [[s["train_images"], s["images"]] for s in result["subjects"]] == counts
    assert result["left_out"] == len(rows) - sum(map(len, own))

    model = load_model(folder / "replay-2" / "model", device="cpu")  # a naive count of one cell
    tests = [[one for one in part if one["split"] == "test"] for part in own]
    images = read_embeddings(folder / "embeddings").unit_rows([one["image_id"] for part in tests for one in part])
    hits = []
    for number, one in enumerate(tests[1], len(tests[0])):
        vectors = unit(model.encode(one["captions"]))
        hits += (np.argmax(images @ vectors.T, axis=0) == number).tolist()
    found = result["methods"]["replay"]["known"][1][1]
    assert found["recall_at_1"] == pytest.approx(np.mean(hits), abs=1e-9)
    assert set(found["ci95"]) == {"recall_at_1", "recall_at_5", "recall_at_10", "mrr"}
    summary = result["methods"]["replay"]["summary"]["recall_at_1"]
    assert set(summary) == {"average", "backward_transfer", "forgetting", "forward_transfer"}
    assert set(result["methods"]["joint"]["summary"]["recall_at_1"]) == {"average"}


def test_trainings_are_alike_but_for_what_they_learn(result: dict[str, Any], argv: list[str]) -> None:
    folder = folder_of(argv)
    runs = {
        name: json.loads((folder / name / "run.json").read_text(encoding="utf-8"))
        for name in ("joint", "first", "naive-2", "replay-2")
    }
    rates = {(one["config"]["learning_rate"], one["config"]["dense_learning_rate"]) for one in runs.values()}
    assert rates == {(1e-3, 1e-3)}  # those of a scratch backbone, also where training goes on
    assert {one["config"]["backbone"] for one in runs.values()} == {str(folder / "backbone")}
    assert runs["naive-2"]["config"]["init"] == runs["replay-2"]["config"]["init"] == str(folder / "first" / "model")
    captions = [subject["train_captions"] for subject in result["subjects"]]
    assert [runs[name]["summary"]["training_captions"] for name in ("joint", "first", "naive-2", "replay-2")] == [
        sum(captions), *captions, captions[1],
    ]  # fmt: skip
    assert runs["replay-2"]["summary"]["captions_replayed"] == captions[0]
    assert "captions_replayed" not in runs["naive-2"]["summary"]
    assert not list(folder.glob("*/checkpoints"))


def test_what_is_measured_is_not_measured_again(
    result: dict[str, Any], argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(_: list[str]) -> None:
        raise RuntimeError("trained again")

    monkeypatch.setattr(distill, "main", never)
    assert continual.main(argv) == result
    shown = capsys.readouterr().out
    assert "recall@1, with replay of the earlier subjects" in shown
    assert "  after subject 2" in shown
    assert "backward transfer" in shown
    assert continual.main([*argv, "--json"]) == result
    assert json.loads(capsys.readouterr().out)["methods"] == json.loads(json.dumps(result["methods"]))
    with pytest.raises(RunError, match="expected .*joint to be of these options and images, got others"):
        continual.main([*argv, "--max_tokens", "30"])
    path = folder_of(argv) / "first" / "stage.json"
    whole = path.read_text(encoding="utf-8")
    for damaged in ("", "[]", '{"format": 1}', whole.replace('"format":', '"Format":')):
        path.write_text(damaged, encoding="utf-8")
        with pytest.raises(RunError, match="expected stage.json of format 1 in .*first, got .*; delete it to measure"):
            continual.main(argv)
    path.write_text(whole, encoding="utf-8")
    assert json.loads((folder_of(argv) / "continual.json").read_text(encoding="utf-8"))["methods"]["naive"]


def test_the_page_shows_the_matrices(result: dict[str, Any], argv: list[str], tmp_path: Path) -> None:
    page = (folder_of(argv) / "continual.html").read_text(encoding="utf-8")
    assert page.count('<table class="map">') == 2 * 3
    assert page.count('class="own"') == 2 * 2 * 2  # two methods of two subjects, two metrics
    for cell in result["methods"]["naive"]["known"][1]:
        assert f">{cell['recall_at_1']:.2f}</td>" in page
    assert page.count("<svg") == 2
    bad = "<script>alert(1)</script>"
    shown = json.loads(json.dumps(result)) | {"dataset": bad, "methods": {"replay": result["methods"]["replay"]}}
    partial = from_json(Continual, json.loads(json.dumps(shown)))
    learnt = partial.methods["replay"]
    object.__setattr__(learnt, "known", learnt.known[:1])  # as after the first subject
    object.__setattr__(learnt, "summary", {})
    write_page(tmp_path / "continual.html", partial)
    page = (tmp_path / "continual.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert page.count('<td class="none"></td>') == 2 * 2


def test_wide_tables_of_all_pages_say_that_they_scroll() -> None:
    templates = [path for path in Path(training.__file__).parent.rglob("*.html.jinja") if "<table" in path.read_text()]
    assert len(templates) >= 5
    for path in templates:
        assert '{% include "wide_tables.css" %}' in path.read_text(), path
        assert path.read_text().count("<table") <= path.read_text().count('class="scroll" tabindex="0"'), path


def test_subjects_without_images_to_measure(
    result: dict[str, Any], argv: list[str], tmp_path: Path, world: Path
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    lines = [json.loads(line) for line in (world / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    first = set(result["subjects"][0]["labels"])
    kept = [one for one in lines if one["split"] == "train" or set(one["labels"]) <= first]
    assert {"validation", "test"} < {one["split"] for one in kept}
    for one in kept:
        one["file_name"] = str(world / one["file_name"])
    (tmp_path / "few.jsonl").write_text("\n".join(map(json.dumps, kept)), encoding="utf-8")
    more = f"--captions {tmp_path / 'few.jsonl'} --run {few} --embeddings {folder_of(argv) / 'embeddings'}"
    with pytest.raises(RunError, match="expected images of .* alone to train on and in the test split, got"):
        continual.main([*argv, *more.split()])


def test_a_killed_study_goes_on_where_it_was(result: dict[str, Any], argv: list[str], tmp_path: Path) -> None:
    """Killed before the second training is measured, and while the page of the third is written."""
    killed = [str(tmp_path / "run") if word == str(folder_of(argv)) else word for word in argv]
    run_killed("training.studies.continual", "training.studies.continual:Test.known", 2, killed)
    assert (tmp_path / "run" / "joint" / "stage.json").is_file()
    assert not (tmp_path / "run" / "first" / "stage.json").exists()
    run_killed("training.studies.continual", "training.studies.continual:write_page", 3, killed)
    again = continual.main(killed)
    for name, learnt in again["methods"].items():
        assert learnt["known"] == result["methods"][name]["known"]
        assert learnt["summary"] == result["methods"][name]["summary"]
    assert again["methods"]["naive"]["train_seconds"][0] is None  # of the resumed training it is not known
