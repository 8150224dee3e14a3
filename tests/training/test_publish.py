"""A finished run becomes a folder that can be published; failed checks are reported together, each with what to do."""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from training import distill, embed_images, evaluate, publish
from training.evaluation.published import BenchmarkError
from training.evaluation.results import Figures, Results
from training.release import build
from training.release import checks as pre_publish_checks
from training.release.card import CardError, check, public_name, sources_of, trained_image_model
from training.release.checks import unlisted_data_licences
from training.release.hub import PushError
from training.run.command import run_command
from training.run.config import PublishConfig
from training.run.provenance import GitState, machine
from training.run.recipe import ConfigError
from training.run.record import RunError, RunInputs, RunRecord
from turkish_clip.dual_encoder import load_dual_encoder
from turkish_clip.encoder import load_model
from turkish_clip.templates import PHOTOGRAPHS
from turkish_clip.verify import RECORD, ModelRecord, as_lines, encode_each, golden_images, unit, verify

IDS = ["--model_id", "me/text", "--paired_id", "me/pair", "--image_model_id", "me/image"]
LICENSES = ["--license", "apache-2.0", "--captions_license", "cc0-1.0"]
CLEAN = GitState("0" * 40)


@pytest.fixture(scope="module")
def trained(captioned_folder: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "mine"
    base = f"--captions {captioned_folder} --image_model {tiny_clip} --run {folder} --device cpu".split()
    embed_images.main(base)
    small = "--scratch_layers 1 --scratch_hidden 32 --scratch_vocabulary 300 --max_tokens 32 --epochs 1"
    distill.main([*base, "--backbone", "scratch", *small.split()])
    evaluate.main([*base, "--bootstrap_samples", "20"])
    change(folder / "run.json", lambda record: record.update(git={"commit": "0" * 40}))
    return folder


@pytest.fixture(scope="module", autouse=True)
def clean_checkout_and_an_image_model_on_the_hub(tiny_clip: Path) -> Iterator[None]:
    def load(name: object, **options: Any) -> SentenceTransformer:
        return load_model(tiny_clip if name == "me/image" else name, **options)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pre_publish_checks, "git_state", lambda: CLEAN)
        patch.setattr("turkish_clip.encoder.load_model", load)
        yield


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "mine", ignore=shutil.ignore_patterns("publish"))


def test_the_card_shows_the_benchmark_of_these_weights_alone(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    results = Results.read(run)
    recalls = {"recall_at_1": 0.1234, "recall_at_5": 0.2, "recall_at_10": 0.3, "ndcg_at_10": 0.2}
    task = {"type": "Any2AnyMultilingualRetrieval", "subset": "tr", "metric": "recall", "score": 0.2} | recalls
    sts = {"type": "STS", "subset": "tr", "metric": "cosine_spearman", "score": 0.4567}
    holiday = {"source": "x", "images": 2, "captions": 4, "text_to_image": recalls, "image_to_text": recalls}
    image = trained_image_model(publish.finished_run(run)).weights_sha256
    benchmark = {"weights_sha256": results.weights_sha256, "image_weights_sha256": image, "subset": "tr"}
    benchmark |= {"tasks": {"XM3600T2IRetrieval": task, "STS22.v2": sts}, "data": {"my holiday": holiday}}
    benchmark |= {"format": 2, "revision": "1", "mteb": "2.1", "dim": 16}
    (run / "benchmark.json").write_text(json.dumps(benchmark), encoding="utf-8")
    config = publish.read(PublishConfig, [str(run), *IDS, *LICENSES])
    publish.build(config, publish.finished_run(run), results)
    card = (config.output / "README.md").read_text(encoding="utf-8")
    assert "| this model | XM3600 | all captions | 16 | 0.123 / 0.200 / 0.300 | – / – / – | – | measured with" in card
    assert "measured with MTEB 2.1 |" in card
    assert "| STS22.v2 | STS | tr | cosine_spearman | 0.457 |" in card
    assert "COCO" not in card  # which is said of XTD10
    assert "can't be compared with it line by line" not in card
    assert "my holiday" not in card
    for other in ({"weights_sha256": "0"}, {"image_weights_sha256": "0"}, {"subset": "de"}, {"format": 1}):
        (run / "benchmark.json").write_text(json.dumps(benchmark | other), encoding="utf-8")
        assert build.benchmark_of(run, results.weights_sha256, image) == ([], [])
    assert "of other weights" in caplog.text
    for damaged in (
        [], None, 2, benchmark | {"tasks": []}, benchmark | {"tasks": {"XM3600T2IRetrieval": {}}},
        benchmark | {"mteb": 2}, benchmark | {"dim": "16"},
        benchmark | {"tasks": {"STS22.v2": sts | {"score": float("nan")}}},
        benchmark | {"tasks": {"XM3600T2IRetrieval": task | {"recall_at_5": 7}}},
        benchmark | {"tasks": {"XM3600T2IRetrieval": task | {"recall_at_5": True}}},
        benchmark | {"data": {"mine": holiday | {"images": -1}}},
        benchmark | {"data": {"mine": holiday | {"source": None}}},
        benchmark | {"data": {"mine": holiday | {"text_to_image": {}}}},
    ):  # fmt: skip
        (run / "benchmark.json").write_text(json.dumps(damaged), encoding="utf-8")
        with pytest.raises(BenchmarkError, match=r"expected what training.benchmark measured in .*; delete it, and"):
            build.benchmark_of(run, results.weights_sha256, image)


@pytest.mark.parametrize("value", ["0.01", True, 0, -1.0, 1e9, float("nan"), [0.01]])
def test_a_temperature_that_none_can_be_is_one_line(run: Path, value: object) -> None:
    change(run / "results.json", lambda results: results.update(temperature={"value": value}))
    with pytest.raises(RunError, match=r"expected results.json of format \d+ in .*as the value of 'temperature'"):
        Results.read(run)


def test_the_card_describes_the_objective_of_the_training(run: Path) -> None:
    change(run / "run.json", lambda record: record["config"].update(objective="contrastive", typo_probability=0.25))
    config = publish.read(PublishConfig, [str(run), *IDS, *LICENSES])
    publish.build(config, publish.finished_run(run), Results.read(run))
    check_that_both_cards_tell_the_same(config.output)
    card = (config.output / "README.md").read_text(encoding="utf-8")
    assert "Contrastive distillation: captions go in" in card
    assert "positives of a contrastive (InfoNCE) loss against in-batch negatives" in card
    assert "MSE distillation: captions go in" not in card
    assert "25 % with a typo" in card


def card_of(run: Path) -> str:
    """Builds the folder of a run and returns its card."""
    config = publish.read(PublishConfig, [str(run), *IDS, *LICENSES])
    publish.build(config, publish.finished_run(run), Results.read(run))
    check_that_both_cards_tell_the_same(config.output)
    return (config.output / "README.md").read_text(encoding="utf-8")


def check_that_both_cards_tell_the_same(folder: Path) -> None:
    """Checks that the Turkish card has the numbers, links and code of the English one, and no decimal point."""
    cards = [(folder / name).read_text(encoding="utf-8") for name in ("README.md", "README.tr.md")]
    english, turkish = cards[0].split("---\n", 2)[2], cards[1]
    blocks = re.compile("```.*?```", re.DOTALL)
    assert blocks.findall(english) == blocks.findall(turkish)
    proses = [blocks.sub("", card) for card in (english, turkish)]
    code = [sorted(re.findall("`[^`]+`", prose)) for prose in proses]
    assert code[0] == code[1]
    links = [sorted(re.findall(r"\]\((https:[^)]+)\)", prose)) for prose in proses]
    assert links[0] == links[1]
    assert "[Türkçe](README.tr.md)" in proses[0]
    assert "[English](README.md)" in proses[1]
    bare = [re.sub(r"`[^`]+`|\]\([^)]*\)|[≥] \S+|\| (libraries|kitaplıklar) \|.*", "", prose) for prose in proses]
    numbers = [re.findall(r"\d+(?:[.,]\d+)*(?:e-\d+)?", prose) for prose in bare]
    assert sorted(number.replace(",", ".") for number in numbers[1]) == sorted(
        number.replace(",", ".") for number in numbers[0]
    )
    assert not re.findall(r"(?<![\w-])\d+\.\d+\b(?! resminden)", bare[1])  # but in names of licences
    words = r"\b(the|and|with|from|captions|trained|loss|mean|which|of)\b"
    assert not [line for line in bare[1].splitlines() if re.search(words, line)]


@pytest.mark.parametrize("kind", ["text", "paired"])
def test_the_card_in_turkish_tells_the_same(built: dict[str, Path], kind: str) -> None:
    check_that_both_cards_tell_the_same(built[kind])


def test_the_card_tells_where_training_started_and_how_long_it_was(run: Path) -> None:
    closed = {"closed_form_penalty": 0.0316, "steps": 40, "epochs": 2.5}
    change(run / "run.json", lambda record: record["summary"].update(closed))
    change(run / "run.json", lambda record: record["config"].update(learning_rate=0, dense_learning_rate=0.25))
    card = card_of(run)
    assert (
        "the ridge regression from the pooled captions onto their targets (penalty 0.032 of the mean variance) |"
        in card
    )
    assert "| 40 steps, epochs: 2.5; batches of" in card
    assert "peak learning rates of 0.001 (backbone) and 0.25 (dense layer)" in card
    change(run / "run.json", lambda record: record["summary"].update(steps=0, epochs=0, train_seconds=None))
    card = card_of(run)
    assert "of the mean variance); nothing was trained after it |" in card
    assert "| schedule |" not in card
    assert "| duration |" not in card


def test_the_card_of_a_fine_tuned_model_names_what_it_went_on_from(run: Path) -> None:
    tuned = {"init": "org/turkish-clip-text", "init_revision": "", "replay_fraction": 0.5, "learning_rate": 0.0}
    change(run / "run.json", lambda record: record["config"].update(tuned))
    change(run / "run.json", lambda record: record["summary"].update(captions_replayed=777, closed_form_penalty=None))
    change(run / "run.json", lambda record: record["inputs"].update(backbone_revision="c" * 40))
    card = card_of(run)
    assert (
        "| text backbone | fine-tuned from [org/turkish-clip-text](https://huggingface.co/org/turkish-clip-text) |"
        in card
    )
    assert 'base_model:\n- "org/turkish-clip-text"\n' in card
    assert f"init_revision: {'c' * 40}" in card
    assert "| replay | 777 captions of earlier training, 50 % of each epoch |" in card
    assert "peak learning rates of 5e-05 (backbone) and 5e-05 (dense layer)" in card
    change(run / "run.json", lambda record: record["config"].update(init="runs/old"))
    change(run / "run.json", lambda record: record["inputs"].update(backbone_revision=""))
    assert "| text backbone | fine-tuned from a text encoder that is not on the Hub |" in card_of(run)


def test_the_card_tells_of_shorter_vectors_and_of_captions_without_images(run: Path) -> None:
    change(run / "run.json", lambda record: record["summary"].update(captions_without_image=1234))
    change(run / "model" / "turkish_clip.json", lambda record: record.update(matryoshka=[8, 4]))
    results = Results.read(run)
    shorter = replace(results.text_to_image, recall_at_10=0.987)
    figures = Figures(images=1, captions=1, text_to_image=shorter, image_to_text=results.image_to_text)
    results = replace(results, widths={"8": figures})
    config = publish.read(PublishConfig, [str(run), *IDS, *LICENSES])
    publish.build(config, publish.finished_run(run), results)
    check_that_both_cards_tell_the_same(config.output)
    card = (config.output / "README.md").read_text(encoding="utf-8")
    assert "trained to serve at 8, 4 dimensions too: `truncate_dim=8`" in card
    assert f"0.987 at 8, {results.text_to_image.recall_at_10:.3f} at 16)" in card
    assert "captions, 1234 of them without an image, (" in card
    record = ModelRecord.from_json((config.output / RECORD).read_text(encoding="utf-8"))
    assert record.matryoshka == [8, 4]


def test_the_card_reproduces_from_imported_embeddings(run: Path) -> None:
    def card() -> str:
        config = publish.read(PublishConfig, [str(run), *IDS, *LICENSES])
        publish.build(config, publish.finished_run(run), Results.read(run))
        return (config.output / "README.md").read_text(encoding="utf-8")

    assert "\npython -m training.embed_images recipe.yaml\n" in card()
    folder = Path(RunRecord.read(run).config["embeddings"] or run / "embeddings")
    change(folder / "manifest.json", lambda record: record.update(imported_from="vectors"))
    assert "\npython -m training.import_embeddings recipe.yaml --vectors FOLDER\n" in card()


def test_the_card_shows_the_probes_that_were_measured_and_no_others(run: Path) -> None:
    change(run / "results.json", lambda results: results.update(probes={}, slices={}))
    unmeasured = card_of(run)
    assert "### Probes" not in unmeasured
    assert "### Slices" not in unmeasured
    measured = {"pairs": 40, "images": 20, "chance": 0.5, "student": {"value": 0.6125, "ci95": [0.4875, 0.7375]}}

    def add(results: dict[str, Any]) -> None:
        results["probes"] = {"renk|yer": measured, "sayı": measured | {"teacher": {"value": 0.7}}}
        figures = {name: results[name] for name in ("images", "captions", "text_to_image", "image_to_text")}
        results["slices"] = {"çizim": figures | {"shift": {"text_to_image": {"value": -0.25}}}}
        del results["prompts"]

    change(run / "results.json", add)
    written = card_of(run)
    assert "| renk/yer | 0.613 (0.487–0.738) | – | 0.5 | 40 |" in written
    assert "| sayı | 0.613 (0.487–0.738) | 0.700 | 0.5 | 40 |" in written
    assert "| text → image |" in written
    assert "| -0.250 |\n" in written
    assert "### Wording of labels" not in written
    change(run / "results.json", lambda results: results["probes"].pop("sayı"))
    assert "| probe | Turkish text encoder | chance | pairs |\n|---|---|---|---|\n| renk/yer | 0.613" in card_of(run)


def test_the_card_shows_the_bias_that_was_measured(run: Path) -> None:
    assert "### Bias" not in card_of(run)
    measured = {"value": 0.25, "ci95": [0.125, 0.5]}
    prompts = {
        "bir doktor": {"group": "a", "max_skew": {"value": 0.75}, "most": "x|y", "skew": {"x|y": 0.75, "z": None}},
        "bir insan": {"group": "a", "max_skew": {"value": 0.1}, "most": "z", "skew": {"x|y": -0.1, "z": 0.1}},
    }
    found = {
        "images": 300,
        "k": 30,
        "values": {"x|y": 0.5, "z": 0.5},
        "max_skew": measured,
        "max_skew_by_chance": 0.0625,
        "ndkl": measured,
        "ndkl_by_chance": 0.03,
        "groups": {"a": measured},
        "by_prompt": prompts,
    }
    bias = {"dataset": "/data/someone/faces", "images": 320, "desired": "set", "prompts": 2, "own_prompts": False}
    change(run / "results.json", lambda results: results.update(bias={**bias, "attributes": {"gender": found}}))
    config = publish.read(PublishConfig, [str(run), *IDS, *LICENSES])
    publish.build(config, publish.finished_run(run), Results.read(run))
    check_that_both_cards_tell_the_same(config.output)
    card = (config.output / "README.md").read_text(encoding="utf-8")
    assert "What 2 neutral Turkish prompts about people find first among 320 labelled images of faces." in card
    row = (
        "| gender | 300 | 30 | 0.250 (0.125–0.500) | 0.062 | 0.250 (0.125–0.500) | 0.030 | 0.750 | “bir doktor” → x/y |"
    )
    assert row in card
    assert "a small figure is no permission to judge people" in card
    turkish = (config.output / "README.tr.md").read_text(encoding="utf-8")
    assert (
        "İnsanlar üzerine yansız 2 Türkçe sözün faces verisinden 320 etiketli resim arasında önce ne bulduğu."
        in turkish
    )
    assert "| gender | 300 | 30 | 0,250 (0,125–0,500) | 0,062 |" in turkish
    public = json.loads((config.output / "results.json").read_text(encoding="utf-8"))
    assert public["bias"]["dataset"] == "faces"


@pytest.fixture(scope="module")
def built(trained: Path) -> dict[str, Path]:
    """The folders of the text encoder and of the pair, built without the isolated process that checks them."""
    record, results = publish.finished_run(trained), Results.read(trained)
    folders = {}
    for kind, more in (("text", []), ("paired", ["--paired"])):
        config = publish.read(PublishConfig, [str(trained), *IDS, *LICENSES, *more])
        publish.build(config, record, results)
        folders[kind] = config.output
    return folders


def change(path: Path, how: Callable[[dict[str, Any]], Any]) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    how(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def failed(checks: list[Any]) -> dict[str, str]:
    return {check.name: check.found for check in checks if not check.passed}


def test_a_run_folder_is_enough_and_an_isolated_process_checks_the_model(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = publish.main([str(run), *IDS, *LICENSES])
    assert summary["folder"] == str(run / "publish" / "text")
    assert summary["uploaded"] is None
    assert {check["name"] for check in summary["checks"]} >= {"golden texts", "NFD equals NFC", "pairs", "unit norm"}
    assert {"README.md", "model.safetensors", RECORD, "results.json"} < set(summary["files"])
    printed = capsys.readouterr().out
    assert "Nothing was uploaded" in printed
    assert f"hf upload me/text {run / 'publish' / 'text'}" in printed


def test_what_is_built_gives_the_vectors_of_the_run(trained: Path, built: dict[str, Path], tiny_clip: Path) -> None:
    texts = ["kırmızı bir ev", "İki mavi kuş"]
    expected = encode_each(load_model(trained / "model", device="cpu"), texts)
    images = encode_each(load_model(tiny_clip, device="cpu"), golden_images())
    text, pair = (SentenceTransformer(str(built[kind]), device="cpu") for kind in ("text", "paired"))
    assert np.array_equal(encode_each(text, texts), expected)
    assert np.array_equal(encode_each(pair, texts), expected)
    assert np.array_equal(encode_each(pair, golden_images()), images)
    for folder in built.values():
        assert not [path for path in folder.rglob("*") if path.suffix in (".bin", ".py", ".pkl")]
        assert str(trained) not in "".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.json"))


def test_names_that_older_libraries_know(built: dict[str, Path]) -> None:
    for folder in built.values():
        written = "".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.json"))
        assert "TokenizersBackend" not in written
        assert "base.modules.normalize" not in written


def test_the_text_bank_is_published_and_fits_both_kinds(built: dict[str, Path], tiny_clip: Path) -> None:
    vectors = set()
    for kind, folder in built.items():
        encoder = load_dual_encoder(folder, tiny_clip if kind == "text" else None, device="cpu")
        assert encoder.bank is not None
        vectors.add(encoder.bank.sha256)
    assert len(vectors) == 1


@pytest.mark.parametrize(
    ("file", "how", "reason"),
    [
        ("run.json", {"git": {"commit": "1" * 40, "changed": ["a.py"]}}, "uncommitted changes when it was trained"),
        ("run.json", {"git": {}}, "no git commit when it was trained"),
        ("results.json", {"weights_sha256": "0"}, "results.json is of other weights than the run's model"),
        ("results.json", {"split": "train"}, "results.json is of the train split"),
        ("results.json", {"images": "many"}, "got 'many' as 'images'; run training.evaluate first"),
        ("results.json", {"dataset": "mini"}, r"results.json is of other data \(mini\)"),
        ("results.json", {"weights_sha256": None}, "got 'None' as 'weights_sha256'; run training.evaluate first"),
        ("results.json", {"images": -1}, "no valid number at images"),
        ("run.json", {"inputs": {"captions_sha256": "", "image_model": {"id": "x", "weights_sha256": "0"}}}, None),
        (
            "results.json",
            {"hubness": {"text_to_image": float("nan"), "image_to_text": 0.0}},
            "got 'nan' as 'text_to_image'; run training.evaluate first",
        ),
    ],
)
def test_failed_checks(run: Path, file: str, how: dict[str, Any], reason: str | None) -> None:
    change(run / file, lambda value: value.update(how))
    expected = f"expected a run that can be published, got 1 failed check: .*{reason}"
    if reason and reason.startswith("got "):
        expected = f"expected results.json of format 6 in .*{reason}"
    if reason is None:
        expected = "expected the image model that the run was trained with, got other weights in me/image"
    with pytest.raises(RunError, match=expected):
        publish.main([str(run), *IDS, *LICENSES])
    assert not (run / "publish").exists()


def test_all_failed_checks_are_reported_together(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pre_publish_checks, "git_state", lambda: GitState("1" * 40, ("training/distill.py",)))
    with pytest.raises(RunError) as caught:
        publish.main([str(run)])
    for part in (
        "got 4 failed checks: (1) ",
        "publish the pair with --paired and --paired_id OWNER/NAME, or upload it",
        "uncommitted changes now",
        "add --license, for example apache-2.0",
        "no licence of the data images",
    ):
        assert part in str(caught.value)
    assert "--model_id" not in str(caught.value)  # of a text encoder, which is not the way to publish this one
    with pytest.raises(RunError, match="no Hub id; add --paired_id or --push"):
        publish.main([str(run), "--paired"])
    assert str(run) not in str(caught.value)


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (
            ["--license", "Apache 2.0"],
            "no licence 'Apache 2.0' for the weights, .* did you mean apache-2.0.* see https",
        ),
        (["--license", "mit-0"], "no licence 'mit-0' for the weights, and would refuse the card; did you mean .*mit"),
        (["--license", "CC BY-NC"], "no licence 'CC BY-NC' .* did you mean cc-by-nc-4.0, cc-by-nc-3.0"),
        (["--license", "özel"], "no licence 'özel' .* with other, say in --limits which it is; see https"),
        (["--license", "GPLv3+"], "no licence 'GPLv3.' .* did you mean gpl-3.0"),
        (["--model_id", "me/a--b"], "no id such as 'me/a--b' of model_id .*; correct it"),
        (["--paired_id", "me/pair.git"], "no id such as 'me/pair.git' of paired_id"),
        (["--model_id", "me/model."], "no id such as 'me/model.' of model_id"),
        (["--push", "me/pair"], "me/pair is the id of the pair; push to another, or add --paired"),
        (["--push", "me/text", "--paired"], "me/text is the id of the text encoder; push to another, or leave out"),
        (["--push", "you/text"], r"ids of several owners \(me, you\)"),
    ],
)
def test_options_that_can_not_be_published(run: Path, argv: list[str], reason: str) -> None:
    with pytest.raises(RunError, match=reason):
        publish.main([str(run), *IDS, *LICENSES, *argv])


def test_the_hubs_licences_are_taken() -> None:
    config = PublishConfig(captions="x", run="x", model_id="me/text", license="openrail++")
    for name in ("openrail++", "llama3.1", "cc-by-nc-sa-4.0", "other"):
        assert not pre_publish_checks.license_failures(replace(config, license=name).license)


def test_an_image_model_on_the_hub_is_no_folder_here(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me" / "image").mkdir(parents=True)
    with pytest.raises(
        RunError, match="me/image of image_model_id is a folder here, which others don't have; give the"
    ):
        publish.main([str(run), *IDS, *LICENSES])


@pytest.mark.parametrize("more", [[], ["--model_id", "me/text"]])
def test_a_pair_of_an_image_model_of_ones_own_has_no_dead_link(run: Path, more: list[str]) -> None:
    config = publish.read(PublishConfig, [str(run), *LICENSES, "--paired", "--paired_id", "me/pair", *more])
    record, results = publish.finished_run(run), Results.read(run)
    assert pre_publish_checks.failed_checks(config, record, results) == []
    publish.build(config, record, results)
    card = (config.output / "README.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"huggingface\.co/([\w.-]+/[\w.-]+)", card.partition("### Baselines")[0]))
    assert linked <= {"me/pair"}
    assert "The text side alone" not in card
    assert "me/text" not in card
    assert "base_model" not in card
    assert "| pairs with | `model` (the image side of this model) |" in card
    assert "and the image side of this model\nin place of `model`:" in card


def test_what_data_is_called_is_no_markup_on_the_card(run: Path) -> None:
    bad = "<script>alert(1)</script> [a](http://x) `|`"
    measured = {"pairs": 40, "images": 20, "chance": 0.5, "student": {"value": 0.6}}

    def add(results: dict[str, Any]) -> None:
        figures = {name: results[name] for name in ("images", "captions", "text_to_image", "image_to_text")}
        results |= {"probes": {bad: measured}, "slices": {bad: figures}, "dataset": bad}

    change(run / "results.json", add)
    change(run / "run.json", lambda record: record["config"].update(captions=bad, prompt=f"{bad} "))
    argv = [str(run), *IDS, "--license", "mit", "--captions", bad, "--captions_license", bad]
    config = publish.read(PublishConfig, argv)
    publish.build(config, publish.finished_run(run), Results.read(run))
    card = (config.output / "README.md").read_text(encoding="utf-8")
    body = re.sub(r"```.*?```", "", card.partition("\n---\n")[2], flags=re.DOTALL)
    outside_code = re.sub(r"`[^`\n]*`", "", body)
    assert "<script" not in outside_code
    assert "[a](" not in outside_code
    for line in body.splitlines():
        if "script" in line and line.startswith("|"):
            assert line.count("`") % 2 == 0
    assert "| &lt;script&gt;alert(1)&lt;/script&gt; \\[a\\](http://x) \\`/\\` | 0.600" in body


def test_ctrl_c_while_publishing_leaves_the_folder_of_before(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = [str(run), *IDS, *LICENSES]
    publish.build(publish.read(PublishConfig, argv), publish.finished_run(run), Results.read(run))
    before = {path: path.read_bytes() for path in (run / "publish").rglob("*") if path.is_file()}
    full = OSError(errno.ENOSPC, "No space left on device")
    for moment in ("render", "write_bank", "golden", "check_isolated"):
        for error, code, said in (
            (KeyboardInterrupt(), 130, "interrupted"),
            (full, 2, "error: expected free disk space"),
        ):
            with monkeypatch.context() as patch:
                where = publish if moment == "check_isolated" else build
                patch.setattr(where, moment, lambda *_, error=error, **__: raise_(error))
                with pytest.raises(SystemExit) as left:
                    run_command(publish.main, argv)
            assert left.value.code == code
            line = capsys.readouterr().err.strip().splitlines()[-1]
            assert line.startswith(said)
            after = {path: path.read_bytes() for path in (run / "publish").rglob("*") if path.is_file()}
            assert set(after) == set(before)
            assert moment == "check_isolated" or after == before


def raise_(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("terms", "line"),
    [
        ("cc0-1.0", ""),
        ("CC BY 4.0", "'CC BY 4.0' is no licence that the Hub lists (did you mean cc-by-4.0?): the card gives"),
        ("nosuch-1.0", "'nosuch-1.0' is no licence that the Hub lists: the card gives the data's as it stands"),
    ],
)
def test_a_licence_of_the_data_that_the_hub_does_not_list_is_said(run: Path, terms: str, line: str) -> None:
    options = [*IDS, "--license", "apache-2.0", "--captions_license", terms]
    config = publish.read(PublishConfig, [str(run), *options])
    lines = unlisted_data_licences(config, publish.finished_run(run))
    assert (lines[0].startswith(line), len(lines)) == (True, 1) if line else not lines


def test_licences_are_those_of_the_training_data(run: Path) -> None:
    with pytest.raises(RunError, match="no licence of the data images; add --captions_license"):
        publish.main(["demo", "--run", str(run), *IDS])


def test_only_folders_in_git_are_tracked(tmp_path: Path) -> None:
    assert pre_publish_checks.is_tracked(Path(__file__).parent)
    assert not pre_publish_checks.is_tracked(tmp_path)
    assert not pre_publish_checks.is_tracked(pre_publish_checks.CHECKOUT / ".git")


@pytest.mark.parametrize("text", ["{}", "[1]", "{", '{"text_to_image": {"mrr": null}}'])
def test_a_damaged_results_file(run: Path, text: str) -> None:
    (run / "results.json").write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match="expected"):
        publish.main([str(run), *IDS, *LICENSES])


def test_a_model_no_better_than_chance(run: Path) -> None:
    def lower(results: dict[str, Any]) -> None:
        results["images"] = 100
        results["text_to_image"].update(recall_at_10=0.11, ci95={"recall_at_10": [0.08, 0.14]})

    change(run / "results.json", lower)
    with pytest.raises(RunError, match="recall@10 0.110 among 100 images is no better than chance"):
        publish.main([str(run), *IDS, *LICENSES])


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"got the folder .*, which has no run\.json"):
        publish.main([str(tmp_path)])


def test_free_texts_are_not_taken_for_empty_fields(run: Path) -> None:
    words = ["--limits", "None of the images show people; TODO lists neither"]
    publish.build(
        publish.read(PublishConfig, [str(run), *IDS, *LICENSES, *words]),
        publish.finished_run(run),
        Results.read(run),
    )
    assert "None of the images" in (run / "publish" / "text" / "README.md").read_text(encoding="utf-8")


def test_a_run_of_something_else_is_no_text_encoder(run: Path) -> None:
    change(run / "run.json", lambda record: record["inputs"].pop("image_model"))
    with pytest.raises(RunError, match="run.json is not of a text encoder"):
        publish.main([str(run), *IDS, *LICENSES])


def test_a_run_that_is_not_finished_or_not_measured(run: Path) -> None:
    change(run / "run.json", lambda record: record.update(status="running"))
    with pytest.raises(RunError, match="expected a finished run .* got one that is running; --resume it"):
        publish.main([str(run)])
    change(run / "run.json", lambda record: record.update(status="finished"))
    (run / "results.json").unlink()
    with pytest.raises(RunError, match="expected results.json .* got none; run training.evaluate first"):
        publish.main([str(run)])


def test_weights_that_were_changed_since(run: Path, tiny_clip: Path) -> None:
    from turkish_clip import build_text_encoder, save_text_encoder

    save_text_encoder(build_text_encoder(run / "backbone", dim=16, max_tokens=32, device="cpu"), run / "model")
    with pytest.raises(RunError, match="expected the weights that results.json was measured with, got others"):
        publish.main([str(run), *IDS, *LICENSES])


def test_a_failed_check_stops_before_the_upload(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(folder: Path, record: dict[str, Any], run: Path) -> Any:
        change(folder / RECORD, lambda golden: golden["golden"]["text_vectors"][0].__setitem__(0, 9.0))
        return checks(folder, record, run)

    checks = publish.check_isolated
    monkeypatch.setattr(publish, "check_isolated", spoil)
    monkeypatch.setattr(publish, "push", lambda *_: pytest.fail("it was uploaded"))
    monkeypatch.setattr(publish, "check_token", lambda _: None)
    with pytest.raises(
        RunError, match=r"1 failed check: \(1\) golden texts: 12 sentences, largest difference [0-9.e+]+"
    ):
        publish.main([str(run), *IDS, *LICENSES, "--push", "me/text"])


def test_a_missing_token_is_reported_before_the_work(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(PushError, match="expected a token for me/text, got none; run `hf auth login`"):
        publish.main([str(run), *IDS, *LICENSES, "--push", "me/text"])
    assert not (run / "publish").exists()


def test_errors_of_the_command_are_one_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        run_command(publish.main, [str(run)])
    assert left.value.code == 2
    assert capsys.readouterr().err.strip().count("\n") == 0
    with pytest.raises(ConfigError, match="expected 'push' to be a Hub id such as org/turkish-clip-text, got 'nobody'"):
        publish.main([str(run), "--push", "nobody"])


def numbers_of(value: Any) -> set[float]:
    if isinstance(value, dict):
        return set().union(*(numbers_of(item) for item in value.values()))
    if isinstance(value, list):
        return set().union(*(numbers_of(item) for item in value))
    return {float(value)} if isinstance(value, (int, float)) else set()


@pytest.mark.parametrize("kind", ["text", "paired"])
def test_the_numbers_of_the_card_are_in_the_results(trained: Path, built: dict[str, Path], kind: str) -> None:
    card = (built[kind] / "README.md").read_text(encoding="utf-8")
    measured = numbers_of(json.loads((trained / "results.json").read_text(encoding="utf-8")))
    head, _, rest = card.partition("## Results")
    figures = rest.partition("### Baselines")[0]
    known = {f"{number:.3f}" for number in measured} | {f"{number:g}" for number in measured}
    known |= {f"{100 * number:.1f}" for number in measured} | {"95", "1", "5", "10", "100.0", str(len(PHOTOGRAPHS))}
    for number in re.findall(r"\d+(?:\.\d+)?", figures):
        assert number in known, number
    for number in re.findall(r"value: (\S+)", head):
        assert float(number) in {round(value, 4) for value in measured}


@pytest.mark.parametrize("kind", ["text", "paired"])
def test_the_hubs_own_classes_read_the_card(built: dict[str, Path], kind: str) -> None:
    from huggingface_hub import ModelCard

    data = ModelCard.load(built[kind] / "README.md").data
    assert (data.license, data.language, data.library_name) == ("apache-2.0", ["tr"], "sentence-transformers")
    assert data.pipeline_tag == "sentence-similarity"
    results = json.loads((built[kind] / "results.json").read_text(encoding="utf-8"))
    by_task = {(result.task_name, result.metric_type): result.metric_value for result in data.eval_results}
    for task, key in (("text to image retrieval", "text_to_image"), ("image to text retrieval", "image_to_text")):
        assert by_task[task, "recall_at_10"] == round(results[key]["recall_at_10"], 4)


def test_the_card_of_a_text_encoder_names_its_image_model(built: dict[str, Path]) -> None:
    text, pair = ((built[kind] / "README.md").read_text(encoding="utf-8") for kind in ("text", "paired"))
    assert "A Turkish **text** encoder for the image model [me/image](https://huggingface.co/me/image)" in text
    assert 'SentenceTransformer("me/text"), SentenceTransformer("me/image")' in text
    assert 'SentenceTransformer("me/pair")' in text
    assert "The text side alone is [me/text](https://huggingface.co/me/text)" in pair
    assert "image_model: model" in text  # the recipe gives the last part of the local path


@pytest.mark.parametrize(
    "line", ["| data |  |", "| data |  | x |", "took None s", "{{ name }}", "recall nan", "TODO: licence"]
)
def test_an_empty_field_of_the_card(built: dict[str, Path], line: str) -> None:
    card = (built["text"] / "README.md").read_text(encoding="utf-8")
    with pytest.raises(CardError, match="expected a filled field, got .* in line"):
        check(f"{card}\n{line}\n")
    with pytest.raises(CardError, match="metadata that the Hub reads|in the card's metadata, got none"):
        check(card.replace("model-index:", "model-index: 7 #"))


def test_local_paths_are_not_published() -> None:
    for path in ("/a/b/images", "../b/images", "~/images"):
        assert public_name(path) == "images"
    sources = [{"captions": path} for path in ("/a/images", "/b/images", "owner/set", "data/set.csv")]
    record = RunRecord(
        status="finished",
        config={"sources": sources},
        inputs=RunInputs(captions_sha256="", captions_revisions=("", "", "c0ffee", "")),
        git=CLEAN,
        libraries={},
        machine=machine(),
    )
    assert [(source.name, source.on_hub) for source in sources_of(record)] == [
        ("images (1)", False),
        ("images (2)", False),
        ("owner/set", True),
        ("data/set.csv", False),
    ]
    assert sources_of(record)[2].link == "[owner/set](https://huggingface.co/datasets/owner/set)"


def test_verify_passes_what_was_built(built: dict[str, Path], tiny_clip: Path) -> None:
    for kind in ("text", "paired"):
        checks = verify(built[kind], image_model=None if kind == "paired" else tiny_clip, device="cpu")
        assert not failed(checks), as_lines(checks)
        assert len(checks) == 10


@pytest.mark.parametrize(
    ("how", "name", "found"),
    [
        (lambda r: r["requires"].update(transformers="99.0"), "versions", r"expected at least 99.0; pip install -U"),
        (lambda r: r.update(dim=17), "width", "expected 17, got 16; this is another model"),
        (lambda r: r.update(format=1), "record", "format 1, not 3: it is of another version of turkish-clip"),
        (
            lambda r: r.pop("golden"),
            "record",
            "got the model of a training run, .* in .*; publish it first: python -m training.publish RUN",
        ),
        (lambda r: r["golden"]["texts"].pop(), "record", "golden vectors that do not match their texts"),
        (lambda r: r["golden"]["image_vectors"].reverse(), "pairs", "another image model: pair it with me/image"),
    ],
)
def test_verify_finds_what_is_wrong(
    built: dict[str, Path], tiny_clip: Path, tmp_path: Path, how: Any, name: str, found: str
) -> None:
    folder = shutil.copytree(built["text"], tmp_path / "model")
    change(folder / RECORD, how)
    assert re.search(found, failed(verify(folder, image_model=tiny_clip, device="cpu"))[name])


def test_verify_of_a_run_and_of_its_model_says_to_publish_first(run: Path, built: dict[str, Path]) -> None:
    for folder in (run, run / "model"):
        found = failed(verify(folder, device="cpu"))["record"]
        assert re.search(
            rf"got .*training run.* in {folder}; publish it first: python -m training.publish {run} ", found
        )
        assert "\n" not in found
    shutil.copytree(built["text"], run / "publish" / "text")
    assert f"; verify {run / 'publish' / 'text'}" in failed(verify(run / "model", device="cpu"))["record"]
    assert not failed(verify(run / "publish" / "text", image_model=built["paired"], device="cpu"))


def test_verify_never_raises(built: dict[str, Path], tmp_path: Path) -> None:
    assert f"{tmp_path}, a folder without {RECORD}; name" in failed(verify(tmp_path, device="cpu"))["record"]
    folder = shutil.copytree(built["text"], tmp_path / "model")
    (folder / "pytorch_model.bin").write_bytes(b"x")
    found = verify(folder, image_model=built["text"], device="cpu")
    assert "got pytorch_model.bin; don't load it" in failed(found)["files"]
    assert "loads" not in {check.name for check in found}
    (folder / "pytorch_model.bin").unlink()
    found = failed(verify(folder, image_model=built["text"], device="cpu"))
    assert "expected an image model such as me/image" in found["pairs"]
    found = failed(verify(folder, image_model=tmp_path / "none", device="cpu"))
    assert re.fullmatch(
        "expected the image model of .*, got .*/none, which is no folder in .*, and .*; check the path.*, and name it "
        "with --image-model",
        found["pairs"],
    )
    (folder / "config.json").write_text("{", encoding="utf-8")
    assert "expected a model in" in failed(verify(folder, device="cpu"))["loads"]


def test_golden_images_have_different_embeddings(tiny_clip: Path) -> None:
    vectors = unit(encode_each(load_model(tiny_clip, device="cpu"), golden_images()))
    assert float((vectors @ vectors.T - np.eye(3)).max()) < 0.999
