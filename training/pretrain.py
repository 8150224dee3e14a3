"""python -m training.pretrain recipe.yaml: trains a small CLIP from scratch on any captioned images."""

from __future__ import annotations

from typing import Any

from training.data.duplicates import digests_of_files, disjoint_splits
from training.data.sources import read_captions
from training.run.command import print_result, quiet_hosts, run_command
from training.run.config import PretrainConfig, read
from training.run.lock import hold
from training.run.provenance import sha256_of_texts
from training.run.record import RunInputs, check_outputs, open_run
from training.small_models.clip_training import evaluate_clip, reading_negatives, training_arguments, write_card
from training.small_models.models import build_clip, build_processor, save_clip
from turkish_clip.hosts import import_hosts


def main(argv: list[str]) -> dict[str, Any]:
    """Trains, saves and measures a small CLIP; returns what it measured."""
    config = read(PretrainConfig, argv)
    hold(config.folder)
    run = open_run(config)
    if run.summary is not None:
        print_result(run.summary, config.json)
        return run.summary

    check_outputs(run.folder, "skipped.jsonl")
    quiet_hosts()
    captions = read_captions(reading_negatives(config))
    disjoint = disjoint_splits(captions, digests_of_files(captions.rows, len(captions.rows)))
    captions = disjoint.captions
    texts = [text for row in captions.split("train") for text in row.captions]
    negatives = [text for row in captions.split("train") for text in row.english] if config.negative_columns else []

    import_hosts()
    from transformers import Trainer

    from training.distillation.callbacks import ClampLogitScale, SaveLog, SetEpoch
    from training.distillation.checkpoints import last_checkpoint, train_sealed
    from training.distillation.losses import ClipLoss
    from training.run.distributed import training_device
    from training.small_models.clip_dataset import ClipBatches
    from training.small_models.decoded_images import IMAGES

    training_device(config.device)
    processor = build_processor(texts, config)
    model = build_clip(processor, config)
    batches = ClipBatches.read(captions, processor, run.folder / IMAGES, config)

    run.begin(RunInputs(captions_sha256=sha256_of_texts(texts + negatives), duplicates=disjoint.duplicates))
    args = training_arguments(config, run.checkpoints, len(batches))
    checkpoint = last_checkpoint(run, args.max_steps)
    log_file = run.folder / "log.jsonl"
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=batches,
        data_collator=batches.collate,
        compute_loss_func=ClipLoss(batches.label_vectors(), config.label_weight),
        callbacks=[SetEpoch(batches.set_epoch), SaveLog(log_file), ClampLogitScale()],
    )
    train_sealed(trainer, checkpoint)

    save_clip(model, processor, run.model, half=config.half)
    (run.folder / IMAGES).unlink()
    results = {"model": str(run.model), "dataset": captions.name, **evaluate_clip(run.model, disjoint, config)}
    write_card(run.model, results, config)
    run.finish(results)
    print_result(results, config.json)
    return results


if __name__ == "__main__":
    run_command(main)
