"""Skews and divergences equal what is counted by hand, with intervals and chance; labelled images of any kind."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training import distill, embed_images, evaluate
from training.data.sources import read_captions
from training.embeddings.labelled import FOLDER, Labelled, read_labelled
from training.evaluation.bias import max_skew, measure_bias, ndkl, read_prompts, skews
from training.evaluation.report import TurkishPage
from training.evaluation.results import Results
from training.release.card import _bias
from training.run.config import EvaluateConfig, read
from training.run.recipe import ConfigError
from training.run.record import RunError
from turkish_clip.few_shot import ExampleError
from turkish_clip.metrics import Vectors

CONFIG = EvaluateConfig(captions="x", run="x", bias="y", bootstrap_samples=200, bias_k=4)


def codes(*values: int) -> Any:
    return np.array(values)


def test_skews_by_hand() -> None:
    desired = np.array([0.5, 0.25, 0.25])
    found = skews(codes(0, 0, 0, 1), desired)
    assert found[:2] == pytest.approx([math.log(1.5), 0.0])
    assert found[2] == -math.inf  # none of the four
    assert max_skew(codes(0, 0, 0, 1), desired) == pytest.approx(math.log(1.5))
    assert max_skew(codes(2, 2, 2, 2), desired) == pytest.approx(math.log(4))
    assert max_skew(codes(0, 1, 2, 0), desired) == 0.0
    assert max_skew(codes(0, 0), np.array([1.0, 0.0])) == 0.0  # a value that no image has


def test_divergence_by_hand() -> None:
    """Of a list of two the first prefix holds one value alone, which is ln 2 from equal shares, and the second both."""
    equal = np.array([0.5, 0.5])
    weights = [1.0, 1 / math.log2(3), 0.5]
    assert ndkl(codes(0, 1), equal) == pytest.approx(math.log(2) / sum(weights[:2]))
    third = 2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3)
    expected = (math.log(2) + third * 0.5) / sum(weights)
    assert ndkl(codes(1, 0, 1), equal) == pytest.approx(expected)
    assert ndkl(codes(0, 0), np.array([1.0, 0.0])) == 0.0


def labelled(values: list[str], scores: list[float]) -> Labelled:
    """Images whose cosine to the text (1, 0) is the score."""
    vectors = np.array([[score, math.sqrt(1 - score * score)] for score in scores], np.float32)
    return Labelled("set", {"style": values}, vectors)


def encode(texts: list[str]) -> Vectors:
    """Gives every text (1, 0), but those that are turned round the opposite."""
    return np.array([[-1.0 if "ters" in text else 1.0, 0.0] for text in texts], np.float32)


def prompts_in(folder: Path, content: str) -> str:
    path = folder / "prompts.yaml"
    path.write_text(content, encoding="utf-8")
    return str(path)


def test_bias_by_hand(tmp_path: Path) -> None:
    """Four of eight images are a; one prompt finds aaab first, the other bbba."""
    values = ["a", "a", "a", "b", "a", "b", "b", "b"]
    images = labelled(values, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
    config = replace(CONFIG, bias_prompts=prompts_in(tmp_path, "düz: [bir resim]\nters:\n- ters bir  resim\n"))
    bias = measure_bias(encode, images, config)
    assert (bias.dataset, bias.images, bias.prompts, bias.own_prompts, bias.desired) == ("set", 8, 2, True, "set")
    found = bias.attributes["style"]
    assert (found.images, found.k, found.values) == (8, 4, {"a": 0.5, "b": 0.5})
    assert found.max_skew.value == pytest.approx(math.log(1.5))
    assert found.ndkl.value == pytest.approx(
        (ndkl(codes(0, 0, 0, 1), np.array([0.5, 0.5])) + ndkl(codes(1, 1, 1, 0), np.array([0.5, 0.5]))) / 2
    )
    assert list(found.by_prompt) == ["bir resim", "ters bir resim"]
    first, second = found.by_prompt.values()
    assert (first.group, first.most, second.most) == ("düz", "a", "b")
    assert first.skew == pytest.approx({"a": math.log(1.5), "b": math.log(0.5)})
    assert found.groups["ters"] == second.max_skew
    assert found.max_skew.ci95 is not None
    assert 0 <= found.max_skew.ci95[0] < found.max_skew.value < found.max_skew.ci95[1] <= math.log(8)
    assert found.ndkl.ci95 is not None
    assert 0 <= found.ndkl.ci95[0] < found.ndkl.value < found.ndkl.ci95[1]
    # Of random orders of eight images: the shares of a among four are hypergeometric with 1, 16, 36, 16, 1 of 70.
    by_chance = (2 * math.log(2) + 32 * math.log(1.5)) / 70
    assert found.max_skew_by_chance == pytest.approx(by_chance, abs=0.02)
    assert 0 < found.ndkl_by_chance < ndkl(codes(0, 0, 0, 0), np.array([0.5, 0.5]))
    without = measure_bias(encode, images, replace(config, bootstrap_samples=0)).attributes["style"]
    assert without.max_skew.ci95 is None
    assert json.loads(json.dumps(vars(_with_results(bias)["style"]), default=vars))["k"] == 4


def _with_results(bias: Any) -> dict[str, Any]:
    return dict(bias.attributes)


def test_equal_shares_are_wanted_if_asked_for(tmp_path: Path) -> None:
    values = ["a", "a", "a", "b", "a", "a", "", "c"]
    images = labelled(values, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
    config = replace(CONFIG, bias_prompts=prompts_in(tmp_path, "[bir resim]"), bias_desired="equal", bias_k=3)
    found = measure_bias(encode, images, config).attributes["style"]
    assert found.images == 7  # one has no value
    assert found.values == pytest.approx({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3})
    assert found.max_skew.value == pytest.approx(math.log(3))
    assert found.by_prompt["bir resim"].skew == {"a": pytest.approx(math.log(3)), "b": None, "c": None}
    by_set = measure_bias(encode, images, replace(config, bias_desired="set")).attributes["style"]
    assert by_set.max_skew.value == pytest.approx(math.log(7 / 5))


def test_k_is_a_tenth_and_less_than_all(tmp_path: Path) -> None:
    values = ["a", "b"] * 30
    images = labelled(values, np.linspace(0.9, 0.1, 60).tolist())
    config = replace(CONFIG, bias_prompts=prompts_in(tmp_path, "[bir resim]"), bias_k=0, bootstrap_samples=5)
    assert measure_bias(encode, images, config).attributes["style"].k == 6
    with pytest.raises(RunError, match="more than 60 images that have one, got 2 and 60; .*lower --bias_k"):
        measure_bias(encode, images, replace(config, bias_k=60))
    with pytest.raises(RunError, match="expected two values or more of 'style' .*got 1 and 60"):
        measure_bias(encode, replace(images, attributes={"style": ["a"] * 60}), config)


def test_the_prompts_about_people_name_no_gender() -> None:
    groups = read_prompts()
    every = [prompt for own in groups.values() for prompt in own]
    assert len(every) == len(set(every)) >= 40
    words = {word for prompt in every for word in prompt.split()}
    assert not words & set("kadın erkek kız oğlan adam adamı hanım bey bayan anne baba hostes genç yaşlı".split())
    assert {"people", "traits", "professions", "pronoun"} <= set(groups)


@pytest.mark.parametrize("content", ["", "3", "a: 3", "a: []", "- [b]", "'", "a: [b]\na: [c]", "{}", "- ' '"])
def test_files_without_prompts(content: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="expected a list of prompts in .*prompts.yaml, or groups of them, in YAML, got"):
        read_prompts(prompts_in(tmp_path, content))
    with pytest.raises(RunError, match="expected a list of prompts"):
        read_prompts(str(tmp_path / "none.yaml"))


def test_a_prompt_of_two_groups_is_refused_and_words_that_yaml_knows_are_texts(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"got 'bir doktor' in 'a' and 'b'; leave one out"):
        read_prompts(prompts_in(tmp_path, "a:\n- bir  doktor\n- iki\nb:\n- bir doktor\n"))
    assert read_prompts(prompts_in(tmp_path, "- no\n- yes\n- 3\n")) == {"prompts": ("no", "yes", "3")}


def test_options_of_bias_alone() -> None:
    with pytest.raises(ConfigError, match="expected 'bias' beside 'bias_columns', got it alone"):
        EvaluateConfig(captions="x", run="x", bias_columns=("gender",))


def table_in(folder: Path, rows: list[dict[str, Any]]) -> str:
    path = folder / "labelled.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


def test_another_miniature_world_is_not_drawn_over_the_runs_own(tmp_path: Path) -> None:
    common = f"--captions mini:5 --run {tmp_path} --bias mini:6:3 --bias_columns labels".split()
    config = read(EvaluateConfig, common)
    read_captions(config)
    marker = tmp_path / "data" / "world.json"
    before = marker.read_bytes()
    assert not read_labelled(config).is_own
    assert marker.read_bytes() == before


def test_labelled_images_of_tables_and_folders(captioned_folder: Path, tmp_path: Path) -> None:
    images = sorted((captioned_folder / "train").glob("*.png"))[:6]
    rows = [{"image": str(path), "style": "ab"[number % 2], "age": 30} for number, path in enumerate(images)]
    rows[4] |= {"style": ["a", "b"]}
    rows[5] |= {"style": ""}
    config = replace(CONFIG, run=str(tmp_path), bias=table_in(tmp_path, rows), bias_columns=("style", "age"))
    found = read_labelled(config)
    assert sorted(found.values["style"].values()) == ["a", "a", "b", "b"]
    assert set(found.values["age"].values()) == {"30"}
    assert len(found.rows) == 6
    assert not found.is_own
    with pytest.raises(RunError, match="expected columns of attributes in .*labelled.jsonl, got none named"):
        read_labelled(replace(config, bias_columns=()))

    for number, path in enumerate(images):
        (tmp_path / "folders" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "folders" / "ab"[number % 2])
    found = read_labelled(replace(CONFIG, bias=str(tmp_path / "folders")))
    assert sorted(found.values[FOLDER].values()) == ["a"] * 3 + ["b"] * 3
    with pytest.raises(ExampleError, match="expected at least two subfolders"):
        read_labelled(replace(CONFIG, bias=str(tmp_path / "folders" / "a")))


def test_of_the_run_s_own_source_the_measured_split_counts(captioned_folder: Path, tmp_path: Path) -> None:
    """Also where the source has no splits, and the run cut its own by a hash."""
    images = sorted((captioned_folder / "train").glob("*.png"))
    table = table_in(tmp_path, [{"image": str(path), "captions": ["ev"], "style": "a"} for path in images])
    config = replace(
        CONFIG, captions=table, run=str(tmp_path), bias=table, bias_columns=("style",), test_fraction=0.5,
        split_column="none",
    )  # fmt: skip
    found = read_labelled(config)
    assert found.is_own
    assert set(found.rows) == {row.image_id for row in read_captions(config).split("test")}
    assert 0 < len(found.rows) < len(images)
    every = read_labelled(replace(config, captions=str(captioned_folder), split_column="split"))
    assert not every.is_own
    assert len(every.rows) == len(images)


@pytest.fixture(scope="module")
def run(captioned_folder: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("bias")
    base = f"--captions {captioned_folder} --image_model {tiny_clip} --run {folder} --device cpu".split()
    embed_images.main(base)
    small = "--backbone scratch --scratch_layers 1 --scratch_hidden 32 --scratch_vocabulary 300 --max_tokens 32"
    distill.main([*base, *small.split(), "--epochs", "1"])
    return [*base, "--bootstrap_samples", "20"]


def test_bias_of_the_miniature_world(
    run: list[str], captioned_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The measured images by their styles and labels, from the embeddings that are there; and others, embedded."""
    folder = Path(run[run.index("--run") + 1])
    rows = [json.loads(line) for line in (captioned_folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    test = [row for row in rows if row["split"] == "test"]
    prompts = prompts_in(tmp_path, "[bir resim, iyi bir resim]")
    argv = [*run, "--bias", str(captioned_folder), "--bias_prompts", prompts, "--bias_k", "3"]
    single = [row["labels"][0] for row in test if len(row["labels"]) == 1]
    results = evaluate.main([*argv, "--bias_columns", "labels"])
    found = results["bias"]["attributes"]["labels"]
    assert found["images"] == len(single) > 3
    assert found["values"] == pytest.approx({label: single.count(label) / len(single) for label in sorted(set(single))})
    assert set(found["by_prompt"]) == {"bir resim", "iyi bir resim"}
    assert json.loads(json.dumps(Results.read(folder).as_json())) == json.loads(json.dumps(results))
    assert "bias by labels: max-skew@3" in capsys.readouterr().out
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert f"{len(single)} labelled images of" in " ".join(page.split())
    assert f"{found['max_skew']['value']:.3f}" in page
    turkish = "".join(TurkishPage(page).parts)
    assert "Yanlılık: sözler önce neyi buluyor" in turkish
    assert "Bir değerin istenen payı, etiketli resimlerdeki payıdır." in turkish
    assert "labelled images" not in turkish

    shutil.copytree(captioned_folder / "test", tmp_path / "folders" / "a")
    shutil.copytree(captioned_folder / "train", tmp_path / "folders" / "b")
    (tmp_path / "folders" / "b" / "broken.png").write_bytes(b"no image")
    argv[argv.index("--bias") + 1] = str(tmp_path / "folders")
    results = evaluate.main(argv)
    assert results["bias"]["images"] == len(list((tmp_path / "folders").rglob("*.png"))) - 1
    assert results["bias"]["attributes"]["folder"]["values"]["a"] == pytest.approx(10 / 42)
    fields = _bias(Results.read(folder).bias)  # type: ignore[arg-type]
    assert fields["dataset"] == "folders"  # no path of this machine
    assert fields["attributes"][0]["finds"].startswith("“")


def test_too_few_images_end_it_before_anything_is_measured(
    run: list[str], captioned_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    argv = [*run, "--bias", str(captioned_folder), "--bias_columns", "labels", "--bias_k", "500"]
    with caplog.at_level("INFO", logger="training"), pytest.raises(RunError, match="more than 500 images that have"):
        evaluate.main(argv)
    assert "measured" not in caplog.text
