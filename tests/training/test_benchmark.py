"""MTEB's own task classes run on small local data sets in their real layouts; baselines stand beside their like."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from training import benchmark
from training.run.command import run_command
from turkish_clip.dual_encoder import DualEncoder
from turkish_clip.errors import InputError
from turkish_clip.metrics import Relevance

mteb = pytest.importorskip("mteb")


@pytest.fixture
def xm3600(captioned_folder: Path, tmp_path: Path) -> Path:
    """A folder in mteb/xm3600's layout: a Parquet file per language, images as bytes, captions as a list."""
    folder = tmp_path / "xm3600"
    (folder / "data").mkdir(parents=True)
    rows = []
    for line in (captioned_folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        image = {"bytes": (captioned_folder / row["file_name"]).read_bytes(), "path": f"{row['image_id']}.png"}
        captions = row["captions"][-2:]
        rows.append(
            {
                "image_id": row["image_id"],
                "image_locale": "tr",
                "image": image,
                "captions": captions,
                "captions_tokenized": captions,
                "captions_tokenized_lowercase": captions,
            }
        )
    Dataset.from_list(rows).to_parquet(io_path := folder / "data" / "tr-00000-of-00001.parquet")
    assert io_path.is_file()
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: tr\n    path: data/tr-*\n---\n",
        encoding="utf-8",
    )
    return folder


@pytest.fixture
def offline(xm3600: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points MTEB's tasks at the local folder."""
    for name in ("XM3600T2IRetrieval", "XM3600I2TRetrieval"):
        metadata = type(mteb.get_task(name)).metadata
        monkeypatch.setitem(metadata.dataset, "path", str(xm3600))
        monkeypatch.setitem(metadata.dataset, "revision", "local")


@pytest.mark.filterwarnings("ignore")  # MTEB's own use of its libraries
def test_metrics_agree_with_mteb(
    offline: None, xm3600: Path, captioned_folder: Path, encoder: DualEncoder, pair_folder: Path, tmp_path: Path
) -> None:
    argv = ["--run", str(tmp_path / "run"), "--model", str(pair_folder), "--device", "cpu"]
    argv += ["--tasks", "XM3600T2IRetrieval,XM3600I2TRetrieval"]
    found = benchmark.main(argv)["tasks"]

    rows = [json.loads(line) for line in (captioned_folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    (batch,) = encoder.embed_images([captioned_folder / row["file_name"] for row in rows], batch_size=100)
    captions = [row["captions"][-2:] for row in rows]
    distinct = Relevance.from_captions(
        [[f"{number} {place}" for place in range(len(own))] for number, own in enumerate(captions)]
    )
    texts = encoder.encode_texts([text for own in captions for text in own])
    for task, ours in (
        ("XM3600T2IRetrieval", distinct.text_to_image(texts, batch.vectors)),
        ("XM3600I2TRetrieval", distinct.image_to_text(texts, batch.vectors)),
    ):
        for metric in ("recall_at_1", "recall_at_5", "recall_at_10"):
            assert found[task][metric] == pytest.approx(getattr(ours, metric), abs=1e-4)
    written = json.loads((tmp_path / "run" / "benchmark.json").read_text(encoding="utf-8"))
    assert written["tasks"] == found
    assert benchmark.main(argv)["tasks"] == found  # from MTEB's cache
    ours, *baselines = written["table"]
    assert (ours["model"], ours["test"]) == ("this model", "XM3600")
    assert ours["text_to_image"][0] == found["XM3600T2IRetrieval"]["recall_at_1"]
    assert ours["image_to_text"][2] == found["XM3600I2TRetrieval"]["recall_at_10"]
    assert len(baselines) == 5
    assert {(baseline["test"], baseline["protocol"]) for baseline in baselines} == {("XM3600", "all captions")}
    assert (ours["protocol"], ours["width"]) == ("all captions", 16)
    page = (tmp_path / "run" / "benchmark.html").read_text(encoding="utf-8")
    assert f"{ours['text_to_image'][0]:.3f}" in page
    assert "M-CLIP" in page
    comparable, others = page.split("With another protocol, not to be compared with the above")
    assert "nllb-clip" in others
    assert "nllb-clip" not in comparable
    assert "COCO" not in page


def test_a_local_benchmark_measures_the_listed_images(
    captioned_folder: Path, pair_folder: Path, encoder: DualEncoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in (captioned_folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = rows[5:15]
    ids = tmp_path / "ids.txt"
    ids.write_text("\n".join(row["image_id"] for row in rows) + "\n", encoding="utf-8")
    argv = ["--run", str(tmp_path / "run"), "--model", str(pair_folder), "--device", "cpu", "--tasks", "none"]
    argv += ["--data", str(captioned_folder), "--data_name", "XTD10"]
    result = benchmark.main([*argv, "--data_ids", str(ids)])
    found = result["data"]["XTD10"]
    assert found["images"] == 10
    (batch,) = encoder.embed_images([captioned_folder / row["file_name"] for row in rows], batch_size=100)
    relevance = Relevance.from_captions([list(dict.fromkeys(row["captions"])) for row in rows])
    texts = encoder.encode_texts(relevance.texts)
    assert found["text_to_image"]["mrr"] == pytest.approx(relevance.text_to_image(texts, batch.vectors).mrr)
    assert found["image_to_text"]["mrr"] == pytest.approx(relevance.image_to_text(texts, batch.vectors).mrr)
    assert result["table"][0]["text_to_image"][1] == found["text_to_image"]["recall_at_5"]
    assert {row["protocol"] for row in result["table"]} == {"all captions"}  # so that no baseline can be compared
    assert len(result["table"]) == 1
    page = (tmp_path / "run" / "benchmark.html").read_text(encoding="utf-8")
    assert "800 of XTD10&#39;s 1,000 images are COCO train2014" in page
    assert page.index("With another protocol") < page.index("clip-ViT-B-32-multilingual-v1")
    assert "XTD10, text to image" in capsys.readouterr().out

    ids.write_text("nobody\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"got 1 of 1 that are not there, the first 'nobody'; correct the list"):
        benchmark.main([*argv, "--data_ids", str(ids)])
    with pytest.raises(InputError, match="one per line, got no file .*absent"):
        benchmark.main([*argv, "--data_ids", str(tmp_path / "absent")])
    (ids.parent / "broken").mkdir()
    (ids.parent / "broken" / "a.png").write_bytes(b"no image")
    (ids.parent / "broken" / "metadata.jsonl").write_text(
        '{"file_name": "a.png", "captions": ["bir ev"]}\n', encoding="utf-8"
    )
    argv[argv.index("--data") + 1] = str(ids.parent / "broken")
    with pytest.raises(InputError, match="expected images that open in"):
        benchmark.main(argv)


def local_task(folder: Path, name: str, rows: dict[str, list[dict[str, Any]]], config: str, patch: Any) -> None:
    """Writes the data of one of MTEB's tasks, split by split, and points the task at it."""
    lines = [f"- config_name: {config}", "  data_files:"]
    for split, ones in rows.items():
        (folder / config).mkdir(parents=True, exist_ok=True)
        Dataset.from_list(ones).to_parquet(folder / config / f"{split}.parquet")
        lines += [f"  - split: {split}", f"    path: {config}/{split}.parquet"]
    (folder / "README.md").write_text("\n".join(["---", "configs:", *lines, "---", ""]), encoding="utf-8")
    metadata = type(mteb.get_task(name)).metadata
    patch.setitem(metadata.dataset, "path", str(folder))
    patch.setitem(metadata.dataset, "revision", "local")


@pytest.mark.filterwarnings("ignore")  # MTEB's own use of its libraries
def test_text_tasks_run_by_their_main_score(
    encoder: DualEncoder,
    pair_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from scipy.stats import spearmanr

    texts = ["kırmızı ev", "mavi kuş", "sarı ağaç", "iki köpek", "bir çiçek", "mavi ev", "evin üstünde kuş", "İstanbul"]
    scores = [1.0, 3.5, 2.0, 4.0, 0.5, 2.5, 3.0]
    pairs = [{"sentence1": texts[n], "sentence2": texts[n + 1], "score": score} for n, score in enumerate(scores)]
    for name, language in (("STS22.v2", "tr"), ("STS17", "en-tr")):  # a column names the language of each row
        rows = [{**pair, "lang": language} for pair in pairs]
        local_task(tmp_path / name, name, {"test": rows}, "default", monkeypatch)
    labelled = [{"text": f"{text} {number}", "label": number % 2} for number in range(3) for text in texts]
    movie = "TurkishMovieSentimentClassification.v2"
    local_task(tmp_path / "movie", movie, {"train": labelled, "test": labelled}, "default", monkeypatch)
    intents = [{"id": str(number), "lang": "tr", **row} for number, row in enumerate(labelled)]
    intent = "MassiveIntentClassification"
    splits = {"train": intents, "validation": intents, "test": intents}
    local_task(tmp_path / "massive", intent, splits, "tr", monkeypatch)

    argv = ["--run", str(tmp_path / "run"), "--model", str(pair_folder), "--device", "cpu"]
    result = benchmark.main([*argv, "--tasks", f"STS22.v2,STS17,{movie},{intent}"])
    found = result["tasks"]
    vectors = encoder.encode_texts(texts)
    cosines = (vectors[:-1] * vectors[1:]).sum(axis=1)
    assert found["STS22.v2"]["score"] == pytest.approx(spearmanr(cosines, scores).statistic, abs=1e-6)
    assert found["STS17"] == {
        "type": "STS",
        "category": "t2t",
        "dataset": str(tmp_path / "STS17"),
        "subset": "en-tr",
        "split": "test",
        "metric": "cosine_spearman",
        "score": found["STS22.v2"]["score"],
    }
    for name, subset in ((movie, "default"), (intent, "tr")):
        assert (found[name]["metric"], found[name]["subset"]) == ("accuracy", subset)
        assert 0 <= found[name]["score"] <= 1
    assert result["table"] == []
    assert [row["test"] for row in result["text"]] == ["STS22.v2", "STS17", movie, intent]
    printed = capsys.readouterr().out
    assert f"{'STS17 (en-tr)':<54}{found['STS17']['score']:>8.3f} cosine_spearman" in printed
    assert "recall@1" not in printed
    page = (tmp_path / "run" / "benchmark.html").read_text(encoding="utf-8")
    assert f"<td>{found[movie]['score']:.3f}</td>" in page
    with pytest.raises(
        InputError, match=r"expected de among the languages of STS17, got ko-ko, .*; name one with --sub"
    ):
        benchmark.main([*argv, "--tasks", "STS17", "--subset", "de"])


def test_tasks_by_the_word_text_and_the_names_of_turkish() -> None:
    from training.evaluation.published import subset_of
    from training.run.config import TEXT_TASKS, BenchmarkConfig

    config = BenchmarkConfig(run="x", tasks=("text", "WITT2IRetrieval", "STS17", "none"))
    assert config.task_names == (*TEXT_TASKS, "WITT2IRetrieval")
    subsets = {name: subset_of(mteb.get_task(name).metadata, "tr") for name in (*TEXT_TASKS, "SIB200Classification.v3")}
    assert subsets == {
        "STS17": "en-tr",
        "STS22.v2": "tr",
        "MassiveIntentClassification": "tr",
        "MassiveScenarioClassification": "tr",
        "TurkishMovieSentimentClassification.v2": "default",
        "TurkishProductSentimentClassification.v2": "default",
        "SIB200Classification.v3": "tur_Latn",
    }


def test_texts_get_the_prompt_of_the_task(encoder: DualEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.evaluation.mteb_encoder import MtebPair

    prompts = {"query": "q: ", "document": "d: ", "STS": "s: ", "Classification-query": "c: ", "WITI2TRetrieval": ""}
    monkeypatch.setattr(encoder.text, "prompts", prompts)
    pair = MtebPair(encoder, 4)
    for name, kind, expected in (
        ("STS22.v2", None, "s: "),
        ("WITT2IRetrieval", mteb.types.PromptType.query, "q: "),
        ("WITI2TRetrieval", mteb.types.PromptType.document, "d: "),
        ("XNLIV2", None, "q: "),  # no prompt by any of its names: that of queries
        ("MassiveIntentClassification", mteb.types.PromptType.query, "c: "),
    ):
        task = mteb.get_task(name).metadata
        given = pair.encode([{"text": ["mavi ev"]}], task_metadata=task, hf_split="t", hf_subset="t", prompt_type=kind)
        assert given == pytest.approx(encoder.encode_texts(["mavi ev"], prompt=expected), abs=1e-6), name


def test_baselines_say_their_protocol_and_source() -> None:
    from training.evaluation.published import ALL_CAPTIONS, ONE_CAPTION, read_baselines, read_notes

    baselines = read_baselines()
    names = [(one["model"], one["test"], one["protocol"]) for one in baselines]
    assert len(set(names)) == len(names)
    for one in baselines:
        assert one["protocol"] in (ALL_CAPTIONS, ONE_CAPTION)
        assert one["source"].startswith("https://")
        assert one["width"] in (512, 768, 1024, 1152)
        known = [value for key in ("text_to_image", "image_to_text") for value in one[key] if value is not None]
        assert all(0 < value < 1 for value in known)
        assert known or "mean of recall" in one["note"]
        for key in ("text_to_image", "image_to_text"):
            values = [value for value in one[key] if value is not None]
            assert values == sorted(values)
    assert {one["protocol"] for one in baselines if one["test"] == "XTD10"} == {
        ONE_CAPTION
    }  # it has one for each image
    assert not [one for one in baselines if "not normalised" in one["model"]]
    assert len(read_notes(baselines)) == 1
    assert read_notes([{"test": "XM3600"}]) == []


def test_neither_tasks_nor_data_is_an_error() -> None:
    with pytest.raises(InputError, match="expected 'tasks' or 'data'"):
        benchmark.main(["--run", "runs/x", "--tasks", "none"])


def test_an_unknown_task_is_a_one_line_error(pair_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected tasks of MTEB, got"):
        benchmark.main(["--run", str(tmp_path), "--model", str(pair_folder), "--tasks", "NoSuchTask"])


class UnreachableError(Exception):
    """As a client of the network raises it, whose own type is none of Python's."""


UnreachableError.__module__ = "httpx2._exceptions"


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Couldn't reach 'mteb/wit' on the Hub (OfflineModeIsEnabled)"),
        UnreachableError("[Errno -3] Temporary failure in name resolution"),
        TimeoutError("The read operation timed out"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_data_that_can_not_be_had_is_a_one_line_error(
    pair_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    error: Exception, wrapped: bool,
) -> None:  # fmt: skip
    def fail(*_: object, **__: object) -> None:
        if wrapped:
            raise RuntimeError("the task failed") from error
        raise error

    monkeypatch.setattr(mteb, "evaluate", fail)
    argv = [
        "--run",
        str(tmp_path / "run"),
        "--model",
        str(pair_folder),
        "--device",
        "cpu",
        "--tasks",
        "WITT2IRetrieval",
    ]
    with pytest.raises(SystemExit) as left:
        run_command(benchmark.main, argv)
    assert left.value.code == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: expected the data of WITT2IRetrieval from the Hub (mteb/wit), got ")
    assert str(error).removeprefix("[Errno -3] ") in line  # numbers of errors tell people nothing
    assert "check the connection, that HF_HUB_OFFLINE is not set" in line
    assert "permissions" not in line


def test_images_that_do_not_open_stop_the_benchmark(encoder: DualEncoder) -> None:
    from training.evaluation.mteb_encoder import BenchmarkError, MtebPair

    class Task:
        name = "XM3600T2IRetrieval"

    batches: list[dict[str, Any]] = [{"image": [io.BytesIO(b"no image").getvalue()]}]
    with pytest.raises(BenchmarkError, match="expected images that open in XM3600T2IRetrieval"):
        MtebPair(encoder, 4).encode(batches, task_metadata=Task, hf_split="test", hf_subset="tr")
