"""The folder as immich's machine-learning service reads it: names, int32 inputs of one length, square images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from tokenizers import Tokenizer

from turkish_clip import build_text_encoder, save_text_encoder
from turkish_clip.cli import entry
from turkish_clip.dual_encoder import DualEncoder
from turkish_clip.exports import immich
from turkish_clip.exports.export import export_for
from turkish_clip.exports.folder import EXPORT_RECORD, ExportError
from turkish_clip.metrics import Vectors
from turkish_clip.ownership import ForeignFileError
from turkish_clip.preprocessing import FastPreprocessing
from turkish_clip.verify import GOLDEN_TEXTS

MCLIP, OPENCLIP = "XLM-Roberta-Large-Vit-B-32", "ViT-B-32__openai"
TOLERANCE = 1e-5
TEXTS = [*GOLDEN_TEXTS, "kırmızı  ev", " ".join(["iki ev"] * 40)]


@pytest.fixture(scope="module", autouse=True)
def narrow() -> Any:
    """Gives immich's names the width of the tiny models."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(immich, "WIDTHS", {MCLIP: 16, OPENCLIP: 16, "ViT-L-14__openai": 768})
        yield


@pytest.fixture(scope="module")
def written(pair_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_for("immich", pair_folder, tmp_path_factory.mktemp("immich") / "model").folder


class Reader:
    """Reads a model as immich_ml/models/clip of immich 2.5.6 does: textual.py, visual.py and transforms.py."""

    def __init__(self, folder: Path, name: str) -> None:
        def read(path: str) -> dict[str, Any]:
            content: dict[str, Any] = json.loads((folder / path).read_text(encoding="utf-8"))
            return content

        self.name, self.folder = name, folder
        self.images = read("visual/preprocess_cfg.json") if (folder / "visual").is_dir() else {}
        if (folder / "textual").is_dir():
            length = read("config.json")["text_cfg"].get("context_length", 77)
            pad = read("textual/tokenizer_config.json")["pad_token"]
            self.tokenizer = Tokenizer.from_file(str(folder / "textual/tokenizer.json"))
            self.tokenizer.enable_padding(length=length, pad_token=pad, pad_id=self.tokenizer.token_to_id(pad))
            self.tokenizer.enable_truncation(max_length=length)

    def texts(self, texts: list[str]) -> Vectors:
        session = onnxruntime.InferenceSession(str(self.folder / "textual/model.onnx"))
        found = []
        for text in texts:
            tokens = self.tokenizer.encode(" ".join(text.split()))
            ids, mask = (np.array([values], dtype=np.int32) for values in (tokens.ids, tokens.attention_mask))
            given = {"text": ids} if self.name == OPENCLIP else {"input_ids": ids, "attention_mask": mask}
            found.append(session.run(None, given)[0][0])
        return np.array(found)

    def one_image(self, image: Image.Image) -> Vectors:
        size = self.images["size"][0]
        width, height = image.size
        if width < height:
            image = image.resize((size, int((height / width) * size)), resample=Image.Resampling.BICUBIC)
        else:
            image = image.resize((int((width / height) * size), size), resample=Image.Resampling.BICUBIC)
        left, upper = int((image.size[0] / 2) - (size / 2)), int((image.size[1] / 2) - (size / 2))
        image = image.crop((left, upper, left + size, upper + size))
        mean, std = (np.array(self.images[name], dtype=np.float32) for name in ("mean", "std"))
        pixels = (np.asarray(image, dtype=np.float32) / 255.0 - mean) / std
        session = onnxruntime.InferenceSession(str(self.folder / "visual/model.onnx"))
        vectors: Vectors = session.run(None, {"image": np.expand_dims(pixels.transpose(2, 0, 1), 0)})[0][0]
        return vectors


@pytest.mark.parametrize("name", [MCLIP, OPENCLIP])
def test_texts_and_images_get_the_vectors_of_the_model(
    name: str, pair_folder: Path, encoder: DualEncoder, written: Path, tmp_path: Path
) -> None:
    folder = written if name == MCLIP else export_for("immich", pair_folder, tmp_path / "model", name=name).folder
    reader = Reader(folder, name)
    assert np.abs(reader.texts(TEXTS) - encoder.encode_texts(TEXTS, warn=False)).max() < TOLERANCE
    noise = np.random.default_rng(0).integers(0, 256, (41, 77, 3), dtype=np.uint8)
    for image in (Image.fromarray(noise), Image.fromarray(noise.transpose(1, 0, 2))):
        own = next(encoder.embed_images([image])).vectors[0]
        assert np.abs(reader.one_image(image) - own).max() < TOLERANCE


def test_the_files(written: Path) -> None:
    assert {path.relative_to(written).as_posix() for path in written.rglob("*") if path.is_file()} == {
        EXPORT_RECORD,
        "config.json",
        "textual/model.onnx",
        "textual/special_tokens_map.json",
        "textual/tokenizer.json",
        "textual/tokenizer_config.json",
        "visual/model.onnx",
        "visual/preprocess_cfg.json",
    }
    config = json.loads((written / "config.json").read_text(encoding="utf-8"))
    assert config == {
        "embed_dim": 16,
        "text_cfg": {"context_length": 32, "vocab_size": 30},
        "vision_cfg": {"image_size": 32},
    }
    preprocess = json.loads((written / "visual/preprocess_cfg.json").read_text(encoding="utf-8"))
    assert (preprocess["size"], preprocess["interpolation"], preprocess["resize_mode"]) == (
        [32, 32],
        "bicubic",
        "shortest",
    )
    record = json.loads((written / EXPORT_RECORD).read_text(encoding="utf-8"))
    assert (record["name"], record["sides"], record["precision"], record["kind"]) == (
        MCLIP,
        "both",
        "float32",
        "immich",
    )
    assert record["text"]["difference"] < TOLERANCE
    assert record["image"]["difference"] < TOLERANCE


def test_one_side_in_int8(pair_folder: Path, encoder: DualEncoder, tmp_path: Path) -> None:
    folder = export_for("immich", pair_folder, tmp_path / "model", side="text", int8=True, name=OPENCLIP).folder
    assert not (folder / "visual").exists()
    found = Reader(folder, OPENCLIP).texts(["iki ev", "kırmızı köpek"])
    assert (found * encoder.encode_texts(["iki ev", "kırmızı köpek"])).sum(axis=1).min() > 0.95
    with pytest.raises(
        ExportError, match=r"for immich as ViT.* \(images, int8\), got .* for immich as ViT.* \(texts, int8\)"
    ):
        export_for("immich", pair_folder, folder, side="image", int8=True, name=OPENCLIP)


@pytest.mark.slow
def test_the_prompt_stands_in_the_tokenizer(tiny_bert: Path, tiny_clip: Path, tmp_path: Path) -> None:
    model = build_text_encoder(tiny_bert, dim=16, max_tokens=24, device="cpu", prompt="bir kuş: ")
    save_text_encoder(model, tmp_path / "model")
    folder = export_for("immich", tmp_path / "model", tmp_path / "out", side="text", image_model=tiny_clip).folder
    texts = ["kırmızı ev", "İstanbul", " ".join(["ev"] * 60)]
    assert np.abs(Reader(folder, MCLIP).texts(texts) - model.encode(texts)).max() < TOLERANCE


@pytest.mark.parametrize(
    ("image_model", "name"),
    [
        ("clip-ViT-B-32", OPENCLIP),
        ("sentence-transformers/clip-ViT-B-32", OPENCLIP),
        ("openai/clip-vit-base-patch32", OPENCLIP),
        ("clip-ViT-L-14", MCLIP),  # of another width
        ("training/mini/clip", MCLIP),
    ],
)
def test_the_name_follows_the_image_model_and_the_width(image_model: str, name: str) -> None:
    class Named:
        dim, image_name = 16, image_model

    assert immich.name_for(Named()) == name  # type: ignore[arg-type]
    assert immich.name_for(Named(), MCLIP) == MCLIP  # type: ignore[arg-type]


def test_names_and_widths_that_immich_has_not(
    pair_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("turkish-clip", "ViT-L-14__openai"):
        with pytest.raises(
            ExportError, match=f"a model of immich with vectors of 16 numbers, got '{name}'; it has XLM"
        ):
            export_for("immich", pair_folder, tmp_path / "out", name=name)
    monkeypatch.setattr(immich, "WIDTHS", {OPENCLIP: 512, "ViT-L-14__openai": 768})
    with pytest.raises(ExportError, match=r"a width that immich has \(512, 768\), got 16; train for another image"):
        export_for("immich", pair_folder, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_images_that_immich_would_cut_otherwise(
    pair_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = immich.preprocessing_of

    def larger(encoder: DualEncoder) -> tuple[FastPreprocessing, dict[str, Any]]:
        prepare, config = real(encoder)
        return FastPreprocessing(40, prepare.size, prepare.resample, prepare.levels, {}), config

    monkeypatch.setattr(immich, "preprocessing_of", larger)
    with pytest.raises(ExportError, match="cut out of their whole height or width, as immich has them, got .*32 × 32"):
        export_for("immich", pair_folder, tmp_path / "out", side="image")


def test_a_folder_of_immich_itself_is_not_replaced(pair_folder: Path, tmp_path: Path) -> None:
    there = tmp_path / "clip" / MCLIP
    (there / "textual").mkdir(parents=True)
    (there / "textual" / "model.onnx").write_bytes(b"x")
    with pytest.raises(ForeignFileError, match="expected a new folder or an earlier output of the same kind"):
        export_for("immich", pair_folder, there)
    assert (there / "textual" / "model.onnx").read_bytes() == b"x"


def test_the_command(pair_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.setattr("turkish_clip.verify.quiet", lambda: None)
    out = str(tmp_path / "out")
    with pytest.raises(SystemExit) as exit_:
        entry.main(["export", str(pair_folder), "--format", "immich", "--side", "image", "--output", out])
    printed = capfd.readouterr().out
    assert exit_.value.code == 0
    assert "for immich in float32" in printed
    assert f"put it into immich's model cache as clip/{MCLIP}, and name that model in its settings" in printed
    for argv, message in (
        (["--format", "immich", "--name", "mine"], "expected the name of a model of immich"),
        (["--format", "fastembed", "--name", "mine"], "expected --name for immich alone, got it for fastembed"),
        (["--format", "onnx", "--name", "mine"], "expected --name for immich alone, got it for onnx"),
        (["--format", "fastembed", "--side", "both"], "expected --side text for fastembed, got both; leave it out"),
        (["--format", "transformers", "--side", "text"], "expected --side both for transformers, got text"),
        (["--format", "transformers", "--int8"], "expected float32 for transformers, got --int8; leave it out"),
        (["--format", "gguf"], "gguf"),
    ):
        with pytest.raises(SystemExit) as exit_:
            entry.main(["export", str(pair_folder), *argv, "--output", str(tmp_path / "other")])
        last = capfd.readouterr().err.strip().splitlines()[-1]
        assert exit_.value.code == 2
        assert last.startswith("error: ")
        assert message in last
