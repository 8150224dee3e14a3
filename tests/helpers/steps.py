"""Trains a text encoder for some steps as training.distill does, on one process or on each of several.

    python steps.py BACKBONE BATCH_SIZE STEPS

The first process prints the median seconds of a step. The first two steps, which warm up, do not count.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from training.run.command import run_command

WARMING_UP = 2


def main(argv: list[str]) -> None:
    import torch
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer
    from transformers import TrainerCallback

    from training.distillation.callbacks import TrackStepState
    from training.distillation.losses import loss_for
    from training.distillation.setup import join_ranks, sharding_of, training_arguments
    from training.distillation.sharding import StepState
    from training.mini.captions import turkish_caption
    from training.mini.scene import random_scene
    from training.run.command import quiet_hosts
    from training.run.config import DistillConfig
    from training.run.distributed import is_main_process
    from training.run.objectives import OBJECTIVES
    from turkish_clip import build_text_encoder
    from turkish_clip.metrics import unit

    backbone, batch_size, steps = Path(argv[0]), int(argv[1]), int(argv[2])
    began: list[float] = []

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            began.append(time.perf_counter())

        on_train_end = on_step_begin

    quiet_hosts()
    with tempfile.TemporaryDirectory() as runs:
        config = DistillConfig(captions="x", run=runs, batch_size=batch_size, epochs=1, device="cpu")
        join_ranks(config)
        rng = random.Random(0)
        rows = batch_size * (steps + WARMING_UP)
        captions = [turkish_caption(random_scene(rng), rng) for _ in range(rows)]
        labels = torch.from_numpy(unit(torch.randn(rows, 512, generator=torch.Generator().manual_seed(0)).numpy()))
        torch.manual_seed(0)
        student = build_text_encoder(backbone, dim=512, device="cpu")
        student.model_card_data.widget = [{"text": captions[0]}]
        arguments = training_arguments(config, Path(runs), rows, evaluates=False)
        arguments.save_strategy, arguments.disable_tqdm = "no", True
        step_state = StepState(sharding_of(config, rows))
        dataset = Dataset.from_dict({"caption": captions, "label": range(rows)}).with_transform(
            lambda batch: {"caption": batch.get("caption"), "label": list(labels[batch["label"]])}
        )
        SentenceTransformerTrainer(
            model=student,
            args=arguments,
            train_dataset=dataset,
            loss=loss_for(student, OBJECTIVES["mse"], step_state),
            callbacks=[TrackStepState(step_state), Watch()],
        ).train()
    seconds = [after - before for before, after in pairwise(began)][WARMING_UP:]
    if is_main_process():
        print(f"seconds a step: {statistics.median(seconds)}")


if __name__ == "__main__":
    run_command(main, several_processes=True)
