"""python -m training.drawing.autoencoder recipe.yaml: trains a small VQ-autoencoder, through which images are drawn."""

from __future__ import annotations

from typing import Any

from training.data.duplicates import digests_of_files, disjoint_splits
from training.data.sources import read_captions
from training.run.command import print_result, quiet_hosts, run_command
from training.run.config import AutoencoderConfig, read
from training.run.lock import hold
from training.run.provenance import sha256_of_texts
from training.run.record import RunInputs, check_outputs, open_image_model, open_run
from turkish_clip.hosts import import_hosts


def main(argv: list[str]) -> dict[str, Any]:
    """Trains, saves and measures an autoencoder; returns what it measured."""
    config = read(AutoencoderConfig, argv)
    hold(config.folder)
    run = open_run(config)
    if run.summary is not None:
        print_result(run.summary, config.json)
        return run.summary

    check_outputs(run.folder, "skipped.jsonl")
    quiet_hosts()
    captions = read_captions(config)
    disjoint = disjoint_splits(captions, digests_of_files(captions.rows, len(captions.rows)))
    captions = disjoint.captions
    import_hosts()
    from training.drawing.images import held_out, read_images, train, write_card
    from training.drawing.quantised import build_autoencoder, measure_autoencoder, save_autoencoder
    from training.run.distributed import training_device

    training_device(config.device)
    image_model = open_image_model(config) if config.image_model and config.tower_weight else None
    images = read_images(captions, run, config)
    run.begin(
        RunInputs(captions_sha256=sha256_of_texts(row.image_id for row in images.rows), duplicates=disjoint.duplicates)
    )
    training = build_autoencoder(images, config, image_model)
    train(training, images, run, config)
    save_autoencoder(training.model, run.model, half=config.half)
    shown, _ = held_out(captions, config.image_size)
    results = {"model": str(run.model), "dataset": captions.name, **measure_autoencoder(run.model, shown)}
    side = config.image_size // 2 ** (len(config.channels) - 1)
    write_card(
        run.model,
        f"A small VQ-autoencoder ({config.image_size}-pixel images as {side} × {side} codes out of {config.codes})",
        "diffusers' `VQModel.from_pretrained(folder)` loads it, `turkish-clip draw --generator` draws through it.",
        results,
    )
    run.finish(results)
    print_result(results, config.json)
    return results


if __name__ == "__main__":
    run_command(main)
