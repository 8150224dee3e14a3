"""results.json holds the right metrics, and the report shows them without other files."""

from __future__ import annotations

import errno
import html
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from browsing import ARGUMENTS, CHROMIUM, NO_CHROMIUM, broken_words
from PIL import Image
from random_kills import run_killed_at_random

from training import distill, embed_images, evaluate
from training.embeddings.manifest import EmbeddingsError
from training.embeddings.store import read_embeddings
from training.evaluation import calibration
from training.evaluation.corruptions import CORRUPTIONS
from training.evaluation.report import THUMBNAIL, TurkishPage
from training.evaluation.results import Corrupted, Results
from training.evaluation.retrieval import Split, measure_robustness
from training.run.command import run_command
from training.run.config import EvaluateConfig
from training.run.record import RunError
from turkish_clip import build_text_encoder, save_text_encoder
from turkish_clip.encoder import load_model
from turkish_clip.metrics import Relevance, unit
from turkish_clip.thumbnails import thumbnail

DIRECTIONS = ("text_to_image", "image_to_text", "teacher_text_to_image", "teacher_image_to_text")


@pytest.fixture(scope="module")
def run(captioned_folder: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    base = f"--captions {captioned_folder} --image_model {tiny_clip} --run {folder} --device cpu"
    embed_images.main(base.split())
    small = (
        "--backbone scratch --scratch_layers 1 --scratch_hidden 32 --scratch_vocabulary 300 --max_tokens 32 --epochs 1"
    )
    distill.main(f"{base} {small}".split())
    return folder


@pytest.fixture(scope="module")
def argv(captioned_folder: Path, tiny_clip: Path, run: Path) -> list[str]:
    return f"--captions {captioned_folder} --image_model {tiny_clip} --run {run} --device cpu".split()


@pytest.fixture(scope="module")
def results(argv: list[str]) -> dict[str, Any]:
    return evaluate.main(argv)


@pytest.mark.slow
def test_a_run_killed_at_ten_random_moments_ends_with_the_same_results(
    results: dict[str, Any], run: Path, argv: list[str], tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    before = names(tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    (tmp_path / "run" / "report.html").unlink()
    (tmp_path / "run" / "report.tr.html").unlink()
    of_the_copy = [str(tmp_path / "run") if word == str(run) else word for word in argv]
    run_killed_at_random("training.evaluate", tmp_path / "run" / "results.json", of_the_copy)
    of_this_run = {"model", "wall_seconds"}
    again = {name: value for name, value in evaluate.main(of_the_copy).items() if name not in of_this_run}
    assert again == {name: value for name, value in results.items() if name not in of_this_run}
    assert names(tmp_path / "run") == before


def names(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*")}


def test_the_fields_of_the_results(results: dict[str, Any], run: Path, captioned_folder: Path) -> None:
    written = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(results))
    assert (written["images"], written["split"]) == (10, "test")
    assert set(written["robustness"]) == set(CORRUPTIONS)
    assert set(written["hubness"]) == {"text_to_image", "image_to_text"}
    record = json.loads((run / "model" / "turkish_clip.json").read_text(encoding="utf-8"))
    lines = (captioned_folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["split"] == "train"]
    captions = {caption for row in rows for caption in row["captions"]}
    assert record["bank"]["texts"] == len(captions)
    corrected = written["hub_corrected"]
    assert (corrected["texts"], corrected["neighbours"], corrected["weight"]) == (len(captions), 10, 0.5)
    assert set(written["csls"]) == {"text_to_image", "image_to_text", "hubness"}
    for direction in DIRECTIONS:
        measured = written[direction]
        assert set(measured) == {"recall_at_1", "recall_at_5", "recall_at_10", "mrr", "median_rank", "ci95"}
        assert all(0 <= measured[name] <= 1 for name in ("recall_at_1", "recall_at_5", "recall_at_10", "mrr"))
        low, high = measured["ci95"]["recall_at_5"]
        assert low <= measured["recall_at_5"] <= high
    numbers = re.findall(r"-?\d+\.\d+|NaN|Infinity", json.dumps(written))
    assert all(math.isfinite(float(number)) for number in numbers)


def test_recall_equals_a_naive_count(results: dict[str, Any], captioned_folder: Path, run: Path) -> None:
    lines = (captioned_folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["split"] == "test"]
    model = load_model(run / "model", device="cpu")
    images = read_embeddings(run / "embeddings").unit_rows([row["image_id"] for row in rows])
    hits = []
    for number, row in enumerate(rows):
        for caption in row["captions"]:
            scores = images @ unit(model.encode([caption]))[0]
            hits.append(np.argmax(scores) == number)
    assert results["text_to_image"]["recall_at_1"] == pytest.approx(np.mean(hits), abs=1e-9)


def test_the_retention_of_nfd_is_1(results: dict[str, Any]) -> None:
    nfd = dict(results["robustness"]["nfd"])
    assert 0 < nfd.pop("changed") < results["captions"]
    assert nfd.pop("retention", {}).get("value") == (1.0 if nfd.pop("found") else None)
    assert nfd == results["text_to_image"]


def robustness_of(hits: dict[str, tuple[bool, bool]]) -> dict[str, Corrupted]:
    """The robustness of captions of an image each, of which a corrupted one finds its image or not, as it is told.

    Args:
        hits: caption → whether it finds its image, and whether its lower-case form does.
    """
    finding = dict(hits.items()) | {text.lower(): (after, after) for text, (_, after) in hits.items()}
    captions = list(hits)
    own = {form: number for number, text in enumerate(captions) for form in (text, text.lower())}
    images = np.eye(len(captions), dtype=np.float32)

    def encode(texts: list[Any], **_: Any) -> Any:
        known = [(own.get(text, 0), text in finding and finding[text][0]) for text in texts]
        return np.stack([images[number if found else number - 1] for number, found in known])

    student = SimpleNamespace(encode=encode, prompts={}, default_prompt_name=None)
    relevance = Relevance.from_captions([[text] for text in captions])
    clean = relevance.text_to_image(encode(captions), images)
    split = Split(relevance, encode(captions), images, clean, clean)
    return measure_robustness(student, split, EvaluateConfig(captions="x", run="x"))  # type: ignore[arg-type]


def test_a_retention_tells_how_many_captions_it_is_of_and_how_sure_it_is() -> None:
    many = {f"Resim {number}": (True, number % 2 == 0) for number in range(40)}
    lower = robustness_of(many | {f"ev {number}": (True, True) for number in range(20)})["lower"]
    assert (lower.changed, lower.found) == (40, 40)
    assert lower.retention is not None
    assert lower.retention.ci95 is not None
    assert lower.retention.value == 0.5
    assert 0.3 < lower.retention.ci95[0] < 0.45 < 0.55 < lower.retention.ci95[1] < 0.7
    few = {"Kuş": (True, True), "Kedi": (False, True), "ev": (True, True), "at": (True, True)}
    lower = robustness_of(few)["lower"]
    assert (lower.changed, lower.found) == (2, 1)
    assert lower.retention is not None
    assert lower.retention.value == 2.0  # of a single caption: 0.34 / 0.91 to 1 / 0.09
    assert lower.retention.ci95 == pytest.approx((0.377, 10.6), rel=0.01)
    unfound = robustness_of({"Kuş": (False, True), "ev": (True, True), "at": (True, True)})["lower"]
    assert (unfound.changed, unfound.found, unfound.retention) == (1, 0, None)


def test_a_small_test_says_so_beside_chance(results: dict[str, Any], run: Path, capsys: Any) -> None:
    assert results["chance"]["text_to_image"] == {"recall_at_1": 0.1, "recall_at_5": 0.5, "recall_at_10": 1.0}
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "only 10 images: these figures say little" in page
    assert "text → image recall@1 0.100, recall@5 0.500, recall@10 1.000;" in page
    ascii_ = results["robustness"]["ascii"]
    assert f"<td>{ascii_['changed']} of {results['captions']}</td><td>{ascii_['found']}</td>" in page
    table = evaluate.table(results)
    assert re.search(rf"typed without Turkish letters +{ascii_['changed']} +{ascii_['found']}   (–|\d)", table)
    assert re.search(r"a random order +0\.100 +0\.500 +1\.000", table)
    assert "only 10 images: these figures say little" in table
    assert "only" not in evaluate.table(results | {"images": 100})


@pytest.mark.parametrize("size", [(4, 900), (900, 4), (1, 3000)])
def test_images_of_any_shape_keep_the_rows_of_the_report(size: tuple[int, int], tmp_path: Path) -> None:
    width, height = thumbnail(Image.new("RGB", size), THUMBNAIL).size
    assert max(width, height) <= THUMBNAIL
    style = (Path(evaluate.__file__).parent / "evaluation/templates/report.html.jinja").read_text(encoding="utf-8")
    assert re.search(r"figure img {[^}]*max-width: 100%; height: auto;", style)  # no thumbnail is stretched
    assert re.search(r"\.matrix img {[^}]*height: \d+px; object-fit: contain;", style)


@pytest.mark.parametrize("moment", ["measure_robustness", "write_report", "add_to_model_record"])
@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted; give the same command again"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "error: expected free disk space"),
    ],
)
def test_an_interrupted_evaluation_is_given_again(
    results: dict[str, Any], run: Path, argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, moment: str, error: BaseException, code: int, said: str,
) -> None:  # fmt: skip
    copied = shutil.copytree(run, tmp_path / "run")
    (copied / "results.json").unlink()

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, moment, fail)
        with pytest.raises(SystemExit) as left:
            run_command(evaluate.main, [*argv, "--run", str(copied)])
    assert left.value.code == code
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith(said)
    of_this_run = {"model", "wall_seconds"}
    again = {name: value for name, value in evaluate.main([*argv, "--run", str(copied)]).items()}
    assert {name: again[name] for name in again if name not in of_this_run} == {
        name: results[name] for name in results if name not in of_this_run
    }


def check_that_both_reports_tell_the_same(folder: Path) -> None:
    """Checks that report.tr.html has the tags, images and numbers of report.html, and no word of its English."""
    english, turkish = (folder.joinpath(name).read_text(encoding="utf-8") for name in ("report.html", "report.tr.html"))
    assert '<a href="report.tr.html" hreflang="tr" lang="tr">Türkçe</a>' in english
    assert '<a href="report.html" hreflang="en" lang="en">English</a>' in turkish
    assert '<html lang="tr">' in turkish
    for part in (r"</?\w+", 'src="[^"]*"', 'style="[^"]*"', 'points="[^"]*"', r'(?s)<\w+[^>]* lang="tr">[^<]*'):
        found = [re.findall(part, page.partition("</h1>")[2].partition("</p>")[2]) for page in (english, turkish)]
        assert found[0] == found[1]
    texts = [re.findall(r">([^<]+)<", page.partition("</style>")[2]) for page in (english, turkish)]
    numbers = [sorted(re.findall(r"\d+(?:[.,]\d+)?", html.unescape(" ".join(shown)))) for shown in texts]
    assert [number.replace(",", ".") for number in numbers[1]] == numbers[0]
    own = re.sub(r'(?s)<(\w+)[^>]* lang="tr">.*?</\1>', "", turkish.partition("</h1>")[2])
    words = r"(?<![/-])\b(the|of|and|images?|captions?|text|with|from|is|an|by|teacher|interval|chance)\b"
    assert not [text for text in re.findall(r">([^<]+)<", own) if re.search(words, text)]


def test_the_report_in_turkish_tells_the_same(results: dict[str, Any], run: Path) -> None:
    check_that_both_reports_tell_the_same(run)
    page = (run / "report.tr.html").read_text(encoding="utf-8")
    assert "yalnız 10 resim: bu sayılar pek bir şey söylemez." in page
    assert f"{results['text_to_image']['recall_at_1']:.3f}".replace(".", ",") in page
    assert "rastlantı, rastgele sıra: metin → resim recall@1 0,100, recall@5 0,500, recall@10 1,000; resim" in page
    assert "Türkçe metin kodlayıcı" in page


def test_a_text_of_the_report_without_a_phrase_stays() -> None:
    page = '<!doctype html><html lang="en"><p title="teacher reference">A &lt;b&gt; &#39;x&#39; 0.5</p>\n{}</html>'
    turkish = "".join(TurkishPage(page.format("<td> -0.5 to +1.5</td><td>a set of 2 images</td>")).parts)
    written = page.replace("teacher reference", "öğretmen").replace('lang="en"', 'lang="tr"')
    assert turkish == written.format("<td> -0,5 … +1,5</td><td>a set of 2 images</td>")


@pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)
def test_the_report_can_be_read_on_a_phone(results: dict[str, Any], run: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 390, "height": 844})
        for name, hint in (("report.html", "scroll sideways →"), ("report.tr.html", "yana kaydırın →")):
            page.goto((run / name).as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") == 390
            assert not broken_words(page, "td, th, h2, h3, p:not(.small)")
            tables = page.locator(".scroll").evaluate_all(
                """all => all.map(one => {
                    const {display, content} = getComputedStyle(one, "::before");
                    return [one.scrollWidth > one.clientWidth, display === "none" ? "" : content];
                })"""
            )
            assert [True, f'"{hint}"'] in tables
            assert all((said == f'"{hint}"') == wider for wider, said in tables)
            assert page.locator("table").count() == len(tables)
            frames = page.locator("figure img").evaluate_all(
                "all => all.map(one => (one.width - 6) / (one.height - 6) - one.naturalWidth / one.naturalHeight)"
            )
            assert frames
            assert max(map(abs, frames)) < 0.05
        browser.close()


def test_the_report_is_self_contained(results: dict[str, Any], run: Path) -> None:
    page = (run / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"""src=["'](?!data:)""", page)
    links = {unquote(link) for link in re.findall(r'href="([^"]*)"', page)}
    assert len(links) >= 10  # to the images' own files, from the run's folder on
    assert all((run / link).is_file() and not Path(link).is_absolute() for link in links)
    assert "<polyline" in page
    assert page.count("data:image/png;base64,") > 50
    assert f"{results['text_to_image']['recall_at_1']:.3f}" in page


@pytest.mark.parametrize("doubts", [[], ["the labels seem to be English"]])
def test_the_report_tells_the_temperature_and_what_doubts_it(
    doubts: list[str], argv: list[str], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "temperature_doubts", lambda *_: doubts)
    monkeypatch.setattr(calibration, "CANDIDATES_PER_IMAGE", 3)
    shutil.copytree(run, tmp_path / "run")
    found = evaluate.main([str(tmp_path / "run") if word == str(run) else word for word in argv])["temperature"]
    assert (found["value"], found["doubts"]) == (None if doubts else found["tried"], doubts)
    check_that_both_reports_tell_the_same(tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert f"validation images ({found['tried']})" in page
    assert ("No temperature is stored with the model" in page) == bool(doubts)


def test_labels_that_the_vocabulary_lacks_store_no_temperature(
    captioned_folder: Path, tiny_clip: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(calibration, "CANDIDATES_PER_IMAGE", 3)
    source, own = shutil.copytree(captioned_folder, tmp_path / "source"), tmp_path / "own"
    path = source / "metadata.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for number, row in enumerate(rows):
        row["labels"] = [("самолёт", "лошадь", "слива", "яхта")[number % 4]]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    argv = f"--captions {source} --image_model {tiny_clip} --run {own} --embeddings {run}/embeddings --device cpu"
    found = evaluate.main([*argv.split(), "--model", str(run / "model")])["temperature"]
    assert (found["value"], found["candidate_kind"]) == (None, "labels")
    said = "the text encoder does not know 4 of 4 labels ('"
    assert any(doubt.startswith(said) for doubt in found["doubts"])
    assert said in caplog.text
    assert "the text encoder does not know 4 of 4 labels" in (own / "report.html").read_text(encoding="utf-8")


def test_captions_are_escaped_in_the_report(captioned_folder: Path, tiny_clip: Path, run: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(captioned_folder, source)
    path = source / "metadata.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["captions"] = ["<script>alert(1)</script> ev"]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    evaluate.main(f"--captions {source} --image_model {tiny_clip} --run {copied} --device cpu".split())
    page = (copied / "report.html").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_without_english_captions_there_is_no_teacher_reference(
    captioned_folder: Path, run: Path, argv: list[str]
) -> None:
    source = run.parent / "turkish-only"
    shutil.copytree(captioned_folder, source, dirs_exist_ok=True)
    path = source / "metadata.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        del row["captions_en"]
        for record in row.get("negatives", []):
            del record["caption_en"], record["negative_en"]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    copied = run.parent / "copied"
    shutil.copytree(run, copied, dirs_exist_ok=True)
    results = evaluate.main([*argv, "--captions", str(source), "--run", str(copied)])
    assert "teacher_text_to_image" not in results
    assert "teacher" not in (copied / "results.json").read_text(encoding="utf-8")


def changed_source(source: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a captioned folder, with each row changed."""
    shutil.copytree(source, folder)
    path = folder / "metadata.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        change(row)
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return folder


def test_negatives_and_slices_are_measured_and_shown(
    captioned_folder: Path, tiny_clip: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def probe(row: dict[str, Any]) -> None:
        turkish, english = row["captions"][0], row["captions_en"][0]
        record = {"probe": "<b>yer", "caption": turkish, "negative": " ".join(turkish.split()[::-1])}
        bilingual = record | {"probe": "negation", "caption_en": english, "negative_en": f"no {english}"}
        row |= {"negatives": [record, bilingual], "slices": "çizim"}

    source = changed_source(captioned_folder, tmp_path / "source", probe)
    copied = shutil.copytree(run, tmp_path / "run")
    argv = f"--captions {source} --image_model {tiny_clip} --run {copied} --device cpu --bootstrap_samples 50".split()
    results = evaluate.main(argv)
    model = load_model(copied / "model", device="cpu")
    rows = [json.loads(line) for line in (source / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["split"] == "test"]
    images = read_embeddings(copied / "embeddings").unit_rows([row["image_id"] for row in rows])
    pairs = [unit(model.encode([row["negatives"][0][name] for name in ("caption", "negative")])) for row in rows]
    right = [float(image @ caption) > float(image @ negative) for image, (caption, negative) in zip(images, pairs)]
    place, negation = results["probes"]["<b>yer"], results["probes"]["negation"]
    assert place["student"]["value"] == pytest.approx(np.mean(right))
    assert (place["pairs"], place["images"], place["chance"]) == (10, 10, 0.5)
    assert "teacher" not in place
    low, high = negation["teacher"]["ci95"]
    assert low <= negation["teacher"]["value"] <= high
    assert results["slices"]["çizim"]["text_to_image"] == results["text_to_image"]  # of all images
    assert results["slices"]["çizim"]["teacher_image_to_text"] == results["teacher_image_to_text"]
    assert (results["prompts"]["images"], len(results["prompts"]["templates"])) == (10, 20)
    assert json.loads(json.dumps(Results.read(copied).as_json())) == json.loads(json.dumps(results))
    table = capsys.readouterr().out
    shown = f"{negation['student']['value']:.3f} ({negation['student']['ci95'][0]:.3f}–"
    assert re.search(rf"  negation +10 +{re.escape(shown)}", table)
    assert re.search(r"  <b>yer +10 .*–$", table, re.MULTILINE)
    assert "over 20 templates" in table
    assert "slice çizim: 10 images" in table
    check_that_both_reports_tell_the_same(copied)
    page = (copied / "report.html").read_text(encoding="utf-8")
    assert "<td>&lt;b&gt;yer</td>" in page
    assert f"<td>{negation['teacher']['value']:.3f} <span" in page
    assert "Slices: recall@1 among their own images" in page
    assert page.count('<tr><td lang="tr">') == 20


def test_what_was_not_measured_is_not_shown(argv: list[str], run: Path, captioned_folder: Path) -> None:
    def without(row: dict[str, Any]) -> None:
        row.pop("negatives", None)
        row.pop("slices", None)

    source = changed_source(captioned_folder, run.parent / "no-probes", without)
    copied = run.parent / "copied-no-probes"
    shutil.copytree(run, copied)
    results = evaluate.main([*argv, "--captions", str(source), "--run", str(copied)])
    assert (results["probes"], results["slices"]) == ({}, {})
    check_that_both_reports_tell_the_same(copied)
    page = (copied / "report.html").read_text(encoding="utf-8")
    assert "Probes:" not in page
    assert "Slices:" not in page
    assert evaluate.probe_lines({name: value for name, value in results.items() if name != "prompts"}) == []


def test_no_model_and_a_model_of_another_width(argv: list[str], tiny_bert: Path, run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="expected a trained model in"):
        evaluate.main([*argv, "--run", str(tmp_path), "--embeddings", str(run / "embeddings")])
    save_text_encoder(build_text_encoder(tiny_bert, dim=12, max_tokens=24), tmp_path / "narrow")
    with pytest.raises(EmbeddingsError, match="expected image embeddings of width 12, got 16"):
        evaluate.main(
            [
                *argv,
                "--model",
                str(tmp_path / "narrow"),
                "--run",
                str(tmp_path),
                "--embeddings",
                str(run / "embeddings"),
            ]
        )


def test_other_splits_than_those_of_the_training(argv: list[str], results: dict[str, Any]) -> None:
    with pytest.raises(
        RunError, match="got test_fraction = 0.3 instead of 0.1, which could measure on training images"
    ):
        evaluate.main([*argv, "--test_fraction", "0.3"])


def test_another_models_results_do_not_overwrite_the_runs(argv: list[str], results: dict[str, Any], run: Path) -> None:
    with pytest.raises(RunError, match="add --run OTHER --embeddings"):
        evaluate.main([*argv, "--model", str(run / "model")])


def test_an_image_model_that_has_changed_since(
    argv: list[str], results: dict[str, Any], run: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    manifest = copied / "embeddings" / "manifest.json"
    values = json.loads(manifest.read_text(encoding="utf-8"))
    values["weights_sha256"] = "0" * 64
    manifest.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(RunError, match="got other weights in"):
        evaluate.main([*argv, "--run", str(copied)])
