"""Embedding on many machines: images go to the workers of a Ray cluster by shards, vectors come back to one writer.

Ray Data (extra `distributed`) keeps the pool of workers, hands a shard to whoever is free, and to another worker where
one dies. What was looked at beside it: Daft (pins pyarrow), PySpark (wants Java), Dask (has no pool of actors that keep
a loaded model).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from training.data.lazy_images import LazyImage
from training.embeddings.embed import Chunk, Embedded, embedded
from training.embeddings.manifest import EmbeddingsError, Manifest
from training.run.config import EmbedConfig
from turkish_clip.cluster import LOCAL, joined
from turkish_clip.images import ImageError

SHARDS_PER_WORKER = 4  # on the way at once; one where images are sent along


@dataclass(frozen=True)
class InlineImage(LazyImage):
    """An image that is sent along."""

    content: bytes

    def read(self) -> bytes:
        """The bytes of the file."""
        return self.content


@dataclass(frozen=True)
class UnreadableImage(LazyImage):
    """An image that could not be sent, and why: the worker counts it among its skipped."""

    name: str
    reason: str

    def read(self) -> bytes:
        """Raises the ImageError."""
        raise ImageError(self.name, self.reason)


class ShardEmbedder:
    """A worker: loads the tower once, and embeds whole shards."""

    def __init__(self, manifest: Manifest, config: EmbedConfig) -> None:
        from training.run.distributed import device_of
        from turkish_clip.dual_encoder import weights_sha256
        from turkish_clip.embed import bf16_weights
        from turkish_clip.encoder import load_model

        self.manifest, self.config = manifest, config
        device = device_of(config.device)
        self.model = load_model(config.image_model, revision=config.image_model_revision, device=device)
        if weights_sha256(self.model) != manifest.weights_sha256:
            raise EmbeddingsError(
                f"expected the same weights of {config.image_model} on all nodes, got others on one; "
                "name a revision, or copy the folder to it"
            )
        if manifest.compute_dtype == "bf16":
            bf16_weights(self.model)

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        chunk: Chunk = item["chunk"]
        (part,) = embedded(self.model, iter([chunk]), self.manifest, self.config, lambda _: None)
        return {"part": dataclasses.replace(part, chunk=dataclasses.replace(chunk, rows=[]))}


def embedded_on_cluster(
    chunks: Iterator[Chunk], manifest: Manifest, config: EmbedConfig, progress: Callable[[int], Any]
) -> Iterator[Embedded]:
    """Yields shards as they are done, in no order: the vectors are those of one process.

    Image files are read by the workers, so they lie at the same path on every node; images out of data sets are
    sent along. Each node has this checkout.

    Raises:
        ClusterError: Ray is not installed, or there is no cluster at the address.
        EmbeddingsError: a worker can't go on.
    """
    from training.run.distributed import device_of

    with joined(config.cluster, config.cluster_workers) as ray:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # it warns that our rows are no columns of Arrow's
        device = device_of(config.device)
        if Path(config.image_model).is_dir():  # workers start in another folder
            config = dataclasses.replace(config, image_model=str(Path(config.image_model).resolve()))
        while first := next(chunks, None):
            sent_along = bool(first.rows) and not isinstance(first.rows[0].image, Path)
            at_once = config.cluster_workers * (1 if sent_along else SHARDS_PER_WORKER)
            some = {chunk.number: chunk for chunk in (first, *islice(chunks, at_once - 1))}
            data = ray.data.from_items([{"chunk": portable(chunk)} for chunk in some.values()])
            data = data.repartition(len(some)).map(
                ShardEmbedder,
                fn_constructor_args=(manifest, config),
                compute=ray.data.ActorPoolStrategy(size=min(config.cluster_workers, len(some))),
                num_cpus=0.5 if config.cluster == LOCAL else 1,  # some are left to Ray's own reading, which waits else
                num_gpus=1 if device.startswith("cuda") else None,
            )
            try:
                for item in data.iter_rows():
                    chunk = some[item["part"].chunk.number]
                    progress(len(chunk.rows))
                    yield dataclasses.replace(item["part"], chunk=chunk)
            except ray.exceptions.RayError as error:
                said = str(getattr(error, "cause", None) or error).strip().splitlines()[-1][:300]
                raise EmbeddingsError(
                    f"expected workers on the cluster {config.cluster!r} that go on, got {said}; "
                    "what was finished stays: run it again"
                ) from error


def portable(chunk: Chunk) -> Chunk:
    """The chunk as another machine can read it: files by their whole paths, other images as their bytes."""
    rows = []
    for row in chunk.rows:
        image = row.image
        if not isinstance(image, Path):
            try:
                content = image.read()
                image = content if isinstance(content, Path) else InlineImage(content)
            except ImageError as error:
                image = UnreadableImage(error.name, error.reason)
        rows.append(dataclasses.replace(row, image=image.absolute() if isinstance(image, Path) else image))
    return dataclasses.replace(chunk, rows=rows)
