"""An exported text encoder gives the model's own vectors without torch, and an export is whole or absent."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from conftest import run_killed
from onnx import numpy_helper
from sentence_transformers import SentenceTransformer

from turkish_clip import build_text_encoder, cli, onnx_export, onnx_graph, save_text_encoder
from turkish_clip.encoder import load_model
from turkish_clip.metrics import unit
from turkish_clip.onnx_export import export_onnx
from turkish_clip.onnx_runtime import GRAPH, RECORD, TOKENIZER, ImageModel, OnnxError, OnnxTextEncoder
from turkish_clip.towers import Towers
from turkish_clip.verify import GOLDEN_TEXTS

KNOWN = "kırmızı mavi sarı bir iki ev evin üstünde altında ağaç çiçek köpek İstanbul ankara kuş var".split()
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def model_folder(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text encoder of 16-wide vectors and up to 128 tokens."""
    torch.manual_seed(2)
    folder = tmp_path_factory.mktemp("text") / "model"
    save_text_encoder(build_text_encoder(tiny_bert, dim=16, max_tokens=128, device="cpu"), folder)
    return folder


@pytest.fixture(scope="module")
def model(model_folder: Path) -> SentenceTransformer:
    return load_model(model_folder, device="cpu")


@pytest.fixture(scope="module")
def exported(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(model_folder, tmp_path_factory.mktemp("float32") / "onnx").folder


@pytest.fixture(scope="module")
def exported_int8(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(onnx_graph, "SMALLEST_TABLE", 200)
        return export_onnx(model_folder, tmp_path_factory.mktemp("int8") / "onnx", int8=True).folder


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Of every length from none to beyond the limit, in no order, and the golden sentences in NFC and NFD."""
    rng = random.Random(0)
    found = [" ".join(rng.choices(KNOWN, k=words)) for words in (*range(127), 127, 128, 200)]
    found += [unicodedata.normalize(form, text) for form in ("NFC", "NFD") for text in GOLDEN_TEXTS]
    rng.shuffle(found)
    return found


@pytest.fixture
def traced_before(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing takes seconds: where the graph is not what is tested, the one of `exported` is taken."""
    monkeypatch.setattr(onnx_export, "write_graph", lambda text, path, *, int8: shutil.copy(exported / GRAPH, path))


def weights(folder: Path) -> dict[str, np.ndarray]:
    graph = onnx.load(folder / GRAPH).graph
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_parity_at_every_length_in_every_batch(
    model: SentenceTransformer, exported: Path, texts: list[str], batch_size: int
) -> None:
    lengths = {len(model.tokenizer(text)["input_ids"]) for text in texts}
    assert {*range(2, 129)} <= lengths
    found = OnnxTextEncoder(exported).encode(texts, batch_size=batch_size)
    assert (found.dtype, found.shape) == (np.float32, (len(texts), 16))
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-6
    assert np.abs(found - model.encode(texts, batch_size=13)).max() < TOLERANCE


def test_long_text_is_cut_at_the_same_token(model: SentenceTransformer, exported: Path) -> None:
    encoder = OnnxTextEncoder(exported)
    long = random.Random(1).choices(KNOWN, k=200)
    ids = encoder._tokenizer.encode(" ".join(long)).ids
    assert ids == model.preprocess([" ".join(long)])["input_ids"][0].tolist()
    assert len(ids) == encoder.max_tokens == 128
    assert np.array_equal(encoder.encode([" ".join(long)]), encoder.encode([" ".join([*long[:126], "kuş"])]))
    assert np.abs(encoder.encode([" ".join(long[:125])]) - encoder.encode([" ".join(long)])).max() > TOLERANCE


def test_the_turkish_normalizer_goes_along(exported: Path) -> None:
    encoder = OnnxTextEncoder(exported)
    written = ["Ispartalı iki köpek", "ankara'da şeker", "İstanbul"]
    typed = ["Ispartalı iki köpek", "ankara\u2019da şeker", "İstanbul"]
    typed = [unicodedata.normalize("NFD", text) for text in typed]
    assert np.array_equal(encoder.encode(typed), encoder.encode(written))


def test_the_text_side_of_a_pair(pair_folder: Path, towers: Towers, tmp_path: Path) -> None:
    written = export_onnx(pair_folder, tmp_path / "onnx")
    encoder = OnnxTextEncoder(written.folder)
    texts = [*GOLDEN_TEXTS, " ".join(["ev"] * 31)]
    assert np.abs(encoder.encode(texts) - towers.text.encode(texts)).max() < TOLERANCE
    assert (encoder.dim, encoder.max_tokens, encoder.precision) == (16, 32, "float32")
    assert encoder.image_model == ImageModel("model", "", towers.image_weights_sha256)


def test_vectors_become_unit_where_the_model_leaves_them_raw(tiny_bert: Path, tmp_path: Path) -> None:
    raw = build_text_encoder(tiny_bert, dim=16, max_tokens=32, device="cpu", normalise=False)
    save_text_encoder(raw, tmp_path / "model")
    found = OnnxTextEncoder(export_onnx(tmp_path / "model").folder).encode(GOLDEN_TEXTS)
    assert np.abs(np.linalg.norm(raw.encode(GOLDEN_TEXTS), axis=1) - 1).max() > 0.01
    assert np.abs(found - unit(raw.encode(GOLDEN_TEXTS))).max() < TOLERANCE
    assert (tmp_path / "model-onnx" / RECORD).is_file()


def test_int8_stores_layers_and_tables_in_8_bits(
    model: SentenceTransformer, exported: Path, exported_int8: Path, texts: list[str]
) -> None:
    encoder = OnnxTextEncoder(exported_int8)
    assert encoder.precision == "int8"
    found = encoder.encode(texts)
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-6
    assert (found * model.encode(texts)).sum(axis=1).min() > 0.99
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


def test_without_torch(exported: Path) -> None:
    program = (
        "import json, sys\n"
        "for name in 'torch transformers sentence_transformers onnx onnxscript huggingface_hub PIL scipy'.split():\n"
        "    sys.modules[name] = None\n"
        "from turkish_clip.onnx_runtime import OnnxTextEncoder\n"
        f"print(json.dumps(OnnxTextEncoder({str(exported)!r}, threads=1).encode(['kırmızı ev', 'kuş']).tolist()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert np.array_equal(
        np.float32(json.loads(done.stdout)), OnnxTextEncoder(exported, threads=1).encode(["kırmızı ev", "kuş"])
    )
    assert done.stderr == ""


def test_no_texts_no_rows(exported: Path) -> None:
    found = OnnxTextEncoder(exported).encode([])
    assert (found.dtype, found.shape) == (np.float32, (0, 16))


def test_the_same_model_gives_the_same_files_without_a_path_of_the_machine(model_folder: Path, exported: Path) -> None:
    again = export_onnx(model_folder, exported.parent / "again").folder
    for name in (GRAPH, TOKENIZER, RECORD):
        content = (exported / name).read_bytes()
        assert content == (again / name).read_bytes()
        for place in (str(Path.cwd()), sys.prefix, "site-packages", str(model_folder)):
            assert place.encode() not in content


@pytest.mark.slow
def test_weights_beyond_a_protobufs_limit_go_beside_the_graph(
    model: SentenceTransformer, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_graph, "LARGEST_FILE", 1)
    written = export_onnx(model_folder, tmp_path / "onnx")
    assert {path.name for path in written.folder.iterdir()} == {GRAPH, f"{GRAPH}.data", TOKENIZER, RECORD}
    found = OnnxTextEncoder(written.folder).encode(GOLDEN_TEXTS)
    assert np.abs(found - model.encode(list(GOLDEN_TEXTS))).max() < TOLERANCE


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
def test_a_run_names_its_image_model(model_folder: Path, tiny_clip: Path, tmp_path: Path) -> None:
    run = tmp_path / "mine"
    shutil.copytree(model_folder, run / "model")
    record = {"image_model": {"id": str(tiny_clip), "revision": "", "weights_sha256": "ab" * 32}}
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")
    (run / "model" / "turkish_clip.json").write_text('{"temperature": 0.02}', encoding="utf-8")
    written = export_onnx(run)
    assert (written.folder, written.record["model"]) == (tmp_path / "mine-onnx", "mine")
    assert written.record["temperature"] == 0.02
    assert OnnxTextEncoder(written.folder).image_model == ImageModel(tiny_clip.name, "", "ab" * 32)


@pytest.mark.usefixtures("traced_before")
def test_an_image_model_is_recorded_where_it_is_given_alone(model_folder: Path, exported: Path, tmp_path: Path) -> None:
    assert OnnxTextEncoder(exported).image_model is None
    given = export_onnx(model_folder, tmp_path / "onnx", image_model="clip-ViT-B-32")
    assert OnnxTextEncoder(given.folder).image_model == ImageModel("clip-ViT-B-32", "", "")


@pytest.mark.parametrize(
    "target",
    [
        "turkish_clip.onnx_export:write_tokenizer",
        pytest.param("turkish_clip.onnx_graph:_traced", marks=pytest.mark.slow),
        pytest.param("turkish_clip.onnx_export:compare", marks=pytest.mark.slow),
        pytest.param("turkish_clip.atomic:_sync", marks=pytest.mark.slow),
    ],
)
def test_killed_leaves_nothing_or_the_old(model_folder: Path, exported: Path, tmp_path: Path, target: str) -> None:
    argv = ["export", str(model_folder), "--onnx", "--output", str(tmp_path / "onnx")]
    run_killed("turkish_clip.cli", target, 1, argv)
    assert not (tmp_path / "onnx").exists()
    shutil.copytree(exported, tmp_path / "onnx")
    run_killed("turkish_clip.cli", target, 1, [*argv, "--int8"])
    assert OnnxTextEncoder(tmp_path / "onnx").precision == "float32"
    assert export_onnx(model_folder, tmp_path / "onnx", int8=True).record["precision"] == "int8"
    assert [path.name for path in tmp_path.iterdir()] == ["onnx"]


def test_a_full_disk_leaves_the_old(
    model_folder: Path,
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
    with pytest.raises(SystemExit) as left:
        cli.main(["export", str(model_folder), "--onnx", "--output", str(tmp_path / "onnx")])
    assert left.value.code == 2
    assert "error: expected to read and write files, got [Errno 28]" in capsys.readouterr().err
    assert OnnxTextEncoder(tmp_path / "onnx").dim == 16
    assert [path.name for path in tmp_path.iterdir()] == ["onnx"]


def test_what_is_no_export_is_not_replaced(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_text("x", encoding="utf-8")
    for place in (tmp_path / "photos", tmp_path / "photos" / "1.jpg"):
        with pytest.raises(OnnxError, match="expected a new folder or an older export, got .* name another"):
            export_onnx(model_folder, place)
    assert (tmp_path / "photos" / "1.jpg").read_text(encoding="utf-8") == "x"


def test_what_can_not_be_exported(
    model_folder: Path, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        OnnxError, match="expected a text encoder such as a BERT, or a pair with one, got .*Transformer"
    ):
        export_onnx(tiny_clip, tmp_path / "onnx")
    shutil.copytree(model_folder, tmp_path / "model")
    settings = tmp_path / "model" / "config_sentence_transformers.json"
    prompts = {"prompts": {"query": "soru: "}, "default_prompt_name": "query"}
    settings.write_text(json.dumps({**json.loads(settings.read_text(encoding="utf-8")), **prompts}), encoding="utf-8")
    with pytest.raises(OnnxError, match="expected a text encoder without a prompt, got .* 'query'"):
        export_onnx(tmp_path / "model", tmp_path / "onnx")

    def untraceable(*_: object, **__: object) -> None:
        raise torch.onnx.OnnxExporterError("no such operator\nand more")

    monkeypatch.setattr(torch.onnx, "export", untraceable)
    with pytest.raises(OnnxError, match="expected a model that torch.onnx can write, got .*no such operator; what is"):
        export_onnx(model_folder, tmp_path / "onnx")
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
def test_other_vectors_than_the_models_are_not_written(
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    int8: bool,
    found: tuple[float, float],
    message: str,
) -> None:
    monkeypatch.setattr(onnx_export, "compare", lambda *_: found)
    monkeypatch.setattr(onnx_export, "write_graph", lambda *_, **__: None)
    with pytest.raises(OnnxError, match=message):
        export_onnx(model_folder, tmp_path / "onnx", int8=int8)
    assert not list(tmp_path.iterdir())


def damaged(exported: Path, folder: Path, name: str, content: bytes) -> Path:
    shutil.copytree(exported, folder)
    (folder / name).write_bytes(content)
    return folder


def test_folders_that_do_not_run(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    whole = (exported / GRAPH).read_bytes()
    record = json.loads((exported / RECORD).read_text(encoding="utf-8"))
    other = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])],
        "other",
        [onnx.helper.make_tensor_value_info("x", 1, [1])],
        [onnx.helper.make_tensor_value_info("y", 1, [1])],
    )
    foreign = onnx.helper.make_model(other, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)])
    newer, torn = json.dumps({**record, "format": 2}).encode(), json.dumps({"format": 1}).encode()
    cases: list[tuple[Path, str]] = [
        (tmp_path / "none", "expected a folder, got .*none, which is none; write it: turkish-clip export"),
        (tmp_path / "empty", f"expected {RECORD} in .*empty, got none: it is not an export"),
        (damaged(exported, tmp_path / "1", RECORD, b"{"), "expected an export in .*1, got JSONDecodeError"),
        (damaged(exported, tmp_path / "2", RECORD, torn), "expected an export in .*2, got KeyError: 'dim'"),
        (damaged(exported, tmp_path / "3", RECORD, newer), "expected an export of format 1, got 2 in .*; export again"),
        (damaged(exported, tmp_path / "4", GRAPH, whole[: len(whole) // 2]), "expected a graph in .*4.model.onnx, got"),
        (damaged(exported, tmp_path / "5", GRAPH, foreign.SerializeToString()), "got one from x to y; export again"),
        (damaged(exported, tmp_path / "6", TOKENIZER, b"{}"), "expected a tokenizer in .*6.tokenizer.json, got"),
    ]
    for folder, message in cases:
        with pytest.raises(OnnxError, match=message):
            OnnxTextEncoder(folder)


def test_what_does_not_fit_is_said(exported: Path) -> None:
    wrong: Any = ["ev", None]
    encoder = OnnxTextEncoder(exported)
    with pytest.raises(OnnxError, match="expected a list of texts, got one text"):
        encoder.encode("ev")
    with pytest.raises(OnnxError, match="expected texts, got a NoneType at place 1"):
        encoder.encode(wrong)
    with pytest.raises(OnnxError, match="expected a batch size of at least 1, got 0"):
        encoder.encode(["ev"], batch_size=0)
    with pytest.raises(OnnxError, match="expected at least 1 thread, got 0"):
        OnnxTextEncoder(exported, threads=0)
    with pytest.raises(OnnxError, match="got AbacusExecutionProvider; it has .*CPUExecutionProvider"):
        OnnxTextEncoder(exported, providers=["AbacusExecutionProvider"])
    chosen = OnnxTextEncoder(exported, threads=1, providers=["CPUExecutionProvider"])
    assert chosen._session.get_session_options().intra_op_num_threads == 1


def test_a_missing_extra_is_named(
    model_folder: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(OnnxError, match=r'expected onnxruntime, got none .*; pip install "turkish-clip\[onnx\]"'):
        OnnxTextEncoder(exported)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(OnnxError, match="expected tokenizers, got none installed"):
        OnnxTextEncoder(exported)
    monkeypatch.undo()
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None)
    with pytest.raises(OnnxError, match="expected onnx, got none installed"):
        export_onnx(model_folder, tmp_path / "onnx")


def test_the_command(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.setattr("turkish_clip.verify.quiet", lambda: None)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model_folder, tmp_path / "mine")
    with pytest.raises(SystemExit) as left:
        cli.main(["export", "mine", "--onnx", "--int8", "--json"])
    told = json.loads(capfd.readouterr().out)  # one object, and nothing else: torch talks, unless it is told not to
    assert left.value.code == 0
    assert (told["folder"], told["precision"], told["image_model"]) == ("mine-onnx-int8", "int8", None)
    assert told["golden_cosine"] > 0.99
    assert told["bytes"] == sum(path.stat().st_size for path in (tmp_path / "mine-onnx-int8").iterdir())
    with pytest.raises(SystemExit):
        cli.main(["export", "mine", "--onnx", "--image-model", "clip-ViT-B-32"])
    printed = capfd.readouterr().out
    assert "mine-onnx: mine in float32" in printed
    assert "vectors of pictures by clip-ViT-B-32" in printed
    for argv, message in (
        (["export", "mine"], "expected a format, got none; write: turkish-clip export MODEL --onnx"),
        (["export", "--onnx"], "expected a model, got none"),
        (["export", "missing/model", "--onnx"], "expected a model at 'missing/model', got"),
        (["export", "mine", "--onnx", "--output", "."], "expected a new folder or an older export"),
    ):
        with pytest.raises(SystemExit) as left:
            cli.main(argv)
        last = capfd.readouterr().err.strip().splitlines()[-1]
        assert left.value.code == 2
        assert last.startswith("error: ")
        assert message in last
