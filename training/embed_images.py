"""python -m training.embed_images recipe.yaml: the frozen image tower over every picture once, into targets."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.captions import Captions, check_rejects, read_captions, read_rejects, write_rejects
from training.command import print_result, quiet_hosts, run_command
from training.config import EmbedConfig, read
from training.hub import commit_of
from training.rows import Reject, Row
from training.run_record import sha256_of_texts
from training.targets import (
    REJECTS,
    Manifest,
    Shard,
    TargetsError,
    is_intact,
    is_unit,
    write_shard,
)
from turkish_clip.embed import embed_batches
from turkish_clip.towers import weights_sha256

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

log = logging.getLogger("training")


def main(argv: list[str]) -> dict[str, Any]:
    """Embeds what is missing; returns the manifest."""
    config = read(EmbedConfig, argv)
    quiet_hosts()
    captions = read_captions(config)

    from training.device import device_of
    from turkish_clip.encoder import load_model

    model = load_model(config.image_model, revision=config.image_model_revision, device=device_of(config.device))
    manifest = plan(model, config)
    manifest = embed_missing(model, captions, manifest, config)
    summary = dataclasses.asdict(manifest) | {"targets": str(config.targets_folder), "shards": len(manifest.shards)}
    print_result(summary, config.json)
    return summary


def plan(model: SentenceTransformer, config: EmbedConfig) -> Manifest:
    """The manifest to go on with: that of an earlier run of the same work, or a new one.

    Raises:
        TargetsError: the folder holds other work, or the model has no image side.
    """
    from turkish_clip.encoder import PROBE

    if not model.supports("image"):
        raise TargetsError(
            f"expected an image model, got {config.image_model}, which takes {', '.join(map(str, model.modalities))}; "
            "name one with --image_model"
        )
    wanted = Manifest(
        image_model=config.image_model,
        revision=commit_of(config.image_model, config.image_model_revision) or config.image_model_revision,
        asked_revision=config.image_model_revision,
        weights_sha256=weights_sha256(model),
        dim=int(model.encode(PROBE).shape[-1]),
        dtype=config.target_dtype,
        shard_size=config.shard_size,
        batch_size=config.image_batch_size,
        normalised=False,
        pictures=0,
        rejected=0,
        complete=False,
    )
    found = Manifest.read(config.targets_folder)
    if found is None:
        return wanted
    difference = wanted.same_work(found)
    if difference:
        raise TargetsError(
            f"expected the work that {config.targets_folder} was begun with, got {difference}; "
            "give another --targets, or delete that folder"
        )
    return found


def embed_missing(model: SentenceTransformer, captions: Captions, manifest: Manifest, config: EmbedConfig) -> Manifest:
    """Writes each shard that is not there yet; after each, the rejects and the manifest, so that a kill loses one.

    A shard is always embedded whole, from the same batches: a resumed run gives the same bytes. One whose pictures
    have changed since, by name, order or size, is embedded again.

    Raises:
        CaptionsError: too many pictures do not open; what was finished stays.
    """
    from tqdm import tqdm

    folder, rows = config.targets_folder, captions.rows
    folder.mkdir(parents=True, exist_ok=True)
    chunks = [rows[start : start + config.shard_size] for start in range(0, len(rows), config.shard_size)]
    sources = [sha256_of_texts(f"{row.image_id} {row.size}" for row in chunk) for chunk in chunks]
    done = finished(folder, manifest, sources)
    pending = [(number, chunk) for number, chunk in enumerate(chunks) if number not in done]
    if pending and manifest.complete:
        manifest = dataclasses.replace(manifest, complete=False)
        manifest.write(folder)
    unopened = still_unopened(folder, captions, done, config)
    left = sum(len(chunk) for _, chunk in pending)
    with tqdm(total=len(rows), initial=len(rows) - left, unit="picture", desc="embed", mininterval=0.5) as bar:
        for number, part in embedded(model, pending, manifest.dim, config, bar.update):
            vectors = part.vectors.astype(config.target_dtype)
            done[number] = write_shard(folder, number, part.image_ids, vectors, sources[number])
            unopened[number] = part.rejects
            rejects = all_rejects(captions, unopened)
            write_rejects(folder / REJECTS, rejects)
            manifest = manifest.grown(done.values(), len(rejects), is_unit(part.vectors))
            manifest.write(folder)
            check_rejects(rejects, captions, config)
    rejects = all_rejects(captions, unopened)
    check_rejects(rejects, captions, config)
    write_rejects(folder / REJECTS, rejects)
    manifest = dataclasses.replace(manifest.grown(done.values(), len(rejects), manifest.normalised), complete=True)
    manifest.write(folder)
    return manifest


def still_unopened(
    folder: Path, captions: Captions, done: Collection[int], config: EmbedConfig
) -> dict[int, list[Reject]]:
    """The pictures that an earlier run could not open, by shard, of the shards that are not embedded again."""
    of_rows = set(captions.rejects)
    before = {reject.image_id: reject for reject in read_rejects(folder / REJECTS) if reject not in of_rows}
    unopened: dict[int, list[Reject]] = {}
    for place, image_id in enumerate(captions.rows.image_ids()):
        if image_id in before and place // config.shard_size in done:
            unopened.setdefault(place // config.shard_size, []).append(before[image_id])
    return unopened


def all_rejects(captions: Captions, unopened: dict[int, list[Reject]]) -> list[Reject]:
    """The rows that were rejected, then the pictures that did not open, each in the order of the source."""
    return [*captions.rejects, *(reject for number in sorted(unopened) for reject in unopened[number])]


def finished(folder: Path, manifest: Manifest, sources: Sequence[str]) -> dict[int, Shard]:
    """The shards, by number, that are whole and of the pictures whose names and sizes hash to `sources`."""
    current = dict(enumerate(sources))
    whole = (shard for shard in manifest.shards if shard.source_sha256 == current.get(shard.number))
    return {shard.number: shard for shard in whole if is_intact(folder, shard)}


@dataclass(frozen=True)
class Embedded:
    """What one shard's pictures became: (n, dim) float32 vectors of those that opened, and the others."""

    image_ids: list[str]
    vectors: NDArray[np.float32]
    rejects: list[Reject]


def embedded(
    model: SentenceTransformer,
    chunks: Sequence[tuple[int, Sequence[Row]]],
    dim: int,
    config: EmbedConfig,
    progress: Callable[[int], Any],
) -> Iterator[tuple[int, Embedded]]:
    """Yields each shard's vectors as soon as its last batch is through the tower."""
    import numpy as np

    size = config.image_batch_size
    batches = (
        (number, list(chunk[start : start + size])) for number, chunk in chunks for start in range(0, len(chunk), size)
    )
    left = {number: -(-len(chunk) // size) for number, chunk in chunks}
    parts: dict[int, list[NDArray[np.float32]]] = {}
    kept: dict[int, tuple[list[str], list[Reject]]] = {}
    ahead, plan = tee(batches)  # one is as far ahead of the other as the decoding of the tower
    results = embed_batches(model, (batch for _, batch in ahead), dim=dim, workers=config.workers)
    for (number, batch), result in zip(plan, results, strict=True):
        image_ids, rejects = kept.setdefault(number, ([], []))
        image_ids += [batch[place].image_id for place in result.kept]
        rejects += [Reject(batch[place].image_id, error.name, error.reason) for place, error in result.errors.items()]
        parts.setdefault(number, []).append(result.vectors)
        progress(len(batch))
        left[number] -= 1
        if not left[number]:
            del kept[number]
            yield number, Embedded(image_ids, np.concatenate(parts.pop(number)), rejects)


if __name__ == "__main__":
    run_command(main)
