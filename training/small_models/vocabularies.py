"""Vocabularies learnt from captions: WordPiece for a small BERT, byte-level BPE for a small CLIP.

The trainers of `tokenizers` number the letters that continue (WordPiece) or end (BPE) a word in the order of a hash
map, which differs from process to process, and break ties between merges by those numbers. Both learners here therefore
pass all letters as special tokens, which are numbered in the order given: the same texts give the same vocabulary.
"""

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
    """Learns a WordPiece tokenizer that lower-cases by Turkish rules.

    It learns from each caption as written and as typed without Turkish letters, so that either form of a word can be
    one token.

    Args:
        captions: of the training split, gone through twice.
        size: number of tokens at most; special tokens and letters are all in it, even beyond that number.
        max_tokens: of a text; longer ones are truncated.
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
    """Returns the number of each word piece; goes through the texts twice."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    found = set(ALPHABET)
    for text in texts():
        found.update(text)
    letters = sorted(letter for letter in found if not letter.isspace())
    special = [*SPECIAL_TOKENS.values(), *letters, *(f"##{letter}" for letter in letters)]
    learner = Tokenizer(models.WordPiece(unk_token=SPECIAL_TOKENS["unk_token"]))
    learner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=max(size, len(special)), special_tokens=special, initial_alphabet=letters, show_progress=False
    )
    learner.train_from_iterator(texts(), trainer)
    pieces: dict[str, int] = learner.get_vocab()
    return dict(sorted(pieces.items(), key=lambda item: item[1]))


WORD_END = "</w>"  # CLIP's suffix of a token that ends a word


def learn_bpe(texts: Sequence[str], size: int, max_tokens: int) -> CLIPTokenizer:
    """Learns a byte-level BPE tokenizer of CLIP's form.

    Args:
        texts: captions of the training split.
        size: number of tokens at most; special tokens and bytes are all in it, even beyond that number.
        max_tokens: of a text; longer ones are truncated.
    """
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    empty = CLIPTokenizer()
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = [empty.bos_token, empty.eos_token, *letters, *(letter + WORD_END for letter in letters)]
    learner = Tokenizer(models.BPE(unk_token=empty.unk_token, end_of_word_suffix=WORD_END))
    learner.normalizer = empty.backend_tokenizer.normalizer
    learner.pre_tokenizer = empty.backend_tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=max(size, len(special)), special_tokens=special, end_of_word_suffix=WORD_END, show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    learnt = json.loads(learner.to_str())["model"]
    merges = [tuple(pair) for pair in learnt["merges"]]
    return CLIPTokenizer(vocab=learnt["vocab"], merges=merges, model_max_length=max_tokens)
