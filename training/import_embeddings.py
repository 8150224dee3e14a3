"""python -m training.import_embeddings recipe.yaml: stores image embeddings that others have computed."""

from __future__ import annotations

import dataclasses
from typing import Any

from training.embeddings.imported import import_embeddings
from training.embeddings.manifest import SKIPPED
from training.run.command import print_result, quiet_hosts, run_command
from training.run.config import ImportConfig, read
from training.run.lock import hold
from training.run.record import check_outputs


def main(argv: list[str]) -> dict[str, Any]:
    """Imports the shards that are missing; returns the manifest, with the numbers of its shards and texts."""
    config = read(ImportConfig, argv)
    hold(config.folder, config.embeddings_folder)
    check_outputs(config.embeddings_folder, SKIPPED)
    if not config.image_model_sha256:  # the image model is loaded
        quiet_hosts()
    manifest = import_embeddings(config)
    summary = dataclasses.asdict(manifest)
    summary |= {
        "embeddings": str(config.embeddings_folder),
        "shards": len(manifest.shards),
        "text_shards": len(manifest.text_shards),
        "texts": sum(shard.images for shard in manifest.text_shards),
    }
    print_result(summary, config.json)
    return summary


if __name__ == "__main__":
    run_command(main)
