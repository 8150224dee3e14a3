"""Tiny real models and a small captioned folder, made once; nothing here reaches a network."""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["LANGUAGE"] = "en"  # wherever the tests run, commands speak English unless a test asks otherwise
# The cache of the datasets library knows a local folder by its name alone if its README has configs
# (findings/datasets-local-folder-answers-for-another.sh): a test would get the rows of one that ran days ago.
os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp(prefix="datasets-")

import pytest
from samples import paint

if TYPE_CHECKING:
    from turkish_clip.dual_encoder import DualEncoder
    from turkish_clip.search.index import ImageIndex

WORDS = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] kırmızı mavi sarı bir iki ev evin üstünde altında ağaç çiçek köpek İstanbul "
    "istanbul ankara da ##da ' . , kuş var ısparta Ispartalı şeker"
).split()


def pytest_unconfigure() -> None:
    """Removes the cache of data sets."""
    shutil.rmtree(os.environ["HF_DATASETS_CACHE"], ignore_errors=True)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT in BERTurk's layout: vocab.txt without tokenizer.json, cased, 512 positions."""
    import torch
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false, "max_len": 512}', encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of 32-pixel images and 16-wide vectors, random weights."""
    from training.run.config import PretrainConfig
    from training.small_models.models import build_clip, build_processor, save_clip

    config = PretrainConfig(
        captions="x",
        run="x",
        image_size=32,
        vision_layers=1,
        vision_hidden=32,
        text_layers=1,
        text_hidden=32,
        vocabulary=514,
        caption_tokens=16,
        dim=16,
    )
    processor = build_processor(["a red house above a blue bird", "two yellow suns"], config)
    folder = tmp_path_factory.mktemp("clip") / "model"
    save_clip(build_clip(processor, config), processor, folder)
    return folder


@pytest.fixture(scope="session")
def captioned_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 small images with Turkish and English captions and splits, as the imagefolder convention has them."""
    from training.mini.world import WorldSize, write_world

    folder = tmp_path_factory.mktemp("source") / "images"
    write_world(folder, WorldSize(train=32, validation=6, test=10))
    return folder


@pytest.fixture(scope="session")
def pair_folder(tiny_bert: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pair of the tiny models: 16-wide vectors, random weights."""
    import torch

    from turkish_clip import build_text_encoder, pair, save_text_encoder

    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("pair") / "model"
    text = build_text_encoder(tiny_bert, dim=16, max_tokens=32, device="cpu")
    save_text_encoder(pair(text, tiny_clip, device="cpu"), folder)
    return folder


@pytest.fixture(scope="session")
def text_folder(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved text encoder of the tiny BERT: 16-wide vectors, up to 128 tokens, random weights."""
    import torch

    from turkish_clip import build_text_encoder, save_text_encoder

    torch.manual_seed(2)
    folder = tmp_path_factory.mktemp("text") / "model"
    save_text_encoder(build_text_encoder(tiny_bert, dim=16, max_tokens=128, device="cpu"), folder)
    return folder


@pytest.fixture(scope="session")
def exported(text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as an ONNX folder in float32."""
    from turkish_clip.onnx.export import export_onnx

    return export_onnx(text_folder, tmp_path_factory.mktemp("exported") / "onnx").folder


@pytest.fixture(scope="session")
def encoder(pair_folder: Path) -> DualEncoder:
    from turkish_clip.dual_encoder import load_dual_encoder

    return load_dual_encoder(pair_folder, device="cpu")


@pytest.fixture(scope="session")
def indexed(captioned_folder: Path, encoder: DualEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of ten images with its index."""
    from turkish_clip.search.index import ImageIndex

    folder = tmp_path_factory.mktemp("photos") / "mine"
    folder.mkdir()
    for path in sorted((captioned_folder / "test").glob("*.png")):
        (folder / path.name).write_bytes(path.read_bytes())
    ImageIndex.open(folder / ".turkish-clip", encoder).add(folder)
    return folder


@pytest.fixture
def small_model(pair_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Subcommands take a tiny pair for their model, and write no text encoder beside an index."""
    monkeypatch.setenv("TURKISH_CLIP_MODEL", str(pair_folder))
    monkeypatch.setattr("turkish_clip.verify.quiet", lambda: None)
    monkeypatch.setattr("turkish_clip.search.text_encoder.WRITING", ("none",))  # which takes seconds, test_asking.py


@pytest.fixture
def without_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if none of the libraries that read HEIC, RAW, videos and sounds were installed."""
    monkeypatch.setattr("turkish_clip.images.has_library", lambda kind: False)
    monkeypatch.setattr("turkish_clip.folders.has_library", lambda kind: False)
    monkeypatch.setattr("turkish_clip.clips.has_library", lambda kind: False)


@pytest.fixture
def rng() -> random.Random:
    return random.Random(0)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six images, half of them in a subfolder."""
    folder = tmp_path / "photos"
    for number in range(6):
        paint(folder / f"{'sub/' if number % 2 else ''}{number}.png", number)
    return folder


@pytest.fixture
def index(tmp_path: Path, encoder: DualEncoder, photos: Path) -> ImageIndex:
    """An index of the six."""
    from turkish_clip.search.index import ImageIndex

    made = ImageIndex.open(tmp_path / "index", encoder)
    made.add(photos)
    return made


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Ends a run of the benchmarks with their ratios as one table."""
    ratios = sys.modules.get("ratios")  # tests/helpers/ratios.py, where a benchmark ran
    if ratios is not None and ratios.KEPT:
        terminalreporter.section("ratios")
        terminalreporter.write_line(ratios.table(ratios.KEPT))
