"""python -m training.distill recipe.yaml: MSE distillation of the image embeddings into a Turkish text encoder.

On several processes by `torchrun --nproc-per-node N -m training.distill recipe.yaml` or `accelerate launch -m
training.distill recipe.yaml`: the same optimizer steps on the same rows, sharded; the main process alone writes.
"""

from __future__ import annotations

from typing import Any

from training.distillation.sampling_weights import seen_in_epoch
from training.distillation.setup import inputs, meet, read_sources, shares_of, training_arguments
from training.distillation.sharding import Turn
from training.distillation.student import build_student, save
from training.embeddings.store import keep_apart
from training.run.command import print_result, quiet_hosts, run_command
from training.run.config import DistillConfig, read
from training.run.distributed import by_first, in_turn, is_first, together
from training.run.objectives import OBJECTIVES
from training.run.record import open_run


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

    from training.distillation.callbacks import FollowTurns, KeepLog, TellEpoch, with_bar
    from training.distillation.dataset import load_pairs, say_what_is_cut
    from training.distillation.losses import FollowProgress, FrozenPictureLoss, loss_for

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


if __name__ == "__main__":
    run_command(main, several_processes=True)
