#!/usr/bin/env bash
# A BertTokenizer with its own normalizer loses it on the way through save_pretrained and from_pretrained.
#
# An expert would guess: tokenizer.json holds the whole pipeline, so what is saved there is what is loaded, whichever
#   tokenizer class is named beside it. vocab.txt would lose a normalizer; tokenizer.json would not.
# What happens: save_pretrained writes the normalizer into tokenizer.json. A class of its own kind (BertTokenizer, of
#   which BertTokenizerFast is now another name) takes the vocabulary out of that file, and builds normalizer and
#   pre-tokenizer anew from its own arguments. The loaded tokenizer gives other tokens than the saved one, without a
#   warning, and all of these may be in the vocabulary: for Turkish, lower-casing I to the dotless letter is gone.
#   PreTrainedTokenizerFast keeps what is in the file, and so does tokenizers.Tokenizer.from_file, so that one file is
#   read in two ways.
# Seen with: transformers 5.24.0 (5.20.0, 5.22.0 and 5.23.0 too), tokenizers 0.23.3; AutoTokenizer does as the class.
# What to do: wrap a pipeline of one's own as PreTrainedTokenizerFast(tokenizer_object=...), with its special tokens
#   named, and compare tokens before saving with those after loading.
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
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerFast

print("transformers", transformers.__version__, "tokenizers", tokenizers.__version__)
SPECIAL = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
DOTLESS = "\N{LATIN SMALL LETTER DOTLESS I}"
TEXT, LOST = "KIRMIZI", "kirmizi"
MEANT = LOST.replace("i", DOTLESS)  # red, as Turkish lower-cases it

vocabulary = {word: number for number, word in enumerate([*SPECIAL.values(), MEANT, LOST])}
tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
tokenizer.normalizer = normalizers.Sequence([normalizers.Replace("I", DOTLESS), normalizers.Lowercase()])
tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()

hosts = {"PreTrainedTokenizerFast": (PreTrainedTokenizerFast, MEANT), "BertTokenizer": (BertTokenizer, LOST)}
for name, (host, after) in hosts.items():
    before = host(tokenizer_object=tokenizer, **SPECIAL)
    before.save_pretrained(name)
    alone = Tokenizer.from_file(f"{name}/tokenizer.json")
    ways = {
        "in memory": before.tokenize(TEXT),
        "Tokenizer.from_file": alone.encode(TEXT, add_special_tokens=False).tokens,
        "from_pretrained": host.from_pretrained(name).tokenize(TEXT),
        "AutoTokenizer": AutoTokenizer.from_pretrained(name).tokenize(TEXT),
    }
    print(f"{name}:", ", ".join(f"{way} {ascii(tokens)}" for way, tokens in ways.items()))
    if ways["in memory"] != [MEANT] or ways["Tokenizer.from_file"] != [MEANT]:
        sys.exit(f"changed: {name} no longer takes the normalizer in memory, or no longer saves it")
    if ways["from_pretrained"] != [after] or ways["AutoTokenizer"] != [after]:
        loads = ascii([ways["from_pretrained"], ways["AutoTokenizer"]])
        sys.exit(f"changed: {name} gives {loads} after loading, by its own class and by AutoTokenizer")
print("as described")
PYTHON
