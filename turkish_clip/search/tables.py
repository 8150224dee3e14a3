"""The LanceDB tables of an index: images by the hash of their bytes, the files that were read, and the text bank."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from importlib.util import find_spec
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from turkish_clip.bank import TextBank
from turkish_clip.errors import missing_library, one_line
from turkish_clip.folders import holds_table_files_only
from turkish_clip.metrics import hub_scores
from turkish_clip.records import as_json, from_json
from turkish_clip.search.correction import Correction, stored_width, widened
from turkish_clip.search.files import UNSETTLED_NS, Collection, File, examined
from turkish_clip.search.native import NativeTable, NativeTables
from turkish_clip.search.query import (
    FOUND,
    METRIC,
    PHOTO,
    ROWS_IN_PARTITION,
    NearestImages,
    nearest_on,
    vectors_of,
)
from turkish_clip.search.storage import (
    TABLE_SUFFIX,
    ImageIndexError,
    folder_of,
    is_storage_error,
    is_uri,
    one_condition,
    query_errors,
    storage_errors,
)
from turkish_clip.strict_json import json_text

if TYPE_CHECKING:
    from turkish_clip.cluster import SearchCluster
    from turkish_clip.metrics import Vectors

T = TypeVar("T")
log = logging.getLogger("turkish_clip")
IMAGES, FILES, BANK = "images", "files", "bank"
OLDER_TABLE = "pictures"  # in place of IMAGES before format 3
# The key of IndexMetadata in the schema metadata of the images table, of Correction in that of its column of vectors,
# of Collection in that of the column of paths in the files table, and of the text encoder's hash in that of the bank.
METADATA = b"turkish_clip"
VECTOR_INDEX = "vector_codes"
OLD_INDEX = "vector_idx"  # of one-bit codes, as older versions built it
ROWS_FOR_INDEX = 20_000  # below this, comparing with every vector is exact and as fast
BITS = 5  # of RaBitQ's codes per dimension; with one, too few of a text's nearest images are found (training/LOG.md)
# Rows by which the centres of the partitions are found: so many of each partition, but of many partitions fewer, since
# they lie in memory together.
TRAINED_ON, OF_EACH_PARTITION, OF_EACH_AT_LEAST = 65_536, 256, 32
NEW_ROWS = 1_000  # from this many rows outside the partitions on, they are added to them
FRAGMENTS = 32  # from this many data files on, queries get slow: they are joined
DELTAS = 8  # above this many vector indices, one for each addition, queries get slow: one is built of all rows
MAX_DIM = 65_536  # of the vectors of an index
KEPT_VERSIONS = timedelta(hours=1)  # how long older versions of a table stay, for processes that still read them
PATHS_AT_ONCE = 512  # in one SQL condition
STILL, FIRST_FRAME = "second IS NULL", "frame = 0"  # conditions: rows of images, and one row of each image and video
CORRECTED_AT_ONCE = 4096  # rows whose hub scores are written in one transaction


@dataclass(frozen=True, kw_only=True)
class IndexMetadata:
    """The models of an index.

    Attributes:
        model: Hub id or absolute folder of the text encoder or pair that it was made with.
        revision: of `model` on the Hub; empty means the newest.
        image_model: Hub id or absolute folder; empty for a pair.
        image_revision: of `image_model` on the Hub; empty means the newest.
        weights_sha256: of the image model: vectors of other weights can't be compared.
        dim: width of the vectors.
        image_processor: the class that prepared the images: torchvision's gives other pixels than Pillow's.
        normalised: whether the vectors have norm 1.
        correction: of hubs; None if there is none now. It changes with the text encoder, so it is stored apart.
    """

    # 1 had partitions by dot product, 2 a table "pictures", 3 no hub scores, 4 no image processor, 5 no dates, 6 no
    # videos
    FORMAT: ClassVar[int] = 7

    model: str
    revision: str
    image_model: str
    image_revision: str
    weights_sha256: str
    dim: int
    image_processor: str = ""
    normalised: bool = True
    correction: Correction | None = None


class ImageTables:
    """Reads and writes the tables of an index, and sees what other processes have written since it was opened."""

    def __init__(self, uri: str, cluster: SearchCluster | None = None) -> None:
        self.uri = uri
        self._cluster = cluster
        self._open: dict[str, Any] = {}
        self._native = None if is_uri(uri) else NativeTables.of(uri)
        self._native_open: dict[str, NativeTable] = {}
        self._nearest = NearestImages(uri, IMAGES, self._native)

    @classmethod
    def connect(cls, uri: str, cluster: SearchCluster | None = None) -> ImageTables:
        """Connects to the tables of an index, which need not exist yet.

        Args:
            uri: a folder, or an address on object storage.
            cluster: searches in place of this process; None for this process.

        Raises:
            ImageIndexError: LanceDB is not installed, or does not support the address.
        """
        if find_spec("lancedb") is None:
            raise ImageIndexError(missing_library("LanceDB", "search"))
        tables = cls(str(folder_of(uri) or uri), cluster)
        if tables._native is None:
            tables._connection  # noqa: B018 - an address that is not supported is told here
        return tables

    @cached_property
    def _connection(self) -> Any:
        """LanceDB's connection, with which tables are read and written from here on."""
        import lancedb

        self._native = None
        try:
            return lancedb.connect(self.uri, read_consistency_interval=None)
        except (ValueError, RuntimeError, OSError) as error:
            raise ImageIndexError(
                f"expected a folder or s3://… for the index, got {self.uri}: {one_line(error)}"
            ) from error

    def metadata(self) -> IndexMetadata | None:
        """Returns the models of the index; None if it is new.

        Raises:
            ImageIndexError: it is of another format.
        """
        table = self._readable(IMAGES)
        if table is None and self._readable(OLDER_TABLE) is None:
            return None
        schema = None if table is None else table.schema
        stored = b"{}" if schema is None else (schema.metadata or {}).get(METADATA, b"{}")
        try:
            metadata = from_json(IndexMetadata, json.loads(stored))
            if not 1 <= metadata.dim <= MAX_DIM:
                raise ValueError(f"vectors of {str(metadata.dim)[:30]} numbers, not of 1 to {MAX_DIM}")
            correction = schema and (schema.field("vector").metadata or {}).get(METADATA)
            return replace(metadata, correction=from_json(Correction, json.loads(correction)) if correction else None)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ImageIndexError(
                f"expected an index of format {IndexMetadata.FORMAT} in {self.uri}, got {one_line(error)}; delete it "
                "and index again"
            ) from error

    def collection(self) -> Collection:
        """Returns what the index remembers of its folders.

        Raises:
            ImageIndexError: it is of another format.
        """
        table = self._readable(FILES)
        stored = None if table is None else (table.schema.field("path").metadata or {}).get(METADATA)
        if not stored:
            return Collection()
        try:
            return from_json(Collection, json.loads(stored))
        except (ValueError, TypeError, RecursionError) as error:
            raise ImageIndexError(
                f"expected an index of format {IndexMetadata.FORMAT} in {self.uri}, got {one_line(error)}; delete it "
                "and index again"
            ) from error

    def remember(self, collection: Collection) -> None:
        """Stores what the index remembers of its folders, if that has changed."""
        if collection == self.collection():
            return
        with storage_errors(self.uri, "write"):
            value = json_text(as_json(collection))
            self._table(FILES).update_field_metadata({"path": "path", "metadata": {METADATA.decode(): value}})

    def count(self, where: str | None = None) -> int:
        """Returns the number of distinct images; a video is one.

        Args:
            where: a condition in SQL; None counts all.

        Raises:
            ImageIndexError: the condition is not understood.
        """
        condition = FIRST_FRAME if where is None else f"{one_condition(where)} AND {FIRST_FRAME}"
        table = self._readable(IMAGES)
        with query_errors(self.uri, where):
            return 0 if table is None else int(table.count_rows(condition))

    def _count_rows(self) -> int:
        """Returns the number of rows of images, each frame of a video being one."""
        table = self._table(IMAGES)
        with storage_errors(self.uri, "read"):
            return 0 if table is None else int(table.count_rows())

    def files(self, paths: Sequence[str] | None = None) -> dict[str, File]:
        """Returns every file that was read, or those of some paths, by path."""
        few = paths is not None and len(paths) <= PATHS_AT_ONCE
        rows = self._rows(FILES, f"path IN ({_quoted(paths or [])})" if few else None) if paths != [] else []
        wanted = None if paths is None or few else set(paths)
        return {row["path"]: File(**row) for row in rows if wanted is None or row["path"] in wanted}

    def folders(self) -> list[str]:
        """Returns the folders under which the files were found, sorted."""
        return sorted({folder for (folder,) in self._columns(FILES, "folder")})

    def paths(self) -> list[str]:
        """Returns the path of every file that was read."""
        return [path for (path,) in self._columns(FILES, "path")]

    def vectors(self, where: str | None = None) -> tuple[list[str], list[float | None], Vectors]:
        """Returns the paths of all n indexed files, seconds and (n, dim) float32 unit vectors; of videos, all frames.

        Args:
            where: a condition in SQL; None takes all.

        Returns:
            The paths, the second of each frame of a video (None for images), and the vectors, in the same order.

        Raises:
            ImageIndexError: the condition is not understood.
        """
        condition = None if where is None else one_condition(where)
        table = self._readable(IMAGES)
        with query_errors(self.uri, where):
            rows = None if table is None else _read(table, condition, [*FOUND, "second", "vector"])
        if not rows:
            return [], [], np.empty((0, self._dim()), np.float32)
        paths = [[path, *others] for path, others in zip(rows["path"].to_pylist(), rows["also_at"].to_pylist())]
        seconds = [[second] * len(each) for second, each in zip(rows["second"].to_pylist(), paths)]
        vectors = np.repeat(vectors_of(rows)[:, : self._dim()], [len(each) for each in paths], axis=0)
        return list(chain.from_iterable(paths)), list(chain.from_iterable(seconds)), vectors

    def rows_with_vectors(self, columns: Sequence[str]) -> tuple[list[dict[str, Any]], Vectors]:
        """Returns columns of all n rows of images and their (n, dim) float32 unit vectors, in the same order."""
        table = self._arrow(IMAGES, columns=[*columns, "vector"])
        if not table:
            return [], np.empty((0, self._dim()), np.float32)
        rows = table.select(list(columns)).to_pylist()
        return rows, np.ascontiguousarray(vectors_of(table)[:, : self._dim()])

    def newest(self, k: int, offset: int) -> list[dict[str, Any]]:
        """Returns the rows of the images taken last, or else changed last: FOUND, PHOTO, `second`, `when`.

        Args:
            k: number of rows.
            offset: number of the newest to leave out.
        """
        dates = self._arrow(IMAGES, FIRST_FRAME, ["content", "taken", "modified"])
        if not dates:
            return []
        taken, modified = (dates[name].cast("timestamp[us]").to_numpy() for name in ("taken", "modified"))
        when = np.where(np.isnat(taken), modified, taken)
        dated = np.flatnonzero(~np.isnat(when))  # of others neither is known: imported, and not on this machine
        best = dated[np.argsort(when[dated], kind="stable")[::-1][offset : offset + k]]
        contents = dates["content"].take(best).to_pylist()
        if not contents:
            return []
        condition = f"{FIRST_FRAME} AND content IN ({_quoted(contents)})"
        rows = self._rows(IMAGES, condition, ["content", "second", *FOUND, *PHOTO])
        of_content = {row["content"]: row for row in rows}
        found = zip(contents, when[best].tolist())
        return [{**of_content[content], "when": date} for content, date in found if content in of_content]

    def vectors_of(self, contents: Sequence[str]) -> dict[str, Vectors]:
        """Returns the (dim,) float32 unit vectors of images by the hash of their bytes, of those that there are.

        Videos, which have one for each frame, are not among them.
        """
        few = len(contents) <= PATHS_AT_ONCE
        condition = f"{STILL} AND content IN ({_quoted(contents)})" if few else STILL
        rows = self._arrow(IMAGES, condition, ["content", "vector"])
        if not rows or not contents:
            return {}
        return dict(zip(rows["content"].to_pylist(), vectors_of(rows)[:, : self._dim()]))

    def nearest(
        self, vector: Vectors, k: int, where: str | None, exact: bool, weight: float = 0.0
    ) -> list[dict[str, Any]]:
        """Returns the rows of the k largest scores, as `NearestImages.find` does.

        Args:
            vector: (dim,) float32.
            k: number of rows, at least 1.
            where: a condition in SQL; None searches all rows.
            exact: compare with every vector, in this process.
            weight: of an image's hub score, which is taken off its cosine; 0 ranks by cosine.

        Raises:
            ImageIndexError: the index can't be read, or the condition is not understood.
        """
        condition = None if where is None else one_condition(where)
        with query_errors(self.uri, where):
            if self._cluster is None or exact:
                return self._nearest.find(vector, k, condition, exact, weight)
            table = self._table(IMAGES)
            return [] if table is None else nearest_on(self._cluster, table, vector, k, condition, weight)

    def remove_unmade(self) -> None:
        """Removes the folders of tables that were never finished: the process that made them was killed.

        A folder that holds anything that LanceDB does not write is not removed: it may have the name of a table by
        chance.

        Raises:
            ImageIndexError: there is one.
        """
        for name in (IMAGES, FILES, BANK):
            if self._is_unmade(name):
                folder = Path(self.uri) / f"{name}{TABLE_SUFFIX}"
                if not holds_table_files_only(folder) or folder.is_symlink():
                    raise self._not_ours(name)
                log.warning("the table %s of %s was never finished, and is made again", name, self.uri)
                shutil.rmtree(folder)

    def _is_unmade(self, name: str) -> bool:
        """Returns whether a table on a disk has a folder but no version, which is written last."""
        folder = Path(self.uri) / f"{name}{TABLE_SUFFIX}"
        if is_uri(self.uri) or not folder.is_dir():
            return False
        versions = folder / "_versions"
        return not (versions.is_dir() and any(versions.iterdir()))

    def create(self, metadata: IndexMetadata) -> None:
        """Creates those tables that do not exist."""
        import pyarrow as pa

        images = pa.schema(
            [
                ("key", pa.string()),
                ("content", pa.string()),
                ("frame", pa.int32()),
                ("second", pa.float64()),
                ("path", pa.string()),
                ("also_at", pa.list_(pa.string())),
                ("bytes", pa.int64()),
                ("modified", pa.timestamp("s")),
                ("taken", pa.timestamp("s")),
                ("lat", pa.float64()),
                ("lon", pa.float64()),
                ("camera", pa.string()),
                ("vector", pa.list_(pa.float32(), stored_width(metadata.dim))),
            ],
            metadata={METADATA: json_text(as_json(metadata)).encode()},
        )
        columns = [("path", pa.string()), ("folder", pa.string()), ("size", pa.int64()), ("mtime_ns", pa.int64())]
        files = pa.schema([*columns, ("content", pa.string()), ("reason", pa.string())])
        with storage_errors(self.uri, "read"):
            others = set(self._connection.list_tables().tables) - {IMAGES, FILES, BANK, OLDER_TABLE}
        if others:
            raise self._not_ours(min(others))
        for name in (IMAGES, FILES, BANK):
            self._table(name)  # raises before anything is written, if one is another's
        for name, schema in ((IMAGES, images), (FILES, files)):
            if self._table(name) is None:
                with storage_errors(self.uri, "write"):
                    self._connection.create_table(name, schema=schema, exist_ok=True)

    def write(
        self, rows: list[dict[str, Any]], copies: list[File], files: list[File], changed: Sequence[File] = ()
    ) -> None:
        """Writes one batch, images before files, so that no file names an image that is not there.

        After a kill in between, the files are read again; `repair` removes the paths of files that are gone by then.

        Args:
            rows: new images, and all frames of new videos, as rows of the table, but with `vector` of (dim,) and, if
                there is a bank, `hub_score`; without `key`, `frame` and `second` a row is of an image.
            copies: files with the bytes of images that exist, or of those in `rows`.
            files: every file that was read, as it is now.
            changed: files whose bytes have changed, as they were before: their paths leave the images of those bytes.
        """
        if rows:
            self._upsert(IMAGES, "key", [_stored(row) for row in rows])
        if copies:
            self._add_copies(copies)
        self._detach(changed)
        if files:
            self._upsert(FILES, "path", [file.as_row() for file in files])

    def append(self, rows: list[dict[str, Any]], files: list[File]) -> None:
        """Adds images with their files, none of which may be there yet, more quickly than `write` does.

        Args:
            rows: as in `write`.
            files: of the rows, in order. Their bytes were not read, so that an update of their folder reads them.
        """
        import pyarrow as pa

        known = [replace(file, mtime_ns=UNSETTLED_NS, reason="").as_row() for file in files]
        with storage_errors(self.uri, "write"):
            for name, part in ((IMAGES, [_stored(row) for row in rows]), (FILES, known)):
                table = self._table(name)
                table.add(pa.Table.from_pylist(part, schema=table.schema))

    def date(self, touched: Sequence[File]) -> None:
        """Gives images the times of their files that have a new time and the old bytes."""
        time_of = {file.path: file.modified.replace(tzinfo=None) for file in touched}
        if not time_of:
            return
        contents = _quoted(sorted({file.content for file in touched}))
        columns = ["content", "path", "modified"]
        old = [
            row["content"]
            for row in self._rows(IMAGES, f"content IN ({contents})", columns)
            if time_of.get(row["path"], row["modified"]) != row["modified"]
        ]
        if old:
            rows = self._rows(IMAGES, f"content IN ({_quoted(old)})")
            self._upsert(IMAGES, "key", [{**row, "modified": time_of[row["path"]]} for row in rows])

    def bank(self) -> TextBank | None:
        """Returns the text bank of which the hub scores are; None if there is none."""
        rows = self._arrow(BANK)
        if not rows:
            return None
        return TextBank(vectors_of(rows).astype(np.float16), (rows.schema.metadata or {}).get(METADATA, b"").decode())

    def correct(self, bank: TextBank) -> None:
        """Gives all images their hub scores by the text bank of the encoder that will search, unless they have them.

        Meanwhile, and after a kill until the next call, the index has no correction.
        """
        wanted, metadata, images = Correction.by(bank), self.metadata(), self._table(IMAGES)
        if metadata is None or metadata.correction == wanted:
            return
        self._set_correction(images, None)
        self._write_bank(bank)
        for keys in chunks([key for (key,) in self._columns(IMAGES, "key")], CORRECTED_AT_ONCE):
            rows = self._arrow(IMAGES, f"key IN ({_quoted(keys)})")
            vectors = np.ascontiguousarray(vectors_of(rows)[:, : metadata.dim])
            stored = _as_column(widened(vectors, hub_scores(vectors, bank.unit_vectors)))
            self._merge(IMAGES, "key", rows.set_column(rows.schema.get_field_index("vector"), "vector", stored))
        self._set_correction(images, wanted)
        if self.count():
            self.optimize()  # the rows written anew are in no partition

    def _set_correction(self, images: Any, correction: Correction | None) -> None:
        value = None if correction is None else json_text(as_json(correction))
        with storage_errors(self.uri, "write"):
            images.checkout_latest()
            images.update_field_metadata({"path": "vector", "metadata": {METADATA.decode(): value}})

    def _write_bank(self, bank: TextBank) -> None:
        import pyarrow as pa

        column = _as_column(bank.vectors)
        schema = pa.schema([("vector", column.type)], metadata={METADATA: bank.weights_sha256.encode()})
        mode = "create" if self._table(BANK) is None else "overwrite"  # LanceDB warns of overwriting nothing
        with storage_errors(self.uri, "write"):
            self._open[BANK] = self._connection.create_table(BANK, pa.table([column], schema=schema), mode=mode)

    def _dim(self) -> int:
        """Returns the width of the images' vectors; 0 without a table."""
        return metadata.dim if (metadata := self.metadata()) else 0

    def images(self, count: int) -> Iterator[list[dict[str, Any]]]:
        """Yields the rows of all images but videos, `count` at a time, with `vector` of (dim,) as in `write`."""
        for keys in chunks([key for (key,) in self._columns(IMAGES, "key", condition=STILL)], count):
            yield self._with_vectors(f"key IN ({_quoted(keys)})")

    def videos(self) -> Iterator[list[dict[str, Any]]]:
        """Yields the rows of the frames of each video, in order, with `vector` of (dim,) as in `write`."""
        for (content,) in self._columns(IMAGES, "content", condition=f"NOT ({STILL}) AND {FIRST_FRAME}"):
            yield sorted(self._with_vectors(f"content = {_quoted([content])}"), key=itemgetter("frame"))

    def replace_frames(self, content: str, rows: list[dict[str, Any]]) -> None:
        """Gives a video other frames than it has.

        Args:
            content: hash of its file.
            rows: as in `write`.
        """
        keys = _quoted(row["key"] for row in rows)
        self.write(rows, [], [])
        self._delete(IMAGES, f"content = {_quoted([content])} AND key NOT IN ({keys})")

    def _with_vectors(self, condition: str) -> list[dict[str, Any]]:
        dim, rows = self._dim(), self._rows(IMAGES, condition)
        return [{**row, "vector": np.asarray(row["vector"][:dim], np.float32)} for row in rows]

    def contents(self, contents: list[str]) -> set[str]:
        """Returns those of some hashes of which there is an image."""
        if not contents:
            return set()
        rows = self._rows(IMAGES, f"content IN ({_quoted(contents)})", ["content"])
        return {row["content"] for row in rows}

    def folders_of(self, paths: Sequence[str]) -> dict[str, str]:
        """Returns under which folder each of some files was found, by path."""
        rows = self._rows(FILES, f"path IN ({_quoted(paths)})", ["path", "folder"]) if paths else []
        return {row["path"]: row["folder"] for row in rows}

    def remove(self, paths: Sequence[str]) -> int:
        """Removes files, and images of which no file is left; returns how many of the files there were."""
        removed = 0
        for part in chunks(paths, PATHS_AT_ONCE):
            condition = f"path IN ({_quoted(part)})"
            files = [File(**row) for row in self._rows(FILES, condition)]
            self._detach(files)
            self._delete(FILES, condition)
            removed += len(files)
        return removed

    def _detach(self, files: Sequence[File]) -> None:
        """Removes the paths of files from the images whose bytes they had, and images of which no file is left."""
        gone = {(file.path, file.content) for file in files if file.content}  # a path may have other bytes by now
        if not gone:
            return
        kept, orphaned = [], []
        for row in self._rows(IMAGES, f"content IN ({_quoted(sorted({content for _, content in gone}))})"):
            left = [path for path in (row["path"], *row["also_at"]) if (path, row["content"]) not in gone]
            if left:
                kept.append(_first(row, left))
            else:
                orphaned.append(row["content"])
        if kept:
            self._upsert(IMAGES, "key", kept)
        if orphaned:
            self._delete(IMAGES, f"content IN ({_quoted(dict.fromkeys(orphaned))})")

    def remove_orphans(self, known: Mapping[str, File]) -> list[str]:
        """Removes the files whose image does not exist, so that they are read again; returns their paths."""
        images = {content for (content,) in self._columns(IMAGES, "content")}
        orphans = [file.path for file in known.values() if not file.reason and file.content not in images]
        for part in chunks(orphans, PATHS_AT_ONCE):
            self._delete(FILES, f"path IN ({_quoted(part)})")
        return orphans

    def repair(self) -> None:
        """Removes paths of which there is no file from images: a process was killed between the two tables."""
        files = {
            (path, content) for path, content, reason in self._columns(FILES, "path", "content", "reason") if not reason
        }
        detached: list[File] = []
        for content, first, others in self._columns(IMAGES, "content", *FOUND):
            gone = [path for path in (first, *others) if (path, content) not in files]
            detached += [File(path, "", 0, 0, content) for path in gone]
        self._detach(detached)

    def optimize(self) -> None:
        """Joins small data files; partitions the vectors once there are many, and from then on adds new rows."""
        table, files, rows = self._table(IMAGES), self._table(FILES), self._count_rows()
        with storage_errors(self.uri, "optimize"):
            if rows < ROWS_FOR_INDEX or self._partitioned(table, rows):
                table.optimize(cleanup_older_than=KEPT_VERSIONS)
            files.optimize(cleanup_older_than=KEPT_VERSIONS)

    def _partitioned(self, table: Any, rows: int) -> bool:
        """Does what `_partition` does; where LanceDB refuses the vectors, every search compares with all of them."""
        try:
            return self._partition(table, rows)
        except (RuntimeError, ValueError) as error:
            if is_storage_error(error):
                raise
            log.warning(
                "%s: %s images of %d numbers can't be partitioned (%s); nothing is lost, but each search compares with "
                "all of them, which takes longer",
                self.uri,
                rows,
                self._dim(),
                one_line(error),
            )
            return True

    def _partition(self, table: Any, rows: int) -> bool:
        """Partitions the vectors if they are not or in too many steps; returns whether to optimize the table now.

        Data files are joined first: joined afterwards, they would have LanceDB write the codes of all rows once more.
        """
        from lancedb.index import IvfRq

        if table.index_stats(OLD_INDEX) is not None:
            table.drop_index(OLD_INDEX)
        stats = table.index_stats(VECTOR_INDEX)
        if stats is None or stats.num_indexed_rows < rows // 2 or (stats.num_indices or 1) > DELTAS:
            table.optimize(cleanup_older_than=KEPT_VERSIONS)
            partitions = max(1, rows // ROWS_IN_PARTITION)
            of_each = min(OF_EACH_PARTITION, max(OF_EACH_AT_LEAST, TRAINED_ON // partitions))
            config = IvfRq(distance_type=METRIC, num_bits=BITS, num_partitions=partitions, sample_rate=of_each)
            table.create_index("vector", config=config, name=VECTOR_INDEX)
            return True
        fragments = int(table.stats()["fragment_stats"]["num_fragments"])
        return bool(stats.num_unindexed_rows >= NEW_ROWS) or fragments >= FRAGMENTS

    def _add_copies(self, copies: list[File]) -> None:
        """Adds the paths of files to the images of the same bytes."""
        paths: dict[str, list[str]] = {}
        for copy in copies:
            paths.setdefault(copy.content, []).append(copy.path)
        changed = []
        for row in self._rows(IMAGES, f"content IN ({_quoted(paths)})"):
            known = dict.fromkeys([row["path"], *row["also_at"]])
            new = [path for path in paths[row["content"]] if path not in known]
            if new:  # the first path is shown, so files that exist come first: a folder may have been moved
                changed.append(_first(row, sorted([*known, *new], key=lambda path: not Path(path).exists())))
        if changed:
            self._upsert(IMAGES, "key", changed)

    def _upsert(self, name: str, key: str, rows: list[dict[str, Any]]) -> None:
        import pyarrow as pa

        self._merge(name, key, pa.Table.from_pylist(rows, schema=self._table(name).schema))

    def _merge(self, name: str, key: str, data: Any) -> None:
        table = self._table(name)
        with storage_errors(self.uri, "write"):
            table.merge_insert(key).when_matched_update_all().when_not_matched_insert_all().execute(data)

    def _delete(self, name: str, condition: str) -> None:
        table = self._table(name)
        with storage_errors(self.uri, "write"):
            table.delete(condition)

    def _rows(self, name: str, condition: str | None = None, columns: list[str] | None = None) -> list[dict[str, Any]]:
        """Returns the rows that meet a condition; none without a table."""
        rows = self._arrow(name, condition, columns)
        return [] if rows is None else list(rows.to_pylist())

    def _columns(self, name: str, *columns: str, condition: str | None = None) -> Iterator[tuple[Any, ...]]:
        """Yields some columns of all rows, or of those that meet a condition; none without a table."""
        rows = self._arrow(name, condition, list(columns))
        return iter(()) if rows is None else zip(*(rows[column].to_pylist() for column in columns))

    def _arrow(self, name: str, condition: str | None = None, columns: list[str] | None = None) -> Any:
        """Returns rows as a pyarrow Table; None without a table."""
        table = self._readable(name)
        if table is None:
            return None
        with storage_errors(self.uri, "read"):
            return _read(table, condition, columns)

    def _has(self, name: str) -> bool:
        """Returns whether there is a table, finished or not."""
        return self._native.has(name) if self._native is not None else name in self._connection.list_tables().tables

    def _readable(self, name: str) -> Any:
        """Returns a table at its latest version, to read from; None if it does not exist."""
        if self._native is None:
            return self._table(name)
        with storage_errors(self.uri, "read"):
            if name in self._native_open:
                self._native_open[name].checkout_latest()
            elif self._has(name) and not self._is_unmade(name):
                self._native_open[name] = self._ours(name, self._native.open(name))
        return self._native_open.get(name)

    def _table(self, name: str) -> Any:
        """Returns a table at its latest version; None if it does not exist."""
        with storage_errors(self.uri, "read"):
            if name in self._open:
                self._open[name].checkout_latest()  # once here: LanceDB itself would check before each of its calls
            elif name in self._connection.list_tables().tables and not self._is_unmade(name):
                self._open[name] = self._ours(name, self._connection.open_table(name))
        return self._open.get(name)

    def _ours(self, name: str, table: T) -> T:
        """Returns a table that bears the mark of an index's; raises an ImageIndexError for another's."""
        schema: Any = table.schema  # type: ignore[attr-defined]
        if not ("mtime_ns" in schema.names if name == FILES else METADATA in (schema.metadata or {})):
            raise self._not_ours(name)
        return table

    def _not_ours(self, name: str) -> ImageIndexError:
        return ImageIndexError(
            f"expected an index of turkish-clip in {self.uri}, got another's table {name!r}; name another place"
        )


def chunks(items: Sequence[Any], size: int) -> Iterator[Any]:
    """Yields slices of a sequence, in order.

    Args:
        items: the sequence.
        size: of each slice but the last, at least 1.
    """
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _read(table: Any, condition: str | None, columns: list[str] | None) -> Any:
    """Returns rows of a table as a pyarrow Table."""
    if isinstance(table, NativeTable):
        return table.rows(condition, columns)
    query = table.search().limit(max(1, table.count_rows()))
    query = query.where(condition) if condition else query
    return (query.select(columns) if columns else query).to_arrow()


def _as_column(vectors: NDArray[np.floating]) -> Any:
    """Returns (n, width) vectors as a pyarrow array of lists."""
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])


def _stored(row: dict[str, Any]) -> dict[str, Any]:
    """Returns the table's row of an image."""
    scores = np.array([row.get("hub_score", 0)], np.float32)
    vector = widened(np.asarray(row["vector"], np.float32)[None], scores)[0]
    of_image = {"key": row["content"], "frame": 0, "second": None}
    return {**of_image, **{name: value for name, value in row.items() if name != "hub_score"}, "vector": vector}


def _first(row: dict[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """Returns the table's row of an image that has other files now, with the time of the first one."""
    file = examined(paths[0], "") if paths[0] != row["path"] else None
    modified = row["modified"] if file is None or file.reason else file.modified
    return {**row, "path": paths[0], "also_at": list(paths[1:]), "modified": modified}


def _quoted(values: Iterable[str]) -> str:
    """Returns strings as a list of SQL literals."""
    return ", ".join("'" + value.replace("'", "''") + "'" for value in values)
