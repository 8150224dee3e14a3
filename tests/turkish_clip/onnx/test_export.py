"""ONNX exports: their files and vectors, refusals, and that an interrupted export leaves nothing partial."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from killing import run_killed
from onnx import numpy_helper
from random_kills import run_killed_at_random

from training import distill, embed_images
from training.embeddings.store import read_embeddings
from training.mini.world import SMALL_CLIP, WorldSize, write_world
from turkish_clip import build_text_encoder, save_text_encoder
from turkish_clip.atomic import TEMPORARY
from turkish_clip.cli import entry
from turkish_clip.dual_encoder import DualEncoder
from turkish_clip.encoder import load_model
from turkish_clip.metrics import Relevance, Vectors, unit
from turkish_clip.onnx import export as onnx_export
from turkish_clip.onnx import graph as onnx_graph
from turkish_clip.onnx.export import export_onnx
from turkish_clip.onnx.image_runtime import OnnxImageEncoder
from turkish_clip.onnx.parity import Parity
from turkish_clip.onnx.runtime import GRAPH, RECORD, TOKENIZER, WEIGHTS, OnnxError, OnnxTextEncoder
from turkish_clip.ownership import ForeignFileError
from turkish_clip.records import ImageModel
from turkish_clip.verify import GOLDEN_TEXTS, ModelRecord

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def exported_int8(text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(onnx_graph, "SMALLEST_TABLE", 200)
        return export_onnx(text_folder, tmp_path_factory.mktemp("int8") / "onnx", int8=True).folder


@pytest.fixture
def traced_before(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies the graph of `exported` instead of tracing, which takes seconds, where the graph is not tested."""

    def copied(text: object, path: Path, *, weights_sha256: str, **_: Any) -> None:
        graph = onnx.load(exported / GRAPH)
        onnx.helper.set_model_props(graph, {WEIGHTS: weights_sha256})
        onnx.save(graph, path)

    monkeypatch.setattr(onnx_export, "write_graph", copied)


def weights(folder: Path) -> dict[str, np.ndarray]:
    graph = onnx.load(folder / GRAPH).graph
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def test_the_text_side_of_a_pair(pair_folder: Path, encoder: DualEncoder, tmp_path: Path) -> None:
    written = export_onnx(pair_folder, tmp_path / "onnx")
    exported = OnnxTextEncoder(written.folder)
    texts = [*GOLDEN_TEXTS, " ".join(["ev"] * 31)]
    assert np.abs(exported.encode(texts) - encoder.text.encode(texts)).max() < TOLERANCE
    assert (exported.dim, exported.max_tokens, exported.precision) == (16, 32, "float32")
    assert exported.image_model == ImageModel(f"{pair_folder.parent.name}/model", "", encoder.image_weights_sha256)


def test_raw_vectors_become_unit(tiny_bert: Path, tmp_path: Path) -> None:
    raw = build_text_encoder(tiny_bert, dim=16, max_tokens=32, device="cpu", normalise=False)
    save_text_encoder(raw, tmp_path / "model")
    found = OnnxTextEncoder(export_onnx(tmp_path / "model").folder).encode(GOLDEN_TEXTS)
    assert np.abs(np.linalg.norm(raw.encode(GOLDEN_TEXTS), axis=1) - 1).max() > 0.01
    assert np.abs(found - unit(raw.encode(GOLDEN_TEXTS))).max() < TOLERANCE
    assert (tmp_path / "model-onnx" / RECORD).is_file()


@pytest.mark.parametrize("int8", [False, True], ids=["float32", "int8"])
def test_the_vector_of_cls_is_exported_as_the_mean_is(tiny_bert: Path, tmp_path: Path, int8: bool) -> None:
    model = build_text_encoder(tiny_bert, dim=16, max_tokens=32, device="cpu", pooling="cls")
    save_text_encoder(model, tmp_path / "model")
    found = OnnxTextEncoder(export_onnx(tmp_path / "model", int8=int8).folder).encode(GOLDEN_TEXTS)
    assert np.abs(found - model.encode(list(GOLDEN_TEXTS))).max() < (0.05 if int8 else TOLERANCE)


def test_int8_stores_layers_and_tables_in_8_bits(text_folder: Path, exported: Path, exported_int8: Path) -> None:
    model = load_model(text_folder, device="cpu")
    encoder = OnnxTextEncoder(exported_int8)
    assert encoder.precision == "int8"
    found = encoder.encode(GOLDEN_TEXTS)
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-6
    assert (found * model.encode(list(GOLDEN_TEXTS))).sum(axis=1).min() > 0.99
    matrices = {name: values for name, values in weights(exported).items() if values.ndim == 2 and values.size >= 200}
    floats = [values for values in matrices.values() if values.dtype == np.float32]
    small = [values for values in weights(exported_int8).values() if values.dtype == np.int8 and values.ndim == 2]
    assert sum(values.size for values in small) == sum(values.size for values in floats) > 0
    scales = weights(exported_int8)["steps.0.model.embeddings.word_embeddings.weight_scale"]
    assert scales.shape == (len(model.tokenizer), 1)  # a row's largest number takes nothing from the others


def test_int8_weights_leave_room_for_processors_without_vnni(exported_int8: Path) -> None:
    layers = [values for name, values in weights(exported_int8).items() if name.endswith("_quantized")]
    assert layers
    assert max(int(np.abs(values.astype(int)).max()) for values in layers) <= 64


@pytest.mark.slow
def test_int8_retrieves_as_well_as_float32(tmp_path: Path) -> None:
    write_world(tmp_path / "world", WorldSize(train=1000, validation=30, test=300))
    options = f"--captions {tmp_path / 'world'} --image_model {SMALL_CLIP} --run {tmp_path / 'run'} --device cpu"
    embed_images.main(options.split())
    distill.main(f"{options} --backbone scratch --max_tokens 64 --batch_size 64 --epochs 1".split())
    lines = (tmp_path / "world" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["split"] == "test"]
    relevance = Relevance.from_captions([row["captions"] for row in rows])
    images = read_embeddings(tmp_path / "run" / "embeddings").unit_rows([row["image_id"] for row in rows])

    def recall_at_10(texts: Vectors, images: Vectors = images) -> float:
        return relevance.text_to_image(texts, images).recall_at_10

    plain = recall_at_10(load_model(tmp_path / "run" / "model", device="cpu").encode(relevance.texts))
    paths = [tmp_path / "world" / row["file_name"] for row in rows]
    found = {}
    for int8 in (False, True):
        folder = export_onnx(tmp_path / "run", tmp_path / f"onnx-{int8}", side="both", int8=int8).folder
        texts = OnnxTextEncoder(folder).encode(relevance.texts)
        found[int8] = recall_at_10(texts), recall_at_10(texts, OnnxImageEncoder(folder).encode(paths))
    print(f"recall@10: {plain:.4f}; ONNX texts, and images as well: float32 {found[False]}, int8 {found[True]}")
    assert 0.5 < plain < 0.995  # neither so low nor so high that a loss would not show
    assert found[False][0] == pytest.approx(plain, abs=1e-9)
    assert found[False][1] == pytest.approx(plain, abs=0.002)  # the stored vectors of images are rounded
    assert found[True] == pytest.approx((plain, plain), abs=0.005)


def test_exports_of_one_model_are_equal_and_hold_no_path(text_folder: Path, exported: Path) -> None:
    again = export_onnx(text_folder, exported.parent / "again").folder
    for name in (GRAPH, TOKENIZER, RECORD):
        content = (exported / name).read_bytes()
        assert content == (again / name).read_bytes()
        for place in (str(Path.cwd()), sys.prefix, "site-packages", str(text_folder)):
            assert place.encode() not in content


@pytest.mark.slow
def test_weights_beyond_a_protobufs_limit_go_beside_the_graph(
    text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_graph, "LARGEST_FILE", 1)
    written = export_onnx(text_folder, tmp_path / "onnx")
    assert {path.name for path in written.folder.iterdir()} == {GRAPH, f"{GRAPH}.data", TOKENIZER, RECORD}
    found = OnnxTextEncoder(written.folder).encode(GOLDEN_TEXTS)
    own = load_model(text_folder, device="cpu").encode(list(GOLDEN_TEXTS))
    assert np.abs(found - own).max() < TOLERANCE


@pytest.mark.parametrize(
    "kind", ["DistilBert", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("Electra", "XLMRoberta"))]
)
def test_other_backbones(kind: str, tiny_bert: Path, tmp_path: Path) -> None:
    import transformers

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    if kind == "DistilBert":
        sizes = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
    config = getattr(transformers, f"{kind}Config")(vocab_size=40, pad_token_id=0, **sizes)
    getattr(transformers, f"{kind}Model")(config).save_pretrained(tmp_path / "backbone")
    transformers.BertTokenizerFast.from_pretrained(tiny_bert).save_pretrained(tmp_path / "backbone")
    text = build_text_encoder(tmp_path / "backbone", dim=16, max_tokens=32, device="cpu")
    save_text_encoder(text, tmp_path / "model")
    found = OnnxTextEncoder(export_onnx(tmp_path / "model").folder).encode(GOLDEN_TEXTS)
    assert np.abs(found - text.encode(list(GOLDEN_TEXTS))).max() < TOLERANCE


@pytest.mark.usefixtures("traced_before")
def test_the_image_model_of_a_run_is_recorded(text_folder: Path, tiny_clip: Path, tmp_path: Path) -> None:
    run = tmp_path / "mine"
    shutil.copytree(text_folder, run / "model")
    (run / "run.json").write_text("{}", encoding="utf-8")
    image_model = {"id": str(tiny_clip), "revision": "", "weights_sha256": "ab" * 32}
    record = ModelRecord(
        kind="text", dim=16, max_tokens=32, weights_sha256="", image_model=image_model, temperature=0.02
    )
    (run / "model" / "turkish_clip.json").write_text(record.to_json(), encoding="utf-8")
    written = export_onnx(run)
    assert (written.folder, written.record["model"]) == (tmp_path / "mine-onnx", "mine")
    assert written.record["temperature"] == 0.02
    assert OnnxTextEncoder(written.folder).image_model == ImageModel(f"{tiny_clip.parent.name}/model", "", "ab" * 32)


@pytest.mark.usefixtures("traced_before")
def test_only_a_given_image_model_is_recorded(text_folder: Path, exported: Path, tmp_path: Path) -> None:
    assert OnnxTextEncoder(exported).image_model is None
    given = export_onnx(text_folder, tmp_path / "onnx", image_model="clip-ViT-B-32")
    assert OnnxTextEncoder(given.folder).image_model == ImageModel("clip-ViT-B-32", "", "")


@pytest.mark.parametrize(
    "target",
    [
        "turkish_clip.onnx.export:write_tokenizer",
        pytest.param("turkish_clip.onnx.graph:_traced", marks=pytest.mark.slow),
        pytest.param("turkish_clip.onnx.export:compare", marks=pytest.mark.slow),
        pytest.param("turkish_clip.atomic:_sync", marks=pytest.mark.slow),
    ],
)
def test_a_kill_leaves_nothing_or_the_old_export(
    text_folder: Path, exported: Path, tmp_path: Path, target: str
) -> None:
    argv = ["export", str(text_folder), "--format", "onnx", "--output", str(tmp_path / "onnx")]
    run_killed("turkish_clip.cli", target, 1, argv)
    assert not (tmp_path / "onnx").exists()
    shutil.copytree(exported, tmp_path / "onnx")
    record = (tmp_path / "onnx" / RECORD).stat().st_mtime_ns
    run_killed("turkish_clip.cli", target, 1, argv)
    assert (tmp_path / "onnx" / RECORD).stat().st_mtime_ns == record
    assert export_onnx(text_folder, tmp_path / "onnx").record["precision"] == "float32"
    assert [path.name for path in tmp_path.iterdir()] == ["onnx"]


@pytest.mark.parametrize("int8", [True, False])
def test_an_export_of_another_precision_is_not_replaced(
    int8: bool, text_folder: Path, exported: Path, tmp_path: Path
) -> None:
    there = tmp_path / "onnx"
    shutil.copytree(exported, there)
    record = json.loads((there / RECORD).read_text(encoding="utf-8"))
    found, wanted = ("float32", "int8") if int8 else ("int8", "float32")
    (there / RECORD).write_text(json.dumps({**record, "precision": found}), encoding="utf-8")
    with pytest.raises(OnnxError, match=f"an earlier export in {wanted}, got .*onnx, which holds one in {found}; name"):
        export_onnx(text_folder, there, int8=int8)
    assert json.loads((there / RECORD).read_text(encoding="utf-8"))["precision"] == found


@pytest.mark.slow
def test_after_ten_random_kills_the_vectors_are_the_same(text_folder: Path, exported: Path, tmp_path: Path) -> None:
    argv = ["export", str(text_folder), "--format", "onnx", "--output", str(tmp_path / "onnx")]
    run_killed_at_random("turkish_clip.cli", tmp_path / "onnx", argv)
    left = {path.name for path in tmp_path.iterdir()}
    assert all(name == "onnx" or TEMPORARY.fullmatch(name) for name in left)
    if "onnx" in left:  # whole: the kill came after it had its name
        assert OnnxTextEncoder(tmp_path / "onnx").dim == 16
    with contextlib.suppress(SystemExit):
        entry.main(argv)
    assert [path.name for path in tmp_path.iterdir()] == ["onnx"]
    ours, whole = (OnnxTextEncoder(folder).encode(list(GOLDEN_TEXTS)) for folder in (tmp_path / "onnx", exported))
    assert np.array_equal(ours, whole)


def test_a_full_disk_leaves_the_old_export(
    text_folder: Path,
    exported: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(exported, tmp_path / "onnx")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(onnx_graph, "_traced", lambda text: onnx.ModelProto())
    monkeypatch.setattr(onnx, "save_model", full)
    monkeypatch.setattr("turkish_clip.verify.quiet", lambda: None)
    with pytest.raises(SystemExit) as exit_:
        entry.main(["export", str(text_folder), "--format", "onnx", "--output", str(tmp_path / "onnx")])
    assert exit_.value.code == 2
    assert "error: expected free disk space, got a full disk (No space left" in capsys.readouterr().err
    assert OnnxTextEncoder(tmp_path / "onnx").dim == 16
    assert [path.name for path in tmp_path.iterdir()] == ["onnx"]


def test_a_folder_that_is_no_export_is_not_replaced(text_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_text("x", encoding="utf-8")
    for place in (tmp_path / "photos", tmp_path / "photos" / "1.jpg"):
        with pytest.raises(ForeignFileError, match="expected a n.* folder.*, got .*name another"):
            export_onnx(text_folder, place)
    assert (tmp_path / "photos" / "1.jpg").read_text(encoding="utf-8") == "x"


def test_a_prompt_is_exported(tiny_bert: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_text_encoder(tiny_bert, dim=16, max_tokens=24, device="cpu", prompt="bir kuş: ")
    save_text_encoder(model, tmp_path / "model")
    done = export_onnx(tmp_path / "model", tmp_path / "onnx")
    assert done.record["prompt"] == "bir kuş: "
    assert done.text is not None
    assert done.text.difference < 1e-5
    exported = OnnxTextEncoder(tmp_path / "onnx")
    long = " ".join(["ev"] * 60)
    assert np.allclose(exported.encode(["kırmızı ev", long]), model.encode(["kırmızı ev", long]), atol=1e-5)


def test_models_that_can_not_be_exported(
    text_folder: Path, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        OnnxError, match="expected a text encoder such as a BERT, or a pair with one, got .*Transformer"
    ):
        export_onnx(tiny_clip, tmp_path / "onnx")
    shutil.copytree(text_folder, tmp_path / "model")
    settings = tmp_path / "model" / "config_sentence_transformers.json"
    prompts = {"prompts": {"query": "soru: "}, "default_prompt_name": "query"}
    pooling = tmp_path / "model" / "1_Pooling" / "config.json"
    for path, more in ((settings, prompts), (pooling, {"include_prompt": False})):
        path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **more}), encoding="utf-8")
    with pytest.raises(OnnxError, match="expected pooling that includes the prompt, got .*, which leaves 'soru: ' out"):
        export_onnx(tmp_path / "model", tmp_path / "onnx")

    def untraceable(*_: object, **__: object) -> None:
        raise torch.onnx.OnnxExporterError("no such operator\nand more")

    monkeypatch.setattr(torch.onnx, "export", untraceable)
    with pytest.raises(
        OnnxError, match="expected a model that torch.onnx can write, got .*no such operator; use a BERT"
    ):
        export_onnx(text_folder, tmp_path / "onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("int8", "found", "message"),
    [
        (False, (1.0, 2e-4), "expected the model's own vectors from its graph, got components that differ by 2.0e-04"),
        (True, (0.9, 0.1), "expected int8 vectors with a cosine of at least 0.95 to the model's own, got 0.900"),
        (False, (float("nan"), float("nan")), "expected the model's own vectors"),
        (True, (float("nan"), float("nan")), "expected int8 vectors"),
    ],
)
def test_a_graph_with_other_vectors_is_not_written(
    text_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    int8: bool,
    found: tuple[float, float],
    message: str,
) -> None:
    monkeypatch.setattr(onnx_export, "compare", lambda *_: Parity(*found))
    monkeypatch.setattr(onnx_export, "write_graph", lambda *_, **__: None)
    with pytest.raises(OnnxError, match=message):
        export_onnx(text_folder, tmp_path / "onnx", int8=int8)
    assert not list(tmp_path.iterdir())


def test_the_command(text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.setattr("turkish_clip.verify.quiet", lambda: None)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(text_folder, tmp_path / "mine")
    with pytest.raises(SystemExit) as exit_:
        entry.main(["export", "mine", "--format", "onnx", "--int8", "--json"])
    printed = json.loads(capfd.readouterr().out)  # one object and nothing else: torch prints unless it is silenced
    assert exit_.value.code == 0
    assert (printed["folder"], printed["precision"], printed["image_model"]) == ("mine-onnx-int8", "int8", None)
    assert printed["text"]["cosine"] > 0.99
    assert printed["bytes"] == sum(path.stat().st_size for path in (tmp_path / "mine-onnx-int8").iterdir())
    with pytest.raises(SystemExit):
        entry.main(["export", "mine", "--format", "onnx", "--image-model", "clip-ViT-B-32"])
    text = capfd.readouterr().out
    assert "mine-onnx: mine in float32" in text
    assert "vectors of images by clip-ViT-B-32" in text
    for argv, message in (
        (["export", "mine"], "expected a format, got none; write: turkish-clip export FOLDER_OR_ID --format onnx"),
        (["export", "--format", "onnx"], "expected a model, got none"),
        (["export"], "expected a model, and a format, got none of these"),
        (["export", "mine-onnx", "--format", "onnx"], "expected a model, got mine-onnx, an ONNX export"),
        (["info", "--model", "mine-onnx"], "expected a model, got mine-onnx, an ONNX export"),
        (["export", "missing/model", "--format", "onnx"], "expected a model, got missing/model, which is no folder in"),
        (["export", "mine", "--format", "onnx", "--output", "."], "expected a new folder or an earlier output"),
    ):
        with pytest.raises(SystemExit) as exit_:
            entry.main(argv)
        last = capfd.readouterr().err.strip().splitlines()[-1]
        assert exit_.value.code == 2
        assert last.startswith("error: ")
        assert message in last
