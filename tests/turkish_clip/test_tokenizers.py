"""Turkish letters survive the tokenizer of any backbone: WordPiece, Unigram and byte-level, cased and uncased."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from turkish_clip.encoder import build_text_encoder

CASED = ["İstanbul'da", "IŞIK", "ılık", "iki", "ısı", "İki", "Işık", "şeker", "çağ", "ev", "kırmızı"]
LOWERED = ["istanbul'da", "ışık", "ılık", "iki", "ısı", "iki", "ışık", "şeker", "çağ", "ev", "kırmızı"]
UNTOUCHED = {
    "s\u0327eker": "şeker",  # decomposed, as macOS writes names
    "i\u0307ki": "iki",  # what "İki".lower() leaves
    "kır\u00admızı": "kırmızı",
    "\ufeffev": "ev",
    "kır\u200bmızı": "kırmızı",
    "\u200eev\u200f": "ev",
    "kır\u200dmızı": "kırmızı",
    "k\u034fır\u2063mızı\ufe0f": "kırmızı",
    "\u061cev\u3164\U000e0101": "ev",
    "İstanbul\u2019da": "İstanbul'da",
}


def tokenizer_of(kind: str, normalizer: normalizers.Normalizer | None, texts: list[str]) -> Tokenizer:
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    if kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special)
    elif kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="[UNK]")
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(texts * 20, trainer)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    return tokenizer


def backbone(folder: Path, tokenizer: Tokenizer, config: dict[str, bool], tokenizer_class: str) -> Path:
    """Writes a BERT with this tokenizer; tokenizer_config.json says no more about case than `config`."""
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=tokenizer.get_vocab_size(), **size)).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]"
    ).save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) | config | {"tokenizer_class": tokenizer_class}
    path.write_text(json.dumps(settings), encoding="utf-8")
    return folder


@pytest.mark.parametrize("kind", ["wordpiece", "unigram", "byte-level"])
@pytest.mark.parametrize("cased", [True, False])
def test_turkish_letters_of_any_backbone(kind: str, cased: bool, tmp_path: Path) -> None:
    normalizer = None if cased else normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    texts = CASED if cased else LOWERED
    folder = backbone(tmp_path, tokenizer_of(kind, normalizer, texts), {}, "PreTrainedTokenizerFast")
    tokenizer = build_text_encoder(folder, dim=8, max_tokens=16, device="cpu").tokenizer
    unknown = tokenizer.unk_token_id

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    for written, known in zip(CASED, texts):
        assert unknown not in ids(written), written
        assert ids(written) == ids(known)
    if cased:
        assert ids("IŞIK") != ids("ışık")
    for written, known in UNTOUCHED.items():
        assert ids(written) == ids(known), ascii(written)
        assert unknown not in ids(written)


@pytest.mark.parametrize("stated", [{}, {"do_lower_case": False}, {"do_lower_case": True}])
def test_the_rule_of_case_in_tokenizer_json_holds_unless_the_configuration_states_one(
    stated: dict[str, bool], tmp_path: Path
) -> None:
    """transformers 5's BertTokenizer ignores the stored rule, and takes do_lower_case for true."""
    cased = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    folder = backbone(tmp_path, tokenizer_of("wordpiece", cased, CASED), stated, "BertTokenizer")
    tokenizer = build_text_encoder(folder, dim=8, max_tokens=16, device="cpu").tokenizer
    lowered = tokenizer.backend_tokenizer.normalizer.normalize_str("İki ŞEKER")
    assert lowered == ("iki seker" if stated.get("do_lower_case") else "İki ŞEKER")


def test_emoji_of_several_parts_stay_whole() -> None:
    from turkish_clip.text import turkish_normalizer

    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    assert turkish_normalizer().normalize_str(f"bir {family} ev") == f"bir {family} ev"
