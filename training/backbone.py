"""A small new BERT with a WordPiece vocabulary learnt from the captions: the backbone where none can be had."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from training.config import DistillConfig
from turkish_clip.atomic import whole_folder
from turkish_clip.text import ascii_fold, nfc, turkish_lowercase

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
ALPHABET = list("abcçdefgğhıijklmnoöpqrsştuüvwxyzâîû0123456789'.,;:!?()-\"&/%+")


def write_scratch_backbone(folder: Path, captions: Collection[str], config: DistillConfig) -> Path:
    """Builds the backbone and saves it as an ordinary transformers folder.

    Args:
        folder: where it goes.
        captions: of the training split alone: nothing of the test split enters the vocabulary.
        config: its size, and the seed of its weights.

    Returns:
        The folder.
    """
    from transformers import BertConfig, BertModel, set_seed

    tokenizer = learn_wordpiece(captions, config.scratch_vocabulary, config.max_tokens)
    set_seed(config.seed)
    model = BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.scratch_hidden,
            num_hidden_layers=config.scratch_layers,
            num_attention_heads=config.scratch_hidden // 32,
            intermediate_size=2 * config.scratch_hidden,
            max_position_embeddings=config.max_tokens,
            hidden_dropout_prob=0.0,  # the target is fixed: noise on the way to it only blurs it (LOG.md)
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    with whole_folder(folder) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
    return folder


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
