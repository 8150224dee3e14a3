"""Makes vectors that others have computed into a folder of embeddings; a kill loses one shard at most."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from training.data.cells import clean_text
from training.data.samples import SkippedSample, one_spelling
from training.data.sources import check_skipped_fraction, write_skipped
from training.data.store import IdIndex
from training.embeddings.manifest import (
    CONTENT_BYTES,
    CONTENT_HASH,
    IMAGES,
    SKIPPED,
    TEXTS,
    EmbeddingsError,
    Manifest,
    Shard,
    ShardKind,
    is_intact,
    is_unit,
    write_shard,
)
from training.embeddings.vector_files import Block, VectorFile, image_files, text_files, unused_texts
from training.run.config import UNKNOWN, ImportConfig
from training.run.provenance import commit_of
from training.run.temp_storage import unnamed_array
from turkish_clip.dual_encoder import weights_sha256
from turkish_clip.metrics import unit
from turkish_clip.text import nfc

if TYPE_CHECKING:
    from tqdm import tqdm

log = logging.getLogger("training")
SAME_VECTOR = 0.999  # cosine: the same input in another batch or precision comes this near
NEW, REPEATED, CONTRADICTED = range(3)


def import_embeddings(config: ImportConfig) -> Manifest:
    """Writes the shards that are missing or out of date; returns the finished manifest.

    A shard holds the good rows among `shard_size` of one file, so a resumed run gives the same bytes. Rows that can't
    be used are listed in skipped.jsonl with the reason. Memory use does not grow with the number of vectors.

    Args:
        config: names the files, the image model and the folder.

    Raises:
        EmbeddingsError: the files can't be read or don't fit together, the image model's weights can't be had, or the
            folder was begun with other settings.
        SourceError: too many rows are skipped; finished shards are kept.
    """
    from tqdm import tqdm

    images, texts = image_files(config), text_files(config)
    manifest = _plan(images, texts, config)
    for folder in unused_texts(config):
        log.info("%s is not imported; if its texts are English captions, name it with --text_vectors", folder)
    importer = _Importer(manifest, sum(file.rows for file in images + texts), config)
    with tqdm(total=importer.total, unit="row", desc="import", mininterval=0.5) as bar:
        try:
            importer.add(images, IMAGES, bar)
            importer.add(texts, TEXTS, bar)
        finally:
            write_skipped(config.embeddings_folder / SKIPPED, importer.skipped)
    return importer.finish()


def _plan(images: Sequence[VectorFile], texts: Sequence[VectorFile], config: ImportConfig) -> Manifest:
    """Returns the manifest to continue: that of an earlier import with the same settings, or a new one."""
    dim = images[0].width()
    for file in (*images, *texts):
        width = file.width()
        if width != dim:
            raise EmbeddingsError(
                f"expected vectors of width {dim}, as in {images[0].path}, got {width} in {file.path}; import vectors "
                "of one image model"
            )
    new = Manifest(
        image_model=config.image_model,
        revision=commit_of(config.image_model, config.image_model_revision) or config.image_model_revision,
        requested_revision=config.image_model_revision,
        weights_sha256=_weights(config, dim),
        dim=dim,
        dtype="float16" if all(file.is_half() for file in (*images, *texts)) else "float32",
        shard_size=config.shard_size,
        batch_size=0,
        compute_dtype="",
        content=CONTENT_HASH if config.content_column else "",
        imported_from=config.vectors,
        normalised=True,
        images=0,
        skipped=0,
        complete=False,
    )
    earlier = Manifest.read(config.embeddings_folder)
    if earlier is None:
        return new
    difference = new.difference_from(earlier)
    if not difference and new.content != earlier.content:
        difference = f"content {new.content!r} instead of {earlier.content!r}"
    if difference:
        raise EmbeddingsError(
            f"expected the settings that {config.embeddings_folder} was begun with, got {difference}; "
            "give another --embeddings, or delete that folder"
        )
    return dataclasses.replace(new, shards=earlier.shards, text_shards=earlier.text_shards)


def _weights(config: ImportConfig, dim: int) -> str:
    """Returns the hash of the image model's weights: the given one, else that of the model; empty if unknown."""
    if config.image_model_sha256:
        return "" if config.image_model_sha256 == UNKNOWN else config.image_model_sha256
    from training.run.record import locate_model
    from turkish_clip.encoder import PROBE, ModelError, load_model

    try:
        name = locate_model(config.image_model, config.folder)
        model = load_model(name, revision=config.image_model_revision, device="cpu")
    except ModelError as error:
        raise EmbeddingsError(
            f"expected the weights of the image model, to record whose vectors these are, got none: {error}; or give "
            f"--image_model_sha256: the hash that turkish-clip info prints, or {UNKNOWN} if nobody has it"
        ) from error
    width = int(model.encode(PROBE).shape[-1]) if model.supports("image") else 0
    if width != dim:
        raise EmbeddingsError(
            f"expected vectors of {config.image_model}, which are {width} wide, got {dim} in {config.vectors}; name "
            "the image model that made them"
        )
    return weights_sha256(model)


@dataclass(frozen=True)
class _Part:
    """The good rows of a block, and the skipped samples among the others."""

    names: list[str]
    vectors: NDArray[np.floating]
    contents: list[bytes]
    skipped: list[SkippedSample]

    def sha256(self, dtype: str) -> str:
        """Returns the hash of all that goes into a shard."""
        digest = hashlib.sha256()
        for text in (*self.names, *(sample.as_json() for sample in self.skipped)):
            digest.update(text.encode() + b"\n")
        digest.update(b"".join(self.contents))
        digest.update(self.vectors.astype(dtype).tobytes())
        return digest.hexdigest()


class _Repeats:
    """Recognises rows with the name of an earlier row, by that name's vector in a file without a name."""

    def __init__(self, names: Iterator[str], dim: int, config: ImportConfig) -> None:
        firsts = IdIndex(names).firsts()
        self._firsts = firsts
        self._repeated = np.flatnonzero(np.bincount(firsts, minlength=len(firsts)) > 1)
        self._seen = np.zeros(len(self._repeated), bool)
        self._vectors = unnamed_array((len(self._repeated), dim), np.float32, config.folder)

    def kind(self, row: int, vector: NDArray[np.floating]) -> int:
        """Returns whether a row's name is new, repeated with its vector, or repeated with another.

        Args:
            row: its number among all rows; rows are asked for in order.
            vector: (dim,), good.
        """
        first = self._firsts[row]
        place = int(np.searchsorted(self._repeated, first))
        if place == len(self._repeated) or self._repeated[place] != first:
            return NEW
        direction = unit(vector.astype(np.float32)[None])[0]
        if not self._seen[place]:
            self._seen[place], self._vectors[place] = True, direction
            return NEW
        return REPEATED if float(direction @ self._vectors[place]) >= SAME_VECTOR else CONTRADICTED


class _Importer:
    """Writes shards of images, then of texts, with the manifest after each.

    Attributes:
        total: number of rows.
        skipped: the samples skipped so far.
    """

    def __init__(self, manifest: Manifest, total: int, config: ImportConfig) -> None:
        self.total = total
        self.skipped: list[SkippedSample] = []
        self._config = config
        self._folder = config.embeddings_folder
        self._written = {
            shard.file: shard for shard in (*manifest.shards, *manifest.text_shards) if is_intact(self._folder, shard)
        }
        self._manifest = dataclasses.replace(manifest, shards=[], text_shards=[])
        self._folder.mkdir(parents=True, exist_ok=True)

    def add(self, files: Sequence[VectorFile], kind: ShardKind, bar: tqdm[Any]) -> None:
        """Writes the shards of some files.

        Args:
            files: in order.
            kind: what their vectors are of.
            bar: told the number of rows of each block.

        Raises:
            SourceError: too many samples have been skipped so far.
        """
        names = (self._name(name, kind) for file in files for name in file.read_names())
        repeats = _Repeats(names, self._manifest.dim, self._config)
        row = number = 0
        for file in files:
            for block in file.blocks(self._config.shard_size, self._manifest.dim):
                self._write(self._good(block, file, row, repeats, kind), number, kind)
                check_skipped_fraction(
                    self.skipped, self.total, self._config.max_skipped_fraction, self._config.vectors
                )
                row, number = row + len(block.names), number + 1
                bar.update(len(block.names))

    def finish(self) -> Manifest:
        """Writes the manifest as complete, and returns it."""
        self._manifest = dataclasses.replace(self._manifest, complete=True)
        self._manifest.write(self._folder)
        return self._manifest

    def _name(self, name: Any, kind: ShardKind) -> str:
        """Returns a row's name as the captions have it; empty for a missing one."""
        if isinstance(name, dict):  # the Hub's layout of an image in Parquet
            name = name.get("path")
        if name is None or name == "":
            return ""
        return clean_text(str(name)) if kind is TEXTS else nfc(self._config.id_prefix + one_spelling(str(name)))

    def _good(self, block: Block, file: VectorFile, row: int, repeats: _Repeats, kind: ShardKind) -> _Part:
        """Sorts the rows of a block, of which the first is number `row` of all, into good and skipped ones."""
        names = [self._name(name, kind) for name in block.names]
        contents = [_digest(content) for content in block.contents]
        bad = _reasons(names, contents, block, kind, self._manifest.dim, self._config.content_column)
        good, skipped = [], []
        for place, (name, reason) in enumerate(zip(names, bad)):
            found = NEW if reason else repeats.kind(row + place, block.vectors[place])
            if found == CONTRADICTED:
                reason = f"the {kind.column} of an earlier row, with another vector"
            if reason:
                where = f"{file.path.name}, row {block.start + place}" + (f": {name}" if kind is TEXTS else "")
                skipped.append(SkippedSample("" if kind is TEXTS else name, where, reason))
            elif found == NEW:
                good.append(place)
        return _Part(
            [names[place] for place in good],
            block.vectors[good],
            [contents[place] for place in good] if contents else [],
            skipped,
        )

    def _write(self, part: _Part, number: int, kind: ShardKind) -> None:
        """Writes a shard unless it is there, then the manifest."""
        manifest = self._manifest
        source = part.sha256(manifest.dtype)
        shard: Shard | None = self._written.get(f"{kind.prefix}-{number:05d}.parquet")
        self.skipped += part.skipped
        is_new = shard is None or shard.source_sha256 != source
        if shard is None or is_new:
            shard = write_shard(
                self._folder,
                number,
                part.names,
                part.vectors.astype(manifest.dtype),
                source,
                kind=kind,
                contents=part.contents if manifest.content and kind is IMAGES else None,
                skipped=part.skipped,
            )
        if kind is TEXTS:
            manifest = dataclasses.replace(
                manifest, text_shards=[*manifest.text_shards, shard], skipped=len(self.skipped)
            )
        else:
            manifest = dataclasses.replace(
                manifest,
                shards=[*manifest.shards, shard],
                images=manifest.images + shard.images,
                skipped=len(self.skipped),
                normalised=manifest.normalised and is_unit(part.vectors),
            )
        self._manifest = manifest
        if is_new:
            manifest.write(self._folder)


def _reasons(
    names: Sequence[str], contents: Sequence[bytes], block: Block, kind: ShardKind, dim: int, content_column: str
) -> list[str]:
    """Returns for each row of a block why it can't be used by itself; empty if it can."""
    vectors = block.vectors.astype(np.float32)
    finite, zero = np.asarray(np.isfinite(vectors).all(axis=1)), np.asarray(~vectors.any(axis=1))
    reasons = []
    for place, (name, width) in enumerate(zip(names, block.widths.tolist())):
        if not name:
            reasons.append(f"no {kind.column}")
        elif width != dim:
            reasons.append(f"a vector of width {width} instead of {dim}" if width >= 0 else "no vector")
        elif not finite[place]:
            reasons.append("NaN or infinity in its vector")
        elif zero[place]:
            reasons.append("a vector of zeros")
        elif contents and not contents[place]:
            reasons.append(f"no SHA-256 in column {content_column}")
        else:
            reasons.append("")
    return reasons


def _digest(content: Any) -> bytes:
    """Returns the 32 bytes of a SHA-256 that is written in hexadecimal digits or as bytes; empty if it is none."""
    if isinstance(content, str):
        try:
            content = bytes.fromhex(content)
        except ValueError:
            return b""
    return content if isinstance(content, bytes) and len(content) == CONTENT_BYTES else b""
