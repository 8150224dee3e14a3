"""The image embeddings on disk: Parquet shards of vectors, and the manifest that says whose they are."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.samples import SkippedSample
from training.run.provenance import sha256_of
from turkish_clip.atomic import atomic_write, write_json
from turkish_clip.errors import InputError

MANIFEST = "manifest.json"
SKIPPED = "skipped.jsonl"
SKIPPED_KEY = "skipped"  # of a shard's metadata: the lines of SKIPPED about its part of the images
CONTENT_HASH, CONTENT_BYTES = "sha256", 32
UNIT_TOLERANCE = 1e-3  # float16 rounds a norm of 1 by less than this


class EmbeddingsError(InputError):
    """ImageEmbeddings that are missing, incomplete, damaged, or of another image model."""


@dataclass(frozen=True)
class Shard:
    """One finished file.

    Attributes:
        images: how many it holds.
        sha256: of the file.
        source_sha256: of the names and sizes of the images that went into it, the skipped ones too.
    """

    file: str
    images: int
    sha256: str
    source_sha256: str

    @property
    def number(self) -> int:
        """Its place in the order of the source."""
        return int(Path(self.file).stem.rpartition("-")[2])


@dataclass(frozen=True)
class Manifest:
    """What a folder of image embeddings holds.

    Attributes:
        image_model: Hub id or folder, as it was given.
        revision: the commit that was loaded, or what was asked for; empty for a folder.
        requested_revision: the branch, tag or commit that was asked for; empty: the newest.
        weights_sha256: of the image model's weights.
        normalised: whether the stored vectors have norm 1.
        complete: false while shards are missing.
        compute_dtype: dtype of the image model's computation, "float32" or "bf16"; `dtype` is that of the stored vectors.
        content: hash of the images' files in the column of that name, "sha256"; empty: older shards have no such
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
    images: int
    skipped: int
    complete: bool
    requested_revision: str = ""
    compute_dtype: str = "float32"
    content: str = ""
    shards: list[Shard] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        write_json(folder / MANIFEST, dataclasses.asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """The manifest in a folder, or None where there is none.

        Raises:
            EmbeddingsError: it is not a manifest.
        """
        path = folder / MANIFEST
        if not path.is_file():
            return None
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**values, "shards": [Shard(**shard) for shard in values["shards"]]})
        except (ValueError, TypeError, KeyError) as error:
            raise EmbeddingsError(
                f"expected a manifest of image embeddings in {path}, got {error}; delete the folder"
            ) from error

    def grown(self, shards: Iterable[Shard], skipped: int, last_is_unit: bool) -> Manifest:
        """The manifest after one more shard."""
        ordered = sorted(shards, key=lambda shard: shard.number)
        return dataclasses.replace(
            self,
            shards=ordered,
            images=sum(shard.images for shard in ordered),
            skipped=skipped,
            normalised=last_is_unit and (self.normalised or not self.shards),
        )

    def same_work(self, other: Manifest) -> str:
        """The first thing in which two manifests' work differs, in words; empty if they are of the same work."""
        for name in ("image_model", "weights_sha256", "dim", "dtype", "compute_dtype", "shard_size", "batch_size"):
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
    skipped: Sequence[SkippedSample] = (),
) -> Shard:
    """Writes one shard whole.

    Args:
        folder: where to.
        number: its place in the order of the source.
        image_ids: column image_id, string.
        vectors: column embedding, (n, dim) float16 or float32 as fixed_size_list.
        source_sha256: of the images, as `Shard` has it.
        contents: column content, the SHA-256 of each image's file; None leaves it out.
        skipped: the images of this part that did not open, for the file's metadata, so that both come and go at once.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / f"shard-{number:05d}.parquet"
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    columns = {"image_id": pa.array(image_ids, pa.string()), "embedding": embedding}
    if contents is not None:
        columns["content"] = pa.array(contents, pa.binary(CONTENT_BYTES))
    lines = "".join(sample.as_json() + "\n" for sample in skipped)
    table = pa.table(columns, metadata={SKIPPED_KEY: lines.encode()})
    with atomic_write(path) as partial:
        pq.write_table(table, partial, compression="none", use_dictionary=False)
    return Shard(path.name, len(image_ids), sha256_of(path), source_sha256)


def skipped_in(folder: Path, shard: Shard) -> list[SkippedSample] | None:
    """The images of a shard's part that did not open; None for an older shard, which does not say."""
    import pyarrow.parquet as pq

    lines = (pq.read_schema(folder / shard.file).metadata or {}).get(SKIPPED_KEY.encode())
    return None if lines is None else [SkippedSample(**json.loads(line)) for line in lines.decode().splitlines()]


def is_intact(folder: Path, shard: Shard) -> bool:
    """Whether a shard's file is there with the bytes that were written."""
    path = folder / shard.file
    return path.is_file() and sha256_of(path) == shard.sha256


def is_unit(vectors: NDArray[Any]) -> bool:
    """Whether every row has norm 1, within what float16 rounds."""
    norms = np.linalg.norm(vectors.astype(np.float32), axis=1)
    return bool(np.all(np.abs(norms - 1) < UNIT_TOLERANCE))
