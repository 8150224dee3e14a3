"""Text encoding at full size, BERT-base from its configuration under 768 → 512: plain against bfloat16 and ONNX.

Plain is what a user would do otherwise: SentenceTransformer.encode in float32. All take turns in one process, with two
threads; `make bench` prints the ratios.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from ratios import report
from transformers import BertConfig, BertModel

from training.mini.captions import turkish_caption
from training.mini.scene import random_scene
from training.small_models.vocabularies import learn_wordpiece
from turkish_clip import build_text_encoder, save_text_encoder
from turkish_clip.metrics import Vectors, unit
from turkish_clip.onnx.export import export_onnx
from turkish_clip.onnx.runtime import OnnxTextEncoder

pytestmark = pytest.mark.bench

THREADS = 2
CAPTIONS, BATCH_SIZE = 256, 32
ROUNDS, QUERIES_A_ROUND = 5, 5
QUERY = "gece mavi bir balık"
GOAL = 3  # times as fast as plain

Encode = Callable[[list[str]], Vectors]


def captions(seed: int, count: int) -> list[str]:
    """As people write them: one sentence, or two."""
    rng = random.Random(seed)
    return [
        " ".join(turkish_caption(random_scene(rng), rng) for _ in range(rng.choice((1, 1, 2)))) for _ in range(count)
    ]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Encode]]:
    """Each way to encode, warm."""
    folder = tmp_path_factory.mktemp("bert-base")
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=32000)).save_pretrained(folder / "backbone")
    learn_wordpiece(captions(1, 500), 2000, 128).save_pretrained(folder / "backbone")
    plain = build_text_encoder(folder / "backbone", dim=512, device="cpu")
    save_text_encoder(plain, folder / "text")
    bfloat16 = copy.deepcopy(plain).to(torch.bfloat16)

    def in_bfloat16(texts: list[str]) -> Vectors:
        vectors = bfloat16.encode(texts, batch_size=BATCH_SIZE, show_progress_bar=False, convert_to_tensor=True)
        return unit(vectors.float().numpy())

    ways: dict[str, Encode] = {
        "plain": lambda texts: plain.encode(texts, batch_size=BATCH_SIZE, show_progress_bar=False),
        "bfloat16": in_bfloat16,
    }
    for name, int8 in (("ONNX float32", False), ("ONNX int8", True)):
        written = export_onnx(folder / "text", folder / name, int8=int8)
        print(f"\n{name}: {written.bytes / 1e6:.0f} MB, least golden cosine {written.text.cosine:.5f}")
        encoder = OnnxTextEncoder(written.folder, threads=THREADS)
        ways[name] = lambda texts, encoder=encoder: encoder.encode(texts, batch_size=BATCH_SIZE)  # type: ignore[misc]
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield ways
    torch.set_num_threads(before)


def speedups(encoders: dict[str, Encode], texts: list[str], rounds: int, repeats: int, title: str) -> dict[str, float]:
    """Times each way in turn, and returns their ratios to plain, medians of the pairs."""
    own = encoders["plain"](texts)
    least = {name: float((encode(texts) * own).sum(axis=1).min()) for name, encode in encoders.items()}  # and warm up
    seconds: dict[str, list[float]] = {name: [] for name in encoders}
    for _ in range(rounds):
        for name, encode in encoders.items():
            for _ in range(repeats):
                began = time.perf_counter()
                encode(texts)
                seconds[name].append(time.perf_counter() - began)
    ratios = {}
    for name, taken in seconds.items():
        if name != "plain":
            ratios[name] = report(f"{title}, {name}", f"plain float32, {THREADS} threads", taken, seconds["plain"])
            print(f"least cosine to plain {least[name]:.5f}")
    return ratios


def test_one_query(encoders: dict[str, Encode]) -> None:
    found = speedups(encoders, [QUERY], ROUNDS, QUERIES_A_ROUND, "one query")
    assert found["ONNX int8"] >= GOAL


def test_a_batch(encoders: dict[str, Encode]) -> None:
    texts = captions(0, CAPTIONS)
    words = np.array([len(text.split()) for text in texts])
    title = f"{CAPTIONS} captions of {words.min()} to {words.max()} words (median {np.median(words):.0f})"
    found = speedups(encoders, texts, ROUNDS, 1, title)
    assert max(found["bfloat16"], found["ONNX int8"]) >= GOAL
