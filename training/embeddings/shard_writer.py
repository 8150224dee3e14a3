"""Embeds the missing shards of a folder; the manifest is written after each, so that a kill loses one at most."""

from __future__ import annotations

import dataclasses
import logging
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
from turkish_clip.embed import fast_dtype, set_weights_dtype
from turkish_clip.preprocessing import other_processor

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

log = logging.getLogger("training")
# Images per batch. Larger ones are not faster on a CPU core; on a GPU the tower alone embeds three times as many images
# a second in batches of 256 as of 64.
BATCH_ON_CPU, BATCH_ON_LARGE_GPU, BATCH_ELSEWHERE = 32, 256, 64
LARGE_GPU = 15 << 30  # bytes of its memory; those that are sold with 16 GB report a little less


def plan(model: SentenceTransformer, config: EmbedConfig) -> Manifest:
    """Returns the manifest to continue: that of an earlier run with the same settings, or a new one.

    A batch size or dtype of the computation that the configuration leaves open is taken from the earlier run.

    Args:
        model: the image model.
        config: names the folder, the image model and its revision, and gives the settings.

    Raises:
        EmbeddingsError: the folder was begun with other settings, or the model takes no images.
    """
    from turkish_clip.encoder import PROBE, image_processor

    if not model.supports("image"):
        raise EmbeddingsError(
            f"expected an image model, got {config.image_model}, which takes {', '.join(map(str, model.modalities))}; "
            "name one with --image_model"
        )
    earlier = Manifest.read(config.embeddings_folder)
    device = model.device.type
    usual_size, usual_dtype = _usual_batch_size(model.device), fast_dtype(device)
    new = Manifest(
        image_model=config.image_model,
        revision=commit_of(config.image_model, config.image_model_revision) or config.image_model_revision,
        requested_revision=config.image_model_revision,
        weights_sha256=weights_sha256(model),
        dim=int(model.encode(PROBE).shape[-1]),
        dtype=config.embedding_dtype,
        shard_size=config.shard_size,
        batch_size=config.image_batch_size or (earlier.batch_size if earlier else usual_size),
        compute_dtype=config.dtype if config.dtype != "auto" else (earlier.compute_dtype if earlier else usual_dtype),
        image_processor=type(image_processor(model)).__name__,
        content=CONTENT_HASH,
        normalised=False,
        images=0,
        skipped=0,
        complete=False,
    )
    if earlier is None:
        return new
    if difference := new.difference_from(earlier):
        raise EmbeddingsError(
            f"expected the settings that {config.embeddings_folder} was begun with, got {difference}; "
            "give another --embeddings, or delete that folder"
        )
    if earlier.image_processor != new.image_processor:
        log.warning("%s: %s", config.embeddings_folder, other_processor(earlier.image_processor, new.image_processor))
    return earlier


def _usual_batch_size(device: torch.device) -> int:
    """Returns how many images a device embeds at a time, unless that is chosen."""
    import torch

    if device.type == "cuda" and torch.cuda.get_device_properties(device).total_memory >= LARGE_GPU:
        return BATCH_ON_LARGE_GPU
    return BATCH_ON_CPU if device.type == "cpu" else BATCH_ELSEWHERE


def embed_missing(model: SentenceTransformer, captions: Captions, manifest: Manifest, config: EmbedConfig) -> Manifest:
    """Embeds and writes the shards that are missing or out of date; returns the finished manifest.

    A shard is always embedded whole, from the same batches, so a resumed run gives the same bytes. A shard is out of
    date if the ids, the order or the file sizes of its images have changed, or if a file that could not be read is
    back. Memory use does not grow with the number of images.

    Args:
        model: the image model.
        captions: the source, whose images are embedded.
        manifest: from `plan`.
        config: names the folder and the cluster, if any, and gives `max_skipped_fraction`.

    Raises:
        SourceError: too many images do not open; finished shards are kept.
    """
    from tqdm import tqdm

    set_weights_dtype(model, manifest.compute_dtype)
    rows = captions.rows
    with tqdm(total=len(rows), unit="image", desc="embed", mininterval=0.5) as bar:

        def pass_over(images: int) -> None:
            bar.initial += images  # left out of the rate that the bar shows
            bar.update(images)

        writer = ShardWriter(captions, manifest, config)
        embed = embedded_on_cluster if config.cluster else partial(embedded, model)
        try:
            for part in embed(writer.missing(pass_over), manifest, config, bar.update):
                writer.add(part)
        except BaseException:
            writer.write_skipped()
            raise
    return writer.finish()


class ShardWriter:
    """Writes the missing shards of a folder, its manifest and its list of skipped samples.

    Args:
        captions: the source.
        manifest: from `plan`.
        config: names the folder, and gives the shard size and `max_skipped_fraction`.
    """

    def __init__(self, captions: Captions, manifest: Manifest, config: EmbedConfig) -> None:
        self._captions = captions
        self._config = config
        self._folder = config.embeddings_folder
        self._manifest = manifest
        self._count = -(-len(captions.rows) // config.shard_size)
        self._shards = {shard.number: shard for shard in manifest.shards if shard.number < self._count}
        self._unopened: dict[int, list[SkippedSample]] = {}
        self._listed = [] if manifest.content else read_skipped(self._folder / SKIPPED)
        self._folder.mkdir(parents=True, exist_ok=True)

    def missing(self, pass_over: Callable[[int], None]) -> Iterator[Chunk]:
        """Yields the chunks whose shard is missing, damaged or out of date.

        Calls `pass_over` with the number of images of each other shard, which stays as it is.
        """
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
        """Writes a shard, then the manifest.

        Raises:
            SourceError: too many samples have been skipped so far.
        """
        number, manifest = part.chunk.number, self._manifest
        part = part.usable(manifest.dtype)
        self._shards[number] = write_shard(
            self._folder,
            number,
            part.image_ids,
            part.vectors.astype(manifest.dtype),
            part.chunk.sha256(part.unreadable),
            contents=part.contents if manifest.content else None,
            skipped=part.skipped,
        )
        self._unopened[number] = part.skipped
        self._manifest = manifest.grown(self._shards.values(), len(self._skipped()), is_unit(part.vectors))
        self._manifest.write(self._folder)
        check_skipped(self._skipped(), self._captions, self._config)

    def write_skipped(self) -> None:
        """Writes skipped.jsonl when a run stops early, with the samples known so far."""
        write_skipped(self._folder / SKIPPED, dict.fromkeys([*self._skipped(), *self._listed]))

    def finish(self) -> Manifest:
        """Writes skipped.jsonl and the manifest once no shard is missing; returns the manifest.

        Raises:
            SourceError: too many samples were skipped.
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
        unopened = skipped_in(self._folder, shard)
        if unopened is None:
            names = {row.image_id for row in chunk.rows}
            unopened = [sample for sample in self._listed if sample.image_id in names]
        return unopened
