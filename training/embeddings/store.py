"""Finished image embeddings, looked up by image_id, and which of their images are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.duplicates import DIGEST_BYTES, Digests, DisjointSplits, deduplicate_by_digest, disjoint_splits, log
from training.data.samples import Row
from training.data.sources import Captions, read_skipped
from training.data.store import IdIndex
from training.embeddings.manifest import (
    CONTENT_BYTES,
    MANIFEST,
    SKIPPED,
    EmbeddingsError,
    Manifest,
    Shard,
    is_intact,
    is_unit,
)
from turkish_clip.metrics import Vectors, unit


@dataclass(frozen=True)
class ImageEmbeddings:
    """The image vectors of a finished folder, looked up by image_id; they stay in its shards.

    Attributes:
        ids: of the shards' rows, in order.
        skipped: the image_ids of images that did not open.
    """

    folder: Path
    manifest: Manifest
    ids: IdIndex
    skipped: frozenset[str]

    def find(self, image_ids: Iterable[str]) -> NDArray[np.int64]:
        """The numbers of images' rows in the shards, one after the other, -1 for those without: (n,) int64."""
        return self.ids.find(image_ids)

    def contents(self, length: int) -> NDArray[np.bytes_] | None:
        """The first bytes of the hashes of the images' files, row by row: (images,); None in older image embeddings."""
        import pyarrow.parquet as pq

        if not self.manifest.content:
            return None
        parts = [np.empty((0, length), np.uint8)]
        for shard in self.manifest.shards:
            for chunk in pq.read_table(self.folder / shard.file, columns=["content"])["content"].chunks:
                hashes = np.frombuffer(chunk.buffers()[1], np.uint8).reshape(-1, CONTENT_BYTES)
                parts.append(hashes[chunk.offset : chunk.offset + len(chunk), :length])
        return np.concatenate(parts).view(f"S{length}")[:, 0]

    def rows(self, image_ids: Sequence[str]) -> NDArray[np.int64]:
        """Like `find`, of images that all have a target.

        Raises:
            EmbeddingsError: an image has no target.
        """
        rows = self.find(image_ids)
        missing = np.flatnonzero(rows < 0)
        if len(missing):
            raise EmbeddingsError(
                f"expected a target for each image in {self.folder}, got none for {len(missing)}, the first "
                f"{image_ids[int(missing[0])]!r}; run training.embed_images on this source again"
            )
        return rows

    def by_shard(self, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.floating]]]:
        """The vectors of rows, as the image model gave them, each shard read once.

        Yields:
            places in `rows`, (k,) int64, and their vectors, (k, dim).
        """
        order = np.argsort(rows, kind="stable")
        ends = np.cumsum([shard.images for shard in self.manifest.shards], dtype=np.int64)
        edges = np.searchsorted(rows, ends, sorter=order).tolist()
        for shard, end, first, last in zip(self.manifest.shards, ends, [0, *edges], edges):
            if last > first:
                places = order[first:last]
                yield places, _matrix(self.folder / shard.file, self.manifest.dim)[rows[places] - end + shard.images]

    def unit_rows(self, image_ids: Sequence[str]) -> Vectors:
        """The (n, dim) float32 unit vectors of images, in the order asked for; for a part that fits into memory.

        Raises:
            EmbeddingsError: an image has no target.
        """
        rows = self.rows(image_ids)
        vectors: Vectors = np.empty((len(rows), self.manifest.dim), np.float32)
        for places, found in self.by_shard(rows):
            vectors[places] = unit(found.astype(np.float32))
        return vectors


def read_embeddings(
    folder: Path, *, image_model: str = "", revision: str = "", dim: int | None = None
) -> ImageEmbeddings:
    """Reads a finished folder of image embeddings, after checking whose they are.

    Args:
        folder: with manifest.json.
        image_model: the id or folder that the image embeddings must come from; empty takes any.
        revision: of that id; empty takes any.
        dim: the width they must have; None takes any.

    Raises:
        EmbeddingsError: no image embeddings there, unfinished or damaged ones, or another image model, width or normalisation.
    """
    manifest = Manifest.read(folder)
    if manifest is None:
        raise EmbeddingsError(
            f"expected image embeddings in {folder}, got no {MANIFEST}; run training.embed_images first"
        )
    if not manifest.complete:
        raise EmbeddingsError(
            f"expected finished image embeddings in {folder}, got a part; run training.embed_images again: it goes on, or says "
            "what stopped it"
        )
    if image_model and not _same_place(image_model, manifest.image_model):
        raise EmbeddingsError(
            f"expected image embeddings of the image model {image_model}, got those of {manifest.image_model} in {folder}; "
            "embed again with another --embeddings, or name that model"
        )
    if revision and revision not in (manifest.revision, manifest.requested_revision):
        raise EmbeddingsError(
            f"expected image embeddings of {manifest.image_model} at revision {revision}, got them at "
            f"{manifest.revision or 'an unnamed one'} in {folder}; embed again with another --embeddings"
        )
    if dim is not None and dim != manifest.dim:
        raise EmbeddingsError(f"expected image embeddings of width {dim}, got {manifest.dim} in {folder}; embed again")
    ids = IdIndex(image_id for shard in manifest.shards for image_id in _checked_ids(folder, shard, manifest))
    listed = [sample.image_id for sample in read_skipped(folder / SKIPPED)]
    skipped = frozenset(image_id for image_id, row in zip(listed, ids.find(listed)) if row < 0)
    return ImageEmbeddings(folder, manifest, ids, skipped)


def _checked_ids(folder: Path, shard: Shard, manifest: Manifest) -> list[str]:
    """The image_ids of a shard, after a look at its bytes and norms."""
    import pyarrow.parquet as pq

    path = folder / shard.file
    if not is_intact(folder, shard):
        raise EmbeddingsError(f"expected {path} as written, got other bytes; run embed_images again")
    if manifest.normalised and not is_unit(_matrix(path, manifest.dim)):
        raise EmbeddingsError(f"expected unit vectors in {folder}, as its manifest says, got other norms; embed again")
    image_ids: list[str] = pq.read_table(path, columns=["image_id"])["image_id"].to_pylist()
    return image_ids


def _matrix(path: Path, dim: int) -> NDArray[np.floating]:
    """The vectors of a shard: (images, dim) in the dtype of the file."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    flat = pc.list_flatten(pq.read_table(path, columns=["embedding"])["embedding"]).to_numpy()
    return np.asarray(flat).reshape(-1, dim)


def _same_place(one: str, other: str) -> bool:
    if one == other:
        return True
    return Path(one).is_dir() and Path(other).is_dir() and Path(one).resolve() == Path(other).resolve()


def remove_cross_split_duplicates(captions: Captions, embeddings: ImageEmbeddings) -> DisjointSplits:
    """Leaves out of train what is in validation or test, too, and out of validation what is in test.

    Images are the same where their files have the same bytes. Repeated ones within a split stay: all their captions
    are right, and `deduplicate` makes one image of them where that matters.

    Raises:
        SourceError: nothing is left of a split.
    """
    digests = _digests_of(embeddings, captions.rows.image_ids())
    if digests is None:
        log.info("%s holds no hashes of the images' files: images in two splits are not found", embeddings.folder)
        return DisjointSplits(captions, {}, {})
    return disjoint_splits(captions, digests)


def deduplicate(rows: Sequence[Row], embeddings: ImageEmbeddings) -> Sequence[Row]:
    """The rows of one split with each image once, in place of its first row, with the captions of all its rows.

    Otherwise a caption of one row would find the other, which is the same image and scores the same, and count as
    wrong.
    """
    digests = _digests_of(embeddings, [row.image_id for row in rows])
    return rows if digests is None else deduplicate_by_digest(rows, digests)


def _digests_of(embeddings: ImageEmbeddings, image_ids: Sequence[str]) -> Digests | None:
    """The (n,) digests of images' files; for one without a target, of its name. None where the image embeddings have none."""
    stored = embeddings.contents(DIGEST_BYTES)
    if stored is None:
        return None
    digests = np.empty(len(image_ids), stored.dtype)
    places = embeddings.find(image_ids)
    digests[places >= 0] = stored[places[places >= 0]]
    for number in np.flatnonzero(places < 0).tolist():  # skipped: no other image's
        digests[number] = hashlib.sha256(image_ids[number].encode()).digest()[:DIGEST_BYTES]
    return digests
