"""Batches that other processes prepare are those of a single process, and the training outlives what hinders them."""

from __future__ import annotations

import os
import shutil
import signal
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from training import distill, embed_images
from training.distillation import loader
from training.distillation.loader import loader_processes
from training.pairs.augment import Augmentation
from training.run.config import DistillConfig, read
from training.run.record import RunError

Usage = namedtuple("Usage", "total used free")
SMALL = "--backbone scratch --scratch_layers 1 --scratch_hidden 32 --scratch_vocabulary 300 --max_tokens 32"
pytestmark = pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no shared memory here")


@pytest.fixture(scope="module")
def base(captioned_folder: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    embeddings = tmp_path_factory.mktemp("base") / "embeddings"
    argv = f"--captions {captioned_folder} --image_model {tiny_clip} --device cpu --embeddings {embeddings}".split()
    embed_images.main([*argv, "--run", str(embeddings.parent)])
    return [*argv, *SMALL.split(), "--epochs", "3", "--batch_size", "8", "--evaluations", "2"]


def config_of(*options: str) -> DistillConfig:
    return read(DistillConfig, ["--captions", "x", "--run", "x", *options])


def test_the_weights_are_those_of_a_single_process(base: list[str], tmp_path: Path) -> None:
    options = ["--objective", "mse_negatives", "--typo_probability", "0.5"]
    for number in (0, 1):
        distill.main([*base, *options, "--run", str(tmp_path / str(number)), "--loader_processes", str(number)])
    one, two = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("0", "1"))
    assert one.keys() == two.keys()
    assert all((one[name] == two[name]).all() for name in one)


def test_a_process_that_dies_ends_the_run_in_one_line_and_it_resumes(
    base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distill.main([*base, "--run", str(tmp_path / "whole"), "--loader_processes", "0"])
    own, parent = Augmentation.apply, os.getpid()

    def dying(self: Augmentation, texts: Any, rows: Any) -> list[str]:
        if self.epoch == 2 and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return own(self, texts, rows)

    argv = [*base, "--run", str(tmp_path / "run"), "--loader_processes", "1"]
    with monkeypatch.context() as patched:
        patched.setattr(Augmentation, "apply", dying)
        with pytest.raises(RunError, match="expected the processes .* --resume") as found:
            distill.main(argv)
    assert "\n" not in str(found.value)
    distill.main([*argv, "--resume"])
    one, two = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "run"))
    assert all((one[name] == two[name]).all() for name in one)


@pytest.mark.parametrize(("asked", "free_cores", "ranks", "expected"), [
    (-1, 1, 1, 0), (-1, 2, 1, 1), (-1, 16, 1, 4), (-1, 16, 8, 1), (-1, 8, 8, 0), (0, 16, 1, 0), (9, 2, 1, 9),
])  # fmt: skip
def test_their_number(asked: int, free_cores: int, ranks: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "cores", lambda: free_cores)
    monkeypatch.setattr(loader, "world_size", lambda: ranks)
    assert loader_processes(config_of("--loader_processes", str(asked)), 512) == expected


@pytest.mark.parametrize(
    ("hindrance", "said"),
    [
        ("fork", "processes are not forked here"),
        ("none", "there is no /nowhere"),
        ("small", "has 0 MB free, 29 MB are wanted"),
    ],
)
def test_what_hinders_them_is_said(
    hindrance: str, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if hindrance == "fork":
        monkeypatch.setattr(loader.multiprocessing, "get_start_method", lambda: "spawn")
    elif hindrance == "none":
        monkeypatch.setattr(loader, "SHARED_MEMORY", Path("/nowhere"))
    else:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 1000))
    assert loader_processes(config_of("--loader_processes", "2"), 512) == 0
    assert "captions are tokenised between the training steps, not beside them: " in caplog.text
    assert said in caplog.text
