"""The image tower as a graph: its vectors without torch, its preprocessing, refusals, both sides in one folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from killing import run_killed
from onnx import numpy_helper
from PIL import Image

from turkish_clip.cli import entry
from turkish_clip.dual_encoder import DualEncoder
from turkish_clip.images import ImageError
from turkish_clip.metrics import Vectors
from turkish_clip.onnx import OnnxImageEncoder, OnnxTextEncoder
from turkish_clip.onnx import image_export as module
from turkish_clip.onnx.export import export_onnx
from turkish_clip.onnx.image_runtime import IMAGE_GRAPH, IMAGE_RECORD, PREPROCESSOR
from turkish_clip.onnx.parity import Parity
from turkish_clip.onnx.runtime import GRAPH, RECORD, TOKENIZER, OnnxError
from turkish_clip.preprocessing import FastPreprocessing
from turkish_clip.records import ImageModel

TOLERANCE = 1e-5
CLIP = {
    "do_resize": True,
    "size": {"shortest_edge": 64},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 32, "width": 32},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.25],
    "image_std": [0.5, 0.25, 0.25],
}


@pytest.fixture(scope="module")
def both(pair_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(pair_folder, tmp_path_factory.mktemp("both") / "onnx", side="both").folder


@pytest.fixture(scope="module")
def paths(captioned_folder: Path) -> list[Path]:
    return sorted((captioned_folder / "test").glob("*.png"))


@pytest.fixture(scope="module")
def own(encoder: DualEncoder, paths: list[Path]) -> Vectors:
    return np.concatenate([batch.vectors for batch in encoder.embed_images(paths)])


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_images_get_the_vectors_of_the_model(both: Path, paths: list[Path], own: Vectors, batch_size: int) -> None:
    found = OnnxImageEncoder(both, threads=1).encode(paths, batch_size=batch_size)
    assert (found.dtype, found.shape) == (np.float32, (10, 16))
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-6
    assert np.abs(found - own).max() < TOLERANCE


def test_both_sides_lie_in_one_folder(both: Path, encoder: DualEncoder) -> None:
    assert {path.name for path in both.iterdir()} == {
        GRAPH, TOKENIZER, RECORD, IMAGE_GRAPH, PREPROCESSOR, IMAGE_RECORD,
    }  # fmt: skip
    texts, images = OnnxTextEncoder(both), OnnxImageEncoder(both)
    assert np.abs(texts.encode(["iki ev"]) - encoder.encode_texts(["iki ev"])).max() < TOLERANCE
    assert texts.image_model == images.image_model
    assert isinstance(images.image_model, ImageModel)
    assert images.image_model.weights_sha256 == encoder.image_weights_sha256
    assert (images.dim, images.precision) == (16, "float32")


def test_int8_stores_layers_in_8_bits(pair_folder: Path, tmp_path: Path, paths: list[Path], own: Vectors) -> None:
    written = export_onnx(pair_folder, tmp_path / "onnx", side="image", int8=True)
    assert written.text is None
    assert written.image is not None
    assert 0.95 < written.image.cosine < 1.0
    layers = [
        numpy_helper.to_array(tensor)
        for tensor in onnx.load(written.folder / IMAGE_GRAPH).graph.initializer
        if tensor.name.endswith("_quantized")
    ]
    assert layers
    assert max(int(np.abs(values.astype(int)).max()) for values in layers) <= 64
    found = OnnxImageEncoder(written.folder).encode(paths, batch_size=1)
    assert (found * own).sum(axis=1).min() > 0.95
    with pytest.raises(OnnxError, match=f"expected {RECORD} in .*, got none: it is no export of a text encoder"):
        OnnxTextEncoder(written.folder)


def test_images_of_every_kind(both: Path, paths: list[Path]) -> None:
    encoder = OnnxImageEncoder(both)
    content, image = paths[0].read_bytes(), Image.open(paths[0])
    assert np.array_equal(encoder.encode([content, image]), encoder.encode([str(paths[0]), paths[0]]))
    assert encoder.encode([]).shape == (0, 16)
    with pytest.raises(OnnxError, match=r"expected a list of images, got one; write encode\(\[image\]\)"):
        encoder.encode(paths[0])  # type: ignore[arg-type]
    with pytest.raises(OnnxError, match="expected a batch size of at least 1, got 0"):
        encoder.encode(paths, batch_size=0)
    with pytest.raises(ImageError, match="README"):
        encoder.encode([Path(__file__).parents[2] / "README.md"])


def test_without_torch(both: Path, paths: list[Path], own: Vectors) -> None:
    program = (
        "import json, sys\n"
        "for name in 'torch transformers sentence_transformers onnx onnxscript huggingface_hub tokenizers'.split():\n"
        "    sys.modules[name] = None\n"
        "from turkish_clip.onnx import OnnxImageEncoder\n"
        "print(json.dumps(OnnxImageEncoder(sys.argv[1], threads=1).encode(sys.argv[2:]).tolist()))\n"
    )
    command = [sys.executable, "-c", program, str(both), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ), timeout=120)
    assert np.abs(np.array(json.loads(done.stdout)) - own).max() < TOLERANCE


def test_damaged_or_other_folders(both: Path, pair_folder: Path, tmp_path: Path) -> None:
    def copied(name: str) -> Path:
        return Path(shutil.copytree(both, tmp_path / name))

    with pytest.raises(OnnxError, match=f"expected {IMAGE_RECORD} in .*, got none; write it: turkish-clip export"):
        OnnxImageEncoder(tmp_path)
    other = copied("preprocessor")
    config = json.loads((other / PREPROCESSOR).read_text(encoding="utf-8"))
    (other / PREPROCESSOR).write_text(json.dumps({**config, "resample": 2}), encoding="utf-8")
    with pytest.raises(OnnxError, match=f"expected {PREPROCESSOR} of the same export as {IMAGE_RECORD}"):
        OnnxImageEncoder(other)
    (other / PREPROCESSOR).write_text(json.dumps({**config, "do_normalize": False}), encoding="utf-8")
    with pytest.raises(
        OnnxError, match="expected a resize, a crop and a normalisation in .*, got others; export again"
    ):
        OnnxImageEncoder(other)
    (other / PREPROCESSOR).write_text("[", encoding="utf-8")
    with pytest.raises(OnnxError, match="expected a preprocessor in .*, got JSONDecodeError"):
        OnnxImageEncoder(other)
    other = copied("graph")
    shutil.copy(other / GRAPH, other / IMAGE_GRAPH)
    with pytest.raises(OnnxError, match="expected a graph from pixel_values to sentence_embedding"):
        OnnxImageEncoder(other)
    other = copied("weights")
    graph = onnx.load(other / IMAGE_GRAPH)
    onnx.helper.set_model_props(graph, {"turkish_clip.weights_sha256": "00"})
    onnx.save(graph, other / IMAGE_GRAPH)
    with pytest.raises(OnnxError, match=f"expected {IMAGE_GRAPH} of the same export as {IMAGE_RECORD}"):
        OnnxImageEncoder(other)
    other = copied("record")
    (other / IMAGE_RECORD).write_text('{"format": 1, "dim": 0}', encoding="utf-8")
    with pytest.raises(OnnxError, match=f"expected {IMAGE_RECORD} of format 1"):
        OnnxImageEncoder(other)


@pytest.mark.parametrize(
    ("side", "int8", "message"),
    [
        ("text", False, "an earlier export of texts, got .*, which holds one of both sides; name another"),
        ("image", False, "an earlier export of images, got .*, which holds one of both sides; name another"),
        ("both", True, "an earlier export in int8, got .*, which holds one in float32; name another"),
    ],
)
def test_an_export_of_another_kind_is_not_replaced(
    both: Path, pair_folder: Path, tmp_path: Path, side: str, int8: bool, message: str
) -> None:
    there = Path(shutil.copytree(both, tmp_path / "onnx"))
    with pytest.raises(OnnxError, match=message):
        export_onnx(pair_folder, there, side=side, int8=int8)
    assert OnnxImageEncoder(there).dim == OnnxTextEncoder(there).dim == 16


def test_one_side_is_not_replaced_by_both(exported: Path, pair_folder: Path, tmp_path: Path) -> None:
    there = Path(shutil.copytree(exported, tmp_path / "onnx"))
    with pytest.raises(OnnxError, match="an earlier export of both sides, got .*, which holds one of texts"):
        export_onnx(pair_folder, there, side="both")


@pytest.mark.parametrize(
    "target",
    [
        "turkish_clip.onnx.image_export:write_preprocessor",
        pytest.param("turkish_clip.onnx.export:write_tokenizer", marks=pytest.mark.slow),
        pytest.param("turkish_clip.atomic:_sync", marks=pytest.mark.slow),
    ],
)
def test_a_kill_leaves_nothing_or_the_old_export(both: Path, pair_folder: Path, tmp_path: Path, target: str) -> None:
    argv = ["export", str(pair_folder), "--format", "onnx", "--side", "both", "--output", str(tmp_path / "onnx")]
    run_killed("turkish_clip.cli", target, 1, argv)
    assert not (tmp_path / "onnx").exists()
    if "preprocessor" in target:
        return
    shutil.copytree(both, tmp_path / "onnx")
    record = (tmp_path / "onnx" / IMAGE_RECORD).stat().st_mtime_ns
    run_killed("turkish_clip.cli", target, 1, argv)
    assert (tmp_path / "onnx" / IMAGE_RECORD).stat().st_mtime_ns == record
    assert OnnxImageEncoder(tmp_path / "onnx").dim == 16


def test_a_graph_with_other_vectors_is_not_written(
    pair_folder: Path, both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "write_tower", lambda _, path, **__: shutil.copy(both / IMAGE_GRAPH, path))
    for int8, found, message in (
        (
            False,
            Parity(1.0, 2e-4),
            "own vectors from its graph, got components that differ by 2.0e-04 on the golden im",
        ),
        (
            True,
            Parity(0.9, 0.1),
            "expected int8 vectors with a cosine of at least 0.95 .*, got 0.900 on the golden ima",
        ),
        (False, Parity(float("nan"), float("nan")), "expected the model's own vectors"),
    ):
        monkeypatch.setattr(module.Parity, "of", lambda *_, found=found: found)
        with pytest.raises(OnnxError, match=message):
            export_onnx(pair_folder, tmp_path / "onnx", side="image", int8=int8)
    assert not list(tmp_path.iterdir())


def test_a_processor_that_can_not_be_told_is_refused(
    pair_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(_: object) -> FastPreprocessing | None:
        found = FastPreprocessing.from_config(CLIP)
        assert found is not None
        return found

    monkeypatch.setattr(module.FastPreprocessing, "of", other)
    monkeypatch.setattr(module, "write_tower", lambda *_, **__: None)
    with pytest.raises(
        OnnxError, match="expected an image processor that resizes, crops and normalises, got CLIPImage"
    ):
        export_onnx(pair_folder, tmp_path / "onnx", side="image")


def test_preprocessing_by_its_configuration() -> None:
    found = FastPreprocessing.from_config(CLIP)
    assert found is not None
    assert (found.shortest, found.size, found.resample) == (64, (32, 32), Image.Resampling.BICUBIC)
    assert found.levels[0, [0, 51, 255]] == pytest.approx([-1.0, -0.6, 1.0])  # (level / 255 - 0.5) / 0.5
    assert found.levels[1, [0, 51, 255]] == pytest.approx([-2.0, -1.2, 2.0])
    assert found.levels[2, [0, 51, 255]] == pytest.approx([-1.0, -0.2, 3.0])
    values = found.pixel_values([Image.new("RGB", (90, 40), (255, 51, 0))])
    assert (values.shape, values.dtype) == ((1, 3, 32, 32), np.float32)
    assert values[0, :, 5, 7] == pytest.approx([1.0, -1.2, -1.0])
    siglip = FastPreprocessing.from_config({**CLIP, "do_center_crop": False, "size": {"height": 24, "width": 48}})
    assert siglip is not None
    assert (siglip.shortest, siglip.size) == (None, (48, 24))


@pytest.mark.parametrize(
    "changed",
    [
        {"do_rescale": False},
        {"resample": None},
        {"resample": 77},
        {"image_mean": "no numbers"},
        {"image_std": [0.5, 0.5, 0.0]},
        {"image_std": [0.5, 0.5]},
        {"size": {"longest_edge": 64}},
        {"do_center_crop": False},
        {"crop_size": {"height": 96, "width": 96}},
        {"rescale_factor": None},
    ],
)
def test_other_configurations_are_none(changed: dict[str, Any]) -> None:
    assert FastPreprocessing.from_config({**CLIP, **changed}) is None


def test_the_command(pair_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.setattr("turkish_clip.verify.quiet", lambda: None)
    with pytest.raises(SystemExit) as exit_:
        entry.main(["export", str(pair_folder), "--format", "onnx", "--side", "image", "--output", str(tmp_path / "i")])
    printed = capfd.readouterr().out
    assert exit_.value.code == 0
    assert "in float32" in printed
    assert "images → unit vectors of 16" in printed
    assert "on the golden images: 1.00000" in printed
    with pytest.raises(SystemExit):
        entry.main([
            "export", str(pair_folder), "--format", "onnx", "--side", "both", "--output", str(tmp_path / "b"), "--json",
        ])  # fmt: skip
    record = json.loads(capfd.readouterr().out)
    assert record["text"]["difference"] < 1e-5
    assert record["image"]["difference"] < 1e-5
    assert record["bytes"] == sum(path.stat().st_size for path in (tmp_path / "b").iterdir())
