"""The text bank holds vectors of drawn texts, is read back bit for bit, and is refused where it does not fit."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from sentence_transformers import SentenceTransformer

from turkish_clip.bank import BANK, MAX_BYTES, BankError, TextBank, draw_texts, read_bank, write_bank
from turkish_clip.dual_encoder import DualEncoder, load_dual_encoder
from turkish_clip.metrics import Vectors, unit
from turkish_clip.verify import RECORD, ModelRecord

TEXTS = [f"{number} kırmızı ev" for number in range(120)]


def encode(texts: list[str]) -> Vectors:
    return np.stack([unit(np.random.default_rng(len(text)).standard_normal((1, 8)))[0] for text in texts])


def test_texts_are_drawn_by_their_hash_whatever_their_order() -> None:
    by_hash = sorted(TEXTS, key=lambda text: hashlib.sha256(text.encode()).digest())
    assert draw_texts(TEXTS, 7) == draw_texts(reversed(TEXTS * 2), 7) == by_hash[:7]
    assert draw_texts(TEXTS, 500) == by_hash
    assert draw_texts([], 3) == []


def test_a_bank_is_read_as_it_was_written(tmp_path: Path) -> None:
    bank = TextBank.of(["", " ", *TEXTS], encode, 8, "abc")
    assert bank.vectors.shape == (120, 8)
    write_bank(tmp_path, bank)
    read = read_bank(str(tmp_path), None, bank.describe())
    assert (read.vectors == bank.vectors).all()
    assert (read.weights_sha256, read.sha256) == ("abc", hashlib.sha256(bank.vectors.tobytes()).hexdigest())
    assert np.linalg.norm(read.unit_vectors, axis=1) == pytest.approx(1, abs=1e-6)
    assert set(load_file(tmp_path / BANK)) == {"vectors"}  # and no text


def test_a_bank_is_of_at_most_two_megabytes() -> None:
    texts = (str(number) for number in range(3000))
    bank = TextBank.of(texts, lambda drawn: np.ones((len(drawn), 512), np.float32), 512, "")
    assert bank.vectors.shape == (1953, 512)
    assert bank.vectors.nbytes <= MAX_BYTES


def test_too_few_texts_are_refused() -> None:
    with pytest.raises(BankError, match="expected at least 100 different texts .*, got 99; add texts, or leave"):
        TextBank.of(TEXTS[:99] * 2, encode, 8, "")


def test_a_missing_damaged_or_other_bank_is_refused(tmp_path: Path) -> None:
    bank = TextBank.of(TEXTS, encode, 8, "abc")
    with pytest.raises(BankError, match=rf"expected {BANK} beside .*, got .*; download or publish it again"):
        read_bank(str(tmp_path), None, bank.describe())
    (tmp_path / BANK).write_bytes(b"no tensors")
    with pytest.raises(BankError, match=rf"expected {BANK} beside .*, got .*; download or publish it again"):
        read_bank(str(tmp_path), None, bank.describe())
    for other in (bank.vectors[1:], bank.vectors.astype(np.float32)):
        save_file({"vectors": np.ascontiguousarray(other)}, tmp_path / BANK)
        with pytest.raises(BankError, match=f"expected the {BANK} that the record of .* names, got another one"):
            read_bank(str(tmp_path), None, bank.describe())


@pytest.fixture
def banked(pair_folder: Path, encoder: DualEncoder, tmp_path: Path) -> Path:
    """The pair of the tiny models with a record and a text bank beside it."""
    folder = shutil.copytree(pair_folder, tmp_path / "pair")
    bank = TextBank.of(TEXTS, encoder.encode_texts, 16, encoder.text_weights_sha256)
    write_bank(folder, bank)
    record = ModelRecord(kind="paired", dim=16, max_tokens=32, weights_sha256="", image_model={}, bank=bank.describe())
    (folder / RECORD).write_text(record.to_json(), encoding="utf-8")
    return folder


def test_a_model_brings_its_bank_and_loads_as_before(
    banked: Path, pair_folder: Path, encoder: DualEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    assert encoder.bank is None
    bank = load_dual_encoder(banked, device="cpu").bank
    assert bank is not None
    assert len(bank.vectors) == 120
    texts = ["kırmızı ev", "mavi kuş"]
    plain = SentenceTransformer(str(banked), device="cpu").encode(texts)
    assert (plain == SentenceTransformer(str(pair_folder), device="cpu").encode(texts)).all()
    write_bank(banked, TextBank(bank.vectors, "other"))
    assert load_dual_encoder(banked, device="cpu").bank is None
    assert "bank.safetensors of" in caplog.text
    assert json.loads((banked / RECORD).read_text(encoding="utf-8"))["bank"]["texts"] == 120


def test_a_text_encoder_has_one_hash_alone_and_in_a_pair(text_folder: Path, tiny_clip: Path, tmp_path: Path) -> None:
    from turkish_clip import pair, save_text_encoder

    save_text_encoder(pair(str(text_folder), str(tiny_clip), device="cpu"), tmp_path / "pair")
    alone = load_dual_encoder(text_folder, tiny_clip, device="cpu")
    assert load_dual_encoder(tmp_path / "pair", device="cpu").text_weights_sha256 == alone.text_weights_sha256
