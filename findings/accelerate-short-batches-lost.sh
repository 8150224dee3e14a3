#!/usr/bin/env bash
# On several processes, accelerate drops batches that a batch sampler makes smaller than its batch_size.
#
# An expert would guess: a batch sampler of one's own (by length, by tokens) hands each batch to one process in turn,
#   whatever its size. The documentation says that varying sizes are to be allowed by even_batches=False; so with
#   that, nothing is lost, and without it, there is an error.
# What happens: the rows of a round (one batch for each process) are handed out only where the last batch of the round
#   has exactly batch_size rows. Otherwise all processes skip the whole round, full batches included, with
#   even_batches=False too. The loader's length still counts them, nothing is said, and on one process nothing is
#   lost. Only a short batch at the very end is cared for. A batch sampler without the attribute batch_size, or with
#   None there, loses nothing.
# Seen with: accelerate 1.15.0, torch 2.13.0. Installs 1 GB (torch for CPUs; other builds bring several GB).
# What to do: where sizes vary, leave batch_size out of the sampler, or set it to None; and count the rows that all
#   processes together see in an epoch.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check accelerate==1.15.0 torch==2.13.0 numpy==2.4.6
cd "$folder"
export HF_HOME="$folder/home"

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import accelerate
import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader

print("accelerate", accelerate.__version__, "torch", torch.__version__)
# 25 rows, as a sampler by length may group them: at most four to a batch, the last batch of an epoch a full one.
BATCHES = [[0, 1, 2, 3], [4, 5], [6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16], [17, 18, 19], [20], [21, 22, 23, 24]]
ROWS, PROCESSES = 25, 2


class ByLength:
    drop_last = False

    def __init__(self, batch_size):
        self.batch_size = batch_size

    def __iter__(self):
        return (list(batch) for batch in BATCHES)

    def __len__(self):
        return len(BATCHES)


def seen(batch_size, processes):
    """The rows that all processes together get in an epoch."""
    rows = []
    for process in range(processes):
        loader = DataLoader(range(ROWS), batch_sampler=ByLength(batch_size))
        part = prepare_data_loader(loader, num_processes=processes, process_index=process, even_batches=False)
        batches = [batch.tolist() for batch in part]
        print(f"batch_size {batch_size}, process {process + 1} of {processes}: length {len(part)}, batches {batches}")
        rows += [row for batch in batches for row in batch]
    return sorted(rows)


everything = list(range(ROWS))
if seen(4, 1) != everything:
    sys.exit("changed: rows are missing or doubled on a single process")
if seen(None, PROCESSES) != everything:
    sys.exit("changed: rows are missing or doubled with batch_size None")
told = seen(4, PROCESSES)
if told == everything:
    sys.exit("changed: no row is lost any more with batch_size told")
if told != [6, 7, 8, 9, 10, 11, 12, 20, 21, 22, 23, 24]:
    sys.exit(f"changed: with batch_size told, the rows seen are {told}")
print("as described")
PYTHON
