"""Embeds what is missing of a folder: each shard whole, and after each the manifest, so that a kill loses one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from training.data.samples import SkippedSample
from training.data.sources import Captions, check_skipped, read_skipped, write_skipped
from training.embeddings.embed import Chunk, Embedded, embedded
from training.embeddings.manifest import (
    CONTENT_HASH,
    SKIPPED,
    EmbeddingsError,
    Manifest,
    Shard,
    is_intact,
    is_unit,
    skipped_in,
    write_shard,
)
from training.embeddings.ray_embed import embedded_on_cluster
from training.run.config import EmbedConfig
from training.run.provenance import commit_of
from turkish_clip.dual_encoder import weights_sha256
from turkish_clip.embed import bf16_weights, fast_dtype

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

BATCH_ON_CPU, BATCH_ELSEWHERE = 32, 64  # images per step: a core is no faster with more, a GPU is


def plan(model: SentenceTransformer, config: EmbedConfig) -> Manifest:
    """The manifest to go on with: that of an earlier run of the same work, or a new one.

    What the configuration leaves open, the dtype of the computation and the batch size, is as in the earlier run.

    Raises:
        EmbeddingsError: the folder holds other work, or the model has no image side.
    """
    from turkish_clip.encoder import PROBE

    if not model.supports("image"):
        raise EmbeddingsError(
            f"expected an image model, got {config.image_model}, which takes {', '.join(map(str, model.modalities))}; "
            "name one with --image_model"
        )
    found = Manifest.read(config.embeddings_folder)
    device = model.device.type
    usual_size, usual_dtype = BATCH_ON_CPU if device == "cpu" else BATCH_ELSEWHERE, fast_dtype(device)
    wanted = Manifest(
        image_model=config.image_model,
        revision=commit_of(config.image_model, config.image_model_revision) or config.image_model_revision,
        requested_revision=config.image_model_revision,
        weights_sha256=weights_sha256(model),
        dim=int(model.encode(PROBE).shape[-1]),
        dtype=config.embedding_dtype,
        shard_size=config.shard_size,
        batch_size=config.image_batch_size or (found.batch_size if found else usual_size),
        compute_dtype=config.dtype if config.dtype != "auto" else (found.compute_dtype if found else usual_dtype),
        content=CONTENT_HASH,
        normalised=False,
        images=0,
        skipped=0,
        complete=False,
    )
    if found is None:
        return wanted
    difference = wanted.same_work(found)
    if difference:
        raise EmbeddingsError(
            f"expected the work that {config.embeddings_folder} was begun with, got {difference}; "
            "give another --embeddings, or delete that folder"
        )
    return found


def embed_missing(model: SentenceTransformer, captions: Captions, manifest: Manifest, config: EmbedConfig) -> Manifest:
    """Writes each shard that is not there yet, and after each the manifest, so that a kill loses one.

    A shard is always embedded whole, from the same batches: a resumed run gives the same bytes. One whose images
    have changed since, by name, order or size, is embedded again, and so is one with a file that could not be read and
    is back. Memory does not grow with the number of images.

    Raises:
        SourceError: too many images do not open; what was finished stays.
    """
    from tqdm import tqdm

    if manifest.compute_dtype == "bf16":
        bf16_weights(model)
    rows = captions.rows
    with tqdm(total=len(rows), unit="image", desc="embed", mininterval=0.5) as bar:

        def pass_over(images: int) -> None:
            bar.initial += images  # so that they do not count as quickly done
            bar.update(images)

        shelf = ShardWriter(captions, manifest, config)
        embed = embedded_on_cluster if config.cluster else partial(embedded, model)
        try:
            for part in embed(shelf.missing(pass_over), manifest, config, bar.update):
                shelf.add(part)
        except BaseException:
            shelf.write_skipped()
            raise
    return shelf.finish()


class ShardWriter:
    """The shards of a folder while some of them are missing."""

    def __init__(self, captions: Captions, manifest: Manifest, config: EmbedConfig) -> None:
        self._captions = captions
        self._config = config
        self._folder = config.embeddings_folder
        self._manifest = manifest
        self._count = -(-len(captions.rows) // config.shard_size)
        self._shards = {shard.number: shard for shard in manifest.shards if shard.number < self._count}
        self._unopened: dict[int, list[SkippedSample]] = {}
        self._older = [] if manifest.content else read_skipped(self._folder / SKIPPED)
        self._folder.mkdir(parents=True, exist_ok=True)

    def missing(self, pass_over: Callable[[int], None]) -> Iterator[Chunk]:
        """The parts of the source without a shard that is whole and of the images that are there now."""
        size = self._config.shard_size
        for number in range(self._count):
            rows = self._captions.rows[number * size : (number + 1) * size]
            chunk = Chunk(number, rows, [row.size for row in rows])
            shard = self._shards.get(number)
            if shard is not None and shard.source_sha256 == chunk.sha256() and is_intact(self._folder, shard):
                self._unopened[number] = self._unopened_in(shard, chunk)
                pass_over(len(rows))
                continue
            self._shards.pop(number, None)
            if self._manifest.complete:
                self._manifest = dataclasses.replace(self._manifest, complete=False)
                self._manifest.write(self._folder)
            yield chunk

    def add(self, part: Embedded) -> None:
        """Writes a shard and the manifest.

        Raises:
            SourceError: too many images have not opened so far.
        """
        number, manifest = part.chunk.number, self._manifest
        self._shards[number] = write_shard(
            self._folder,
            number,
            part.image_ids,
            part.vectors.astype(manifest.dtype),
            part.chunk.sha256(part.unread),
            contents=part.contents if manifest.content else None,
            skipped=part.skipped,
        )
        self._unopened[number] = part.skipped
        self._manifest = manifest.grown(self._shards.values(), len(self._skipped()), is_unit(part.vectors))
        self._manifest.write(self._folder)
        check_skipped(self._skipped(), self._captions, self._config)

    def write_skipped(self) -> None:
        """Writes skipped.jsonl of a run that stops, with what is known so far."""
        known = self._skipped()
        write_skipped(self._folder / SKIPPED, dict.fromkeys([*known, *self._older]))

    def finish(self) -> Manifest:
        """Writes skipped.jsonl and the manifest of a folder in which nothing is missing; returns the manifest.

        Raises:
            SourceError: too many images did not open.
        """
        skipped, normalised = self._skipped(), self._manifest.normalised
        write_skipped(self._folder / SKIPPED, skipped)
        check_skipped(skipped, self._captions, self._config)
        manifest = self._manifest.grown(self._shards.values(), len(skipped), normalised)
        manifest = dataclasses.replace(manifest, complete=True)
        manifest.write(self._folder)
        return manifest

    def _skipped(self) -> list[SkippedSample]:
        parts = (self._unopened[number] for number in sorted(self._unopened))
        return [*self._captions.skipped, *chain.from_iterable(parts)]

    def _unopened_in(self, shard: Shard, chunk: Chunk) -> list[SkippedSample]:
        found = skipped_in(self._folder, shard)
        if found is None:
            names = {row.image_id for row in chunk.rows}
            found = [sample for sample in self._older if sample.image_id in names]
        return found
