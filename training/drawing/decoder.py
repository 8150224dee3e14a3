"""python -m training.drawing.decoder recipe.yaml: trains a small decoder from image embeddings to images."""

from __future__ import annotations

from typing import Any

from training.run.command import print_result, quiet_hosts, run_command
from training.run.config import DecoderConfig, read
from training.run.lock import hold
from training.run.provenance import sha256_of, sha256_of_texts
from training.run.record import RunInputs, check_outputs, open_image_model, open_run
from turkish_clip.hosts import import_hosts


def main(argv: list[str]) -> dict[str, Any]:
    """Trains, saves and measures a decoder; returns what it measured."""
    config = read(DecoderConfig, argv)
    hold(config.folder)
    run = open_run(config)
    if run.summary is not None:
        print_result(run.summary, config.json)
        return run.summary

    check_outputs(run.folder, "skipped.jsonl")
    quiet_hosts()
    from training.data.sources import read_captions
    from training.embeddings.manifest import MANIFEST
    from training.embeddings.store import read_embeddings, remove_cross_split_duplicates

    captions = read_captions(config)
    embeddings = read_embeddings(
        config.embeddings_folder, image_model=config.image_model, revision=config.image_model_revision
    )
    disjoint = remove_cross_split_duplicates(captions, embeddings)
    captions = disjoint.captions
    import_hosts()
    from training.drawing.images import held_out, read_images, train, write_card
    from training.drawing.unclip import build_decoder, measure_decoder, with_vectors
    from training.run.distributed import training_device
    from turkish_clip.atomic import atomic_folder
    from turkish_clip.generate.decoder import save_decoder

    training_device(config.device)
    image_model = open_image_model(config)
    images = with_vectors(read_images(captions, run, config), embeddings)
    run.begin(
        RunInputs(
            captions_sha256=sha256_of_texts(row.image_id for row in images.rows),
            manifest_sha256=sha256_of(embeddings.folder / MANIFEST),
            duplicates=disjoint.duplicates,
        )
    )
    training = build_decoder(images, embeddings.manifest, image_model, config)
    train(training, images, run, config)
    with atomic_folder(run.model, None) as partial:
        save_decoder(training.decoder, partial, half=config.half)
    shown, rows = held_out(captions, config.image_size)
    measured = measure_decoder(run.model, shown, rows, embeddings, image_model)
    results = {"model": str(run.model), "dataset": captions.name, **measured}
    weights = training.decoder.record.image_weights_sha256
    write_card(
        run.model,
        f"A small decoder (of vectors of the image model of weights {weights[:12]}… to {config.image_size} pixels)",
        "`turkish_clip.generate.load_decoder(folder)` loads it, `turkish-clip draw --decoder` draws by it.",
        results,
    )
    run.finish(results)
    print_result(results, config.json)
    return results


if __name__ == "__main__":
    run_command(main)
