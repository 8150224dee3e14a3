"""One question, cold: the command against itself with the models loaded, and against a script written by hand.

The script does what the command does with the same libraries, onnxruntime, tokenizers and LanceDB, and nothing else: no
warnings, no check of the models, no correction of hubs. CPU time and memory are those of the whole process; a text
encoder's weights that are mapped from their file count as memory. `make bench` prints the ratios.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from ratios import report
from transformers import BertConfig, BertModel

from training.mini.world import WorldSize, write_world
from training.small_models.vocabularies import learn_wordpiece
from turkish_clip import ImageIndex, build_text_encoder, load_dual_encoder, pair, save_text_encoder
from turkish_clip.search.text_encoder import keep_text_encoder

pytestmark = pytest.mark.bench

ROUNDS = 5
CPU_GOAL, MEMORY_GOAL, SCRIPT_GOAL = 5, 3, 1 / 1.5  # other / ours
QUERY = "gece mavi bir balık"
SIZES = {
    "2 layers": BertConfig(
        vocab_size=2000, hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512
    ),
    "BERT-base": BertConfig(vocab_size=32000),
}
SCRIPT = """
import json, sys
import lancedb, numpy as np, onnxruntime
from tokenizers import Tokenizer

folder, index, text = sys.argv[1:]
encoded = Tokenizer.from_file(folder + "/tokenizer.json").encode_batch([text])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(folder + "/model.onnx", options, providers=["CPUExecutionProvider"])
fed = {"input_ids": [one.ids for one in encoded], "attention_mask": [one.attention_mask for one in encoded]}
vector = session.run(None, {name: np.array(rows, np.int64) for name, rows in fed.items()})[0][0]
table = lancedb.connect(index).open_table("images")
query = np.zeros(table.schema.field("vector").type.list_size, np.float32)
query[: len(vector)] = vector
found = table.search(query).distance_type("cosine").limit(10).to_list()
print(json.dumps([row["path"] for row in sorted(found, key=lambda row: -float(np.dot(row["vector"], query)))]))
"""
# A process of its own starts the one that is measured, which otherwise would begin with the memory of this one.
LAUNCHER = """
import json, os, subprocess, sys
with subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE) as process:
    printed = process.stdout.read().decode()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
print(json.dumps([printed, used.ru_utime + used.ru_stime, used.ru_maxrss]))
sys.exit(process.returncode)
"""


@dataclass(frozen=True)
class Cost:
    """Of one process: seconds of CPU time, MB at most, and what it printed."""

    cpu: float
    memory: float
    paths: list[str]


def cost_of(argv: list[str]) -> Cost:
    launched = [sys.executable, "-c", LAUNCHER, sys.executable, *argv]
    done = subprocess.run(launched, capture_output=True, text=True, check=True)
    printed, cpu, kilobytes = json.loads(done.stdout)
    found = json.loads(printed)
    paths = [hit["path"] for hit in found["hits"]] if isinstance(found, dict) else found
    return Cost(cpu, kilobytes / (1e6 if sys.platform == "darwin" else 1e3), paths)


@pytest.mark.parametrize("size", SIZES)
def test_one_question(size: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    write_world(tmp_path / "world", WorldSize(train=10, validation=10, test=600))
    BertModel(SIZES[size]).save_pretrained(tmp_path / "backbone")
    learn_wordpiece([QUERY, "gündüz üç sarı araba"], 500, 128).save_pretrained(tmp_path / "backbone")
    text = build_text_encoder(tmp_path / "backbone", dim=512, device="cpu")
    image_model = Path(__file__).parents[2] / "training" / "mini" / "clip"
    save_text_encoder(pair(text, image_model, device="cpu"), tmp_path / "model")
    for path in (tmp_path / "model").rglob("*"):
        os.utime(path, ns=(10**9, 10**9))
    index = ImageIndex.open(tmp_path / "index", load_dual_encoder(tmp_path / "model", device="cpu"))
    index.add(tmp_path / "world" / "test")
    kept = keep_text_encoder(index.uri, index.encoder)
    assert kept is not None

    ask = ["-m", "turkish_clip.cli", "search", index.uri, QUERY, "--model", str(tmp_path / "model"), "--json"]
    ways = {
        "ours": ask,
        "models loaded": [*ask, "--device", "cpu:0"],
        "script": ["-c", SCRIPT, str(tmp_path / "index" / kept.folder), index.uri, QUERY],
    }
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, argv in ways.items():
            costs[name].append(cost_of(argv))
    assert {tuple(cost.paths) for of_way in costs.values() for cost in of_way} == {tuple(costs["ours"][0].paths)}
    goals = {"models loaded": (CPU_GOAL, MEMORY_GOAL if size == "2 layers" else 1), "script": (SCRIPT_GOAL, 1 / 1.5)}
    for other, (cpu_goal, memory_goal) in goals.items():
        title = f"one question, {size}"
        cpu = report(f"{title}, CPU time", other, [c.cpu for c in costs["ours"]], [c.cpu for c in costs[other]])
        memory = [[cost.memory for cost in costs[name]] for name in ("ours", other)]
        assert cpu >= cpu_goal
        assert report(f"{title}, memory", other, *memory, unit="MB") >= memory_goal
