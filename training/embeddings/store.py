"""Reads finished image embeddings, finds them by image_id, and finds duplicate images by the hashes of their files."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.duplicates import DIGEST_BYTES, Digests, DisjointSplits, deduplicate_by_digest, disjoint_splits, log
from training.data.samples import Row
from training.data.sources import Captions, read_skipped
from training.data.store import IdIndex
from training.embeddings.manifest import (
    CONTENT_BYTES,
    IMAGES,
    MANIFEST,
    SKIPPED,
    TEXTS,
    EmbeddingsError,
    Manifest,
    Shard,
    ShardKind,
    is_intact,
    is_unit,
)
from turkish_clip.decoding import cores
from turkish_clip.metrics import Vectors, unit

MOST_READERS = 16  # each holds a shard


@dataclass(frozen=True)
class ImageEmbeddings:
    """The image embeddings of a finished folder, found by image_id; the vectors stay on disk.

    Attributes:
        ids: image_id → row number, from 0, counted through all shards in their order.
        skipped: the image_ids of images that did not open.
    """

    folder: Path
    manifest: Manifest
    ids: IdIndex
    skipped: frozenset[str]

    def find(self, image_ids: Iterable[str]) -> NDArray[np.int64]:
        """Returns the row numbers of n images, (n,) int64; -1 for an image without an embedding."""
        return self.ids.find(image_ids)

    def contents(self, length: int) -> NDArray[np.bytes_] | None:
        """Returns the first `length` bytes of the SHA-256 of each row's file, (rows,) bytes; None if not stored."""
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
        """Returns the row numbers of n images that must all have an embedding: (n,) int64.

        Raises:
            EmbeddingsError: an image has none.
        """
        rows = self.find(image_ids)
        missing = np.flatnonzero(rows < 0)
        if len(missing):
            raise EmbeddingsError(
                f"expected an embedding for each image in {self.folder}, got none for {len(missing)}, the first "
                f"{image_ids[int(missing[0])]!r}; {self._advice()}"
            )
        return rows

    def _advice(self) -> str:
        """Returns what to do where an image has no embedding."""
        if not self.manifest.imported_from:
            return "run training.embed_images on this source again"
        stored = next(_names(self.folder, self.manifest.shards, IMAGES), "none")
        return f"import those too, or name the images alike with --id_column (imported ones are such as {stored!r})"

    def by_shard(self, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.floating]]]:
        """Reads the vectors of (n,) row numbers shard by shard, each shard once.

        Yields:
            For each shard the (k,) int64 positions in `rows` that it covers, and their vectors: (k, dim) in the stored
            dtype, as the image model gave them.
        """
        return _by_shard(rows, self.folder, self.manifest.shards, self.manifest.dim)

    def unit_rows(self, image_ids: Sequence[str]) -> Vectors:
        """Returns the (n, dim) float32 unit vectors of n images, in order; all of them are held in memory.

        Raises:
            EmbeddingsError: an image has no embedding.
        """
        rows = self.rows(image_ids)
        vectors: Vectors = np.empty((len(rows), self.manifest.dim), np.float32)
        for places, raw in self.by_shard(rows):
            vectors[places] = unit(raw.astype(np.float32))
        return vectors


@dataclass(frozen=True)
class TextEmbeddings:
    """The image model's embeddings of texts that were imported with those of images; the vectors stay on disk.

    Attributes:
        texts: text → row number, from 0, counted through all shards in their order.
        normalised: whether all vectors have norm 1.
    """

    folder: Path
    manifest: Manifest
    texts: IdIndex
    normalised: bool

    @classmethod
    def of(cls, embeddings: ImageEmbeddings) -> TextEmbeddings:
        """Reads those beside image embeddings, after checking their shards; there may be none.

        Raises:
            EmbeddingsError: a shard is damaged.
        """
        folder, manifest = embeddings.folder, embeddings.manifest
        for shard in manifest.text_shards:
            if not is_intact(folder, shard):
                raise EmbeddingsError(
                    f"expected {folder / shard.file} as written, got other bytes; run {manifest.maker} again"
                )
        normalised = True
        for shard in manifest.text_shards:
            path = folder / shard.file
            vectors = _checked_matrix(path, shard, manifest)
            if not np.isfinite(vectors).all():
                _check_finite(vectors, list(_names(folder, [shard], TEXTS)), path, manifest)
            normalised = normalised and is_unit(vectors)
        return cls(folder, manifest, IdIndex(_names(folder, manifest.text_shards, TEXTS)), normalised)

    def find(self, texts: Iterable[str]) -> NDArray[np.int64]:
        """Returns the row numbers of n texts, (n,) int64; -1 for a text without an embedding."""
        return self.texts.find(texts)

    def by_shard(self, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.floating]]]:
        """Reads the vectors of (n,) row numbers as `ImageEmbeddings.by_shard` does; those of -1 are left out."""
        return _by_shard(rows, self.folder, self.manifest.text_shards, self.manifest.dim)


def read_embeddings(
    folder: Path, *, image_model: str = "", revision: str = "", dim: int | None = None
) -> ImageEmbeddings:
    """Reads a finished folder of image embeddings, after checking its shards and which image model made them.

    Args:
        folder: contains manifest.json.
        image_model: Hub id or folder of the image model that must have made them; empty accepts any.
        revision: of the image model on the Hub; empty accepts any.
        dim: the width that they must have; None accepts any.

    Raises:
        EmbeddingsError: they are missing, unfinished, damaged, or of another image model, revision or width.
    """
    manifest = Manifest.read(folder)
    if manifest is None:
        raise EmbeddingsError(
            f"expected image embeddings in {folder}, got no {MANIFEST}; run training.embed_images first"
        )
    if not manifest.complete:
        raise EmbeddingsError(
            f"expected finished image embeddings in {folder}, got unfinished ones; run {manifest.maker} again"
        )
    if image_model and not _same_place(image_model, manifest.image_model):
        raise EmbeddingsError(
            f"expected image embeddings of the image model {image_model}, got those of {manifest.image_model} in "
            f"{folder}; embed again with another --embeddings, or name that model"
        )
    if revision and revision not in (manifest.revision, manifest.requested_revision):
        raise EmbeddingsError(
            f"expected image embeddings of {manifest.image_model} at revision {revision}, got revision "
            f"{manifest.revision or 'unknown'} in {folder}; embed again with another --embeddings"
        )
    if dim is not None and dim != manifest.dim:
        raise EmbeddingsError(f"expected image embeddings of width {dim}, got {manifest.dim} in {folder}; embed again")
    if not manifest.weights_sha256:
        log.warning(
            "the weights of %s that made %s are unknown: nothing can tell whether another copy of it is the same, and "
            "no model that is trained on them can be published",
            manifest.image_model,
            folder,
        )
    checked = _in_threads(lambda shard: _checked_ids(folder, shard, manifest), manifest.shards)
    ids = IdIndex(chain.from_iterable(checked))
    listed = [sample.image_id for sample in read_skipped(folder / SKIPPED)]
    skipped = frozenset(image_id for image_id, row in zip(listed, ids.find(listed)) if row < 0)
    return ImageEmbeddings(folder, manifest, ids, skipped)


def _in_threads(check: Callable[[Shard], list[str]], shards: Iterable[Shard]) -> Iterator[list[str]]:
    """Yields what a check returns for each shard, in their order; as many as there are cores are read at a time.

    Hashing, decoding and adding up leave Python's lock to other threads. The first error is raised in its place.
    """
    with ThreadPoolExecutor(workers := min(cores(), MOST_READERS)) as pool:
        running: deque[Future[list[str]]] = deque()
        try:
            for shard in shards:
                running.append(pool.submit(check, shard))
                if len(running) > workers:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


def _checked_ids(folder: Path, shard: Shard, manifest: Manifest) -> list[str]:
    """Returns the image_ids of a shard, after checking its bytes, its numbers and its norms."""
    path = folder / shard.file
    if not is_intact(folder, shard):
        raise EmbeddingsError(f"expected {path} as written, got other bytes; run {manifest.maker} again")
    vectors, image_ids = _checked_matrix(path, shard, manifest), list(_names(folder, [shard], IMAGES))
    _check_finite(vectors, image_ids, path, manifest)
    if manifest.normalised and not is_unit(vectors):
        raise EmbeddingsError(f"expected unit vectors in {folder}, as its manifest says, got other norms; embed again")
    return image_ids


def _checked_matrix(path: Path, shard: Shard, manifest: Manifest) -> NDArray[np.floating]:
    """Returns the vectors of a shard, after checking that they are as many and as wide as the manifest says."""
    import pyarrow.parquet as pq

    footer = pq.read_metadata(path)
    rows, width = footer.num_rows, getattr(footer.schema.to_arrow_schema().field("embedding").type, "list_size", 0)
    if (rows, width) != (shard.images, manifest.dim):
        raise EmbeddingsError(
            f"expected {shard.images} vectors of width {manifest.dim} in {path}, as {MANIFEST} says, got {rows} of "
            f"width {width}; delete the folder and run {manifest.maker} again"
        )
    return _matrix(path, manifest.dim)


def _check_finite(vectors: NDArray[np.floating], names: Sequence[str], path: Path, manifest: Manifest) -> None:
    """Checks that no vector of a shard holds NaN or infinity, which would make every figure and weight one, too.

    Raises:
        EmbeddingsError: one does; the first is named.
    """
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise EmbeddingsError(
            f"expected numbers in {path}, got NaN or infinity in {len(bad)} of its {len(vectors)} vectors, the first "
            f"of {names[int(bad[0])]!r}; delete that file and run {manifest.maker} again"
        )


def _names(folder: Path, shards: Iterable[Shard], kind: ShardKind) -> Iterator[str]:
    """Yields what the vectors of shards are of."""
    import pyarrow.parquet as pq

    columns = (pq.read_table(folder / shard.file, columns=[kind.column])[kind.column] for shard in shards)
    return chain.from_iterable(column.to_pylist() for column in columns)


def _by_shard(
    rows: NDArray[np.int64], folder: Path, shards: Sequence[Shard], dim: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.floating]]]:
    """Yields for each shard the positions in `rows` that it covers, and their vectors; rows below 0 are in none."""
    order = np.argsort(rows, kind="stable")
    ends = np.cumsum([shard.images for shard in shards], dtype=np.int64)
    edges = np.searchsorted(rows, [0, *ends], sorter=order).tolist()
    for shard, end, first, last in zip(shards, ends, edges, edges[1:]):
        if last > first:
            places = order[first:last]
            yield places, _matrix(folder / shard.file, dim)[rows[places] - end + shard.images]


def _matrix(path: Path, dim: int) -> NDArray[np.floating]:
    """Reads the vectors of a shard: (images, dim) in the stored dtype."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    flat = pc.list_flatten(pq.read_table(path, columns=["embedding"])["embedding"]).to_numpy()
    return np.asarray(flat).reshape(-1, dim)


def _same_place(one: str, other: str) -> bool:
    if one == other:
        return True
    return Path(one).is_dir() and Path(other).is_dir() and Path(one).resolve() == Path(other).resolve()


def remove_cross_split_duplicates(captions: Captions, embeddings: ImageEmbeddings) -> DisjointSplits:
    """Removes from train the images that are also in validation or test, and from validation those in test.

    Images are the same if their files have the same bytes. Duplicates within a split stay, since all their captions
    are right; `deduplicate` merges them for evaluation.

    Args:
        captions: the source.
        embeddings: of its images; without hashes of their files, nothing is removed.

    Raises:
        SourceError: nothing is left of a split.
    """
    digests = _digests_of(embeddings, captions.rows.image_ids())
    if digests is None:
        log.info("%s holds no hashes of the images' files: images in two splits can't be found", embeddings.folder)
        return DisjointSplits(captions, {}, {})
    return disjoint_splits(captions, digests)


def deduplicate(rows: Sequence[Row], embeddings: ImageEmbeddings) -> Sequence[Row]:
    """Returns the rows with those of the same image merged into the first of them, which gets all captions.

    Otherwise a caption that retrieves another row of its image, which has the same score, would count as wrong.

    Args:
        rows: of one split.
        embeddings: of their images; without hashes of the files, the rows are returned as they are.
    """
    digests = _digests_of(embeddings, [row.image_id for row in rows])
    return rows if digests is None else deduplicate_by_digest(rows, digests)


def _digests_of(embeddings: ImageEmbeddings, image_ids: Sequence[str]) -> Digests | None:
    """Returns the (n,) digests of images' files, of the image_id for a skipped image; None without stored hashes."""
    stored = embeddings.contents(DIGEST_BYTES)
    if stored is None:
        return None
    digests = np.empty(len(image_ids), stored.dtype)
    places = embeddings.find(image_ids)
    digests[places >= 0] = stored[places[places >= 0]]
    for number in np.flatnonzero(places < 0).tolist():  # skipped: the same as no other
        digests[number] = hashlib.sha256(image_ids[number].encode()).digest()[:DIGEST_BYTES]
    return digests
