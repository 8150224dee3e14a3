"""The text encoder beside an index: the same answers without torch, and the models wherever it may be another one."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from turkish_clip import build_text_encoder, save_text_encoder
from turkish_clip.dual_encoder import DualEncoder, load_dual_encoder
from turkish_clip.onnx import OnnxTextSide
from turkish_clip.onnx.export import export_loaded, export_onnx
from turkish_clip.resolve import ModelError, files_of, local_folder, resolve_models
from turkish_clip.search import text_encoder
from turkish_clip.search.index import ImageIndex
from turkish_clip.search.storage import ImageIndexError
from turkish_clip.search.text_encoder import exported_text_side, keep_text_encoder, kept_text_side, remember_model

QUERIES = [
    "kırmızı ev",
    "iki kuş",
    "sarı çiçek ve İstanbul'da bir köpek",
    "Ispartalı ŞEKER",
    "zürafa",
    "?",
    "ev " * 200,
]
BEGUN = 10**9  # a second after 1970: models that were not changed a moment ago


def settled(folder: Path, ns: int = BEGUN) -> Path:
    """Gives all files of a model a time that is long past."""
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, ns=(ns, ns))
    return folder


@pytest.fixture(scope="module")
def model(pair_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept") / "pair"
    shutil.copytree(pair_folder, folder)
    return settled(folder)


@pytest.fixture(scope="module")
def whole(model: Path) -> DualEncoder:
    return load_dual_encoder(model, device="cpu")


@pytest.fixture(scope="module")
def made(indexed: Path, whole: DualEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index with hub scores and a text encoder beside it."""
    folder = tmp_path_factory.mktemp("kept-index") / "index"
    index = ImageIndex.open(folder, whole)
    index.add(indexed, queries=[f"{number} kırmızı ev" for number in range(120)])
    assert keep_text_encoder(str(folder), whole) is not None
    return folder


@pytest.fixture
def kept(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to change."""
    shutil.copytree(made, tmp_path / "index")
    return tmp_path / "index"


def opened(index: Path, model: Path, image_model: str | None = None) -> OnnxTextSide | None:
    metadata = ImageIndex.open(index).metadata
    assert metadata is not None
    return kept_text_side(str(index), metadata.weights_sha256, str(model), image_model)


@pytest.mark.parametrize("corrected", [True, False])
def test_it_finds_the_same_in_the_same_order(made: Path, model: Path, whole: DualEncoder, *, corrected: bool) -> None:
    side = opened(made, model)
    assert side is not None
    quick, full = ImageIndex.open(made, side), ImageIndex.open(made, whole)
    for query in QUERIES:
        found, expected = (index.search(query, 10, corrected=corrected) for index in (quick, full))
        assert [hit.path for hit in found] == [hit.path for hit in expected]
        assert [hit.score for hit in found] == pytest.approx([hit.score for hit in expected], abs=1e-6)
        assert (found[0].corrected is not None) == corrected
    assert side.cautions(QUERIES) == whole.cautions(QUERIES)
    assert (side.dim, side.temperature_info) == (whole.dim, whole.temperature_info)
    assert (side.text_weights_sha256, side.image_weights_sha256) == (
        whole.text_weights_sha256,
        whole.image_weights_sha256,
    )
    assert quick.opened_with(side).search("ev", 3) == quick.search("ev", 3)
    with pytest.raises(ModelError, match="expected a model with its image side to .*, got the text side of .* alone"):
        quick.search(b"")


def test_the_same_with_a_prompt_for_queries_and_a_named_image_model(
    tiny_bert: Path, tiny_clip: Path, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A prompt that `encode` alone would not put before a text, of a model of which something is to be said."""
    text = build_text_encoder(tiny_bert, dim=16, max_tokens=32, device="cpu")
    text.prompts, text.default_prompt_name = {"query": "bir kuş: "}, None
    save_text_encoder(text, tmp_path / "model")
    settled(tmp_path / "model")
    whole = load_dual_encoder(tmp_path / "model", tiny_clip, device="cpu")
    said = [str(caution) for caution in whole.model_cautions]
    assert len(said) == 1
    assert "does not say for which image model it was trained" in said[0]
    index = ImageIndex.open(tmp_path / "index", whole)
    index.add(photos)
    assert keep_text_encoder(index.uri, whole) is not None
    caplog.clear()
    with caplog.at_level(logging.WARNING, "turkish_clip"):
        side = opened(tmp_path / "index", tmp_path / "model", str(tiny_clip))
    assert side is not None
    assert [record.getMessage() for record in caplog.records] == said
    assert opened(tmp_path / "index", tmp_path / "model", str(photos)) is None
    assert opened(tmp_path / "index", tmp_path / "model") is None  # it would be the stock one
    assert side.encoder.prompt == "bir kuş: "
    for query in QUERIES:
        found, expected = ImageIndex.open(index.uri, side).search(query), index.search(query)
        assert [hit.path for hit in found] == [hit.path for hit in expected]
    assert np.allclose(side.encode_texts(["ev"]), whole.encode_texts(["ev"]), atol=1e-6)
    assert not np.allclose(side.encode_texts(["ev"]), whole.encode_texts(["ev"], prompt=""), atol=1e-2)


def test_a_changed_model_is_loaded_and_kept_anew(kept: Path, model: Path, pair_folder: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(model, tmp_path / "model")
    assert opened(kept, mine) is None  # another folder: it may hold anything
    remember_model(str(kept), load_dual_encoder(mine, device="cpu"))
    assert opened(kept, mine) is not None
    assert opened(kept, model) is not None
    weights = next(mine.rglob("model.safetensors"))
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    assert opened(kept, mine) is None  # a moment ago, when times may not tell
    os.utime(weights, ns=(BEGUN + 1, BEGUN + 1))
    assert opened(kept, mine) is None
    other = load_dual_encoder(mine, device="cpu")
    remember_model(str(kept), other)
    assert opened(kept, mine) is None  # other weights are never taken for these
    before = {path.name for path in kept.glob("text-encoder-*")}
    assert keep_text_encoder(str(kept), other) is not None
    after = {path.name for path in kept.glob("text-encoder-*")}
    assert len(after) == 1
    assert after != before
    side = opened(kept, mine)
    assert side is not None
    assert np.allclose(side.encode_texts(["ev"]), other.encode_texts(["ev"]), atol=1e-6)
    assert opened(kept, model) is None


def test_a_new_file_beside_the_model_counts_as_a_change(kept: Path, model: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(model, tmp_path / "model")
    remember_model(str(kept), load_dual_encoder(mine, device="cpu"))
    assert opened(kept, mine) is not None
    (mine / ".DS_Store").write_bytes(b"x")
    assert opened(kept, mine) is not None
    (mine / "adapter_config.json").write_text("{}", encoding="utf-8")
    os.utime(mine / "adapter_config.json", ns=(BEGUN, BEGUN))
    assert opened(kept, mine) is None


def test_a_model_of_the_hub_is_that_of_its_cached_commit(
    kept: Path, model: Path, whole: DualEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "cache" / "models--you--clip"
    shutil.copytree(model, repository / "snapshots" / "c1")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c1", encoding="utf-8")
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path / "cache"))
    assert local_folder("you/clip") == local_folder("you/clip", "c1") == repository / "snapshots" / "c1"
    assert local_folder("you/other") is None
    assert opened(kept, Path("you/clip")) is None
    spec = replace(resolve_models("you/clip", None), image="")
    remember_model(str(kept), replace(whole, spec=spec))
    side = opened(kept, Path("you/clip"))
    assert side is not None
    assert side.text_name == "you/clip"
    shutil.copytree(model, repository / "snapshots" / "c2")
    (repository / "refs" / "main").write_text("c2", encoding="utf-8")
    assert opened(kept, Path("you/clip")) is None


def test_another_image_model_or_index(kept: Path, model: Path, tiny_clip: Path) -> None:
    assert opened(kept, model, str(tiny_clip)) is None  # named beside the pair: it may be another one
    assert kept_text_side(str(kept), "0" * 64, str(model), None) is None
    assert kept_text_side(str(kept), "0" * 64, "no/such", None) is None
    assert kept_text_side("s3://bucket/index", "0" * 64, str(model), None) is None


def test_damage_and_missing_libraries(
    kept: Path, model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    graph = next(kept.glob("text-encoder-*/model.onnx"))
    whole = graph.read_bytes()
    graph.write_bytes(whole[: len(whole) // 2])
    assert opened(kept, model) is None
    assert "the text encoder beside" in caplog.text
    assert "is left out: expected a graph in" in caplog.text
    graph.write_bytes(whole)
    assert opened(kept, model) is not None
    find = text_encoder.find_spec
    monkeypatch.setattr(text_encoder, "find_spec", lambda name: None if name == "onnxruntime" else find(name))
    assert opened(kept, model) is None
    monkeypatch.undo()
    for record in ("{", '{"format": 0}', '{"format": 1, "precision": "float32", "folder": "../elsewhere"}'):
        (kept / text_encoder.RECORD).write_text(record, encoding="utf-8")
        assert opened(kept, model) is None


def test_one_of_other_weights_is_left_out_and_made_again(
    kept: Path,
    model: Path,
    whole: DualEncoder,
    tiny_bert: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of the same width, so that nothing but what the files say of themselves tells it."""
    torch.manual_seed(7)
    other = export_loaded(
        replace(whole, text=build_text_encoder(tiny_bert, dim=16, max_tokens=32, device="cpu")), tmp_path / "other"
    ).folder
    place = next(kept.glob("text-encoder-*/"))
    own = shutil.copytree(place, tmp_path / "own")
    (tmp_path / "tokens").mkdir()
    tokens = (own / "tokenizer.json").read_text(encoding="utf-8").replace("ğ", "ŕ")
    (tmp_path / "tokens" / "tokenizer.json").write_text(tokens, encoding="utf-8")
    for names, taken_from, said in (
        (["tokenizer.json"], tmp_path / "tokens", "expected tokenizer.json of the same export as turkish_clip_onnx"),
        (["model.onnx", "model.onnx.data"], other, "expected model.onnx of the same export as turkish_clip_onnx"),
        ([path.name for path in other.iterdir()], other, "expected the weights that text-encoder.json names in "),
    ):
        shutil.copytree(own, place, dirs_exist_ok=True)
        assert opened(kept, model) is not None
        for name in names:
            shutil.copy(taken_from / name, place / name)
        caplog.clear()
        assert opened(kept, model) is None
        assert f"is left out: {said}" in caplog.text
        assert caplog.records[-1].getMessage().endswith("; turkish-clip index makes it again")
    assert keep_text_encoder(str(kept), whole) is not None
    side = opened(kept, model)
    assert side is not None
    assert np.allclose(side.encode_texts(["ev"]), whole.encode_texts(["ev"]), atol=1e-6)


def test_a_damaged_one_is_made_again_and_none_is_remembered(kept: Path, whole: DualEncoder, model: Path) -> None:
    first = keep_text_encoder(str(kept), whole)
    assert first is not None
    made_at = (kept / first.folder / "model.onnx").stat().st_mtime_ns
    assert keep_text_encoder(str(kept), whole) == first
    assert (kept / first.folder / "model.onnx").stat().st_mtime_ns == made_at
    (kept / first.folder / "tokenizer.json").unlink()
    assert keep_text_encoder(str(kept), whole) == first
    assert opened(kept, model) is not None
    assert keep_text_encoder(str(kept), whole, "none") is None
    assert list(kept.glob("text-encoder-*")) == []
    assert opened(kept, model) is None
    assert keep_text_encoder(str(kept), whole) is None
    small = keep_text_encoder(str(kept), whole, "int8")
    assert small is not None
    assert small.folder.endswith("-int8")
    assert keep_text_encoder(str(kept), whole) == small
    side = opened(kept, model)
    assert side is not None
    assert side.encoder.precision == "int8"


def test_without_the_libraries_or_a_settled_folder_nothing_is_written(
    indexed: Path, whole: DualEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ImageIndex.open(tmp_path / "index", whole).add(indexed)
    unsettled = replace(whole, spec=replace(whole.spec, files=None))
    assert keep_text_encoder(str(tmp_path / "index"), unsettled) is None
    monkeypatch.setattr(text_encoder, "find_spec", lambda name: None)
    assert keep_text_encoder(str(tmp_path / "index"), whole) is None
    assert keep_text_encoder("s3://bucket/index", whole) is None
    assert list((tmp_path / "index").glob("text-encoder*")) == []


def test_an_index_that_can_not_be_written_to(
    kept: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = shutil.copytree(model, tmp_path / "model")
    monkeypatch.setattr("turkish_clip.search.storage.os.access", lambda *_: False)
    encoder = load_dual_encoder(mine, device="cpu")
    remember_model(str(kept), encoder)
    assert opened(kept, mine) is None
    with pytest.raises(ImageIndexError, match="expected a place to write an index"):
        keep_text_encoder(str(kept), encoder)
    assert opened(kept, model) is not None


KILLED = """
import os, signal, sys
from turkish_clip.dual_encoder import load_dual_encoder
from turkish_clip.onnx import export
from turkish_clip.search.text_encoder import keep_text_encoder

def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
setattr(export, sys.argv[3], die)
keep_text_encoder(sys.argv[1], load_dual_encoder(sys.argv[2], device="cpu"))
"""


@pytest.mark.slow
def test_a_kill_while_it_is_written_leaves_nothing_half(
    indexed: Path, whole: DualEncoder, model: Path, tmp_path: Path
) -> None:
    ImageIndex.open(tmp_path / "index", whole).add(indexed)
    argv = [sys.executable, "-c", KILLED, str(tmp_path / "index"), str(model), "write_tokenizer"]
    assert subprocess.run(argv, capture_output=True, check=False, timeout=300).returncode == -signal.SIGKILL
    assert list((tmp_path / "index").glob("text-encoder*")) == []
    assert list((tmp_path / "index").glob(".text-encoder*"))
    assert opened(tmp_path / "index", model) is None
    assert keep_text_encoder(str(tmp_path / "index"), whole) is not None
    assert opened(tmp_path / "index", model) is not None
    assert list((tmp_path / "index").glob(".text-encoder*")) == []


def test_a_named_export_is_for_one_image_model(
    made: Path, model: Path, whole: DualEncoder, exported: Path, tmp_path: Path
) -> None:
    folder = export_onnx(model, tmp_path / "onnx").folder
    metadata = ImageIndex.open(made).metadata
    assert metadata is not None
    side = exported_text_side(folder, str(made), metadata.weights_sha256, "an image model")
    found, expected = (ImageIndex.open(made, one).search("kırmızı ev", 10) for one in (side, whole))
    assert [hit.path for hit in found] == [hit.path for hit in expected]
    assert found[0].corrected == pytest.approx(expected[0].corrected, abs=1e-6)
    message = (
        "expected a text encoder for the image model .*an image model.*, got .*, one that does not name the weights"
    )
    with pytest.raises(ImageIndexError, match=message):
        exported_text_side(exported, str(made), metadata.weights_sha256, "an image model")
    with pytest.raises(ImageIndexError, match=r"got .*onnx, one for other weights \(.*\); give the model"):
        exported_text_side(folder, str(made), "0" * 64, "an image model")


def test_files_of_a_model(tmp_path: Path) -> None:
    (tmp_path / "1_Dense").mkdir()
    for name in ("config.json", "1_Dense/model.safetensors", ".hidden"):
        (tmp_path / name).write_bytes(b"abc")
    assert files_of(tmp_path) is None  # just changed
    settled(tmp_path)
    assert files_of(tmp_path) == {"config.json": [3, BEGUN], "1_Dense/model.safetensors": [3, BEGUN]}
    for number in range(1000):
        (tmp_path / f"{number}.bin").touch()
    settled(tmp_path)
    assert files_of(tmp_path) is None
