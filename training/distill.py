"""python -m training.distill recipe.yaml: MSE distillation of the pictures' vectors into a Turkish text encoder.

On several processes by `torchrun --nproc-per-node N -m training.distill recipe.yaml` or `accelerate launch -m
training.distill recipe.yaml`: the same updates of the same rows, shared out; the first process alone writes.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.captions import Captions, read_captions
from training.command import print_result, quiet_hosts, run_command
from training.config import DistillConfig, read
from training.duplicates import keep_apart
from training.hub import commit_of
from training.objectives import OBJECTIVES
from training.processes import (
    by_first,
    in_turn,
    is_first,
    join_processes,
    process_count,
    process_number,
    together,
)
from training.recipe import ConfigError
from training.run_record import open_run, sha256_of, sha256_of_texts
from training.shares import Shares, Turn
from training.targets import MANIFEST, Targets, read_targets
from training.weights import seen_in_epoch
from turkish_clip.towers import weights_sha256

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments

    from training.pairs import Pairs
    from training.run_record import Run

log = logging.getLogger("training")
COMPILERS = (os.environ.get("CXX", "g++"), "c++", "clang++", "cl")  # one of which torch.compile runs


def main(argv: list[str]) -> dict[str, Any]:
    """Trains and saves a text encoder; returns a summary."""
    config = read(DistillConfig, argv)
    meet(config)
    run = together(lambda: open_run(config))
    if run.summary is not None:
        print_result(run.summary, config.json)
        return run.summary
    captions, targets = in_turn(lambda: read_sources(config))
    quiet_hosts()

    from sentence_transformers import SentenceTransformerTrainer

    from training.callbacks import FollowTurns, KeepLog, TellEpoch, with_bar
    from training.losses import FollowProgress, FrozenPictureLoss, loss_for
    from training.pairs import load_pairs, say_what_is_cut

    apart = keep_apart(captions, targets)
    pairs = in_turn(lambda: load_pairs(apart.captions, targets, config))
    student = in_turn(lambda: build_student(config, pairs, targets.manifest.dim))
    cut = say_what_is_cut(student, pairs.texts) if is_first() else 0
    in_turn(lambda: run.begin(**inputs(config, pairs, targets), **apart.as_json()))

    turn = Turn(shares_of(config, seen_in_epoch(pairs.train)))
    loss = loss_for(student, OBJECTIVES[config.objective], turn)
    callbacks = [TellEpoch(pairs.variants.set_epoch), FollowTurns(turn), KeepLog(run.folder / "log.jsonl")]
    if isinstance(loss, FrozenPictureLoss):
        callbacks.append(FollowProgress(loss, run.last_checkpoint))
    trainer = SentenceTransformerTrainer(
        model=student,
        args=training_arguments(
            config, run.checkpoints, seen_in_epoch(pairs.train), evaluates=pairs.evaluator is not None
        ),
        train_dataset=pairs.train,
        loss=loss,
        evaluator=pairs.evaluator,
        callbacks=callbacks,
    )
    with_bar(trainer).train(resume_from_checkpoint=run.last_checkpoint)

    trained_on = {"training_pictures": pairs.pictures, "training_captions": len(pairs.texts), "captions_cut": cut}
    summary = by_first(lambda: save(student, run, trainer.state.log_history, trained_on))
    print_result(summary, config.json)
    return summary


def meet(config: DistillConfig) -> None:
    """Checks what this machine has to have, and meets the other processes, where there are some.

    Raises:
        InputError: fewer captions in a batch than parts of it, no compiler, no device for each process, or the
            processes do not meet.
    """
    parts = process_count() * config.gradient_accumulation
    if config.batch_size < parts:
        raise ConfigError(
            f"expected 'batch_size' of at least {parts} ({process_count()} processes × gradient_accumulation "
            f"{config.gradient_accumulation}), got {config.batch_size}; raise it, or lower those"
        )
    if config.compile and not any(map(shutil.which, COMPILERS)):
        raise ConfigError(
            f"expected a C++ compiler for 'compile', got none of {', '.join(COMPILERS)}; install one, or leave it out"
        )
    if OBJECTIVES[config.objective].contrastive and config.gradient_accumulation > 1 and is_first():
        log.warning("%s tells a picture from those of its micro-batch alone, not of the batch", config.objective)
    from training.device import training_device

    device = training_device(config.device)
    if process_count() > 1:
        join_processes(device)


def read_sources(config: DistillConfig) -> tuple[Captions, Targets]:
    """The captions, and the targets of their pictures."""
    captions = read_captions(config)
    return captions, read_targets(
        config.targets_folder, image_model=config.image_model, revision=config.image_model_revision
    )


def inputs(config: DistillConfig, pairs: Pairs, targets: Targets) -> dict[str, Any]:
    """What the run depends on beside its configuration, for run.json."""
    manifest = targets.manifest
    return {
        "captions_sha256": sha256_of_texts(pairs.texts),
        "labels_sha256": pairs.labels_sha256,
        "manifest_sha256": sha256_of(targets.folder / MANIFEST),
        "backbone_revision": commit_of(config.backbone, config.backbone_revision),
        "captions_revisions": [
            commit_of(source.captions, source.captions_revision, "dataset") for source in config.all_sources
        ],
        "image_model": {
            "id": manifest.image_model,
            "revision": manifest.revision,
            "weights_sha256": manifest.weights_sha256,
        },
    }


def build_student(config: DistillConfig, pairs: Pairs, dim: int) -> SentenceTransformer:
    """The text encoder to train, with weights that the seed decides.

    Raises:
        ModelError: the backbone can't be loaded or does not fit.
    """
    from transformers import set_seed

    from training.backbone import write_scratch_backbone
    from training.device import device_of
    from turkish_clip.encoder import build_text_encoder

    backbone: str | Path = config.backbone
    if backbone == "scratch":
        backbone = config.folder / "backbone"
        if is_first():
            write_scratch_backbone(backbone, pairs.texts, config)
    set_seed(config.seed)
    student = build_text_encoder(
        backbone,
        dim=dim,
        max_tokens=config.max_tokens,
        revision=config.backbone_revision or None,
        device=device_of(config.device),
        normalise=not OBJECTIVES[config.objective].raw,
    )
    student.model_card_data.widget = [{"text": "karda oynayan iki köpek"}]  # given, so the trainer computes none
    return student


def shares_of(config: DistillConfig, captions: int) -> Shares:
    """How this process shares the updates with the others."""
    return Shares(captions, config.batch_size, process_count(), process_number(), config.gradient_accumulation)


def training_arguments(
    config: DistillConfig, checkpoints: Path, captions: int, *, evaluates: bool
) -> SentenceTransformerTrainingArguments:
    """Our configuration as the trainer's arguments: the only place that maps one onto the other."""
    from sentence_transformers import SentenceTransformerTrainingArguments

    from training.batches import SharedBatches
    from training.device import device_of

    shares = shares_of(config, captions)
    steps = max(1, math.ceil(shares.updates * config.epochs))
    interval = math.ceil(steps / config.evaluations)
    return SentenceTransformerTrainingArguments(
        output_dir=str(checkpoints),
        max_steps=steps,
        per_device_train_batch_size=shares.largest,
        gradient_accumulation_steps=shares.micro_batches,
        batch_sampler=partial(SharedBatches, shares=shares, by_length=config.group_by_length),
        learning_rate=config.peak_learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=round(config.warmup_fraction * steps),
        weight_decay=config.weight_decay,
        eval_strategy="steps" if evaluates else "no",
        eval_steps=interval,
        save_strategy="steps",
        save_steps=interval,
        save_total_limit=2,
        load_best_model_at_end=evaluates,
        metric_for_best_model="eval_validation_mrr" if evaluates else None,
        greater_is_better=True,
        logging_steps=max(1, steps // 200),
        logging_first_step=True,
        bf16=config.bf16,
        torch_compile=config.compile,
        use_cpu=device_of(config.device) == "cpu",
        seed=config.seed,
        dataloader_pin_memory=config.device not in ("cpu", "auto"),
        report_to="none",
    )


def save(
    student: SentenceTransformer, run: Run, history: list[dict[str, Any]], trained_on: dict[str, int]
) -> dict[str, Any]:
    """Saves the model whole and closes run.json; returns what it recorded."""
    from turkish_clip.atomic import whole_folder
    from turkish_clip.encoder import save_text_encoder

    with whole_folder(run.model) as partial:
        save_text_encoder(student, partial)
    scores = [entry["eval_validation_mrr"] for entry in history if "eval_validation_mrr" in entry]
    summary = {
        "model": str(run.model),
        "weights_sha256": weights_sha256(student),
        "best_validation_mrr": max(scores) if scores else None,
        **trained_on,
        "train_seconds": next(
            (entry["train_runtime"] for entry in reversed(history) if "train_runtime" in entry), None
        ),
    }
    run.finish(summary)
    return summary


if __name__ == "__main__":
    run_command(main, several_processes=True)
