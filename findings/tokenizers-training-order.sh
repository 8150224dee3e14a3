#!/usr/bin/env bash
# Training a WordPiece vocabulary twice on the same texts gives two vocabularies.
#
# An expert would guess: training counts pairs and merges the most frequent one. No random number is drawn, so the
#   same texts in the same order give the same vocabulary, as BpeTrainer without affixes does.
# What happens: the letters that carry an affix ("##a" inside a word, "a</w>" at its end) get their ids in the order
#   of a hash map that differs from process to process. Ties between pairs of equal count are broken by those ids, so
#   that other pairs get merged: here nearly every WordPiece run has other pieces, and every BPE run other ids.
#   Weights trained on one run's ids mean nothing under another's.
# Seen with: tokenizers 0.23.3 (WordPieceTrainer, and BpeTrainer with end_of_word_suffix).
# What to do: hand all letters over, bare and with the affix, sorted, as special_tokens of the trainer. Their ids are
#   then fixed, and with them the ties. The tokenizer that was trained so splits every word into its letters, since
#   special tokens are looked for first: take its vocabulary (and merges) out, and build a new tokenizer on them.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tokenizers==0.23.3
cd "$folder"

cat >learn.py <<'PYTHON'
import json
import sys

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

TEXTS = ["a red apple", "a green pear", "a blue car on the road", "two dogs run", "a cat sleeps on the sofa",
         "children play in the park", "an old boat on the lake", "three birds over the sea"]  # fmt: skip
kind, given = sys.argv[1], sys.argv[2] == "given"

letters = sorted(set("".join(TEXTS)) - {" "})
if kind == "wordpiece":
    first = ["[UNK]"] + (letters + [f"##{letter}" for letter in letters] if given else [])
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    trainer = trainers.WordPieceTrainer(vocab_size=70, special_tokens=first, show_progress=False)
else:
    suffix = "</w>" if kind == "bpe with suffix" else ""
    first = ["[UNK]"] + (letters + [letter + suffix for letter in letters] if given else [])
    affix = {"end_of_word_suffix": suffix} if suffix else {}
    learner = Tokenizer(models.BPE(unk_token="[UNK]", **affix))
    trainer = trainers.BpeTrainer(vocab_size=55, special_tokens=first, show_progress=False, **affix)
learner.pre_tokenizer = pre_tokenizers.Whitespace()
learner.train_from_iterator(TEXTS, trainer)

vocabulary, red = learner.get_vocab(), learner.encode("red").tokens
print(json.dumps({"ids": sorted(vocabulary.items()), "pieces": sorted(vocabulary), "red": red}))
PYTHON

"$folder/venv/bin/python" - <<'PYTHON'
import json
import subprocess
import sys

import tokenizers

PROCESSES = 6
print("tokenizers", tokenizers.__version__)


def learn(kind, letters):
    runs = [subprocess.run([sys.executable, "learn.py", kind, letters], check=True, stdout=subprocess.PIPE).stdout
            for _ in range(PROCESSES)]  # fmt: skip
    results = [json.loads(run) for run in runs]
    ids = len({json.dumps(result["ids"]) for result in results})
    pieces = len({json.dumps(result["pieces"]) for result in results})
    print(f"{kind}, letters {letters}: {PROCESSES} processes, {ids} vocabularies, {pieces} sets of pieces", end="; ")
    print("red ->", " ".join(results[0]["red"]))
    return ids, pieces, results[0]["red"]


if learn("plain bpe", "not given")[0] != 1:
    sys.exit("changed: plain BPE, without affixes, differs between processes too")
for kind in ("wordpiece", "bpe with suffix"):
    ids, pieces, _ = learn(kind, "not given")
    if ids == 1:
        sys.exit(f"changed: {kind} gave one vocabulary in {PROCESSES} processes")
    if kind == "wordpiece" and pieces == 1:
        sys.exit(f"changed: wordpiece gave one set of pieces in {PROCESSES} processes, though with other ids")
    ids, pieces, red = learn(kind, "given")
    if ids != 1:
        sys.exit(f"changed: {kind} differs between processes although the letters are special tokens")
    if red != ["r", "e", "d"]:
        sys.exit("changed: a tokenizer trained with letters as special tokens no longer splits words into them")
print("as described")
PYTHON
