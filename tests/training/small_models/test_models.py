"""Models from scratch: learnt words are single tokens, Turkish case is right, and the vocabulary is reproducible."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from training.run.config import DistillConfig
from training.small_models.models import set_sinusoidal, write_scratch_backbone
from training.small_models.vocabularies import learn_wordpiece
from turkish_clip import build_text_encoder

CAPTIONS = [
    "Kırmızı bir evin üstünde iki kuş.",
    "kırmızı arabanın solunda sarı çiçek",
    "İki kırmızı kuş, Isparta'da",
] * 5


def test_words_of_the_captions_are_single_tokens_in_every_spelling() -> None:
    tokenizer = learn_wordpiece(CAPTIONS, 500, 32)
    assert tokenizer.tokenize("KIRMIZI kırmızı kirmizi çiçek cicek") == "kırmızı kırmızı kirmizi çiçek cicek".split()
    assert tokenizer.tokenize("İKİ iki") == ["iki", "iki"]
    assert tokenizer.unk_token not in tokenizer.tokenize("hiç görülmemiş bir sözcük, wxq!")


def test_the_vocabulary_is_the_same_in_every_process() -> None:
    program = (
        "from training.small_models.vocabularies import learn_wordpiece\n"
        f"print(learn_wordpiece({CAPTIONS!r}, 260, 32).backend_tokenizer.to_str())"
    )
    texts = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout for _ in "ab"
    ]
    assert texts[0].strip() == texts[1].strip() == learn_wordpiece(CAPTIONS, 260, 32).backend_tokenizer.to_str()


def test_it_loads_as_any_backbone(tmp_path: Path) -> None:
    config = DistillConfig(
        captions="x", run="x", scratch_layers=2, scratch_hidden=64, scratch_vocabulary=300, max_tokens=20
    )
    folder = write_scratch_backbone(tmp_path / "backbone", CAPTIONS, config)
    encoder = build_text_encoder(folder, dim=8, max_tokens=20, device="cpu")
    assert encoder.encode(["kırmızı ev"]).shape == (1, 8)
    assert encoder[0].config.num_hidden_layers == 2
    assert encoder.encode(["KIRMIZI EV"]) == pytest.approx(encoder.encode(["kırmızı ev"]))


def test_a_step_to_the_next_position_is_the_same_everywhere() -> None:
    table = torch.zeros(12, 8)
    set_sinusoidal(table)
    scale = 0.04 * math.sqrt(2)
    assert table[0].tolist() == pytest.approx([0, scale] * 4)
    assert table[2, :4].tolist() == pytest.approx(
        [scale * math.sin(2), scale * math.cos(2), scale * math.sin(2 / 1000**0.25), scale * math.cos(2 / 1000**0.25)]
    )
    products = table @ table.T
    assert torch.allclose(products[1:, 1:], products[:-1, :-1], atol=1e-7)
    assert table.square().mean().sqrt().item() == pytest.approx(0.04)
