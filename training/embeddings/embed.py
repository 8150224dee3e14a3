"""The images of a shard through the tower: what goes in, and what comes out."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from training.data.samples import Row, SkippedSample
from training.embeddings.manifest import Manifest
from training.run.config import EmbedConfig
from training.run.provenance import sha256_of_texts
from turkish_clip.embed import EmbeddedBatch, embed_batches
from turkish_clip.images import UnreadError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True)
class Chunk:
    """The images of one shard, and the sizes of their files before they are opened."""

    number: int
    rows: Sequence[Row]
    sizes: list[int]

    def sha256(self, unread: frozenset[str] = frozenset()) -> str:
        """What says whether the images are those that a shard was made of.

        Those that could not be read count as gone, so that the shard is made again when they are back.
        """
        rows = zip(self.rows, self.sizes)
        return sha256_of_texts(f"{row.image_id} {0 if row.image_id in unread else size}" for row, size in rows)


@dataclass(frozen=True)
class Embedded:
    """What one shard's images became.

    Attributes:
        image_ids: of those that opened.
        vectors: theirs, (n, dim) float32.
        contents: the SHA-256 of their files.
        skipped: the others.
        unread: the image_ids of those among the others whose files are gone or can't be read.
    """

    chunk: Chunk
    image_ids: list[str]
    vectors: NDArray[np.float32]
    contents: list[bytes]
    skipped: list[SkippedSample]
    unread: frozenset[str]

    @classmethod
    def of(cls, chunk: Chunk, parts: Sequence[tuple[Sequence[Row], EmbeddedBatch]]) -> Embedded:
        """From the chunk's batches, in order."""
        import numpy as np

        errors = [(batch[place].image_id, error) for batch, part in parts for place, error in part.errors.items()]
        return cls(
            chunk,
            [batch[place].image_id for batch, part in parts for place in part.kept],
            np.concatenate([part.vectors for _, part in parts]),
            [content for _, part in parts for content in part.contents],
            [SkippedSample(image_id, error.name, error.reason) for image_id, error in errors],
            frozenset(image_id for image_id, error in errors if isinstance(error, UnreadError)),
        )


def embedded(
    model: SentenceTransformer,
    chunks: Iterator[Chunk],
    manifest: Manifest,
    config: EmbedConfig,
    progress: Callable[[int], Any],
) -> Iterator[Embedded]:
    """Yields each shard's vectors as soon as its last batch is through the tower."""
    import torch

    on_cpu = model.device.type == "cpu"
    plan: deque[tuple[Chunk, Sequence[Row], bool]] = deque()  # as far as the decoding is ahead of the tower

    def batches() -> Iterator[Sequence[Row]]:
        for chunk in chunks:
            starts = range(0, len(chunk.rows), manifest.batch_size)
            for start in starts:
                batch = list(chunk.rows[start : start + manifest.batch_size])
                plan.append((chunk, batch, start == starts[-1]))
                yield batch

    results = embed_batches(
        model,
        batches(),
        dim=manifest.dim,
        workers=config.workers or (torch.get_num_threads() if on_cpu else os.cpu_count() or 1),
        compute_threads=torch.get_num_threads() if on_cpu else 0,
        dtype=manifest.compute_dtype,
    )
    parts: list[tuple[Sequence[Row], EmbeddedBatch]] = []
    for result in results:
        chunk, batch, is_last = plan.popleft()
        parts.append((batch, result))
        progress(len(batch))
        if is_last:
            yield Embedded.of(chunk, parts)
            parts = []
