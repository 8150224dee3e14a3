"""The targets on disk: Parquet shards of picture vectors, and the manifest that says whose they are."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.captions import read_rejects
from training.ids import Ids
from training.rows import Reject
from training.run_record import sha256_of
from turkish_clip.atomic import whole_file, write_json
from turkish_clip.errors import InputError
from turkish_clip.metrics import Vectors, unit

MANIFEST = "manifest.json"
REJECTS = "rejects.jsonl"
REJECTS_KEY = "rejects"  # of a shard's metadata: the lines of REJECTS about its part of the pictures
CONTENT_HASH, CONTENT_BYTES = "sha256", 32
UNIT_TOLERANCE = 1e-3  # float16 rounds a norm of 1 by less than this


class TargetsError(InputError):
    """Targets that are missing, incomplete, damaged, or of another image model."""


@dataclass(frozen=True)
class Shard:
    """One finished file.

    Attributes:
        pictures: how many it holds.
        sha256: of the file.
        source_sha256: of the names and sizes of the pictures that went into it, the rejected ones too.
    """

    file: str
    pictures: int
    sha256: str
    source_sha256: str

    @property
    def number(self) -> int:
        """Its place in the order of the source."""
        return int(Path(self.file).stem.rpartition("-")[2])


@dataclass(frozen=True)
class Manifest:
    """What a folder of targets holds.

    Attributes:
        image_model: Hub id or folder, as it was given.
        revision: the commit that was loaded, or what was asked for; empty for a folder.
        asked_revision: the branch, tag or commit that was asked for; empty: the newest.
        weights_sha256: of the image model's weights.
        normalised: whether the stored vectors have norm 1.
        complete: false while shards are missing.
        computed_in: dtype of the image model's computation, "float32" or "bf16"; `dtype` is that of the stored vectors.
        content: hash of the pictures' files in the column of that name, "sha256"; empty: older shards have no such
            column.
    """

    image_model: str
    revision: str
    weights_sha256: str
    dim: int
    dtype: str
    shard_size: int
    batch_size: int
    normalised: bool
    pictures: int
    rejected: int
    complete: bool
    asked_revision: str = ""
    computed_in: str = "float32"
    content: str = ""
    shards: list[Shard] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        write_json(folder / MANIFEST, dataclasses.asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """The manifest in a folder, or None where there is none.

        Raises:
            TargetsError: it is not a manifest.
        """
        path = folder / MANIFEST
        if not path.is_file():
            return None
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**values, "shards": [Shard(**shard) for shard in values["shards"]]})
        except (ValueError, TypeError, KeyError) as error:
            raise TargetsError(f"expected a manifest of targets in {path}, got {error}; delete the folder") from error

    def grown(self, shards: Iterable[Shard], rejected: int, last_is_unit: bool) -> Manifest:
        """The manifest after one more shard."""
        ordered = sorted(shards, key=lambda shard: shard.number)
        return dataclasses.replace(
            self,
            shards=ordered,
            pictures=sum(shard.pictures for shard in ordered),
            rejected=rejected,
            normalised=last_is_unit and (self.normalised or not self.shards),
        )

    def same_work(self, other: Manifest) -> str:
        """The first thing in which two manifests' work differs, in words; empty if they are of the same work."""
        for name in ("image_model", "weights_sha256", "dim", "dtype", "computed_in", "shard_size", "batch_size"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs and not (name == "image_model" and self.weights_sha256 == other.weights_sha256):
                return f"{name} {mine} instead of {theirs}"
        return ""


def write_shard(
    folder: Path,
    number: int,
    image_ids: Sequence[str],
    vectors: NDArray[Any],
    source_sha256: str,
    *,
    contents: Sequence[bytes] | None = None,
    rejects: Sequence[Reject] = (),
) -> Shard:
    """Writes one shard whole.

    Args:
        folder: where to.
        number: its place in the order of the source.
        image_ids: column image_id, string.
        vectors: column embedding, (n, dim) float16 or float32 as fixed_size_list.
        source_sha256: of the pictures, as `Shard` has it.
        contents: column content, the SHA-256 of each picture's file; None leaves it out.
        rejects: the pictures of this part that did not open, for the file's metadata, so that both come and go at once.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / f"shard-{number:05d}.parquet"
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    columns = {"image_id": pa.array(image_ids, pa.string()), "embedding": embedding}
    if contents is not None:
        columns["content"] = pa.array(contents, pa.binary(CONTENT_BYTES))
    lines = "".join(reject.as_json() + "\n" for reject in rejects)
    table = pa.table(columns, metadata={REJECTS_KEY: lines.encode()})
    with whole_file(path) as partial:
        pq.write_table(table, partial, compression="none", use_dictionary=False)
    return Shard(path.name, len(image_ids), sha256_of(path), source_sha256)


def rejects_in(folder: Path, shard: Shard) -> list[Reject] | None:
    """The pictures of a shard's part that did not open; None for an older shard, which does not say."""
    import pyarrow.parquet as pq

    lines = (pq.read_schema(folder / shard.file).metadata or {}).get(REJECTS_KEY.encode())
    return None if lines is None else [Reject(**json.loads(line)) for line in lines.decode().splitlines()]


def is_intact(folder: Path, shard: Shard) -> bool:
    """Whether a shard's file is there with the bytes that were written."""
    path = folder / shard.file
    return path.is_file() and sha256_of(path) == shard.sha256


@dataclass(frozen=True)
class Targets:
    """The picture vectors of a finished folder, looked up by image_id; they stay in its shards.

    Attributes:
        ids: of the shards' rows, in order.
        rejected: the image_ids of pictures that did not open.
    """

    folder: Path
    manifest: Manifest
    ids: Ids
    rejected: frozenset[str]

    def find(self, image_ids: Iterable[str]) -> NDArray[np.int64]:
        """The numbers of pictures' rows in the shards, one after the other, -1 for those without: (n,) int64."""
        return self.ids.find(image_ids)

    def contents(self, length: int) -> NDArray[np.bytes_] | None:
        """The first bytes of the hashes of the pictures' files, row by row: (pictures,); None in older targets."""
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
        """Like `find`, of pictures that all have a target.

        Raises:
            TargetsError: a picture has no target.
        """
        rows = self.find(image_ids)
        missing = np.flatnonzero(rows < 0)
        if len(missing):
            raise TargetsError(
                f"expected a target for each picture in {self.folder}, got none for {len(missing)}, the first "
                f"{image_ids[int(missing[0])]!r}; run training.embed_images on this source again"
            )
        return rows

    def by_shard(self, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.floating]]]:
        """The vectors of rows, as the image model gave them, each shard read once.

        Yields:
            places in `rows`, (k,) int64, and their vectors, (k, dim).
        """
        order = np.argsort(rows, kind="stable")
        ends = np.cumsum([shard.pictures for shard in self.manifest.shards], dtype=np.int64)
        edges = np.searchsorted(rows, ends, sorter=order).tolist()
        for shard, end, first, last in zip(self.manifest.shards, ends, [0, *edges], edges):
            if last > first:
                places = order[first:last]
                yield places, _matrix(self.folder / shard.file, self.manifest.dim)[rows[places] - end + shard.pictures]

    def unit_rows(self, image_ids: Sequence[str]) -> Vectors:
        """The (n, dim) float32 unit vectors of pictures, in the order asked for; for a part that fits into memory.

        Raises:
            TargetsError: a picture has no target.
        """
        rows = self.rows(image_ids)
        vectors: Vectors = np.empty((len(rows), self.manifest.dim), np.float32)
        for places, found in self.by_shard(rows):
            vectors[places] = unit(found.astype(np.float32))
        return vectors


def read_targets(folder: Path, *, image_model: str = "", revision: str = "", dim: int | None = None) -> Targets:
    """Reads a finished folder of targets, after checking whose they are.

    Args:
        folder: with manifest.json.
        image_model: the id or folder that the targets must come from; empty takes any.
        revision: of that id; empty takes any.
        dim: the width they must have; None takes any.

    Raises:
        TargetsError: no targets there, unfinished or damaged ones, or another image model, width or normalisation.
    """
    manifest = Manifest.read(folder)
    if manifest is None:
        raise TargetsError(f"expected targets in {folder}, got no {MANIFEST}; run training.embed_images first")
    if not manifest.complete:
        raise TargetsError(
            f"expected finished targets in {folder}, got a part; run training.embed_images again: it goes on, or says "
            "what stopped it"
        )
    if image_model and not _same_place(image_model, manifest.image_model):
        raise TargetsError(
            f"expected targets of the image model {image_model}, got those of {manifest.image_model} in {folder}; "
            "embed again with another --targets, or name that model"
        )
    if revision and revision not in (manifest.revision, manifest.asked_revision):
        raise TargetsError(
            f"expected targets of {manifest.image_model} at revision {revision}, got them at "
            f"{manifest.revision or 'an unnamed one'} in {folder}; embed again with another --targets"
        )
    if dim is not None and dim != manifest.dim:
        raise TargetsError(f"expected targets of width {dim}, got {manifest.dim} in {folder}; embed again")
    ids = Ids(image_id for shard in manifest.shards for image_id in _checked_ids(folder, shard, manifest))
    rejects = [reject.image_id for reject in read_rejects(folder / REJECTS)]
    rejected = frozenset(image_id for image_id, row in zip(rejects, ids.find(rejects)) if row < 0)
    return Targets(folder, manifest, ids, rejected)


def _checked_ids(folder: Path, shard: Shard, manifest: Manifest) -> list[str]:
    """The image_ids of a shard, after a look at its bytes and norms."""
    import pyarrow.parquet as pq

    path = folder / shard.file
    if not is_intact(folder, shard):
        raise TargetsError(f"expected {path} as written, got other bytes; run embed_images again")
    if manifest.normalised and not is_unit(_matrix(path, manifest.dim)):
        raise TargetsError(f"expected unit vectors in {folder}, as its manifest says, got other norms; embed again")
    image_ids: list[str] = pq.read_table(path, columns=["image_id"])["image_id"].to_pylist()
    return image_ids


def is_unit(vectors: NDArray[Any]) -> bool:
    """Whether every row has norm 1, within what float16 rounds."""
    norms = np.linalg.norm(vectors.astype(np.float32), axis=1)
    return bool(np.all(np.abs(norms - 1) < UNIT_TOLERANCE))


def _matrix(path: Path, dim: int) -> NDArray[np.floating]:
    """The vectors of a shard: (pictures, dim) in the dtype of the file."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    flat = pc.list_flatten(pq.read_table(path, columns=["embedding"])["embedding"]).to_numpy()
    return np.asarray(flat).reshape(-1, dim)


def _same_place(one: str, other: str) -> bool:
    if one == other:
        return True
    return Path(one).is_dir() and Path(other).is_dir() and Path(one).resolve() == Path(other).resolve()
