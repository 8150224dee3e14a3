#!/usr/bin/env bash
# load_dataset on a local folder whose README has configs returns the rows of another folder with the same name.
#
# An expert would guess: the cache knows a local folder by its files. It does where the folder has no README with
#   `configs:`: the paths and times of modification of the data files are part of the cache's key.
# What happens: with `configs:` in the README (the layout that every data set on the Hub has, so every downloaded copy)
#   the key is the folder's base name and what the README says; the data files are no part of it. A second folder of
#   the same base name gets the first one's rows, and so does the same folder after its files have changed. Nothing is
#   said: the rows are another folder's.
# Seen with: datasets 5.2.0 (its packages, pyarrow and pandas among them, take about 400 MB).
# What to do: give load_dataset a cache_dir of its own for each folder, or download_mode="force_redownload", or read
#   the Parquet files by `load_dataset("parquet", data_files=...)`, whose key has the files in it.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0
cd "$folder"
export HF_HOME="$folder/home" HF_HUB_OFFLINE=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1

"$folder/venv/bin/python" - <<'PYTHON'
import os
import sys
from pathlib import Path

import datasets
from datasets import Dataset, load_dataset

print("datasets", datasets.__version__)
README = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n---\n"


def write(folder, text, readme):
    Path(folder, "data").mkdir(parents=True, exist_ok=True)
    file = Path(folder, "data", "train-00000-of-00001.parquet")
    later = file.stat().st_mtime + 60 if file.exists() else None
    Dataset.from_dict({"text": [text]}).to_parquet(file)
    if later:  # so that the change does not hide within the clock's resolution
        os.utime(file, (later, later))
    if readme:
        Path(folder, "README.md").write_text(README, encoding="utf-8")


def rows(folder, **options):
    return load_dataset(folder, split="train", **options)["text"][0]


def loaded(parent, readme):
    found = []
    for place, text in (("monday", "first"), ("tuesday", "second"), ("monday", "changed")):
        folder = f"{parent}/{place}/captions"
        write(folder, text, readme)
        found.append(rows(folder))
    print(f"{parent}: first folder, another of the same name, the first one changed: {', '.join(found)}")
    return found


if loaded("without-readme", readme=False) != ["first", "second", "changed"]:
    sys.exit("changed: the rows are wrong without configs in the README too")
if loaded("with-configs", readme=True) != ["first", "first", "first"]:
    sys.exit("changed: a folder with configs in its README no longer gets the rows of another one")
if rows("with-configs/tuesday/captions", cache_dir="another") != "second":
    sys.exit("changed: a cache of its own no longer gives a folder its own rows")
print("as described")
PYTHON
