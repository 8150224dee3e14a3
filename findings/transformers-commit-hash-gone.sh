#!/usr/bin/env bash
# A config loaded from the Hub or its cache no longer knows the commit it came from: config._commit_hash is gone.
#
# An expert would guess: config._commit_hash holds the forty digits of the commit, as it did through transformers 4
#   (seen with 4.57.1), where logs, model cards and run records read it, often as getattr(config, "_commit_hash",
#   None).
# What happens: the attribute is not set, so that such code goes on and records None. Nothing else of the config holds
#   the commit: name_or_path is the id alone.
# Seen with: transformers 5.24.0 (5.20.0, 5.22.0 and 5.23.0 too), huggingface_hub 2.4.0, from the cache, offline.
# What to do: huggingface_hub.try_to_load_from_cache(id, "config.json", revision=...) gives the file that was loaded;
#   the folder it lies in is named by the commit.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0 huggingface_hub==2.4.0
cd "$folder"
export HF_HOME="$folder/home" HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error

"$folder/venv/bin/python" - <<'PYTHON'
import json
import os
import sys
from pathlib import Path

import huggingface_hub
import transformers
from huggingface_hub import try_to_load_from_cache
from transformers import AutoConfig, BertConfig

print("transformers", transformers.__version__, "huggingface_hub", huggingface_hub.__version__)
COMMIT = "0123456789abcdef0123456789abcdef01234567"

# The cache as a download leaves it: the branch's commit in refs, the commit's files in snapshots.
repository = Path(os.environ["HF_HOME"], "hub", "models--someone--small")
(repository / "refs").mkdir(parents=True)
(repository / "refs" / "main").write_text(COMMIT)
BertConfig(hidden_size=24, num_attention_heads=2).save_pretrained(repository / "snapshots" / COMMIT)

config = AutoConfig.from_pretrained("someone/small")
recorded = getattr(config, "_commit_hash", None)
elsewhere = COMMIT in json.dumps(vars(config), default=str)
file = try_to_load_from_cache("someone/small", "config.json")
known = Path(file).parent.name if isinstance(file, str) else None
print(f"hidden_size {config.hidden_size}, name_or_path {config.name_or_path}")
print(f"config._commit_hash {recorded}; the commit anywhere in the config: {elsewhere}; by the cache's folder: {known}")

if config.hidden_size != 24:
    sys.exit("changed: the config did not come from the cache")
if recorded is not None or elsewhere:
    sys.exit("changed: the config knows its commit again")
if known != COMMIT:
    sys.exit("changed: the cache's folder does not give the commit any more")
print("as described")
PYTHON
