"""Embeds images on a Ray cluster: workers embed whole shards, and one process writes them.

Ray Data (extra `distributed`) keeps the pool of workers and gives each free worker the next shard; if a worker dies,
another gets its shard. Alternatives considered: Daft (pins pyarrow), PySpark (needs Java), Dask (has no pool of actors
that keep a loaded model).
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
from turkish_clip.cluster import LOCAL, ray_session
from turkish_clip.images import ImageError

SHARDS_PER_WORKER = 4  # handed out at once; 1 where the bytes of the images are sent to the workers


@dataclass(frozen=True)
class InlineImage(LazyImage):
    """An image whose bytes are sent to the worker."""

    content: bytes

    def read(self) -> bytes:
        return self.content


@dataclass(frozen=True)
class UnreadableImage(LazyImage):
    """An image that could not be read before it was sent, and why: the worker skips it with that reason."""

    name: str
    reason: str

    def read(self) -> bytes:
        raise ImageError(self.name, self.reason)


class ShardEmbedder:
    """A worker of the cluster, which loads the image model once and embeds whole shards.

    Args:
        manifest: gives the hash of the weights, the batch size, the width and the dtype of the computation.
        config: names the image model and the device.

    Raises:
        EmbeddingsError: the image model has other weights on this node.
    """

    def __init__(self, manifest: Manifest, config: EmbedConfig) -> None:
        from training.run.record import open_image_model
        from turkish_clip.dual_encoder import weights_sha256
        from turkish_clip.embed import set_weights_dtype

        self.manifest, self.config = manifest, config
        self.model = open_image_model(config)
        if weights_sha256(self.model) != manifest.weights_sha256:
            raise EmbeddingsError(
                f"expected the same weights of {config.image_model} on all nodes, got others on one; "
                "name a revision, or copy the same folder to all"
            )
        set_weights_dtype(self.model, manifest.compute_dtype)

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        chunk: Chunk = item["chunk"]
        (part,) = embedded(self.model, iter([chunk]), self.manifest, self.config, lambda _: None)
        return {"part": dataclasses.replace(part, chunk=dataclasses.replace(chunk, rows=[]))}


def embedded_on_cluster(
    chunks: Iterator[Chunk], manifest: Manifest, config: EmbedConfig, progress: Callable[[int], Any]
) -> Iterator[Embedded]:
    """Yields the embeddings of chunks as workers finish them, in any order, with the same vectors as one process.

    Workers read image files themselves, so these need the same path on every node; images inside data sets are sent as
    bytes. Every node needs this checkout.

    Args:
        chunks: read in groups, as many as the workers embed at once.
        manifest: as in `ShardEmbedder`.
        config: names the cluster, the image model and the device.
        progress: called with the number of images of each finished chunk.

    Raises:
        ClusterError: Ray is not installed, or there is no cluster at the address.
        EmbeddingsError: a worker failed.
    """
    from training.run.distributed import device_of
    from training.run.record import locate_model

    with ray_session(config.cluster, config.cluster_workers) as ray:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # it warns that chunks are no Arrow type
        device = device_of(config.device)
        name = locate_model(config.image_model, config.folder)
        if Path(name).is_dir():  # workers have another working directory
            config = dataclasses.replace(config, image_model=str(Path(name).resolve()))
        while first := next(chunks, None):
            sends_bytes = bool(first.rows) and not isinstance(first.rows[0].image, Path)
            at_once = config.cluster_workers * (1 if sends_bytes else SHARDS_PER_WORKER)
            group = {chunk.number: chunk for chunk in (first, *islice(chunks, at_once - 1))}
            data = ray.data.from_items([{"chunk": portable(chunk)} for chunk in group.values()])
            data = data.repartition(len(group)).map(
                ShardEmbedder,
                fn_constructor_args=(manifest, config),
                compute=ray.data.ActorPoolStrategy(size=min(config.cluster_workers, len(group))),
                num_cpus=0.5 if config.cluster == LOCAL else 1,  # Ray's own reading needs CPUs, too, or it waits
                num_gpus=1 if device.startswith("cuda") else None,
            )
            try:
                for item in data.iter_rows():
                    chunk = group[item["part"].chunk.number]
                    progress(len(chunk.rows))
                    yield dataclasses.replace(item["part"], chunk=chunk)
            except ray.exceptions.RayError as error:
                reason = str(getattr(error, "cause", None) or error).strip().splitlines()[-1][:300]
                raise EmbeddingsError(
                    f"expected the workers on the cluster {config.cluster!r} to finish, got {reason}; "
                    "run it again: finished shards are kept"
                ) from error


def portable(chunk: Chunk) -> Chunk:
    """Returns a chunk that another machine can read: with absolute paths of files, and other images as bytes."""
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
