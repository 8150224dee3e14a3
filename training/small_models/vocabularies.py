"""Vocabularies learnt from captions: WordPiece for a small BERT, byte-level BPE for a small CLIP."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from turkish_clip.text import ascii_fold, nfc, turkish_lowercase

if TYPE_CHECKING:
    from transformers import CLIPTokenizer, PreTrainedTokenizerFast

SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
ALPHABET = list("abcçdefgğhıijklmnoöpqrsştuüvwxyzâîû0123456789'.,;:!?()-\"&/%+")


def learn_wordpiece(captions: Collection[str], size: int, max_tokens: int) -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer without capitals, lower-cased by Turkish rules.

    It learns from each caption as written and as typed without Turkish letters, so that both stay whole words. The
    same captions give the same vocabulary.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    normalizer, splitter = turkish_lowercase(), pre_tokenizers.BertPreTokenizer()

    def forms() -> Iterator[str]:
        return (normalizer.normalize_str(form) for text in captions for form in (nfc(text), ascii_fold(text)))

    vocabulary = _learn_pieces(forms, size)
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=SPECIAL_TOKENS["unk_token"]))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    cls, sep = vocabulary["[CLS]"], vocabulary["[SEP]"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", cls), ("[SEP]", sep)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_tokens,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **SPECIAL_TOKENS,
    )


def _learn_pieces(texts: Callable[[], Iterator[str]], size: int) -> dict[str, int]:
    """Word pieces and their numbers, from texts that are gone through twice.

    The trainer numbers the inner letters (##a) in the order of a hash map that differs from run to run, and breaks
    ties between merges by those numbers. Handing them over as its special tokens fixes both.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    letters = sorted({letter for text in texts() for letter in text if not letter.isspace()} | set(ALPHABET))
    first = [*SPECIAL_TOKENS.values(), *letters, *(f"##{letter}" for letter in letters)]
    learner = Tokenizer(models.WordPiece(unk_token=SPECIAL_TOKENS["unk_token"]))
    learner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=max(size, len(first)), special_tokens=first, initial_alphabet=letters, show_progress=False
    )
    learner.train_from_iterator(texts(), trainer)
    pieces: dict[str, int] = learner.get_vocab()
    return dict(sorted(pieces.items(), key=lambda item: item[1]))


WORD_END = "</w>"  # CLIP's mark of a token that ends a word


def learn_bpe(texts: Sequence[str], size: int, max_tokens: int) -> CLIPTokenizer:
    """CLIP's byte-level BPE tokenizer over tokens learnt from texts; the same texts give the same tokens.

    As in `backbone`, the trainer would number the letters that end words in the order of a hash map; handing them
    over as its special tokens fixes their numbers, and with them the ties between merges.
    """
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    empty = CLIPTokenizer()
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    first = [empty.bos_token, empty.eos_token, *letters, *(letter + WORD_END for letter in letters)]
    learner = Tokenizer(models.BPE(unk_token=empty.unk_token, end_of_word_suffix=WORD_END))
    learner.normalizer = empty.backend_tokenizer.normalizer
    learner.pre_tokenizer = empty.backend_tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=max(size, len(first)), special_tokens=first, end_of_word_suffix=WORD_END, show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    learnt = json.loads(learner.to_str())["model"]
    merges = [tuple(pair) for pair in learnt["merges"]]
    return CLIPTokenizer(vocab=learnt["vocab"], merges=merges, model_max_length=max_tokens)
