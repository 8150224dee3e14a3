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

from turkish_clip.images import ImageLike
from turkish_clip.metrics import Vectors
from turkish_clip.search.files import FileReject
from turkish_clip.search.storage import PictureIndexError, writing_alone
from turkish_clip.search.tables import PictureTables
from turkish_clip.search.update import Added, Adder
from turkish_clip.towers import Towers

if TYPE_CHECKING:
    from turkish_clip.cluster import SearchCluster

FORMAT = 2  # 1 had partitions by dot product


@dataclass(frozen=True)
class Hit:
    """One picture that was found.

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
    """Pictures and their vectors.

    >>> index = ImageIndex.open("photos.index", load_towers("org/turkish-clip"))  # doctest: +SKIP
    >>> index.add("photos")  # doctest: +SKIP
    >>> index.search("karda oynayan iki köpek", k=5)  # doctest: +SKIP
    """

    def __init__(self, tables: PictureTables, towers: Towers | None, uri: str) -> None:
        self._tables = tables
        self._towers = towers
        self.uri = uri

    @classmethod
    def open(cls, uri: str | Path, towers: Towers | None = None, *, cluster: SearchCluster | None = None) -> ImageIndex:
        """Opens an index, or a place for a new one.

        Args:
            uri: a folder, or an address on object storage such as s3://bucket/photos.
            towers: needed to add, and to search by words or by a new picture.
            cluster: Ray workers that search, each its part of the table; without it, this process does. They reach
                the index by its address, so that it lies on object storage or on a disk that they share.

        Raises:
            PictureIndexError: LanceDB is missing, or the index is of another image model.
        """
        index = cls(PictureTables.connect(str(uri), cluster), towers, str(uri))
        facts = index.facts
        if towers is not None and facts:
            _check_model(facts, towers, str(uri))
        return index

    @property
    def facts(self) -> dict[str, Any]:
        """What the index is of: format, model, image_model, weights_sha256, dim; empty for a new one."""
        return self._tables.facts()

    @property
    def towers(self) -> Towers:
        """The models that the index was opened with."""
        return self._need_towers("embed")

    def __len__(self) -> int:
        """The number of distinct pictures."""
        return self._tables.count()

    def add(
        self,
        pictures: str | Path | Sequence[str | Path],
        *,
        batch_size: int = 32,
        workers: int = 2,
        prune: bool = False,
        progress: Callable[[int, int], Any] | None = None,
    ) -> Added:
        """Brings the index up to date with a folder, or with a list of files.

        Files that are as they were (size and time) are passed over; changed ones are read again; those that are gone
        from the folder are taken out; the same bytes are embedded once. What was written stays when it is
        interrupted, and the next call goes on.

        Args:
            pictures: a folder, looked through with its subfolders, or files.
            batch_size: pictures per step of the tower.
            workers: threads that read and decode.
            prune: take out the files of other indexed folders that are not there any more, too; else they stay, since
                a disk may not be mounted, save those whose bytes come in from elsewhere now: their folder was moved.
            progress: called with the number of files done and of all, as they are done.

        Raises:
            CollectionError: no such folder.
            PictureIndexError: the index was opened without a model, is of another image model, or another process adds
                to it.
        """
        towers = self._need_towers("add pictures")
        with writing_alone(self._tables.uri):
            self._tables.create(_facts_of(towers), towers.dim)
            _check_model(self.facts, towers, self.uri)  # another process may have made it since it was opened
            return Adder(self._tables, towers, batch_size, workers, prune).add(pictures, progress)

    def search(
        self, query: str | ImageLike, k: int = 10, *, where: str | None = None, exact: bool = False
    ) -> list[Hit]:
        """The pictures that fit a query best, the best first.

        Args:
            query: words (a str), or a picture: a Path, bytes or a PIL image.
            k: how many.
            where: a condition in SQL over path, bytes and modified, such as "path LIKE '%/2024/%' AND bytes > 100000";
                paths are as the system has them (on some disks of macOS not NFC); of files with the same bytes, path is
                the first one's, and also_at has the others.
            exact: look at every vector, as is done anyway below 20,000 pictures and with a condition.

        Raises:
            PictureIndexError: nothing is indexed, the condition is not understood, or no model was given.
            ImageError: the query's picture does not open.
        """
        towers = self._need_towers("search by words or pictures")
        if facts := self.facts:
            _check_model(facts, towers, self.uri)  # it may have been deleted and made anew since it was opened
        return self._found(self.vector_of(query), k, where, exact)

    def vector_of(self, query: str | ImageLike) -> Vectors:
        """The (dim,) float32 unit vector of words (a str) or of a picture (anything else)."""
        towers = self._need_towers("search by words or pictures")
        if isinstance(query, str):
            return np.asarray(towers.encode_texts([query])[0])
        batch = next(towers.embed_pictures([query], workers=1))
        for error in batch.errors.values():
            raise error
        return np.asarray(batch.vectors[0])

    def search_vector(
        self, vector: Vectors, k: int = 10, *, where: str | None = None, exact: bool = False
    ) -> list[Hit]:
        """Like `search`, for a (dim,) unit vector."""
        dim = self.facts.get("dim", len(vector))
        if len(vector) != dim:
            raise PictureIndexError(f"expected a vector of {dim} numbers, as in {self.uri}, got {len(vector)}")
        return self._found(vector, k, where, exact)

    def _found(self, vector: Vectors, k: int, where: str | None, exact: bool) -> list[Hit]:
        if k < 1:
            raise PictureIndexError(f"expected at least one picture to find, got k = {k}; give 1 or more")
        if where is not None and not where.strip():
            raise PictureIndexError("expected a condition over path, bytes, modified, got an empty one; leave it out")
        rows = self._tables.nearest(np.asarray(vector, np.float32), k, where, exact)
        if not rows and not len(self):
            raise PictureIndexError(f"expected pictures in {self.uri}, got none; add some first")
        return [Hit(row["path"], 1 - row["_distance"], list(row["also_at"])) for row in rows]

    def vectors(self) -> tuple[list[str], Vectors]:
        """All paths and their (n, dim) float32 unit vectors, for a pass over the whole collection."""
        return self._tables.vectors()

    def remove(self, paths: Iterable[str | Path]) -> int:
        """Takes files out of the index (never off the disk); returns how many were in it.

        Raises:
            PictureIndexError: another process adds to the index.
        """
        wanted = {os.path.normpath(Path(path).absolute()) for path in paths}
        with writing_alone(self._tables.uri):
            known = set(self._tables.paths())
            composed = {unicodedata.normalize("NFC", path) for path in wanted - known}  # as typed, where disks say NFD
            removed = self._tables.remove(
                sorted(path for path in known if path in wanted or unicodedata.normalize("NFC", path) in composed)
            )
            if removed:
                self._tables.tidy()
        return removed

    def rejects(self) -> list[FileReject]:
        """The files that were looked at and could not be indexed, with the reason."""
        return [FileReject(path, file.reason) for path, file in sorted(self._tables.files().items()) if file.reason]

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

    def _need_towers(self, to_do: str) -> Towers:
        if self._towers is None:
            raise PictureIndexError(f"expected a model to {to_do}, got none; open the index with load_towers(...)")
        return self._towers


def _facts_of(towers: Towers) -> dict[str, Any]:
    """What an index keeps of its models."""
    names = towers.names
    return {
        "format": FORMAT,
        "model": _for_anywhere(names.text),
        "revision": names.revision,
        "image_model": _for_anywhere(names.image),  # empty for a pair
        "image_revision": names.image_revision,
        "weights_sha256": towers.image_weights_sha256,
        "dim": towers.dim,
        "normalised": True,
    }


def _for_anywhere(name: str) -> str:
    """A model's name as it holds from any directory."""
    return str(Path(name).resolve()) if name and Path(name).is_dir() else name


def _check_model(facts: dict[str, Any], towers: Towers, uri: str) -> None:
    if facts.get("format") != FORMAT:
        raise PictureIndexError(
            f"expected an index of format {FORMAT}, got {facts.get('format')} in {uri}; index again"
        )
    if facts["weights_sha256"] != towers.image_weights_sha256:
        made_with = facts["image_model"] or facts["model"]
        raise PictureIndexError(
            f"expected the image model that {uri} was made with ({made_with}), got other weights in "
            f"{towers.image_name}: their vectors can't be compared; name that model, or index into another place"
        )
