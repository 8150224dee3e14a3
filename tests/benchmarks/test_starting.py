"""What a command pays before its first answer or step, against a script that only loads the same models.

The script does nothing else: it is the least that those libraries take where they are imported as usual.
CPU time is that of the whole process, so that other programs on the machine hardly change it. `make bench` prints the
ratios.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ratios import report

from training import embed_images
from training.mini.world import SMALL_CLIP, WorldSize, write_world
from turkish_clip import build_text_encoder, pair, save_text_encoder

pytestmark = pytest.mark.bench

ROUNDS = 3
# Other / ours: what a command does beside its libraries and models costs less than it saves of their import.
GOALS = {"turkish-clip info": 1.2, "turkish-clip compare": 1.2, "embed_images": 1.2, "distill": 1.1}
ROOT = Path(__file__).parents[2]
BARE = """
import sys
from sentence_transformers import SentenceTransformer

for name in sys.argv[1:]:
    SentenceTransformer(name, device="cpu")
"""
FIRST_STEP = """
import os, sys, transformers
from training import distill
from training.run.command import run_command

transformers.Trainer.training_step = lambda *_, **__: os._exit(0)
run_command(distill.main, sys.argv[1:])
sys.exit("no step was reached")
"""


def cpu_seconds(argv: list[str]) -> float:
    """Runs Python with these arguments; returns the CPU time of the process, with those that it waited for."""
    command = [sys.executable, *argv]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        printed = process.stderr.read() if process.stderr else ""
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, printed
    return used.ru_utime + used.ru_stime


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small world with its image embeddings, and a pair of the demo's image model with an untrained text encoder."""
    from training.small_models.models import write_scratch_backbone

    folder = tmp_path_factory.mktemp("starting")
    write_world(folder / "world", WorldSize(train=64, validation=8, test=8))
    recipe = ["--captions", str(folder / "world"), "--image_model", str(SMALL_CLIP), "--device", "cpu"]
    embed_images.main([*recipe, "--run", str(folder / "run"), "--json"])
    (folder / "recipe").write_text("\n".join(recipe), encoding="utf-8")
    from training.run.config import DistillConfig

    config = DistillConfig(captions="x", run="x", scratch_layers=2)
    write_scratch_backbone(folder / "backbone", ["gece mavi bir balık", "gündüz üç sarı araba"], config)
    text = build_text_encoder(folder / "backbone", dim=512, device="cpu")
    save_text_encoder(pair(text, SMALL_CLIP, device="cpu"), folder / "model")
    return folder


@pytest.mark.parametrize("command", GOALS)
def test_a_command_starts_as_fast_as_its_libraries(command: str, folder: Path, tmp_path: Path) -> None:
    recipe = (folder / "recipe").read_text(encoding="utf-8").split("\n")
    image = str(next((folder / "world" / "test").glob("*.png")))
    asked = ["--model", str(folder / "model"), "--device", "cpu"]
    of_command: dict[str, tuple[list[str], list[str]]] = {
        "turkish-clip info": (["-m", "turkish_clip.cli", "info", *asked], [str(folder / "model")]),
        "turkish-clip compare": (
            ["-m", "turkish_clip.cli", "compare", image, "-t", "bir balık", *asked],
            [str(folder / "model")],
        ),
        "embed_images": (["-m", "training.embed_images", *recipe, "--run", str(folder / "run")], [str(SMALL_CLIP)]),
        "distill": (
            [
                *("-c", FIRST_STEP, *recipe, "--backbone", str(folder / "backbone"), "--dense_start", "random"),
                *("--embeddings", str(folder / "run" / "embeddings"), "--loader_processes", "0"),
            ],
            [str(folder / "backbone")],
        ),
    }
    argv, models = of_command[command]
    ours, bare = [], []
    for number in range(ROUNDS):
        own_run = ["--run", str(tmp_path / str(number))] if command == "distill" else []
        ours.append(cpu_seconds([*argv, *own_run]))
        bare.append(cpu_seconds(["-c", BARE, *models]))
    assert report(f"start of {command}, CPU time", "a script that loads", ours, bare) >= GOALS[command]
