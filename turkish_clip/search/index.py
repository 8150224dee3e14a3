"""A collection of images as an index on disk: added to as it changes, searched by words or by an image.

The index is a LanceDB table (extra `search`), in a folder or on object storage. What was looked at beside it: faiss (a
kill while writing loses the file), sqlite-vec and qdrant's local mode (slow), chromadb (other processes never see new
rows), milvus-lite (one process alone); the measurements are in training/LOG.md.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from turkish_clip.dual_encoder import DualEncoder
from turkish_clip.images import ImageLike
from turkish_clip.metrics import Vectors
from turkish_clip.search.files import SkippedFile
from turkish_clip.search.storage import ImageIndexError, exclusive_write
from turkish_clip.search.tables import ImageTables, IndexMetadata
from turkish_clip.search.update import IndexUpdater, UpdateSummary

if TYPE_CHECKING:
    from turkish_clip.cluster import SearchCluster


@dataclass(frozen=True)
class Hit:
    """One image that was found.

    Attributes:
        path: of the file; `also_at` holds those of other files with the same bytes.
        score: cosine to the query.
    """

    path: str
    score: float
    also_at: list[str] = field(default_factory=list)

    @property
    def is_there(self) -> bool:
        """Whether the file is on this disk now."""
        return os.path.lexists(self.path)


class ImageIndex:
    """Images and their vectors.

    >>> index = ImageIndex.open("photos.index", load_dual_encoder("org/turkish-clip"))  # doctest: +SKIP
    >>> index.add("photos")  # doctest: +SKIP
    >>> index.search("karda oynayan iki köpek", k=5)  # doctest: +SKIP
    """

    def __init__(self, tables: ImageTables, encoder: DualEncoder | None, uri: str) -> None:
        self._tables = tables
        self._encoder = encoder
        self.uri = uri

    @classmethod
    def open(
        cls, uri: str | Path, encoder: DualEncoder | None = None, *, cluster: SearchCluster | None = None
    ) -> ImageIndex:
        """Opens an index, or a place for a new one.

        Args:
            uri: a folder, or an address on object storage such as s3://bucket/photos.
            encoder: needed to add, and to search by words or by a new image.
            cluster: Ray workers that search, each its part of the table; without it, this process does. They reach
                the index by its address, so that it lies on object storage or on a disk that they share.

        Raises:
            ImageIndexError: LanceDB is missing, or the index is of another image model.
        """
        index = cls(ImageTables.connect(str(uri), cluster), encoder, str(uri))
        if encoder is not None:
            _check_model(index.metadata, encoder, str(uri))
        return index

    @property
    def metadata(self) -> IndexMetadata | None:
        """What the index records of its models; None for a new one."""
        return self._tables.metadata()

    @property
    def encoder(self) -> DualEncoder:
        """The models that the index was opened with."""
        return self._need_encoder("embed")

    def __len__(self) -> int:
        """The number of distinct images."""
        return self._tables.count()

    def add(
        self,
        images: str | Path | Sequence[str | Path],
        *,
        batch_size: int = 32,
        workers: int = 2,
        prune: bool = False,
        progress: Callable[[int, int], Any] | None = None,
    ) -> UpdateSummary:
        """Brings the index up to date with a folder, or with a list of files.

        Files that are as they were (size and time) are passed over; changed ones are read again; those that are gone
        from the folder are taken out; the same bytes are embedded once. What was written stays when it is
        interrupted, and the next call goes on.

        Args:
            images: a folder, looked through with its subfolders, or files.
            batch_size: images per step of the tower.
            workers: threads that read and decode.
            prune: take out the files of other indexed folders that are not there any more, too; else they stay, since
                a disk may not be mounted, save those whose bytes come in from elsewhere now: their folder was moved.
            progress: called with the number of files done and of all, as they are done.

        Raises:
            CollectionError: no such folder.
            ImageIndexError: the index was opened without a model, is of another image model, or another process adds
                to it.
        """
        encoder = self._need_encoder("add images")
        with exclusive_write(self._tables.uri):
            self._tables.create(_metadata_of(encoder))
            _check_model(self.metadata, encoder, self.uri)  # another process may have made it since it was opened
            return IndexUpdater(self._tables, encoder, batch_size, workers, prune).add(images, progress)

    def search(
        self, query: str | ImageLike, k: int = 10, *, where: str | None = None, exact: bool = False
    ) -> list[Hit]:
        """The images that fit a query best, the best first.

        Args:
            query: words (a str), or an image: a Path, bytes or a PIL image.
            k: how many.
            where: a condition in SQL over path, bytes and modified, such as "path LIKE '%/2024/%' AND bytes > 100000";
                paths are as the system has them (on some disks of macOS not NFC); of files with the same bytes, path is
                the first one's, and also_at has the others.
            exact: look at every vector, as is done anyway below 20,000 images and with a condition.

        Raises:
            ImageIndexError: nothing is indexed, the condition is not understood, or no model was given.
            ImageError: the query's image does not open.
        """
        encoder = self._need_encoder("search by words or images")
        _check_model(self.metadata, encoder, self.uri)  # it may have been deleted and made anew since it was opened
        return self._found(self.vector_of(query), k, where, exact)

    def vector_of(self, query: str | ImageLike) -> Vectors:
        """The (dim,) float32 unit vector of words (a str) or of an image (anything else)."""
        encoder = self._need_encoder("search by words or images")
        if isinstance(query, str):
            return np.asarray(encoder.encode_texts([query])[0])
        batch = next(encoder.embed_images([query], workers=1))
        for error in batch.errors.values():
            raise error
        return np.asarray(batch.vectors[0])

    def search_vector(
        self, vector: Vectors, k: int = 10, *, where: str | None = None, exact: bool = False
    ) -> list[Hit]:
        """Like `search`, for a (dim,) unit vector."""
        dim = metadata.dim if (metadata := self.metadata) else len(vector)
        if len(vector) != dim:
            raise ImageIndexError(f"expected a vector of {dim} numbers, as in {self.uri}, got {len(vector)}")
        return self._found(vector, k, where, exact)

    def _found(self, vector: Vectors, k: int, where: str | None, exact: bool) -> list[Hit]:
        if k < 1:
            raise ImageIndexError(f"expected at least one image to find, got k = {k}; give 1 or more")
        if where is not None and not where.strip():
            raise ImageIndexError("expected a condition over path, bytes, modified, got an empty one; leave it out")
        rows = self._tables.nearest(np.asarray(vector, np.float32), k, where, exact)
        if not rows and not len(self):
            raise ImageIndexError(f"expected images in {self.uri}, got none; add some first")
        return [Hit(row["path"], 1 - row["_distance"], list(row["also_at"])) for row in rows]

    def vectors(self) -> tuple[list[str], Vectors]:
        """All paths and their (n, dim) float32 unit vectors, for a pass over the whole collection."""
        return self._tables.vectors()

    def remove(self, paths: Iterable[str | Path]) -> int:
        """Takes files out of the index (never off the disk); returns how many were in it.

        Raises:
            ImageIndexError: another process adds to the index.
        """
        wanted = {os.path.normpath(Path(path).absolute()) for path in paths}
        with exclusive_write(self._tables.uri):
            known = set(self._tables.paths())
            composed = {unicodedata.normalize("NFC", path) for path in wanted - known}  # as typed, where disks say NFD
            removed = self._tables.remove(
                sorted(path for path in known if path in wanted or unicodedata.normalize("NFC", path) in composed)
            )
            if removed:
                self._tables.optimize()
        return removed

    def skipped(self) -> list[SkippedFile]:
        """The files that were looked at and could not be indexed, with the reason."""
        return [SkippedFile(path, file.reason) for path, file in sorted(self._tables.files().items()) if file.reason]

    def folders(self) -> list[str]:
        """The folders that were added: nothing outside them is the index's to show."""
        return self._tables.folders()

    def inside(self, hit: Hit) -> Path | None:
        """The first of a hit's files that is there and, links followed, in the folder that it was indexed under."""
        folders = self._tables.folders_of([hit.path, *hit.also_at])
        for path in (hit.path, *hit.also_at):
            real = Path(path).resolve()
            if path in folders and real.is_file() and real.is_relative_to(Path(folders[path]).resolve()):
                return Path(path)
        return None

    def _need_encoder(self, to_do: str) -> DualEncoder:
        if self._encoder is None:
            raise ImageIndexError(f"expected a model to {to_do}, got none; open the index with load_dual_encoder(...)")
        return self._encoder


def _metadata_of(encoder: DualEncoder) -> IndexMetadata:
    """Returns what an index records of its models."""
    spec = encoder.spec
    return IndexMetadata(
        model=_for_anywhere(spec.text),
        revision=spec.revision,
        image_model=_for_anywhere(spec.image),
        image_revision=spec.image_revision,
        weights_sha256=encoder.image_weights_sha256,
        dim=encoder.dim,
    )


def _for_anywhere(name: str) -> str:
    """A model's name as it holds from any directory."""
    return str(Path(name).resolve()) if name and Path(name).is_dir() else name


def _check_model(metadata: IndexMetadata | None, encoder: DualEncoder, uri: str) -> None:
    """Sees that an index, unless it is new, is of the same image model."""
    if metadata is not None and metadata.weights_sha256 != encoder.image_weights_sha256:
        raise ImageIndexError(
            f"expected the image model that {uri} was made with ({metadata.image_model or metadata.model}), got other "
            f"weights in {encoder.image_name}: their vectors can't be compared; name that model, or index into another "
            "place"
        )
