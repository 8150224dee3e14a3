#!/usr/bin/env bash
# A CLIP text model whose end token is number 2 takes the vector of the token with the highest number instead.
#
# An expert would guess: CLIPTextModel pools at the end token, which the config names in eos_token_id. Any number of
#   the vocabulary may be the end token.
# What happens: eos_token_id 2 is read as the sign of an old config with a wrong number, and the text's vector is then
#   taken at the highest token number in it. That is the end token in the original vocabulary, where it is the last;
#   in a vocabulary of one's own that starts with padding, start and end (0, 1, 2), or with the numbers of a RoBERTa,
#   it is some word. The attention looks back only, so that nothing after that word counts: captions that share their
#   start up to it get the same vector. No error, no warning.
# Seen with: transformers 5.24.0, torch 2.13.0. Installs 1.2 GB (torch for CPUs; other builds bring several GB).
# What to do: give the end token another number than 2, or make it the last of the vocabulary; and see in a test that
#   a change of a caption's last word changes its vector.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0 torch==2.13.0 numpy==2.4.6
cd "$folder"
export HF_HOME="$folder/home"

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
import transformers
from transformers import CLIPTextConfig, CLIPTextModel

print("transformers", transformers.__version__, "torch", torch.__version__)
WORDS, START = 20, 1


def pooled(end):
    """Where a model takes a text's vector, and whether two texts that end in different words have the same one."""
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    numbers = {"vocab_size": WORDS, "bos_token_id": START, "eos_token_id": end, "pad_token_id": 0}
    model = CLIPTextModel(CLIPTextConfig(max_position_embeddings=8, **size, **numbers)).eval()
    texts = torch.tensor([[START, 15, 7, 10, end], [START, 15, 9, 11, end]])  # the second token is the highest of each
    with torch.no_grad():
        output = model(input_ids=texts)
    vectors = output.pooler_output
    places = [place for place in range(5) if torch.equal(output.last_hidden_state[0, place], vectors[0])]
    same = torch.allclose(vectors[0], vectors[1], atol=1e-6)
    print(f"end token {end}: vector taken at position {places} of 0 to 4; texts with other last words equal: {same}")
    return places, same


for end in (3, WORDS - 1):
    if pooled(end) != ([4], False):
        sys.exit(f"changed: with end token {end}, the vector is not that of the end token")
two = pooled(2)
if two == ([4], False):
    sys.exit("changed: with end token 2, the vector is that of the end token")
if two != ([1], True):
    sys.exit("changed: with end token 2, the vector is taken elsewhere than at the highest token")
print("as described")
PYTHON
