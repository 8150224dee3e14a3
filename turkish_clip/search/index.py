"""An index of an image collection, kept up to date as the collection changes, and searched by words or by an image.

It consists of LanceDB tables (extra `search`), in a folder or on object storage. The alternatives that were measured
(training/LOG.md): faiss (a kill while writing loses the file), sqlite-vec and qdrant's local mode (slow), chromadb
(other processes never see new rows), milvus-lite (one process only).
"""

from __future__ import annotations

import logging
import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from turkish_clip.bank import TextBank
from turkish_clip.cutoff import Cutoff
from turkish_clip.dual_encoder import DualEncoder, with_image_side
from turkish_clip.errors import missing_library
from turkish_clip.folders import LeftOut, is_there
from turkish_clip.images import SOUND, ImageLike, has_library
from turkish_clip.metrics import Vectors
from turkish_clip.photo import Photo
from turkish_clip.preprocessing import other_processor
from turkish_clip.resolve import absolute
from turkish_clip.search.composition import Composed, Query, composed
from turkish_clip.search.files import SkippedFile, scan
from turkish_clip.search.query import PHOTO
from turkish_clip.search.storage import ImageIndexError, exclusive_write, one_condition
from turkish_clip.search.tables import ImageTables, IndexMetadata
from turkish_clip.search.update import IndexUpdater, UpdateSummary
from turkish_clip.text_side import TextSide, log_cautions

if TYPE_CHECKING:
    from turkish_clip.cluster import SearchCluster
    from turkish_clip.reading import Caution
    from turkish_clip.search.duplicates import Duplicates
    from turkish_clip.search.importing import ImportSummary
    from turkish_clip.search.vector_sources import VectorSource

log = logging.getLogger("turkish_clip")
JUDGED = 10  # of the best images at least are judged, however few are asked for
NOT_READ = ("unknown", "empty")  # kinds of cautions of texts of which nothing is read


@dataclass(frozen=True)
class Hit:
    """One image that a search found.

    Attributes:
        path: of the file.
        score: cosine to the query.
        also_at: paths of other files with the same bytes.
        corrected: the score less what is taken off for hubs, by which the images for words are ordered; None where
            they are ordered by score.
        photo: when, where and with which camera it was taken, as far as the file says so.
        fits: whether the image fits the words that are looked for, and none of those that are kept away; None where
            nothing tells, as in `Answer`.
        second: of a video or sound, that of its best frame or spectrogram, from which everything else here is; None for
            an image.
    """

    path: str
    score: float
    also_at: list[str] = field(default_factory=list)
    corrected: float | None = None
    photo: Photo = field(default_factory=Photo)
    fits: bool | None = None
    second: float | None = None

    @property
    def is_there(self) -> bool:
        """Whether the file exists now."""
        return os.path.lexists(self.path)


@dataclass(frozen=True)
class IndexedImage:
    """One image of an index.

    Attributes:
        path: of the file.
        also_at: paths of other files with the same bytes.
        photo: when, where and with which camera it was taken, as far as the file says so.
        when: when it was taken, or else its file was last changed.
        second: of a video or sound, that of its first frame or spectrogram, else None.
    """

    path: str
    also_at: list[str]
    photo: Photo
    when: datetime
    second: float | None = None


@dataclass(frozen=True)
class Answer:
    """The images that a search found, and whether they are what was looked for.

    Attributes:
        query: what was looked for.
        hits: the images, the best first, from the offset on.
        fits: whether any of the best images fits the words, those before the offset included; None where nothing tells,
            for the reason that `no_cutoff` gives. It can err, as any threshold does.
        understood: whether the text encoder knows a word of the texts that are looked for; True without any.
        no_cutoff: why nothing tells what fits; empty where something does.
        cautions: what the text encoder does not read of the texts.
    """

    query: Query
    hits: list[Hit]
    fits: bool | None = None
    understood: bool = True
    no_cutoff: str = ""
    cautions: list[Caution] = field(default_factory=list)


class ImageIndex:
    """The images of a collection and their vectors.

    >>> index = ImageIndex.open("photos.index", load_dual_encoder("org/turkish-clip"))  # doctest: +SKIP
    >>> index.add("photos")  # doctest: +SKIP
    >>> index.search("karda oynayan iki köpek", k=5)  # doctest: +SKIP
    """

    def __init__(self, tables: ImageTables, encoder: TextSide | None, uri: str) -> None:
        self._tables = tables
        self._encoder = encoder
        self.uri = uri
        self._said_of: str | None = None  # the text encoder of whose correction a warning was given
        self._processor_compared = False
        self._cutoff: tuple[str, Cutoff] | None = None  # with the hash of the bank that it is by

    @classmethod
    def open(
        cls, uri: str | Path, encoder: TextSide | None = None, *, cluster: SearchCluster | None = None
    ) -> ImageIndex:
        """Opens an index, which need not exist yet.

        Args:
            uri: a folder, or an address on object storage such as s3://bucket/photos.
            encoder: a `DualEncoder`, needed to add images and to search by an image; to search by words, its text side
                is enough, such as an `OnnxTextSide`.
            cluster: Ray workers that each search a part of the table, which must be on object storage or on a disk
                that they share; None searches in this process.

        Raises:
            ImageIndexError: LanceDB is not installed, or the index is of another format or image model.
        """
        index = cls(ImageTables.connect(str(uri), cluster), encoder, str(uri))
        if encoder is not None:
            _check_model(index.metadata, encoder, str(uri))
        return index

    @staticmethod
    def import_vectors(
        source: VectorSource | str | Path,
        uri: str | Path,
        encoder: DualEncoder,
        *,
        prefix: tuple[str, str] | None = None,
        probe: bool = True,
        progress: Callable[[int, int], Any] | None = None,
    ) -> ImportSummary:
        """Makes an index of vectors that another program has stored, without embedding the images.

        Args:
            source: a file or folder, or what `turkish_clip.search.vector_sources.open_source` returns, which takes
                names of columns and the like.
            uri: of the index: a new or empty folder, that of an earlier import of the same source, which is replaced,
                or an address on object storage.
            encoder: with the image model that made the vectors.
            prefix: the beginning of names in the source, and what stands for it on this machine.
            probe: embed some images that are on this machine, and compare their vectors.
            progress: called with the number of images read so far, twice: how many there are is not known.

        Raises:
            InputError: the source can't be read, its vectors are of another model, or the index can't be written.
        """
        from turkish_clip.search.importing import import_vectors
        from turkish_clip.search.vector_sources import VectorSource, open_source

        opened = source if isinstance(source, VectorSource) else open_source(source)
        options: dict[str, Any] = {"prefix": prefix, "probe": probe, "progress": progress}
        return import_vectors(opened, str(uri), encoder, _metadata_of(encoder), **options)

    def opened_with(self, encoder: TextSide) -> ImageIndex:
        """Returns this index as `open` would with an encoder, without opening its tables again.

        Raises:
            ImageIndexError: the index is of another image model.
        """
        _check_model(self.metadata, encoder, self.uri)
        return ImageIndex(self._tables, encoder, self.uri)

    @property
    def metadata(self) -> IndexMetadata | None:
        """The models of the index; None if it is new."""
        return self._tables.metadata()

    @property
    def encoder(self) -> DualEncoder:
        """The dual encoder that the index was opened with."""
        return self._need_encoder("embed")

    @property
    def text_side(self) -> TextSide:
        """The dual encoder, or its text side alone, that the index was opened with."""
        return self._need_text_side("search by words")

    def __len__(self) -> int:
        """Returns the number of distinct images; a video or sound is one."""
        return self._tables.count()

    def add(
        self,
        images: str | Path | Sequence[str | Path],
        *,
        batch_size: int = 32,
        workers: int = 2,
        decode_processes: int = -1,
        prune: bool = False,
        queries: Iterable[str] | None = None,
        verify: bool = False,
        exclude: Sequence[str] | None = None,
        video_every: float | None = None,
        sounds: bool | None = None,
        progress: Callable[[int, int], Any] | None = None,
    ) -> UpdateSummary:
        """Brings the index up to date with a folder, or with a list of files.

        New files and those of another size or time are read, equal bytes are embedded once, and files that are gone
        from the folder are removed. After an interruption, the next call continues from the last batch.

        Args:
            images: a folder, read with its subfolders, or paths of files.
            batch_size: images embedded at a time.
            workers: threads that read, and that decode where processes do not.
            decode_processes: as in `DualEncoder.embed_images`.
            prune: remove all files of other indexed folders that do not exist now. Otherwise they stay, since a disk
                may not be mounted, except those whose bytes are added now: their folder was moved.
            queries: texts as they will be searched, at least 100 different ones, by which hubs are corrected; None
                takes those of the index if they are of this text encoder, else the text bank beside the model, else
                there is no correction. They are kept as vectors.
            verify: read all files again, whatever their times, embed all images again, and mend those that have the
                vector of another one.
            exclude: patterns of files and folders to leave out, in place of those that the index remembers, as in
                `turkish_clip.folders.Exclusions`; [] leaves out none, None keeps those that it remembers.
            video_every: seconds from one frame of a video to the next, in place of those that the index remembers, for
                videos that are read from now on; 0 leaves videos out, None keeps what it remembers.
            sounds: whether sounds are indexed by their spectrograms, too, for an image model that was trained on such;
                None keeps what the index remembers, at first False.
            progress: called at the start and after each batch with the number of files done and of all files.

        Raises:
            CollectionError: the folder does not exist, or is without images although it was indexed: not mounted?
            ImageIndexError: the index was opened without a model, is of another image model, can't be written to, or
                another process writes to it; or sounds are asked for without the library that reads them.
            BankError: there are too few queries, or the model's text bank is damaged.
        """
        encoder = self._need_encoder("add images")
        if sounds and not has_library(SOUND):
            raise ImageIndexError(missing_library("PyAV", "sound"))
        given = None
        if queries is not None:
            given = TextBank.of(queries, encoder.encode_texts, encoder.dim, encoder.text_weights_sha256)
        with exclusive_write(self._tables.uri):
            self._tables.remove_unmade()
            self._tables.create(_metadata_of(encoder))
            metadata = self.metadata  # another process may have made it since it was opened
            _check_model(metadata, encoder, self.uri)
            self._compare_processor(metadata)
            bank = given or self._bank(encoder)
            with encoder.image_decoder(workers, decode_processes) as decoder:
                updater = IndexUpdater(
                    self._tables,
                    encoder,
                    batch_size,
                    workers,
                    prune,
                    bank,
                    verify,
                    exclude,
                    video_every,
                    sounds,
                    decoder,
                )
                return updater.add(images, progress)

    def _bank(self, encoder: DualEncoder) -> TextBank | None:
        """Returns the index's text bank if it is of this text encoder, else the encoder's, else the index's, if any."""
        stored = self._tables.bank()
        if stored is not None and stored.weights_sha256 == encoder.text_weights_sha256:
            return stored
        return encoder.bank or stored

    def search(
        self,
        query: str | ImageLike | Query,
        k: int = 10,
        *,
        offset: int = 0,
        where: str | None = None,
        exact: bool = False,
        corrected: bool = True,
    ) -> list[Hit]:
        """Returns the images that `ask` finds.

        Args:
            query: as in `ask`, and likewise k, offset, where, exact and corrected.
            k: number of images.
            offset: number of the best images to leave out.
            where: a condition in SQL.
            exact: compare with every vector.
            corrected: False orders by cosine alone.

        Raises:
            InputError: as in `ask`.
        """
        return self.ask(query, k, offset=offset, where=where, exact=exact, corrected=corrected).hits

    def ask(
        self,
        query: str | ImageLike | Query,
        k: int = 10,
        *,
        offset: int = 0,
        where: str | None = None,
        exact: bool = False,
        corrected: bool = True,
    ) -> Answer:
        """Finds the images that fit words best, or that are most similar to an image, the best first.

        They are ordered by cosine; for words less the correction of hubs, if the index has one of this text encoder. By
        the same text bank it tells whether they fit.

        Args:
            query: words (a str), an image (a Path, bytes or a PIL image), or a `Query` of several parts.
            k: number of images, at least 1.
            offset: number of the best images to leave out: those of the pages before.
            where: a condition in SQL over path, bytes, modified, taken, lat, lon, camera and second, such as
                "path LIKE '%/2024/%' AND bytes > 100000"; paths are spelt as the file system spells them (on some disks
                of macOS not NFC), and of files with the same bytes, path is the first one's and also_at the others'.
                `turkish_clip.search.dates` has that of a span of dates. None searches all images.
            exact: compare with every vector, as is done anyway below 20,000 images and under a condition.
            corrected: False orders by cosine alone.

        Raises:
            ImageIndexError: no image is indexed, `k` is below 1 or `offset` below 0, the condition is not understood,
                the index can't be read or is of another image model, or it was opened without a model.
            QueryError: the parts of the query leave nothing to look for.
            ImageError: the query's image does not open.
        """
        encoder = self._need_text_side("search by words or images")
        metadata = self.metadata
        _check_model(metadata, encoder, self.uri)  # it may have been deleted and made anew since it was opened
        asked = query if isinstance(query, Query) else Query(query) if isinstance(query, str) else Query(image=query)
        found = composed(asked, self._vectors_of_parts(asked))
        cautions = encoder.cautions(asked.texts) if asked.texts else []
        log_cautions(cautions)
        full = self._weight(metadata, encoder) if corrected and asked.texts else 0.0
        weight = full * found.hub_weight
        if offset < 0:
            raise ImageIndexError(f"expected a place to begin at, got offset = {offset}; give 0 or more")
        rows = self._rows(found.vector, k, where, exact, weight, max(offset, JUDGED - k))
        unknown = {text for caution in cautions if caution.kind in NOT_READ for text in caution.texts}
        understood = not asked.wanted or any(part.value not in unknown for part in asked.wanted)
        cutoff, no_cutoff = self._cutoff_for(metadata, encoder, found)
        fits = None if cutoff is None else _fit(cutoff, found, rows) & understood
        hits = [
            Hit(
                row["path"],
                row["cosine"],
                list(row["also_at"]),
                row["cosine"] - weight * row["hub_score"] if full else None,
                _photo_of(row),
                None if fits is None else bool(fits[place]),
                row["second"],
            )
            for place, row in enumerate(rows)
        ]
        any_fits = None if fits is None else bool(fits.any())
        return Answer(asked, hits[offset : offset + k], any_fits, understood, no_cutoff, cautions)

    def _vectors_of_parts(self, query: Query) -> Vectors:
        """Returns the (parts, dim) float32 unit vectors of the parts of a query."""
        vectors = [self.vector_of(image)[None] for image in query.images]
        if query.texts:  # one at a time: in int8, the others of a batch would change a text's vector
            side = self._need_text_side("search by words or images")
            vectors.insert(0, side.encode_texts(query.texts, batch_size=1, warn=False))
        return np.concatenate(vectors)

    def _cutoff_for(
        self, metadata: IndexMetadata | None, encoder: TextSide, query: Composed
    ) -> tuple[Cutoff | None, str]:
        """Returns the cut-off for the words of a query; None with the reason where there is none."""
        if query.wanted is None or query.has_image:
            return None, "words alone can tell what fits, not an image"
        correction = metadata.correction if metadata is not None else None
        if correction is None:
            return None, "the index has no text bank to tell what fits"
        if correction.text_weights_sha256 != encoder.text_weights_sha256:
            return None, "the text bank of the index is of another text encoder"
        if self._cutoff is None or self._cutoff[0] != correction.bank_sha256:
            bank = self._tables.bank()
            if bank is None:
                return None, "the index has no text bank to tell what fits"
            self._cutoff = correction.bank_sha256, Cutoff(bank)
        return self._cutoff[1], ""

    def _weight(self, metadata: IndexMetadata | None, encoder: TextSide) -> float:
        """Returns the weight of hub scores for the words of a text encoder; 0, after a warning, for another one's."""
        correction = metadata.correction if metadata is not None else None
        if correction is None:
            return 0.0
        if correction.text_weights_sha256 == encoder.text_weights_sha256:
            return correction.weight
        if self._said_of != correction.text_weights_sha256:
            self._said_of = correction.text_weights_sha256
            log.warning(
                "%s corrects hubs for another text encoder than %s: words are ordered by cosine alone; to correct for "
                "this one, run turkish-clip index with it",
                self.uri,
                encoder.text_name,
            )
        return 0.0

    def vector_of(self, query: str | ImageLike) -> Vectors:
        """Returns the (dim,) float32 unit vector of words (a str) or of an image (anything else)."""
        if isinstance(query, str):
            return np.asarray(self._need_text_side("search by words or images").encode_texts([query])[0])
        encoder = self._need_encoder("search by words or images")
        self._compare_processor(self.metadata)
        batch = next(encoder.embed_images([query], workers=1))
        for error in batch.errors.values():
            raise error
        return np.asarray(batch.vectors[0])

    def _compare_processor(self, metadata: IndexMetadata | None) -> None:
        """Warns, once, if another class would prepare images now than prepared those of the index."""
        now = self._need_encoder("embed").image_processor
        if metadata is None or self._processor_compared or metadata.image_processor == now:
            return
        self._processor_compared = True
        log.warning("%s: %s", self.uri, other_processor(metadata.image_processor, now))

    def search_vector(
        self, vector: Vectors, k: int = 10, *, where: str | None = None, exact: bool = False
    ) -> list[Hit]:
        """Searches by a vector as `search` does by an image: by cosine alone.

        Args:
            vector: (dim,).
            k: as in `search`.
            where: as in `search`.
            exact: as in `search`.

        Raises:
            ImageIndexError: as in `search`, and for a vector of another width.
        """
        dim = metadata.dim if (metadata := self.metadata) else len(vector)
        if len(vector) != dim:
            raise ImageIndexError(f"expected a vector of {dim} numbers, as in {self.uri}, got {len(vector)}")
        rows = self._rows(vector, k, where, exact)
        return [
            Hit(row["path"], row["cosine"], list(row["also_at"]), photo=_photo_of(row), second=row["second"])
            for row in rows
        ]

    def _rows(
        self, vector: Vectors, k: int, where: str | None, exact: bool, weight: float = 0.0, offset: int = 0
    ) -> list[dict[str, Any]]:
        if k < 1:
            raise ImageIndexError(f"expected at least one image to find, got k = {k}; give 1 or more")
        rows = self._tables.nearest(np.asarray(vector, np.float32), k + offset, where, exact, weight)
        if not rows and not len(self):
            raise self.no_images()
        return rows

    def no_images(self) -> ImageIndexError:
        """Returns the error of looking for something in an index that has no images."""
        return ImageIndexError(f"expected images in {self.uri}, got none; add some first")

    def vectors(self, where: str | None = None) -> tuple[list[str], Vectors]:
        """Returns the paths of all n indexed files and their (n, dim) float32 unit vectors.

        The path of a video stands there once for each of its frames; `vectors_with_seconds` tells which.

        Args:
            where: a condition as in `search`; None takes all.

        Raises:
            ImageIndexError: the condition is not understood.
        """
        paths, _, vectors = self._tables.vectors(where)
        return paths, vectors

    def vectors_with_seconds(self, where: str | None = None) -> tuple[list[str], list[float | None], Vectors]:
        """Returns what `vectors` does, with the second of each frame of a video; None for images.

        Args:
            where: a condition as in `search`; None takes all.

        Raises:
            ImageIndexError: the condition is not understood.
        """
        return self._tables.vectors(where)

    def without_date(self, where: str | None = None) -> int:
        """Returns of how many distinct images it is not known when they were taken.

        Args:
            where: a condition as in `search`; None counts all.

        Raises:
            ImageIndexError: the condition is not understood.
        """
        return self._tables.count("taken IS NULL" if where is None else f"{one_condition(where)} AND taken IS NULL")

    def vectors_of(self, paths: Sequence[str | Path]) -> Vectors | None:
        """Returns the (n, dim) float32 unit vectors of n images; None if one is a video or not indexed as it is now."""
        files = [os.path.normpath(Path(path).absolute()) for path in paths]
        known = self._tables.files(sorted(set(files)))
        if len(scan(files, known).unchanged) < len(set(files)):
            return None
        vectors = self._tables.vectors_of(sorted({known[file].content for file in files}))
        found = [vectors[known[file].content] for file in files if known[file].content in vectors]
        return np.stack(found) if found and len(found) == len(files) else None

    def duplicates(
        self, *, exact: bool = False, workers: int = 2, progress: Callable[[int, int], Any] | None = None
    ) -> Duplicates:
        """Returns the files that hold one image more than once, as they are on the disk now; nothing is deleted.

        Args:
            exact: whether only the same bytes count; otherwise also images that were encoded again, resized or cropped
                by up to a tenth, for which those of similar vectors are opened and compared.
            workers: threads that open images.
            progress: called with the number of images compared and of all.
        """
        from turkish_clip.search.duplicates import find_duplicates

        return find_duplicates(self._tables, exact=exact, workers=workers, progress=progress)

    def remove(self, paths: Iterable[str | Path]) -> int:
        """Removes files from the index (never from the disk); returns how many were in it.

        Raises:
            ImageIndexError: another process writes to the index.
        """
        given = {os.path.normpath(Path(path).absolute()) for path in paths}
        with exclusive_write(self._tables.uri):
            known = set(self._tables.paths())
            composed = {unicodedata.normalize("NFC", path) for path in given - known}  # typed as NFC, stored as NFD
            removed = self._tables.remove(
                sorted(path for path in known if path in given or unicodedata.normalize("NFC", path) in composed)
            )
            if removed:
                self._tables.optimize()
        return removed

    def skipped(self) -> list[SkippedFile]:
        """Returns the files that were read but not indexed, with the reason, in order of path."""
        return [SkippedFile(path, file.reason) for path, file in sorted(self._tables.files().items()) if file.reason]

    def left_out(self) -> LeftOut:
        """Returns what was left out of the folders when they were last indexed, counted."""
        return LeftOut.sum(self._tables.collection().left_out.values())

    def excluded(self) -> list[str]:
        """Returns the patterns of files that the index leaves out, as `add` takes them."""
        return self._tables.collection().exclude

    def imported(self) -> str:
        """Returns the path of the stored vectors that the index was made of; empty without such."""
        return self._tables.collection().imported

    def folders(self) -> list[str]:
        """Returns the folders under which the indexed files were found, sorted."""
        return self._tables.folders()

    def newest(self, k: int = 10, *, offset: int = 0) -> list[IndexedImage]:
        """Returns the images taken last, or else whose files were changed last, the newest first.

        Args:
            k: number of images.
            offset: number of the newest to leave out.

        Raises:
            ImageIndexError: the index can't be read.
        """
        rows = self._tables.newest(k, offset)
        return [
            IndexedImage(row["path"], list(row["also_at"]), _photo_of(row), row["when"], row["second"]) for row in rows
        ]

    def inside(self, hit: Hit) -> Path | None:
        """Returns the first of a hit's files that exists and, links followed, is in its folder; None if none is."""
        return self.inside_each([hit])[0]

    def inside_each(self, hits: Sequence[Hit | IndexedImage]) -> list[Path | None]:
        """Returns what `inside` does of each of some hits, in order."""
        folders = self._tables.folders_of([path for hit in hits for path in (hit.path, *hit.also_at)])
        return [
            next((Path(p) for p in (hit.path, *hit.also_at) if _is_inside(p, folders.get(p))), None) for hit in hits
        ]

    def _need_text_side(self, to_do: str) -> TextSide:
        if self._encoder is None:
            raise ImageIndexError(f"expected a model to {to_do}, got none; open the index with load_dual_encoder(...)")
        return self._encoder

    def _need_encoder(self, to_do: str) -> DualEncoder:
        return with_image_side(self._need_text_side(to_do), to_do)


def _fit(cutoff: Cutoff, query: Composed, rows: Sequence[dict[str, Any]]) -> NDArray[np.bool_]:
    """Returns whether each of the found images fits the words of a query, and none of those that are kept away."""
    if not rows or query.wanted is None:
        return np.zeros(len(rows), bool)
    vectors = np.stack([row["vector"] for row in rows])
    fits = cutoff.fits(query.wanted, vectors)
    for unwanted in query.unwanted:
        fits &= ~cutoff.fits(unwanted, vectors)
    return fits


def _metadata_of(encoder: DualEncoder) -> IndexMetadata:
    """Returns what an index records of a dual encoder."""
    spec = encoder.spec
    return IndexMetadata(
        model=absolute(spec.text),
        revision=spec.revision,
        image_model=absolute(spec.image),
        image_revision=spec.image_revision,
        weights_sha256=encoder.image_weights_sha256,
        dim=encoder.dim,
        image_processor=encoder.image_processor,
    )


def _check_model(metadata: IndexMetadata | None, encoder: TextSide, uri: str) -> None:
    """Raises an ImageIndexError if an index is of another image model; a new one is of none."""
    if metadata is not None and metadata.weights_sha256 != encoder.image_weights_sha256:
        raise ImageIndexError(
            f"expected the image model that {uri} was made with ({metadata.image_model or metadata.model}), got other "
            f"weights in {encoder.image_name}: their vectors can't be compared; name that model, or index into another "
            "place"
        )


def _is_inside(path: str, folder: str | None) -> bool:
    """Returns whether a file exists and, links followed, is in a folder."""
    if folder is None or not is_there(path):
        return False
    real = Path(path).resolve()
    return real.is_relative_to(Path(folder).resolve())


def _photo_of(row: dict[str, Any]) -> Photo:
    """Returns what a row of the table says of how the photograph was taken."""
    return Photo(**{name: row[name] for name in PHOTO})
