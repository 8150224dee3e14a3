#!/usr/bin/env bash
# Calling a transformers tokenizer with truncation changes the tokenizer.json that is saved afterwards.
#
# An expert would guess: truncation and padding are arguments of one call. The same tokenizer saves the same file
#   before and after it has been used.
# What happens: the call sets both on the Rust tokenizer behind it, and save_pretrained writes that state. Whoever
#   reads the file with transformers sees nothing of it, since each call there sets the state anew. Whoever reads it
#   with the tokenizers library alone (beside an ONNX model, in a server in Rust) gets texts cut to the length of the
#   last call made before saving, without a word, and padded up to it.
# Seen with: transformers 5.24.0, tokenizers 0.23.3.
# What to do: before saving for readers of the file alone, set what they are to have: enable_truncation and
#   enable_padding, or no_truncation and no_padding, on tokenizer.backend_tokenizer or a copy of it.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0 tokenizers==0.23.3
cd "$folder"
export HF_HOME="$folder/home" TRANSFORMERS_VERBOSITY=error

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import tokenizers
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

print("transformers", transformers.__version__, "tokenizers", tokenizers.__version__)
words = ["[PAD]", "[UNK]", "a", "red", "apple", "on", "the", "table"]
inner = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
inner.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]")

tokenizer.save_pretrained("before")
tokenizer(["a red apple"], truncation=True, padding="max_length", max_length=4)  # one call, its result not even kept
tokenizer.save_pretrained("after")
tokenizer.backend_tokenizer.no_truncation()
tokenizer.backend_tokenizer.no_padding()
tokenizer.save_pretrained("reset")

short, long = "red", "a red apple on the table"
seen = {}
for name in ("before", "after", "reset"):
    alone = Tokenizer.from_file(f"{name}/tokenizer.json")
    within = AutoTokenizer.from_pretrained(name)
    seen[name] = [alone.encode(short).tokens, alone.encode(long).tokens, within(long)["input_ids"]]
    print(f"saved {name}: tokenizers {seen[name][:2]}, transformers {len(seen[name][2])} tokens of the longer text")

whole = long.split()
if any(len(way[2]) != len(whole) for way in seen.values()):
    sys.exit("changed: transformers' own reading of a saved file cuts or pads the text")
if seen["before"][:2] != [["red"], whole] or seen["reset"] != seen["before"]:
    sys.exit("changed: the file saved before the call or after a reset cuts or pads the text")
if seen["after"][:2] == seen["before"][:2]:
    sys.exit("changed: a call with truncation leaves no trace in tokenizer.json any more")
if seen["after"][:2] != [["red", "[PAD]", "[PAD]", "[PAD]"], whole[:4]]:
    sys.exit(f"changed: the file saved after the call gives {seen['after'][:2]}")
print("as described")
PYTHON
