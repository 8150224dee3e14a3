"""Embeds the images of shards with the image model, batch by batch."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from training.data.samples import Row, SkippedSample
from training.embeddings.manifest import Manifest
from training.run.config import EmbedConfig
from training.run.provenance import sha256_of_texts
from turkish_clip.decoding import cores, processes_for
from turkish_clip.embed import EmbeddedBatch, embed_batches
from turkish_clip.images import UnreadableImageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

log = logging.getLogger("training")


@dataclass(frozen=True)
class Chunk:
    """The images of one shard, and the sizes of their files in bytes before they are opened."""

    number: int
    rows: Sequence[Row]
    sizes: list[int]

    def sha256(self, unreadable: frozenset[str] = frozenset()) -> str:
        """Returns the hash of the image_ids and file sizes, which changes when a shard has to be embedded again.

        The images in `unreadable` count as missing files, so that the shard is embedded again once they are back.
        """
        rows = zip(self.rows, self.sizes)
        return sha256_of_texts(f"{row.image_id} {0 if row.image_id in unreadable else size}" for row, size in rows)


@dataclass(frozen=True)
class Embedded:
    """The embeddings of one shard's images.

    Attributes:
        image_ids: of the n images that opened.
        vectors: (n, dim) float32, raw or unit as the image model gives them.
        contents: the SHA-256 of each one's file.
        skipped: the images that did not open.
        unreadable: the image_ids among them whose files are missing or can't be read.
    """

    chunk: Chunk
    image_ids: list[str]
    vectors: NDArray[np.float32]
    contents: list[bytes]
    skipped: list[SkippedSample]
    unreadable: frozenset[str]

    @classmethod
    def of(cls, chunk: Chunk, parts: Sequence[tuple[Sequence[Row], EmbeddedBatch]]) -> Embedded:
        """Joins the results of a chunk's batches.

        Args:
            chunk: the images of the shard.
            parts: its batches in order, each with its result.
        """
        import numpy as np

        errors = [(batch[place].image_id, error) for batch, part in parts for place, error in part.errors.items()]
        return cls(
            chunk,
            [batch[place].image_id for batch, part in parts for place in part.opened],
            np.concatenate([part.vectors for _, part in parts]),
            [content for _, part in parts for content in part.contents],
            [SkippedSample(image_id, error.name, error.reason) for image_id, error in errors],
            frozenset(image_id for image_id, error in errors if isinstance(error, UnreadableImageError)),
        )

    def usable(self, dtype: str) -> Embedded:
        """Returns the same with images whose vector is no direction among the skipped ones.

        Args:
            dtype: in which the vectors are stored; float16 ends at 65,504.
        """
        import numpy as np

        with np.errstate(over="ignore"):
            stored = self.vectors.astype(dtype)
        finite, anything = np.isfinite(stored).all(axis=1), stored.any(axis=1)
        if (finite & anything).all():
            return self
        kept = np.flatnonzero(finite & anything).tolist()
        reasons = {
            place: "the image model gives zeros" if finite[place] else f"the image model gives no numbers of {dtype}"
            for place in np.flatnonzero(~(finite & anything)).tolist()
        }
        skipped = [SkippedSample(self.image_ids[place], self.image_ids[place], why) for place, why in reasons.items()]
        return replace(
            self,
            image_ids=[self.image_ids[place] for place in kept],
            vectors=self.vectors[kept],
            contents=[self.contents[place] for place in kept],
            skipped=[*self.skipped, *skipped],
        )


def embedded(
    model: SentenceTransformer,
    chunks: Iterator[Chunk],
    manifest: Manifest,
    config: EmbedConfig,
    progress: Callable[[int], Any],
) -> Iterator[Embedded]:
    """Yields the embeddings of each chunk as soon as its last batch has been computed.

    Args:
        model: the image model, after `set_weights_dtype`.
        chunks: read as they are needed.
        manifest: gives the batch size, the width and the dtype of the computation.
        config: gives the number of processes or threads that decode images.
        progress: called with the number of images of each finished batch.
    """
    import torch

    device = model.device.type
    on_cpu = device == "cpu"
    # On a cluster, processes of Ray share the cores of a machine; they fork others only if that is asked for.
    wanted = 0 if config.cluster and config.decode_processes < 0 else config.decode_processes
    pending: deque[tuple[Chunk, Sequence[Row], bool]] = deque()  # batches that are being decoded or computed

    def batches() -> Iterator[Sequence[Row]]:
        for chunk in chunks:
            starts = range(0, len(chunk.rows), manifest.batch_size)
            for start in starts:
                batch = list(chunk.rows[start : start + manifest.batch_size])
                pending.append((chunk, batch, start == starts[-1]))
                yield batch

    workers = config.workers or (torch.get_num_threads() if on_cpu else cores())
    processes = processes_for(wanted, device)
    results = embed_batches(
        model,
        batches(),
        dim=manifest.dim,
        workers=workers,
        compute_threads=torch.get_num_threads() if on_cpu else 0,
        dtype=manifest.compute_dtype,
        decode_processes=processes,
    )
    decoders = f"{processes} processes" if processes else f"{workers} threads"
    log.info(
        "embedding %d images at a time on %s in %s; %s decode ahead",
        manifest.batch_size,
        device,
        manifest.compute_dtype,
        decoders,
    )
    parts: list[tuple[Sequence[Row], EmbeddedBatch]] = []
    for result in results:
        chunk, batch, is_last = pending.popleft()
        parts.append((batch, result))
        progress(len(batch))
        if is_last:
            yield Embedded.of(chunk, parts)
            parts = []
