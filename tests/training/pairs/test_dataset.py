"""The training data set: each caption with its regression target, read from disk, never all of them at once."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset
from datasets.fingerprint import Hasher
from datasets.table import InMemoryTable
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from training.data.samples import Row
from training.data.store import Rows
from training.pairs.augment import Augmentation
from training.pairs.dataset import TargetLookup, _token_counter, caption_table, warn_torn, warn_truncated
from training.run import temp_storage
from training.run.temp_storage import Texts
from turkish_clip import build_text_encoder

CAPTIONS = [("kırmızı bir ev", "ev."), ("mavi kuş",), ("bir köpek", "köpek", "iki ağaç")]
IMAGE_OF = [0, 0, 1, 2, 2, 2]


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rows:
    monkeypatch.setattr(temp_storage, "BATCH_ROWS", 4)
    return Rows.of((Row(str(n), None, texts, (), "train") for n, texts in enumerate(CAPTIONS)), tmp_path)


def lookup(augmentation: Augmentation) -> TargetLookup:
    return TargetLookup(np.arange(12, dtype=np.float32).reshape(3, 4), "abc", augmentation)


def test_each_caption_has_the_regression_target_of_its_image(rows: Rows, tmp_path: Path) -> None:
    table = caption_table(rows, tmp_path)
    texts = [text for captions in CAPTIONS for text in captions]
    assert list(Texts(table.select(["caption"]))) == texts
    assert table["length"].to_pylist() == [len(text) for text in texts]
    plain = Dataset(InMemoryTable(table), fingerprint="x")
    dataset = plain.with_transform(lookup(Augmentation(0, 0, 0, 0, 0)))
    for order in ([0, 1, 2, 3, 4, 5], [5, 0, 3]):
        batch = dataset.__getitems__(order)
        assert [row["caption"] for row in batch] == [texts[place] for place in order]
        assert [row["label"].tolist() for row in batch] == [
            list(range(4 * IMAGE_OF[place], 4 * IMAGE_OF[place] + 4)) for place in order
        ]
        assert {tuple(row) for row in batch} == {("caption", "label")}
    augmentation = Augmentation(0.5, 0.5, 0.5, 0.5, 3)
    changed = [row["caption"] for row in plain.with_transform(lookup(augmentation)).__getitems__([5, 2, 0])]
    assert changed == augmentation.apply([texts[5], texts[2], texts[0]], [5, 2, 0]) != [texts[5], texts[2], texts[0]]


def test_datasets_fingerprints_targets_by_their_hash_and_copies_none() -> None:
    augmentation = Augmentation(0, 0, 0, 0, 0)
    small, large, other = (
        TargetLookup(np.zeros((count, 8), np.float32), sha256, augmentation)
        for count, sha256 in ((1, "abc"), (100_000, "abc"), (1, "abd"))
    )
    assert Hasher.hash(small) == Hasher.hash(large) != Hasher.hash(other)
    assert copy.deepcopy({"transform": large})["transform"] is large


def test_tokens_are_counted_as_the_tokenizer_makes_them(tiny_bert: Path) -> None:
    tokenizer = build_text_encoder(tiny_bert, dim=8, max_tokens=8, device="cpu").tokenizer
    texts = ["", "ev", "kırmızı bir ev, ağaç ve kuş " * 9, "xyz" * 50, "İSTANBUL’da"]
    expected = [len(ids) for ids in tokenizer(texts, truncation=False, verbose=False)["input_ids"]]
    assert _token_counter(tokenizer)(texts) == expected
    assert max(expected) > 8
    assert _token_counter(lambda *given, **options: tokenizer(*given, **options))(texts) == expected  # a slow one


@pytest.mark.parametrize("at_once", [2, 1024])
def test_cut_captions_are_counted_over_all_batches(
    tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, at_once: int
) -> None:
    monkeypatch.setattr("training.pairs.dataset.TOKENISED_AT_ONCE", at_once)
    model = build_text_encoder(tiny_bert, dim=8, max_tokens=8, device="cpu")
    texts = ["ev", "bir " * 6, "bir " * 7, "kuş", "ev " * 30]
    with caplog.at_level("WARNING", logger="training"):
        assert warn_truncated(model, iter(texts)) == 2
    assert [record.message for record in caplog.records] == [
        "2 of 5 captions are longer than 8 tokens and are cut (longest: 32); raise --max_tokens"
    ]


def test_a_tokenizer_that_tears_turkish_words_is_warned_of(tiny_bert: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = build_text_encoder(tiny_bert, dim=8, max_tokens=8, device="cpu")
    with caplog.at_level("WARNING", logger="training"):
        assert not warn_torn(model, iter(["kırmızı ev", "bir kuş"]))
        assert not caplog.records
        assert warn_torn(model, iter(["日本 猫 犬", "bir kuş"]))
    assert "does not know 66.7 % of the tokens of the captions" in caplog.records[0].message


def test_word_vectors_of_few_words_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "ev": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    with caplog.at_level("WARNING", logger="training"):
        assert warn_torn(SimpleNamespace(tokenizer=tokenizer), iter(["ev ve kuş", "ev"]))  # type: ignore[arg-type]
    assert caplog.records[0].message == (
        "the word vectors do not know 50.0 % of the tokens of the captions, with 1.0 tokens a word; take a file or a "
        "number of --words that has more of them"
    )
