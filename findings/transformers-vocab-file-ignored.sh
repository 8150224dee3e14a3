#!/usr/bin/env bash
# BertTokenizer(vocab_file="vocab.txt") ignores the file and turns every word into [UNK].
#
# An expert would guess: it reads the file, as it did through transformers 4 (seen with 4.57.1) and as
#   vocab_files_names of the class still says; or it refuses the argument.
# What happens: the argument is now called vocab and takes a path or a dict. vocab_file goes into the remaining
#   keyword arguments and is not looked at. The tokenizer has the five special tokens alone: every word becomes [UNK],
#   and all texts of the same number of words have the same ids. No error, no warning. The first argument by position
#   works, and so does from_pretrained on a folder with vocab.txt.
# Seen with: transformers 5.24.0 (5.20.0, 5.22.0 and 5.23.0 too), tokenizers 0.23.3.
# What to do: BertTokenizer(vocab=path or {word: id}), and check that known words don't come out as [UNK].
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0 tokenizers==0.23.3
cd "$folder"
export HF_HOME="$folder/home" TRANSFORMERS_VERBOSITY=error

"$folder/venv/bin/python" - <<'PYTHON'
import sys
from pathlib import Path

import tokenizers
import transformers
from transformers import BertTokenizer

print("transformers", transformers.__version__, "tokenizers", tokenizers.__version__)
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "apple", "##s"]
Path("model").mkdir()
Path("model/vocab.txt").write_text("\n".join(words) + "\n")

readers = {
    'BertTokenizer(vocab_file="vocab.txt")': lambda: BertTokenizer(vocab_file="model/vocab.txt"),
    'BertTokenizer("vocab.txt")': lambda: BertTokenizer("model/vocab.txt"),
    "BertTokenizer(vocab={word: id})": lambda: BertTokenizer(vocab={word: number for number, word in enumerate(words)}),
    "BertTokenizer.from_pretrained(folder)": lambda: BertTokenizer.from_pretrained("model"),
}
split = {}
for call, reader in readers.items():
    try:
        tokenizer = reader()
    except Exception as error:
        sys.exit(f"changed: {call} raises {type(error).__name__}")
    split[call] = tokenizer.tokenize("red apples")
    print(f"{call}: {len(tokenizer)} tokens, red apples -> {split[call]}")

ignored, *read = split.values()
if any(tokens != ["red", "apple", "##s"] for tokens in read):
    sys.exit("changed: another way to read the vocabulary no longer finds its words")
if ignored != ["[UNK]", "[UNK]"]:
    sys.exit("changed: vocab_file is no longer ignored")
print("as described")
PYTHON
