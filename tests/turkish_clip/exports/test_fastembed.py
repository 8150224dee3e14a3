"""The folder that fastembed takes as a custom model: by fastembed itself, and its files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from killing import run_killed

from turkish_clip import build_text_encoder, save_text_encoder
from turkish_clip.encoder import load_model
from turkish_clip.exports.export import export_for
from turkish_clip.exports.folder import EXPORT_RECORD
from turkish_clip.verify import GOLDEN_TEXTS

PYTHON = os.environ.get("FASTEMBED_PYTHON", "")  # of an environment with fastembed, which `make consumers` makes
TEXTS = [*GOLDEN_TEXTS, "kırmızı ev", " ".join(["ev"] * 200), "İstanbul'da"]
PROGRAM = """
import json, sys
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType

TextEmbedding.add_custom_model(
    model="turkish-clip",
    pooling=PoolingType.DISABLED,
    normalization=False,
    sources=ModelSource(hf="you/turkish-clip"),
    dim=16,
    model_file="model.onnx",
)
model = TextEmbedding("turkish-clip", specific_model_path=sys.argv[1])
print(json.dumps([vector.tolist() for vector in model.embed(json.loads(sys.argv[2]), batch_size=3)]))
"""


@pytest.fixture(scope="module")
def written(text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_for("fastembed", text_folder, tmp_path_factory.mktemp("fastembed") / "model").folder


def by_fastembed(folder: Path, texts: list[str]) -> np.ndarray:
    command = [PYTHON, "-I", "-c", PROGRAM, str(folder), json.dumps(texts)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return np.array(json.loads(done.stdout))


@pytest.mark.skipif(not PYTHON, reason="FASTEMBED_PYTHON names no environment with fastembed; make consumers does")
def test_fastembed_gives_the_vectors_of_the_model(
    written: Path, text_folder: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    own = load_model(text_folder, device="cpu").encode(TEXTS)
    assert np.abs(by_fastembed(written, TEXTS) - own).max() < 1e-5
    prompted = build_text_encoder(tiny_bert, dim=16, max_tokens=24, device="cpu", prompt="bir kuş: ")
    save_text_encoder(prompted, tmp_path / "model")
    folder = export_for("fastembed", tmp_path / "model", int8=True).folder
    assert folder == tmp_path / "model-fastembed-int8"
    assert (by_fastembed(folder, TEXTS) * prompted.encode(TEXTS)).sum(axis=1).min() > 0.95


def test_the_files(written: Path) -> None:
    assert {path.name for path in written.iterdir()} == {
        EXPORT_RECORD,
        "config.json",
        "model.onnx",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }

    def read(name: str) -> dict[str, object]:
        content: dict[str, object] = json.loads((written / name).read_text(encoding="utf-8"))
        return content

    assert read("config.json")["pad_token_id"] == 0
    config = read("tokenizer_config.json")
    assert (config["model_max_length"], config["pad_token"], config["padding_side"]) == (128, "[PAD]", "right")
    assert read("special_tokens_map.json")["cls_token"] == "[CLS]"
    record = read(EXPORT_RECORD)
    assert (record["kind"], record["sides"], record["dim"]) == ("fastembed", "text", 16)
    assert record["image_model"] == {"id": "clip-ViT-B-32", "revision": "", "weights_sha256": ""}
    assert "image" not in record


@pytest.mark.slow
@pytest.mark.parametrize(
    "target",
    [
        "turkish_clip.exports.folder:size_of",
        "turkish_clip.exports.fastembed:write_graph",
        "turkish_clip.atomic:_sync",
    ],
)
def test_a_kill_leaves_nothing_or_the_old_export(target: str, written: Path, text_folder: Path, tmp_path: Path) -> None:
    argv = ["export", str(text_folder), "--format", "fastembed", "--output", str(tmp_path / "model")]
    there = tmp_path / "model"
    run_killed("turkish_clip.cli", target, 1, argv)
    assert not there.exists()
    shutil.copytree(written, there)
    before = (there / EXPORT_RECORD).stat().st_mtime_ns
    run_killed("turkish_clip.cli", target, 1, argv)
    assert (there / EXPORT_RECORD).stat().st_mtime_ns == before
    export_for("fastembed", text_folder, there)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
