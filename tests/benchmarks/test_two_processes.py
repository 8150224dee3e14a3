"""Two processes of one thread against one process of two: the same distillation step at full size, random weights.

On one machine two processes can only win what one leaves idle, and pay for exchanging 110 million gradients: this is
what the sharing costs, and a lower bound of what a second machine brings.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from launching import ROOT, launched
from ratios import report
from transformers import BertConfig, BertModel

from training.mini.captions import turkish_caption
from training.mini.scene import random_scene
from training.small_models.vocabularies import learn_wordpiece

pytestmark = pytest.mark.bench

STEPS = "tests/helpers/steps.py"
ROUNDS = 3


def seconds_in(done: subprocess.CompletedProcess[str]) -> float:
    found = re.search(r"seconds a step: ([\d.e-]+)", done.stdout)
    assert found, done.stderr
    return float(found[1])


def compare(backbone: Path, batch_size: int, steps: int, rounds: int) -> float:
    """Returns one process's seconds / two processes' seconds, the median of the rounds."""
    words = [STEPS, str(backbone), str(batch_size), str(steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONPATH": str(ROOT)}
    one, two = [], []
    for _ in range(rounds):
        alone = subprocess.run(
            [sys.executable, *words], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
        )
        one.append(seconds_in(alone))
        two.append(seconds_in(launched(words)))
    what = f"a distillation step, batch {batch_size}, two processes of one thread"
    return report(what, "one process of two threads", two, one)


@pytest.mark.parametrize("batch_size", [32, 128])
def test_two_processes_against_one(tmp_path: Path, batch_size: int) -> None:
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=32000)).save_pretrained(tmp_path)
    rng = random.Random(0)
    captions = [turkish_caption(random_scene(rng), rng) for _ in range(1000)]
    learn_wordpiece(captions, 2000, 128).save_pretrained(tmp_path)
    assert compare(tmp_path, batch_size, 4, ROUNDS) > 0.5
