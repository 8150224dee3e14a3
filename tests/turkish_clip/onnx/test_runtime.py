"""An exported text encoder gives the vectors of its model without torch, and refuses bad input."""

from __future__ import annotations

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
from sentence_transformers import SentenceTransformer

from turkish_clip.encoder import load_model
from turkish_clip.onnx import export as onnx_export
from turkish_clip.onnx.export import export_onnx
from turkish_clip.onnx.runtime import GRAPH, RECORD, TOKENIZER, WEIGHTS, OnnxError, OnnxTextEncoder
from turkish_clip.verify import GOLDEN_TEXTS

KNOWN = "kırmızı mavi sarı bir iki ev evin üstünde altında ağaç çiçek köpek İstanbul ankara kuş var".split()
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def model(text_folder: Path) -> SentenceTransformer:
    return load_model(text_folder, device="cpu")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Returns shuffled texts of every length from 0 to beyond the limit, and the golden sentences in NFC and NFD."""
    rng = random.Random(0)
    found = [" ".join(rng.choices(KNOWN, k=words)) for words in (*range(127), 127, 128, 200)]
    found += [unicodedata.normalize(form, text) for form in ("NFC", "NFD") for text in GOLDEN_TEXTS]
    rng.shuffle(found)
    return found


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


def test_the_turkish_normalizer_is_exported(exported: Path) -> None:
    encoder = OnnxTextEncoder(exported)
    plain = ["Ispartalı iki köpek", "ankara'da şeker", "İstanbul"]
    typed = ["Ispartalı iki köpek", "ankara\u2019da şeker", "İstanbul"]
    typed = [unicodedata.normalize("NFD", text) for text in typed]
    assert np.array_equal(encoder.encode(typed), encoder.encode(plain))


def test_without_torch(exported: Path) -> None:
    program = (
        "import json, sys\n"
        "for name in 'torch transformers sentence_transformers onnx onnxscript huggingface_hub PIL scipy'.split():\n"
        "    sys.modules[name] = None\n"
        "from turkish_clip.onnx import OnnxTextEncoder\n"
        f"print(json.dumps(OnnxTextEncoder({str(exported)!r}, threads=1).encode(['kırmızı ev', 'kuş']).tolist()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert np.array_equal(
        np.float32(json.loads(done.stdout)), OnnxTextEncoder(exported, threads=1).encode(["kırmızı ev", "kuş"])
    )
    assert done.stderr == ""


def test_no_texts_give_no_rows(exported: Path) -> None:
    found = OnnxTextEncoder(exported).encode([])
    assert (found.dtype, found.shape) == (np.float32, (0, 16))


def damaged(exported: Path, folder: Path, name: str, content: bytes) -> Path:
    shutil.copytree(exported, folder)
    (folder / name).write_bytes(content)
    return folder


def test_damaged_or_other_folders(exported: Path, tmp_path: Path) -> None:
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
    older, torn = json.dumps({**record, "format": 2}).encode(), json.dumps({"format": 3}).encode()
    cases: list[tuple[Path, str]] = [
        (tmp_path / "none", "expected a folder, got .*none, which is not one; write it: turkish-clip export"),
        (tmp_path / "empty", f"expected {RECORD} in .*empty, got none: it is no export of a text encoder"),
        (
            damaged(exported, tmp_path / "1", RECORD, b"{"),
            f"expected {RECORD} of format 3 in .*1, got Expecting property name .*; export again",
        ),
        (
            damaged(exported, tmp_path / "2", RECORD, torn),
            f"expected {RECORD} of format 3 in .*2, got no field 'model'; export again",
        ),
        (damaged(exported, tmp_path / "3", RECORD, older), "of format 3 in .*3, got format 2; export again"),
        (damaged(exported, tmp_path / "4", GRAPH, whole[: len(whole) // 2]), "expected a graph in .*4.model.onnx, got"),
        (damaged(exported, tmp_path / "5", GRAPH, foreign.SerializeToString()), "got one from x to y; export again"),
        (damaged(exported, tmp_path / "6", TOKENIZER, b"{}"), "expected a tokenizer in .*6.tokenizer.json, got"),
    ]
    for folder, message in cases:
        with pytest.raises(OnnxError, match=message):
            OnnxTextEncoder(folder)


@pytest.mark.parametrize("name", [GRAPH, TOKENIZER])
def test_files_of_two_exports_are_not_mixed(name: str, exported: Path, tmp_path: Path) -> None:
    """Which would give vectors that mean nothing."""
    content = (exported / name).read_bytes()
    if name == GRAPH:
        graph = onnx.load(exported / name)
        onnx.helper.set_model_props(graph, {WEIGHTS: "0" * 64})
        content = graph.SerializeToString()
    else:
        content = content.replace("ğ".encode(), "ç".encode(), 1)
    folder = damaged(exported, tmp_path / "mixed", name, content)
    with pytest.raises(OnnxError, match=f"expected {name} of the same export as {RECORD} in .*; export again"):
        OnnxTextEncoder(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": "16"}, "got '16' as 'dim'"),
        ({"dim": 7}, "expected vectors of 7 numbers, as .* says, got 16 from model.onnx"),
        ({"dim": -1}, "got -1 as 'dim', not 1 to 65536"),
        ({"dim": 10**12}, "got 1000000000000 as 'dim', not 1 to 65536"),
        ({"dim": True}, "got 'True' as 'dim'"),
        ({"dim": None}, "got 'None' as 'dim'"),
        ({"max_tokens": -1}, "got -1 as 'max_tokens'"),
        ({"temperature": 1e-320}, "as 'temperature', not 0.0001 to 100.0"),
        ({"temperature": float("inf")}, "got 'inf' as 'temperature'"),
        ({"temperature": float("nan")}, "got 'nan' as 'temperature'"),
        ({"temperature": True}, "got 'True' as 'temperature'"),
        ({"precision": "int4"}, "the precision 'int4', not one of float32, int8"),
        ({"prompt": None}, "got 'None' as 'prompt'"),
        ({"prompt": "\ud800"}, "half a character that no UTF-8 holds, in 'prompt'"),
        ({"image_model": ["x"]}, "as 'image_model'"),
        ({"image_model": {"id": 1}}, "got '1' as 'id'"),
    ],
)
def test_numbers_of_a_record_that_do_not_fit(
    change: dict[str, Any], message: str, exported: Path, tmp_path: Path
) -> None:
    record = json.loads((exported / RECORD).read_text(encoding="utf-8")) | change
    folder = damaged(exported, tmp_path / "export", RECORD, json.dumps(record).encode())
    with pytest.raises(OnnxError, match=f"{message}.*; export again"):
        OnnxTextEncoder(folder).encode(["ev"])


@pytest.mark.parametrize(
    "content", ["[]", "null", "2", '"x"', "[" * 100_000, '{"format": 3, "dim": ' + "9" * 5000 + "}"]
)
def test_a_record_that_is_no_object(content: str, exported: Path, tmp_path: Path) -> None:
    folder = damaged(exported, tmp_path / "export", RECORD, content.encode())
    with pytest.raises(OnnxError, match="expected turkish_clip_onnx.json of format 3 .*; export again"):
        OnnxTextEncoder(folder)


def test_texts_that_are_no_utf_8(exported: Path) -> None:
    with pytest.raises(OnnxError, match=r"expected texts in UTF-8, got .*xe7i.* at position 1; correct it"):
        OnnxTextEncoder(exported).encode(["ev", os.fsdecode(b"\xe7i\xe7ek")])


def test_texts_that_can_be_read_but_once(exported: Path) -> None:
    encoder = OnnxTextEncoder(exported)
    texts = ["ev", "mavi bir kuş", "ağaç"]
    expected = encoder.encode(texts)
    for read_once in (iter(texts), (text for text in texts), dict.fromkeys(texts), np.array(texts)):
        assert np.array_equal(encoder.encode(read_once), expected)


def test_bad_arguments(exported: Path) -> None:
    wrong: Any = ["ev", None]
    encoder = OnnxTextEncoder(exported)
    with pytest.raises(OnnxError, match="expected a list of texts, got one text"):
        encoder.encode("ev")
    with pytest.raises(OnnxError, match="expected a list of texts, got a int; write"):
        encoder.encode(7)  # type: ignore[arg-type]
    with pytest.raises(OnnxError, match="expected texts, got a NoneType at position 1"):
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
    text_folder: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(OnnxError, match=r'expected onnxruntime, got none .*: pip install -e "\.\[onnx\]"'):
        OnnxTextEncoder(exported)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(OnnxError, match="expected tokenizers, got none installed"):
        OnnxTextEncoder(exported)
    monkeypatch.undo()
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None)
    with pytest.raises(OnnxError, match="expected onnx, got none installed"):
        export_onnx(text_folder, tmp_path / "onnx")
