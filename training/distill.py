"""python -m training.distill recipe.yaml: distils image embeddings into a Turkish text encoder.

`torchrun --nproc-per-node N -m training.distill recipe.yaml` or `accelerate launch -m training.distill recipe.yaml`
does so on several processes: the same optimizer steps on the same rows, sharded over the ranks.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from training.distillation.computing import Computing, computing_of
from training.distillation.setup import inputs, join_ranks, read_sources, sharding_of, training_arguments
from training.distillation.sharding import StepState
from training.distillation.student import build_student, save
from training.embeddings.store import remove_cross_split_duplicates
from training.pairs.sampling_weights import seen_in_epoch
from training.run.command import print_result, quiet_hosts, run_command
from training.run.config import DistillConfig, read
from training.run.distributed import all_or_none, broadcast_from_main, is_main_process, main_process_first
from training.run.lock import hold
from training.run.objectives import OBJECTIVES
from training.run.record import Run, check_outputs, open_run
from turkish_clip.hosts import import_hosts

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from training.pairs.dataset import Pairs

log = logging.getLogger("training")


def main(argv: list[str]) -> dict[str, Any]:
    """Trains and saves a text encoder; returns the summary in run.json."""
    config = read(DistillConfig, argv)
    join_ranks(config)
    all_or_none(lambda: hold(config.folder))
    run = all_or_none(lambda: open_run(config))
    if run.summary is not None:
        print_result(run.summary, config.json)
        return run.summary
    captions, embeddings = main_process_first(lambda: read_sources(config))
    quiet_hosts()
    import_hosts()

    from training.distillation.closed_form import FILE, improved, start_from_closed_form
    from training.pairs.dataset import load_pairs, warn_torn, warn_truncated
    from training.pairs.replay import read_replay

    if not run.resumed:
        all_or_none(lambda: check_outputs(run.folder, FILE))
    disjoint = remove_cross_split_duplicates(captions, embeddings)
    replay = main_process_first(lambda: read_replay(config, embeddings)) if config.replay_fraction else None
    pairs = main_process_first(lambda: load_pairs(disjoint.captions, embeddings, config, replay))
    student = main_process_first(lambda: build_student(config, pairs, embeddings.manifest))
    if is_main_process():
        warn_torn(student, pairs.texts)
    truncated = warn_truncated(student, pairs.texts) if is_main_process() else 0
    depends_on = inputs(config, pairs, embeddings, disjoint.duplicates)
    computing = computing_of(config)
    main_process_first(lambda: run.begin(depends_on, vars(computing)))

    start = start_from_closed_form(student, pairs, run, config) if config.starts_from_closed_form else None
    history = train(student, pairs, run, config, computing) if config.epochs else []
    if start is not None and not improved(history, start):
        log.warning("no step of the training had a better validation MRR than the closed form, which is saved")
        student = main_process_first(lambda: build_student(config, pairs, embeddings.manifest))
        start.apply(student)

    counts: dict[str, int | float | None] = {
        "training_images": pairs.images,
        "training_captions": len(pairs.texts) - pairs.replayed,
        "captions_truncated": truncated,
        "closed_form_penalty": start.penalty if start else None,
        "closed_form_validation_mrr": start.validation_mrr if start else None,
    }
    if pairs.text_only:
        counts["captions_without_image"] = pairs.text_only
    if pairs.replayed:
        counts["captions_replayed"] = pairs.replayed
    summary = broadcast_from_main(lambda: save(student, config, run, depends_on, history, counts, pairs.texts))
    print_result(summary, config.json)
    return summary


def train(
    student: SentenceTransformer, pairs: Pairs, run: Run, config: DistillConfig, computing: Computing
) -> list[dict[str, Any]]:
    """Trains a text encoder, from the last checkpoint if the run has one; returns the trainer's log.

    Args:
        student: is left with the weights of the best evaluation, or of the last step without a validation split.
        pairs: captions and regression targets.
        run: its folder gets checkpoints and log.jsonl.
        config: of the run.
        computing: how the device computes.
    """
    from sentence_transformers import SentenceTransformerTrainer
    from transformers import EarlyStoppingCallback

    from training.distillation.callbacks import SaveLog, SetEpoch, TrackStepState
    from training.distillation.checkpoints import last_checkpoint, train_sealed
    from training.distillation.loader import loader_processes, naming_lost_processes
    from training.distillation.losses import FrozenImageLoss, TrackProgress, loss_for

    per_epoch = seen_in_epoch(pairs.train)
    step_state = StepState(sharding_of(config, per_epoch))
    objective = OBJECTIVES[config.objective]
    dim = int(student.get_embedding_dimension() or 0)
    widths = config.shorter_widths(dim)
    loss = loss_for(student, objective, step_state, bank=pairs.bank, widths=widths, all_imaged=pairs.all_imaged)
    args = training_arguments(
        config,
        run.checkpoints,
        per_epoch,
        computing,
        evaluates=pairs.evaluator is not None,
        loader_processes=loader_processes(config, dim),
    )
    checkpoint = last_checkpoint(run, args.max_steps)
    callbacks = [SetEpoch(pairs.augmentation.set_epoch), TrackStepState(step_state), SaveLog(run.folder / "log.jsonl")]
    if isinstance(loss, FrozenImageLoss):
        callbacks.append(TrackProgress(loss, checkpoint))
    if config.patience and pairs.evaluator:
        callbacks.append(EarlyStoppingCallback(config.patience))
    trainer = SentenceTransformerTrainer(
        model=student,
        args=args,
        train_dataset=pairs.train,
        loss=loss,
        evaluator=pairs.evaluator,
        callbacks=callbacks,
    )
    with naming_lost_processes():
        train_sealed(trainer, checkpoint)
    history: list[dict[str, Any]] = trainer.state.log_history
    return history


if __name__ == "__main__":
    run_command(main, several_processes=True)
