"""A damaged or impossible checkpoint is named and left out, and the run ends with the same weights all the same."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from training.distillation.checkpoints import SEAL, STATE, SealCheckpoints, last_checkpoint, seal
from training.run.provenance import sha256_of
from training.run.record import Run, RunError

MAX_STEPS = 40


def save(folder: Path, step: int, best: int | None = None) -> Path:
    """Makes a checkpoint as the trainer does, and seals it."""
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True, exist_ok=True)
    best_path = None if best is None else str(folder / f"checkpoint-{best}")
    state = {"global_step": step, "best_model_checkpoint": best_path, "log_history": [], "best_metric": 0.5}
    (checkpoint / STATE).write_text(json.dumps(state), encoding="utf-8")
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "2_Dense/model.safetensors"):
        (checkpoint / name).parent.mkdir(exist_ok=True)
        (checkpoint / name).write_bytes(name.encode() + bytes([step]))
    now = SimpleNamespace(global_step=step, is_world_process_zero=True, best_model_checkpoint=best_path)
    with SealCheckpoints() as sealing:
        sealing.on_save(SimpleNamespace(output_dir=str(folder)), now, None)
    return checkpoint


def change_state(**values: Any) -> Callable[[Path], None]:
    """Returns what changes fields of trainer_state.json, and the seal with them: as if written so."""

    def change(checkpoint: Path) -> None:
        path = checkpoint / STATE
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values), encoding="utf-8")
        seal(checkpoint)

    return change


def write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda checkpoint: (checkpoint / name).write_bytes(content) and None


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (write("optimizer.pt", b"garbage"), r"optimizer.pt has changed since it was written"),
        (write("scheduler.pt", b""), r"scheduler.pt has changed"),
        (write("2_Dense/model.safetensors", b"2_"), r"2_Dense/model.safetensors has changed"),
        (write(STATE, b"[]"), r"trainer_state.json has changed"),
        (write(SEAL, b"[]"), r"is damaged \(expected sealed.json of format 1"),
        (write(SEAL, b'{"format": 1, "sha256": {}}'), r"trainer_state.json has changed"),
        (lambda checkpoint: (checkpoint / "rng_state.pth").unlink(), r"is damaged \(.*No such file"),
        (lambda checkpoint: (checkpoint / SEAL).unlink(), r"was not written to its end"),
        (change_state(global_step=10**18), r"is of step 1000000000000000000 of 40"),
        (change_state(global_step=-3), r"is of step -3 of 40"),
        (change_state(global_step="20"), r"is of step 20 of 40"),
        (change_state(global_step=True), r"is of step True of 40"),
        (change_state(best_model_checkpoint=7), r"has no state to go on from"),
        (change_state(best_model_checkpoint="/nowhere/checkpoint-10"), r"has no state to go on from \(.*nowhere"),
        (change_state(best_model_checkpoint=str(Path.cwd() / "checkpoint-10")), r"has its best weights in .*"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None], said: str
) -> None:
    run = Run(tmp_path, True, {})
    before, newest = save(run.checkpoints, 10), save(run.checkpoints, 20)
    assert last_checkpoint(run, MAX_STEPS) == str(newest)
    damage(newest)
    with caplog.at_level("WARNING", "training"):
        assert last_checkpoint(run, MAX_STEPS) == str(before)
    (record,) = caplog.records
    assert record.getMessage().count("\n") == 0
    assert record.getMessage().startswith(f"{run.checkpoints}: checkpoint-20 ")
    assert record.getMessage().endswith("the training goes on from checkpoint-10")
    assert re.search(said, record.getMessage())
    shutil.rmtree(before)
    assert last_checkpoint(run, MAX_STEPS) is None
    assert caplog.records[-1].getMessage().endswith("the training goes on from its start")


def test_a_step_beyond_the_training_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path, True, {})
    save(run.checkpoints, 20)
    assert last_checkpoint(run, 20) == str(run.checkpoints / "checkpoint-20")
    assert last_checkpoint(run, 19) is None
    assert last_checkpoint(Run(tmp_path, False, {}), 20) is None


def test_the_checkpoint_with_the_best_weights_must_be_whole_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(tmp_path, True, {})
    best, _ = save(run.checkpoints, 10, best=10), save(run.checkpoints, 20, best=10)
    (best / "model.safetensors").write_bytes(b"")
    assert last_checkpoint(run, MAX_STEPS) is None
    assert "checkpoint-20 has its best weights in checkpoint-10, which is damaged" in caplog.text


@pytest.mark.parametrize(
    ("bests", "left"),
    [
        ({10: None, 20: None, 30: None}, [20, 30]),  # nothing is compared: the last and the one before
        ({10: 10, 20: 10, 30: 10}, [10, 30]),  # the best and the last
        ({10: 10, 20: 10, 30: 30}, [10, 30]),  # the last is the best: the one that was, and not the worse one
        ({10: 10, 20: 20, 30: 20}, [20, 30]),
    ],
)
def test_two_checkpoints_are_kept_whatever_the_clock_says(
    tmp_path: Path, bests: dict[int, int | None], left: list[int]
) -> None:
    for number, (step, best) in enumerate(bests.items()):
        checkpoint = save(tmp_path, step, best)
        os.utime(checkpoint, (10**9 - number, 10**9 - number))  # each is older than the one before
    assert sorted(int(path.name[11:]) for path in tmp_path.iterdir()) == left


def test_a_checkpoint_of_a_later_step_is_none_to_fall_back_on(tmp_path: Path) -> None:
    """It was damaged, so that the training went on from one before it."""
    run = Run(tmp_path, True, {})
    for step in (10, 20):
        save(run.checkpoints, step)
    (run.checkpoints / "checkpoint-20" / "optimizer.pt").write_bytes(b"x")
    (run.checkpoints / "checkpoint-30").mkdir()  # not written to its end
    assert last_checkpoint(run, MAX_STEPS) == str(run.checkpoints / "checkpoint-10")
    save(run.checkpoints, 15)
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["checkpoint-10", "checkpoint-15"]
    save(run.checkpoints, 20)
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["checkpoint-15", "checkpoint-20"]


def test_the_training_goes_on_while_a_checkpoint_is_summed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path, True, {})
    before = save(run.checkpoints, 10)
    save(run.checkpoints, 20)
    at_work, go_on = Event(), Event()

    def slowly(path: Path) -> str:
        at_work.set()
        go_on.wait(20)
        return sha256_of(path)

    monkeypatch.setattr("training.distillation.checkpoints.sha256_of", slowly)
    newest = run.checkpoints / "checkpoint-30"
    shutil.copytree(run.checkpoints / "checkpoint-20", newest)
    (newest / SEAL).unlink()
    now = SimpleNamespace(global_step=30, is_world_process_zero=True, best_model_checkpoint=None)
    with SealCheckpoints() as sealing:
        sealing.on_save(SimpleNamespace(output_dir=str(run.checkpoints)), now, None)
        assert at_work.wait(20)
        (run.checkpoints / "checkpoint-40").mkdir()  # the trainer begins the next one
        assert not (newest / SEAL).exists()
        assert before.exists()  # as long as the newest can't be trusted
        go_on.set()
    assert (newest / SEAL).exists()
    assert not before.exists()
    assert (run.checkpoints / "checkpoint-40").exists()


@pytest.mark.parametrize("at_the_end", [True, False])
def test_a_checkpoint_that_can_not_be_sealed_stops_the_training(tmp_path: Path, at_the_end: bool) -> None:
    sealing = SealCheckpoints()
    (tmp_path / "checkpoint-10").mkdir()
    (tmp_path / "checkpoint-10" / SEAL).mkdir()  # so that the seal can't be written
    now = SimpleNamespace(global_step=10, is_world_process_zero=True, best_model_checkpoint=None)
    sealing.on_save(SimpleNamespace(output_dir=str(tmp_path)), now, None)
    save_again = partial(sealing.on_save, SimpleNamespace(output_dir=str(tmp_path)), now, None)
    with pytest.raises(OSError, match=SEAL):
        (partial(sealing.__exit__, None, None, None) if at_the_end else save_again)()


@pytest.mark.parametrize("name", ["checkpoint-abc", "checkpoint-20-good", "checkpoint-020"])
def test_a_folder_that_the_trainer_would_harm_is_refused(tmp_path: Path, name: str) -> None:
    run = Run(tmp_path, True, {})
    save(run.checkpoints, 10)
    (run.checkpoints / name).mkdir()
    with pytest.raises(RunError, match=f"expected nothing but checkpoints of this run in .*, got {name}; move it away"):
        last_checkpoint(run, MAX_STEPS)


def test_a_link_in_a_checkpoint_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path, True, {})
    checkpoint = save(run.checkpoints, 10)
    (tmp_path / "mine.bin").write_bytes(b"mine")
    (checkpoint / "training_args.bin").symlink_to(tmp_path / "mine.bin")
    with pytest.raises(RunError, match=r"got checkpoint-10/training_args.bin, a link; move it away"):
        last_checkpoint(run, MAX_STEPS)
