"""The files of image embeddings: Parquet shards of vectors, and a manifest that names the model that made them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from training.data.samples import SkippedSample
from training.run.provenance import sha256_of
from turkish_clip.atomic import atomic_write
from turkish_clip.errors import InputError
from turkish_clip.records import read_record, write_record

MANIFEST = "manifest.json"
SKIPPED = "skipped.jsonl"
SKIPPED_KEY = "skipped"  # in a shard's metadata: the lines of SKIPPED about its images
CONTENT_HASH, CONTENT_BYTES = "sha256", 32
UNIT_TOLERANCE = 1e-3  # float16 rounds a norm of 1 by less than this


class EmbeddingsError(InputError):
    """Image embeddings that are missing, incomplete, damaged, or of another image model."""


@dataclass(frozen=True)
class ShardKind:
    """What the vectors of a shard are of: the first word of its file, and the column of their names."""

    prefix: str
    column: str


IMAGES = ShardKind("shard", "image_id")
TEXTS = ShardKind("text", "text")


@dataclass(frozen=True)
class Shard:
    """A finished shard, as the manifest lists it.

    Attributes:
        images: number of embeddings in it, of images or of texts.
        sha256: of the file.
        source_sha256: of the image_ids and file sizes of its images, including the skipped ones; of imported
            embeddings, of what was read.
    """

    file: str
    images: int
    sha256: str
    source_sha256: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"(shard|text)-\d{5,}\.parquet", self.file):
            raise ValueError(f"{self.file!r} as the name of a shard")

    @property
    def number(self) -> int:
        """The shard's place in the order of the source, from 0."""
        return int(Path(self.file).stem.rpartition("-")[2])


@dataclass(frozen=True)
class Manifest:
    """What a folder of image embeddings contains, and what made it.

    Attributes:
        image_model: Hub id or folder, as configured.
        revision: the commit that was loaded, else the configured revision; empty for a folder.
        requested_revision: the configured branch, tag or commit; empty means the newest.
        weights_sha256: of the image model's weights; empty if it is unknown, as it may be of imported embeddings.
        normalised: whether the stored vectors have norm 1.
        complete: false while shards are missing.
        dtype: of the stored vectors.
        batch_size: images per step of the image model; 0 of imported embeddings.
        compute_dtype: of the image model's computation, "float32" or "bf16"; empty of imported embeddings.
        image_processor: the class that prepared the images: torchvision's gives other pixels than Pillow's; empty of
            imported embeddings.
        content: the hash of the images' files in the column of this name, "sha256"; empty means no such column.
        imported_from: where the vectors were read that others computed; empty: embed_images computed them.
        text_shards: the image model's embeddings of texts, imported with those of images.
    """

    # Files of format 1 have no number; 2 had no imported embeddings, 3 no image processor.
    FORMAT: ClassVar[int] = 4

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
    image_processor: str = ""
    content: str = ""
    imported_from: str = ""
    shards: list[Shard] = field(default_factory=list)
    text_shards: list[Shard] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Checks the numbers, which may come from a file of anybody; raises a ValueError."""
        for name, value, low in (
            ("dim", self.dim, 1),
            ("shard_size", self.shard_size, 1),
            ("batch_size", self.batch_size, 0),
            ("images", self.images, 0),
            ("skipped", self.skipped, 0),
        ):
            if value < low:
                raise ValueError(f"{value} as {name!r}, not {low} or more")
        for name, word, known in (
            ("dtype", self.dtype, ("float32", "float16")),
            ("compute_dtype", self.compute_dtype, ("float32", "bf16", "")),
            ("content", self.content, (CONTENT_HASH, "")),
        ):
            if word not in known:
                raise ValueError(f"{word[:40]!r} as {name!r}, not {' or '.join(filter(None, known))}")
        for shards in (self.shards, self.text_shards):
            names = [shard.file for shard in shards]
            if len(set(names)) < len(names):
                raise ValueError(f"the shard {max(names, key=names.count)} twice")
            if any(shard.images < 0 for shard in shards):
                raise ValueError("a shard of fewer than no images")
        stored = sum(shard.images for shard in self.shards)
        if self.complete and self.images != stored:
            raise ValueError(f"{self.images} images, and shards of {stored}")

    @property
    def maker(self) -> str:
        """The command that writes this folder."""
        return "training.import_embeddings" if self.imported_from else "training.embed_images"

    def write(self, folder: Path) -> None:
        """Writes manifest.json into a folder, atomically."""
        write_record(folder / MANIFEST, self)

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """Reads the manifest of a folder; returns None where there is none.

        Raises:
            EmbeddingsError: it can't be read, or has another format.
        """
        path = folder / MANIFEST
        advice = "delete the folder and embed again"
        return read_record(cls, path, advice, EmbeddingsError) if path.exists() else None

    def grown(self, shards: Iterable[Shard], skipped: int, last_is_unit: bool) -> Manifest:
        """Returns the manifest after one more shard.

        Args:
            shards: all that are finished.
            skipped: number of samples skipped so far.
            last_is_unit: whether the vectors of the new shard have norm 1.
        """
        ordered = sorted(shards, key=lambda shard: shard.number)
        return dataclasses.replace(
            self,
            shards=ordered,
            images=sum(shard.images for shard in ordered),
            skipped=skipped,
            normalised=last_is_unit and (self.normalised or not self.shards),
        )

    def difference_from(self, other: Manifest) -> str:
        """Returns the first difference between the settings of two manifests that decide the vectors, or ""."""
        if self.maker != other.maker:
            return f"embeddings of {self.maker} instead of {other.maker}"
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
    kind: ShardKind = IMAGES,
    contents: Sequence[bytes] | None = None,
    skipped: Sequence[SkippedSample] = (),
) -> Shard:
    """Writes one shard atomically.

    Args:
        folder: of the image embeddings.
        number: the shard's place in the order of the source, from 0.
        image_ids: the first column, string: what the vectors are of, texts in shards of texts.
        vectors: column embedding, (n, dim) float16 or float32 as fixed_size_list.
        source_sha256: as in `Shard`.
        kind: names the file and its first column.
        contents: column content, the SHA-256 of each image's file; None leaves it out.
        skipped: the shard's images that did not open, stored in its metadata, so that one write covers both.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / f"{kind.prefix}-{number:05d}.parquet"
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    columns = {kind.column: pa.array(image_ids, pa.string()), "embedding": embedding}
    if contents is not None:
        columns["content"] = pa.array(contents, pa.binary(CONTENT_BYTES))
    lines = "".join(sample.as_json() + "\n" for sample in skipped)
    table = pa.table(columns, metadata={SKIPPED_KEY: lines.encode()})
    with atomic_write(path, ours=(folder / MANIFEST).is_file()) as partial:  # which lists a damaged one, too
        pq.write_table(table, partial, compression="none", use_dictionary=False)
    return Shard(path.name, len(image_ids), sha256_of(path), source_sha256)


def skipped_in(folder: Path, shard: Shard) -> list[SkippedSample] | None:
    """Reads the skipped samples of a shard from its metadata; returns None where that does not list them.

    Args:
        folder: of the image embeddings.
        shard: one of its manifest.
    """
    import pyarrow.parquet as pq

    lines = (pq.read_schema(folder / shard.file).metadata or {}).get(SKIPPED_KEY.encode())
    return None if lines is None else SkippedSample.from_lines(lines, str(folder / shard.file))


def is_intact(folder: Path, shard: Shard) -> bool:
    """Returns whether a shard's file exists with the bytes that were written.

    Args:
        folder: of the image embeddings.
        shard: one of its manifest.
    """
    path = folder / shard.file
    return path.is_file() and sha256_of(path) == shard.sha256


def is_unit(vectors: NDArray[Any]) -> bool:
    """Returns whether each row of (n, dim) has norm 1, within the rounding of float16."""
    rows = vectors.astype(np.float32, copy=False)
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))  # norm() would write the squares of all to memory
    return bool(np.all(np.abs(norms - 1) < UNIT_TOLERANCE))
