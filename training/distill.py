"""python -m training.distill recipe.yaml: distils image embeddings into a Turkish text encoder.

`torchrun --nproc-per-node N -m training.distill recipe.yaml` or `accelerate launch -m training.distill recipe.yaml`
does so on several processes: the same optimizer steps on the same rows, sharded over the ranks.
"""

from __future__ import annotations

from typing import Any

from training.distillation.setup import inputs, join_ranks, read_sources, sharding_of, training_arguments
from training.distillation.sharding import StepState
from training.distillation.student import build_student, save
from training.embeddings.store import remove_cross_split_duplicates
from training.pairs.sampling_weights import seen_in_epoch
from training.run.command import print_result, quiet_hosts, run_command
from training.run.config import DistillConfig, read
from training.run.distributed import all_or_none, broadcast_from_main, is_main_process, main_process_first
from training.run.objectives import OBJECTIVES
from training.run.record import open_run


def main(argv: list[str]) -> dict[str, Any]:
    """Trains and saves a text encoder; returns the summary in run.json."""
    config = read(DistillConfig, argv)
    join_ranks(config)
    run = all_or_none(lambda: open_run(config))
    if run.summary is not None:
        print_result(run.summary, config.json)
        return run.summary
    captions, embeddings = main_process_first(lambda: read_sources(config))
    quiet_hosts()

    from sentence_transformers import SentenceTransformerTrainer

    from training.distillation.callbacks import SaveLog, SetEpoch, TrackStepState, with_progress_bar
    from training.distillation.losses import FrozenImageLoss, TrackProgress, loss_for
    from training.pairs.dataset import load_pairs, warn_truncated

    disjoint = remove_cross_split_duplicates(captions, embeddings)
    pairs = main_process_first(lambda: load_pairs(disjoint.captions, embeddings, config))
    student = main_process_first(lambda: build_student(config, pairs, embeddings.manifest.dim))
    truncated = warn_truncated(student, pairs.texts) if is_main_process() else 0
    depends_on = inputs(config, pairs, embeddings, disjoint.duplicates)
    main_process_first(lambda: run.begin(depends_on))

    per_epoch = seen_in_epoch(pairs.train)
    step_state = StepState(sharding_of(config, per_epoch))
    loss = loss_for(student, OBJECTIVES[config.objective], step_state)
    callbacks = [SetEpoch(pairs.augmentation.set_epoch), TrackStepState(step_state), SaveLog(run.folder / "log.jsonl")]
    if isinstance(loss, FrozenImageLoss):
        callbacks.append(TrackProgress(loss, run.last_checkpoint))
    trainer = SentenceTransformerTrainer(
        model=student,
        args=training_arguments(config, run.checkpoints, per_epoch, evaluates=pairs.evaluator is not None),
        train_dataset=pairs.train,
        loss=loss,
        evaluator=pairs.evaluator,
        callbacks=callbacks,
    )
    with_progress_bar(trainer).train(resume_from_checkpoint=run.last_checkpoint)

    counts = {"training_images": pairs.images, "training_captions": len(pairs.texts), "captions_truncated": truncated}
    summary = broadcast_from_main(
        lambda: save(student, run, depends_on, trainer.state.log_history, counts, pairs.texts)
    )
    print_result(summary, config.json)
    return summary


if __name__ == "__main__":
    run_command(main, several_processes=True)
