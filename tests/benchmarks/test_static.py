"""A static text side against a BERT-base of the same vocabulary and its ONNX int8: captions a second, one thread.

Weights are random, 32,000 tokens of 768 under 768 → 512. All take turns in one process; `make bench` prints the ratios.
The slow ones encode the first captions of those of the static one; what is compared is µs a caption.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from ratios import report, seconds_of
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from transformers import BertConfig, BertModel

from training.mini.captions import turkish_caption
from training.mini.scene import random_scene
from training.small_models.vocabularies import learn_wordpiece
from turkish_clip import build_text_encoder, save_text_encoder
from turkish_clip.encoder import bare_tokenizer
from turkish_clip.onnx.export import export_onnx
from turkish_clip.onnx.runtime import OnnxTextEncoder

pytestmark = pytest.mark.bench

BATCH_SIZE, SLOW = 256, 32  # captions of a batch; those that the slow ones encode
ROUNDS, REPEATS = 3, 4
GOALS = {"BERT-base": 100, "BERT-base, ONNX int8": 20}  # times as many captions a second


def captions(seed: int, count: int) -> list[str]:
    """As people write them: one sentence, or two."""
    rng = random.Random(seed)
    return [
        " ".join(turkish_caption(random_scene(rng), rng) for _ in range(rng.choice((1, 1, 2)))) for _ in range(count)
    ]


def test_a_static_text_side(tmp_path: Path) -> None:
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=32000)).save_pretrained(tmp_path / "backbone")
    learn_wordpiece(captions(1, 500), 2000, 128).save_pretrained(tmp_path / "backbone")
    bert = build_text_encoder(tmp_path / "backbone", dim=512, device="cpu")
    save_text_encoder(bert, tmp_path / "text")
    int8 = OnnxTextEncoder(export_onnx(tmp_path / "text", tmp_path / "int8", int8=True).folder, threads=1)
    table = StaticEmbedding(bare_tokenizer(bert.tokenizer.backend_tokenizer), embedding_weights=torch.randn(32000, 768))
    modules = [table, Dense(768, 512, activation_function=torch.nn.Identity()), Normalize()]
    static = SentenceTransformer(modules=modules, device="cpu")
    texts = captions(0, BATCH_SIZE)
    ways = {
        "static": lambda: static.encode(texts, batch_size=BATCH_SIZE, show_progress_bar=False),
        "BERT-base": lambda: bert.encode(texts[:SLOW], batch_size=BATCH_SIZE, show_progress_bar=False),
        "BERT-base, ONNX int8": lambda: int8.encode(texts[:SLOW], batch_size=BATCH_SIZE, warn=False),
    }
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for encode in ways.values():
            encode()  # warm
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, encode in ways.items():
                least = min(seconds_of(encode) for _ in range(REPEATS if name == "static" else 1))
                taken[name].append(least / (BATCH_SIZE if name == "static" else SLOW) * 1e6)
    finally:
        torch.set_num_threads(before)
    for name, goal in GOALS.items():
        ratio = report("static text side, one thread", name, taken["static"], taken[name], "µs a caption")
        assert ratio >= goal
