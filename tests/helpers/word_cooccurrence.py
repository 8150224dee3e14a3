"""Word vectors of captions, by counts of which words stand together, in the text format of word2vec.

As a program: python word_cooccurrence.py metadata.jsonl OUT.vec, of the training captions.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from training.small_models.word_vectors import _word_rules

WINDOW = 4  # words before and behind


def write_vectors(captions: Iterable[str], path: Path, width: int) -> Path:
    """Writes a vector for each word: the left singular vectors of the positive pointwise mutual information.

    Source: Levy, Goldberg and Dagan, Improving Distributional Similarity with Lessons Learned from Word Embeddings,
    2015, with singular values to the power of 1/2.
    """
    normalizer, splitter = _word_rules()
    texts = [[word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))] for text in captions]
    words = [word for word, _ in Counter(word for text in texts for word in text).most_common()]
    place = {word: number for number, word in enumerate(words)}
    counts = np.zeros((len(words), len(words)))
    for text in texts:
        numbers = [place[word] for word in text]
        for middle, number in enumerate(numbers):
            for other in numbers[max(0, middle - WINDOW) : middle + WINDOW + 1]:
                counts[number, other] += other != number
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.log(counts * counts.sum() / np.outer(counts.sum(axis=1), counts.sum(axis=0)))
    left, values, _ = np.linalg.svd(np.nan_to_num(np.maximum(information, 0), posinf=0.0))
    vectors = left[:, :width] * np.sqrt(values[:width])
    lines = [f"{word} {' '.join(f'{value:.5f}' for value in row)}" for word, row in zip(words, vectors)]
    path.write_text("\n".join([f"{len(words)} {vectors.shape[1]}", *lines]) + "\n", encoding="utf-8")
    return path


def captions_of(metadata: Path, split: str = "train") -> list[str]:
    """Returns the captions of a folder's metadata.jsonl."""
    rows = map(json.loads, metadata.read_text(encoding="utf-8").splitlines())
    return [text for row in rows if row["split"] == split for text in row["captions"]]


if __name__ == "__main__":
    print(write_vectors(captions_of(Path(sys.argv[1])), Path(sys.argv[2]), 128))
