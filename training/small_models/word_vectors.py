"""Word vectors from a file, such as fastText's, as the backbone of a static text side: the mean of its words' vectors.

sentence-transformers' own module for them, WordEmbeddings, lowercases by English rules (İ → i̇, I → i) and saves its
words apart from a tokenizer, which other programs lack. Here they are a StaticEmbedding under a tokenizer of whole
words, lowercased by Turkish rules, that is loaded and exported as that of any static model.
"""

from __future__ import annotations

import gzip
import logging
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from training.run.config import DistillConfig
from training.run.provenance import sha256_of, sha256_of_texts
from training.small_models.static import FOLDER, RECORD, StaticRecord, read_static_record, token_frequencies, weighted
from turkish_clip.atomic import atomic_folder
from turkish_clip.errors import InputError, one_line, printable
from turkish_clip.metrics import Vectors
from turkish_clip.records import write_record

if TYPE_CHECKING:
    from tokenizers import Tokenizer

log = logging.getLogger("training")
UNKNOWN = "[UNK]"  # the token of a word without a vector; its own begins as zeros and is trained
MAX_WIDTH = 4096
LONGEST_LINE = 64 * MAX_WIDTH  # bytes
GZIP = b"\x1f\x8b"


class WordVectorsError(InputError):
    """A file of word vectors that can't be read, or has none of the captions' words."""


def write_word_backbone(config: DistillConfig, texts: Iterable[str]) -> Path:
    """Makes the backbone of a static text side of word vectors, unless the run has that of the same file and captions.

    Args:
        config: names the file, how many words are read, and the run, whose folder the backbone is saved in.
        texts: the training captions, gone through twice.

    Returns:
        The folder: a SentenceTransformer of one StaticEmbedding, and static.json.

    Raises:
        WordVectorsError: the file can't be read, or has none of the captions' words.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    from turkish_clip.encoder import save_text_encoder

    path, folder = Path(config.word_vectors), config.folder / FOLDER
    with _opened(path):  # before the hash of a file that is none
        pass
    made_of = StaticRecord(
        weights_sha256=sha256_of_texts([sha256_of(path), str(config.words)]), captions_sha256=sha256_of_texts(texts)
    )
    if read_static_record(folder) == made_of:
        return folder
    words, vectors = read_word_vectors(path, config.words)
    tokenizer = word_tokenizer(words)
    frequencies = token_frequencies(tokenizer, texts)
    known = 1 - float(frequencies[0])
    if not frequencies[1:].any():
        raise WordVectorsError(
            f"expected vectors of words of the captions in {printable(str(path))}, got none of {len(words)}; choose a "
            "file of Turkish words"
        )
    log.info("%d words have vectors of %d numbers: %.1f %% of the captions' words", *vectors.shape, 100 * known)
    whole = np.concatenate([np.zeros((1, vectors.shape[1]), np.float32), vectors])
    static = SentenceTransformer(
        modules=[StaticEmbedding(tokenizer, embedding_weights=weighted(whole, frequencies, [0]))], device="cpu"
    )
    with atomic_folder(folder, RECORD) as partial:
        save_text_encoder(static, partial)
        write_record(partial / RECORD, made_of)
    return folder


def read_word_vectors(path: Path, limit: int) -> tuple[list[str], Vectors]:
    """Reads the first words of a file, lowercased by Turkish rules, each once.

    A word that stands in lower case wins over one that only becomes the same. Words that are several to the tokenizer
    (with a hyphen or an apostrophe) are passed over, and so are those that are no UTF-8.

    Args:
        path: text, perhaps compressed by gzip: `count width` if there is such a line, then a word and its numbers a
            line, separated by spaces.
        limit: how many different words are read.

    Returns:
        The words, and their vectors, (words, width) float32.

    Raises:
        WordVectorsError: it can't be read, a line is of another width or has something else than numbers, there is no
            word, or most entries are none, as where the width or the encoding is another.
    """
    normalizer, splitter = _word_rules()
    places: dict[str, int] = {}
    own_case: list[bool] = []
    vectors: list[Vectors] = []
    width = passed_over = said = number = 0
    for number, line in enumerate(_lines(path), 1):
        parts = line.rstrip().removeprefix("\ufeff").split(" ")
        if number == 1 and len(parts) == 2 and all(part.isdecimal() for part in parts):
            said, width = int(parts[0]), _checked_width(int(parts[1]), path)
            continue
        width = width or _checked_width(len(parts) - 1, path)
        word, vector = _row(" ".join(parts[:-width]), parts[-width:], width, f"{path}, line {number}")
        folded = str(normalizer.normalize_str(word))
        if "\ufffd" in word or [piece for piece, _ in splitter.pre_tokenize_str(folded)] != [folded]:
            passed_over += 1
            continue
        place = places.setdefault(folded, len(vectors))
        if place == len(vectors):
            if len(vectors) == limit:
                said = 0
                break
            vectors.append(vector)
            own_case.append(word == folded)
        elif word == folded and not own_case[place]:
            vectors[place], own_case[place] = vector, True
    if not vectors:
        raise WordVectorsError(f"expected words with their vectors in {printable(str(path))}, got none; choose another")
    if passed_over > len(vectors):
        raise WordVectorsError(
            f"expected mostly single words in UTF-8 with {width} numbers each in {printable(str(path))}, got "
            f"{passed_over} other entries beside {len(vectors)} such words; check its first line and its encoding"
        )
    if said > number - 1:
        log.warning("%s says it has %d words, and ends after %d", printable(str(path)), said, number - 1)
    if passed_over:
        log.info("%d entries of %s are no single words, and passed over", passed_over, printable(str(path)))
    return list(places)[: len(vectors)], np.stack(vectors)


def word_tokenizer(words: Iterable[str]) -> Tokenizer:
    """Returns a tokenizer of whole words and signs, lowercased by Turkish rules; others become `UNKNOWN`, number 0.

    >>> word_tokenizer(["ışık", "iki"]).encode("IŞIK, İKİ").tokens
    ['ışık', '[UNK]', 'iki']
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    numbers = {UNKNOWN: 0} | {word: number for number, word in enumerate(words, 1)}
    tokenizer = Tokenizer(WordLevel(numbers, unk_token=UNKNOWN))
    tokenizer.normalizer, tokenizer.pre_tokenizer = _word_rules()
    return tokenizer


def _word_rules() -> tuple[Any, Any]:
    """Returns the normalizer and the pre-tokenizer of whole words."""
    from tokenizers.normalizers import Lowercase
    from tokenizers.pre_tokenizers import Whitespace

    from turkish_clip.text import turkish_normalizer

    return turkish_normalizer(Lowercase()), Whitespace()


def _checked_width(width: int, path: Path) -> int:
    if not 1 <= width <= MAX_WIDTH:
        raise WordVectorsError(
            f"expected vectors of 1 to {MAX_WIDTH} numbers in {printable(str(path))}, got {width} in the first line; "
            "choose a file in the text format of word2vec or fastText (.vec)"
        )
    return width


def _row(word: str, numbers: list[str], width: int, where: str) -> tuple[str, Vectors]:
    """Returns a word and its vector.

    Raises:
        WordVectorsError: they are not as many numbers, or not all are.
    """
    try:
        with np.errstate(over="ignore"):
            vector = np.array(numbers, np.float32)
        if not word or len(vector) != width or not np.isfinite(vector).all():
            raise ValueError(f"{len(vector)} numbers after {word[:40]!r}, or one without an end")
    except ValueError as error:
        raise WordVectorsError(
            f"expected a word and {width} numbers in {printable(where)}, got {one_line(error)[:100]}; get the file "
            "again"
        ) from error
    return word, vector


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file of text or gzip.

    Raises:
        WordVectorsError: there is none.
    """
    try:
        with path.open("rb") as raw:
            head = raw.read(2)
    except OSError as error:
        raise WordVectorsError(
            f"expected a file of word vectors, got {printable(str(path))}: {one_line(error)}; correct 'word_vectors'"
        ) from error
    with gzip.open(path, "rb") if head == GZIP else path.open("rb") as file:
        yield file  # type: ignore[misc]


def _lines(path: Path) -> Iterator[str]:
    """Yields the lines of a file that are not empty; letters that are no UTF-8 become U+FFFD.

    Raises:
        WordVectorsError: it is binary, or the compressed file is damaged.
    """
    try:
        with _opened(path) as file:
            for line in iter(lambda: file.readline(LONGEST_LINE), b""):
                if b"\0" in line or len(line) == LONGEST_LINE:
                    raise WordVectorsError(
                        f"expected text in {printable(str(path))}, got other bytes; save the vectors in the text "
                        "format (.vec), as gensim's save_word2vec_format(…, binary=False) does"
                    )
                if line.strip():
                    yield line.decode("utf-8", "replace")
    except (EOFError, OSError, zlib.error) as error:
        raise WordVectorsError(
            f"expected a whole file in {printable(str(path))}, got {one_line(error)}; get it again"
        ) from error
