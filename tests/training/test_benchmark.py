"""MTEB's own task classes on a small local data set in the real layout give the same metrics as ours."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from training import benchmark
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
        captions = row["captions"][:2]
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
    captions = [row["captions"][:2] for row in rows]
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
    assert len(baselines) >= 3
    assert {baseline["test"] for baseline in baselines} == {"XM3600"}
    page = (tmp_path / "run" / "benchmark.html").read_text(encoding="utf-8")
    assert f"{ours['text_to_image'][0]:.3f}" in page
    assert "M-CLIP" in page


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
    assert [row["model"] for row in result["table"][1:]]
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


def test_neither_tasks_nor_data_is_an_error() -> None:
    with pytest.raises(InputError, match="expected 'tasks' or 'data'"):
        benchmark.main(["--run", "runs/x", "--tasks", "none"])


def test_an_unknown_task_is_a_one_line_error(pair_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected tasks of MTEB, got"):
        benchmark.main(["--run", str(tmp_path), "--model", str(pair_folder), "--tasks", "NoSuchTask"])


def test_images_that_do_not_open_stop_the_benchmark(encoder: DualEncoder) -> None:
    from training.evaluation.mteb_encoder import BenchmarkError, MtebPair

    class Task:
        name = "XM3600T2IRetrieval"

    batches: list[dict[str, Any]] = [{"image": [io.BytesIO(b"no image").getvalue()]}]
    with pytest.raises(BenchmarkError, match="expected images that open in XM3600T2IRetrieval"):
        MtebPair(encoder, 4).encode(batches, task_metadata=Task, hf_split="test", hf_subset="tr")
