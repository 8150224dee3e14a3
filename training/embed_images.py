"""python -m training.embed_images recipe.yaml: embeds every image once with the frozen image model."""

from __future__ import annotations

import dataclasses
from typing import Any

from training.data.sources import read_captions
from training.embeddings.manifest import SKIPPED
from training.embeddings.shard_writer import embed_missing, plan
from training.run.command import print_result, quiet_hosts, run_command
from training.run.config import EmbedConfig, read
from training.run.lock import hold
from training.run.record import check_outputs, open_image_model
from turkish_clip.hosts import import_hosts


def main(argv: list[str]) -> dict[str, Any]:
    """Embeds the shards that are missing; returns the manifest, with the number of its shards."""
    config = read(EmbedConfig, argv)
    hold(config.folder, config.embeddings_folder)
    check_outputs(config.embeddings_folder, SKIPPED)
    quiet_hosts()
    captions = read_captions(config)
    import_hosts()

    model = open_image_model(config)
    manifest = embed_missing(model, captions, plan(model, config), config)
    summary = dataclasses.asdict(manifest)
    summary |= {"embeddings": str(config.embeddings_folder), "shards": len(manifest.shards)}
    for of_imported in ("imported_from", "text_shards"):
        del summary[of_imported]
    print_result(summary, config.json)
    return summary


if __name__ == "__main__":
    run_command(main)
