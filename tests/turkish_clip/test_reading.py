"""What a tokenizer does not read of texts, for each kind of tokenizer, and where it is said."""

from __future__ import annotations

import logging
import unicodedata
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from turkish_clip.dual_encoder import DualEncoder
from turkish_clip.encoder import load_model
from turkish_clip.onnx import OnnxTextEncoder
from turkish_clip.reading import TURKISH_WORDS, Caution, TextError, TextReader, reader_of

LETTERS = list("abcçdefgğhıijklmnoöprsştuüvyzKİ0123456789.,!")
WORDS = ["kırmızı", "araba", "bir", "ev"]


def word_piece() -> Tokenizer:
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS), "##lar"]
    tokenizer = Tokenizer(models.WordPiece({word: place for place, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def unigram(*, split: bool) -> Tokenizer:
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((f"▁{word}", -1.0) for word in WORDS)]
    pieces += [(letter, -9.0) for letter in ("▁", *LETTERS)] + [("lar", -2.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    if split:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def byte_level() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: place for place, piece in enumerate(["<|end|>", *alphabet, "Ġ", "ev"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("e", "v")], unk_token="<|end|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


TOKENIZERS = {"WordPiece": word_piece(), "Unigram": unigram(split=True), "one word": unigram(split=False)}


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize(
    ("text", "said", "parts"),
    [
        ("北京的猫", "unknown", ("北京的猫",)),
        ("🐱", "unknown", ("🐱",)),
        ("кошка!", "unknown", ("кошка",)),
        ("kırmızı 🐱", "partly unknown", ("🐱",)),
        ("bir araba, 猫 ev", "partly unknown", ("猫",)),
        ("\u200b", "empty", ()),
        (" ", "empty", ()),
        ("...", "empty", ()),
        ("—", "empty", ()),  # in no vocabulary
        ("kırmızı — ev", None, ()),
        ("kırmızı bir araba", None, ()),
        ("evlar", None, ()),
        ("12345", None, ()),
        (unicodedata.normalize("NFD", "kırmızı ev!"), None, ()),
    ],
)
def test_unknown_words(kind: str, text: str, said: str | None, parts: tuple[str, ...]) -> None:
    tokenizer = TOKENIZERS[kind]
    if text == "\u200b":
        tokenizer = Tokenizer.from_str(tokenizer.to_str())
        own = [tokenizer.normalizer] if tokenizer.normalizer else []
        tokenizer.normalizer = normalizers.Sequence([normalizers.Replace("\u200b", ""), *own])
    if (kind, said) == ("one word", "unknown"):
        parts = (text.rstrip("!"),)
    expected = [] if said is None else [Caution(said, (text,), parts)]  # type: ignore[arg-type]
    assert TextReader(tokenizer, None).cautions([text]) == expected


@pytest.mark.parametrize(("word", "known"), [("zürafa", False), ("evlar", True), ("öd", True), ("araba", True)])
def test_a_word_in_single_letters_is_unknown(word: str, known: bool) -> None:
    said = TextReader(word_piece(), None).cautions([f"bir {word}"])
    assert said == ([] if known else [Caution("partly unknown", (f"bir {word}",), (word,))])


def test_bytes_are_no_words() -> None:
    """A vocabulary of bytes knows everything, but a Turkish word of which each letter is by itself says little."""
    reader = TextReader(byte_level(), None)
    assert reader.pieces_per_word(["ev", "ağ"]) == 2.0  # ev is one piece, ağ three bytes
    assert [caution.kind for caution in reader.cautions(["ev", "çiçek", "猫"])] == ["unknown"]


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize(
    ("words", "limit", "rest"),
    [(6, 8, None), (7, 8, "ev"), (9, 8, "ev ev ev"), (3, 5, None), (4, 5, "ev"), (9, None, None)],
)
def test_where_a_text_is_cut(kind: str, words: int, limit: int | None, rest: str | None) -> None:
    text = " ".join(["ev"] * words)
    expected = [] if rest is None else [Caution("cut", (text,), (rest,), limit or 0)]
    assert [c for c in TextReader(TOKENIZERS[kind], limit).cautions([text]) if c.kind == "cut"] == expected


def test_a_full_stop_beyond_the_limit_is_no_loss() -> None:
    reader = TextReader(word_piece(), 5)
    assert reader.cautions(["ev ev ev."]) == []
    assert [caution.parts for caution in reader.cautions(["ev ev ev. ev"])] == [(". ev",)]


def test_a_prompt_takes_tokens_and_is_no_text() -> None:
    reader = TextReader(word_piece(), 6, "xx bir ")  # xx is unknown
    assert reader.cautions(["ev ev"]) == []
    assert reader.cautions(["ev ev ev"]) == [Caution("cut", ("ev ev ev",), ("ev",), 6)]
    assert [caution.kind for caution in reader.cautions(["猫", ""])] == ["unknown", "empty"]


def test_the_beginning_may_be_what_is_cut() -> None:
    assert TextReader(word_piece(), 5, cuts_right=False).cautions(["ev " * 9]) == [Caution("cut", ("ev " * 9,), (), 5)]


def test_many_texts_give_one_line_of_each_kind() -> None:
    reader = TextReader(word_piece(), 8)
    texts = [f"猫{number}" for number in range(1500)] + ["bir 猫", "ev " * 9] + ["ev"] * 3
    said = {caution.kind: str(caution) for caution in reader.cautions(texts)}
    assert said["unknown"] == (
        "the text encoder knows no word of '猫0', '猫1', '猫2' and 1497 more: their scores mean nothing"
    )
    assert said["partly unknown"] == "the text encoder does not know '猫' in 'bir 猫': only the rest counts"
    assert said["cut"] == ("'ev ev ev ev ev ev ev ev ev' is cut at 8 tokens: the rest, from 'ev ev ev' on, is not read")
    assert len(said) == 3


def test_the_own_tokenizer_goes_on_cutting(exported: Path) -> None:
    tokenizer = Tokenizer.from_file(str(exported / "tokenizer.json"))
    before = tokenizer.to_str()
    TextReader(tokenizer, 128).cautions(["ev " * 300])
    assert tokenizer.to_str() == before
    assert len(tokenizer.encode("ev " * 300).ids) == 128


@pytest.mark.parametrize("text", ["кошка", "kırmızı zürafa", "iki ev " * 80])
def test_all_encoders_of_one_model_say_the_same(
    text: str, text_folder: Path, exported: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = load_model(text_folder, device="cpu")
    reader = reader_of(model)
    assert reader is not None
    expected = reader.cautions([text])
    assert len(expected) == 1
    onnx = OnnxTextEncoder(exported)
    assert onnx.cautions([text]) == expected
    with caplog.at_level(logging.WARNING, "turkish_clip"):
        onnx.encode([text])
        assert [record.getMessage() for record in caplog.records] == [str(expected[0])]
        caplog.clear()
        onnx.encode([text], warn=False)
        onnx.encode(["kırmızı ev"])
        assert not caplog.records


def test_a_pair_reads_by_its_text_side(encoder: DualEncoder, caplog: pytest.LogCaptureFixture) -> None:
    """Its image side is a CLIP of 16 tokens, whose bytes know every word."""
    said = encoder.cautions(["kırmızı кошка", "iki ev " * 20, "iki ev " * 10])
    assert [(caution.kind, caution.texts, caution.limit) for caution in said] == [
        ("partly unknown", ("kırmızı кошка",), 32),
        ("cut", ("iki ev " * 20,), 32),
    ]
    with caplog.at_level(logging.WARNING, "turkish_clip"):
        encoder.encode_texts(["кошка"])
        encoder.encode_texts(["кошка"], warn=False)
    assert [record.getMessage() for record in caplog.records] == [
        "the text encoder knows no word of 'кошка': its scores mean nothing"
    ]


def test_a_vocabulary_without_turkish_shows(tiny_clip: Path) -> None:
    reader = reader_of(load_model(tiny_clip, device="cpu"))
    assert reader is not None
    assert reader.pieces_per_word(TURKISH_WORDS) > 6


def test_a_model_without_a_fast_tokenizer_says_nothing() -> None:
    class Slow:
        tokenizer = object()

    assert reader_of([Slow()]) is None


def test_a_text_that_is_not_utf_8_is_an_error_of_ours(encoder: DualEncoder) -> None:
    for cautions in (TextReader(word_piece(), None).cautions, encoder.cautions):
        with pytest.raises(TextError, match=r"expected text in UTF-8, got .*ud800"):
            cautions(["ev", "\ud800"])
