"""The scratch backbone: learnt words are single tokens, Turkish case is right, and the vocabulary is reproducible."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from training.run.config import DistillConfig
from training.small_models.models import write_scratch_backbone
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
