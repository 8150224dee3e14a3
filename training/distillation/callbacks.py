"""Callbacks for the trainer: epoch and micro-batch numbers, the log file, the logit scale's bound, the progress bar."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback

from training.distillation.sharding import StepState
from turkish_clip.atomic import write_text
from turkish_clip.strict_json import json_text

SECONDS_BETWEEN_LOGS = 2.0
MAX_LOGIT_SCALE = math.log(100)  # Source: Radford et al., Learning Transferable Visual Models…, 2021, section 2.5


class SetEpoch(TrainerCallback):  # type: ignore[misc]
    """Passes the number of each epoch as it begins, also after a resume, to a function and to the batch sampler."""

    def __init__(self, on_epoch: Callable[[int], None]) -> None:
        self.on_epoch = on_epoch

    def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **_: Any) -> None:
        epoch = int(state.epoch or 0)
        self.on_epoch(epoch)
        sampler = getattr(train_dataloader, "batch_sampler", None)
        while (inner := getattr(sampler, "batch_sampler", None)) is not None:
            sampler = inner  # a resumed loader of several ranks wraps it twice; the trainer unwraps it once
        if sampler is not None and hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)


class TrackStepState(TrainerCallback):  # type: ignore[misc]
    """Keeps the step state at the micro-batch that is being computed, and seeds dropout differently on each rank."""

    def __init__(self, step_state: StepState) -> None:
        self.step_state = step_state

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        sharding = self.step_state.sharding
        if sharding.world_size > 1:  # a resume with as many ranks restores the generators' states afterwards
            torch.manual_seed(args.seed + sharding.rank + sharding.world_size * (1 + state.global_step))

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.step_state.step, self.step_state.micro_batch = state.global_step, 0

    def on_substep_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.step_state.micro_batch += 1


class SaveLog(TrainerCallback):  # type: ignore[misc]
    """Writes the trainer's log to a JSONL file, one line per logged step.

    The whole history is written each time, at most every `SECONDS_BETWEEN_LOGS` and at the end: a write takes as long
    as a step of a small model. The trainer restores the history on resume, so no line is doubled.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written = -math.inf

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if time.monotonic() >= self.written + SECONDS_BETWEEN_LOGS:
            self._write(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._write(state)

    def _write(self, state: Any) -> None:
        if state.is_world_process_zero:
            write_text(self.path, "".join(json_text(entry) + "\n" for entry in state.log_history))
            self.written = time.monotonic()


class ClampLogitScale(TrainerCallback):  # type: ignore[misc]
    """Keeps the temperature of a CLIP model at 1/100 or above, as CLIP's training does."""

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        model.logit_scale.data.clamp_(max=MAX_LOGIT_SCALE)


class LossProgressBar(ProgressCallback):  # type: ignore[misc]
    """The trainer's progress bar, with the last loss and validation MRR on it instead of a printed line per log."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if self.training_bar is not None and logs:
            shown = {"loss": logs.get("loss"), "mrr": logs.get("eval_validation_mrr")}
            self.training_bar.set_postfix({k: f"{float(v):.3g}" for k, v in shown.items() if v is not None})


def with_progress_bar(trainer: Trainer) -> Trainer:
    """Replaces the trainer's own progress bar or printed lines by `LossProgressBar`; returns the trainer."""
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(LossProgressBar())
    return trainer
