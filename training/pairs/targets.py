"""Regression targets: the embeddings that captions should get, from images and from the teacher's English texts."""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, compress, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from training.data.store import IdIndex, Rows
from training.embeddings.store import TextEmbeddings
from training.pairs.teacher import load_teacher
from training.run.objectives import OBJECTIVES, Objective
from training.run.provenance import sha256_of_texts
from training.run.source import SourceError
from training.run.temp_storage import unnamed_array
from turkish_clip.atomic import atomic_write, set_aside
from turkish_clip.errors import one_line, printable
from turkish_clip.metrics import Vectors, unit

if TYPE_CHECKING:
    from training.embeddings.store import ImageEmbeddings
    from training.run.config import DistillConfig

log = logging.getLogger("training")
TEXT_BATCH_SIZE = 256
DIGEST_BYTES, CHUNK_BYTES = hashlib.sha256().digest_size, 1 << 20
BLOCK_ROWS = 16384  # rows or texts held in memory: 32 MB of float32 embeddings of width 512


def regression_targets(
    rows: Rows, embeddings: ImageEmbeddings, config: DistillConfig, texts: Rows | None = None
) -> Vectors:
    """Returns the memory-mapped regression targets: (n, dim) float32, of norm 1 unless the objective is raw.

    There is one per image for all its captions, or, where the objective is aligned, one per caption, in the order of
    the rows; then one per caption without an image. A mix of two targets is their mean: the mean squared distance to
    both is the squared distance to their mean plus a constant.

    Args:
        rows: training images with their captions.
        embeddings: of all these images.
        config: names the objective, the image model and the folder of temporary files.
        texts: captions without an image, with English captions; None: none.

    Raises:
        SourceError: the objective needs English captions or a text tower, and there are none.
        RunError: the image model has other weights now.
        EmbeddingsError: an image has no embedding.
    """
    objective = OBJECTIVES[config.objective]
    imaged = _captions_of(rows) if objective.aligned else len(rows)
    count = imaged + (_captions_of(texts) if texts is not None else 0)
    targets: Vectors = unnamed_array((count, embeddings.manifest.dim), np.float32, config.folder)
    if objective.aligned:
        english = EnglishEmbeddings.of(rows, embeddings, config, raw=objective.raw)
        _fill_by_caption(targets[:imaged], rows, english)
    else:
        _fill_by_image(targets[:imaged], rows, embeddings, config, objective)
    if not objective.raw:
        _make_unit(targets[:imaged])
    if texts is not None:
        _fill_by_caption(targets[imaged:], texts, EnglishEmbeddings.of(texts, embeddings, config, raw=objective.raw))
        if config.text_shift or objective.centred:
            targets[imaged:] += _modality_shift(targets[:imaged], rows, embeddings, config, objective)
        if not objective.raw:
            _make_unit(targets[imaged:])
    return targets


def unit_image_embeddings(rows: Rows, embeddings: ImageEmbeddings, config: DistillConfig) -> Vectors:
    """Returns the memory-mapped unit embeddings of images: (n, dim) float32.

    Args:
        rows: the images.
        embeddings: of all of them.
        config: names the folder of temporary files.

    Raises:
        EmbeddingsError: an image has no embedding.
    """
    vectors: Vectors = unnamed_array((len(rows), embeddings.manifest.dim), np.float32, config.folder)
    for places, stored in embeddings.by_shard(embeddings.rows(rows.image_ids())):
        vectors[places] = unit(stored.astype(np.float32))
    return vectors


def _captions_of(rows: Rows) -> int:
    return sum(len(row.captions) for row in rows)


def _make_unit(targets: Vectors) -> None:
    for block in _blocks(len(targets)):
        targets[block] = unit(targets[block])


def _fill_by_image(
    targets: Vectors, rows: Rows, embeddings: ImageEmbeddings, config: DistillConfig, objective: Objective
) -> None:
    """Fills in one regression target per image, not yet of norm 1: (n, dim) float32."""
    if objective.image:
        for places, vectors in embeddings.by_shard(embeddings.rows(rows.image_ids())):
            targets[places] += np.float32(objective.image) * unit(vectors.astype(np.float32))
    if objective.text:
        for block, means in EnglishEmbeddings.of(rows, embeddings, config, raw=objective.raw).means():
            targets[block] += np.float32(objective.text) * means
    if objective.centred:
        targets -= targets.mean(axis=0)


def _fill_by_caption(targets: Vectors, rows: Rows, english: EnglishEmbeddings) -> None:
    """Fills in one regression target per caption, not yet of norm 1: (captions, dim) float32.

    It is the embedding of the English caption that the caption translates. Where that is not known, as for images with
    more captions in one language than in the other, it is the mean over the row's English captions.
    """
    number = unknown = 0
    for place_of_row, row in enumerate(rows):
        vectors = english.vectors[english.places(place_of_row)]
        for place in row.translations or (-1,) * len(row.captions):
            targets[number] = vectors[place] if place >= 0 else vectors.mean(axis=0)
            number, unknown = number + 1, unknown + (place < 0)
    if unknown:
        message = "%d of %d captions have no English original: their target is the mean of the image's English ones"
        log.warning(message, unknown, number)


def _modality_shift(
    targets: Vectors, rows: Rows, embeddings: ImageEmbeddings, config: DistillConfig, objective: Objective
) -> Vectors:
    """Returns the mean target of the imaged captions minus the mean embedding of their English captions: (dim,).

    Source of the gap: Liang et al., Mind the Gap: Understanding the Modality Gap in Multi-modal Contrastive
    Representation Learning, 2022.
    """
    with_english = np.flatnonzero([bool(row.english) for row in rows])
    if not len(with_english):
        raise SourceError(
            "expected English captions of some images for 'text_shift', got none; name --english_columns, or leave "
            "text_shift out"
        )
    english = EnglishEmbeddings.of(rows.take(with_english), embeddings, config, raw=objective.raw)
    total = np.zeros(targets.shape[1])
    for _, means in english.means():
        total += means.sum(axis=0, dtype=np.float64)
    return np.asarray(targets.mean(axis=0, dtype=np.float64) - total / len(with_english), np.float32)


@dataclass(frozen=True)
class EnglishEmbeddings:
    """The image model's text embeddings of the English captions of n images.

    Attributes:
        vectors: (k, dim) float32 of the distinct captions, memory-mapped from a file beside the image embeddings; of
            imported ones from a file without a name.
        vector_rows: (m,) the row of vectors of each caption, image by image.
        counts: (n,) the number of captions of each image.
        ends: (n,) where each image's captions end in vector_rows.
    """

    vectors: Vectors
    vector_rows: NDArray[np.int64]
    counts: NDArray[np.int64]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Rows, embeddings: ImageEmbeddings, config: DistillConfig, *, raw: bool) -> EnglishEmbeddings:
        """Computes and saves the embeddings, or reads imported ones, or those of an earlier run with the same texts.

        Args:
            rows: images with English captions.
            embeddings: of the same image model; their folder holds the file.
            config: names the image model and the device.
            raw: leave the embeddings as the model gives them, instead of norm 1.

        Raises:
            SourceError: an image has no English caption, or the image model no text tower.
            NoTowerError: captions were not imported with the image embeddings, and there is no text tower for them.
            RunError: the image model has other weights now.
        """
        counts = np.fromiter((len(row.english) for row in rows), np.int64, len(rows))
        without = np.flatnonzero(counts == 0)
        if len(without):
            raise SourceError(
                f"expected English captions for objective {config.objective!r}, got none for {len(without)} of "
                f"{len(rows)} images, the first {rows[int(without[0])].image_id!r}; name --english_columns, or "
                "choose objective mse"
            )

        def texts() -> Iterator[str]:
            return (text for row in rows for text in row.english)

        firsts = IdIndex(texts()).firsts()
        new = firsts == np.arange(len(firsts))
        vector_rows = (np.cumsum(new) - 1)[firsts]  # distinct texts are numbered in the order of their first occurrence
        if (imported := _imported(compress(texts(), new), embeddings, config, raw)) is not None:
            return cls(imported, vector_rows, counts, np.cumsum(counts))
        made_by = [embeddings.manifest.weights_sha256, *(shard.sha256 for shard in embeddings.manifest.text_shards)]
        key = sha256_of_texts(chain([*made_by, str(raw)], compress(texts(), new)))[:16]
        path = embeddings.folder / f"english-{key}.npy"
        shape = (int(new.sum()), embeddings.manifest.dim)
        if os.path.lexists(path) and (flaw := _flaw(path, shape)) is not None:
            kept = set_aside(path).name
            log.warning("%s %s: it is computed again, and that file stays as %s", printable(str(path)), flaw, kept)
        if not path.is_file():
            _write(path, shape, _encoded(compress(texts(), new), embeddings, config, raw))
        return cls(np.load(path, mmap_mode="r"), vector_rows, counts, np.cumsum(counts))

    def places(self, image: int) -> NDArray[np.int64]:
        """Returns the rows of vectors that are of one image, by its number: (captions,) int64."""
        return self.vector_rows[self.ends[image] - self.counts[image] : self.ends[image]]

    def means(self) -> Iterator[tuple[slice, Vectors]]:
        """Yields, block by block, a slice of the images and the mean embedding of each of them, (k, dim) float32."""
        for block in _blocks(len(self.counts)):
            images = range(*block.indices(len(self.counts)))
            yield block, np.stack([self.vectors[self.places(image)].mean(axis=0) for image in images])


def _write(path: Path, shape: tuple[int, int], blocks: Iterator[Vectors]) -> None:
    """Writes an array block by block as .npy, followed by the SHA-256 of all before, which readers of .npy ignore."""
    digest = hashlib.sha256()
    with atomic_write(path) as partial, partial.open("wb") as stream:
        for block in chain([_header(shape)], map(np.ndarray.tobytes, blocks)):
            stream.write(block)
            digest.update(block)
        stream.write(digest.digest())


def _flaw(path: Path, shape: tuple[int, int]) -> str | None:
    """Returns how a file differs from one of a shape that `_write` wrote; None if it doesn't."""
    if path.is_symlink() or not path.is_file():
        return "is no regular file"
    size = len(_header(shape)) + shape[0] * shape[1] * 4
    try:
        if path.stat().st_size != size + DIGEST_BYTES:
            return f"has {path.stat().st_size} bytes, and not {size + DIGEST_BYTES}"
        with path.open("rb") as stream:
            digest, left = hashlib.sha256(), size
            while left:
                digest.update(chunk := stream.read(min(left, CHUNK_BYTES)))
                left -= len(chunk)
            same = digest.digest() == stream.read()
    except OSError as error:
        return f"can't be read ({one_line(error)})"
    return None if same else "has changed since it was written"


def _header(shape: tuple[int, int]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return stream.getvalue()


def _imported(texts: Iterator[str], embeddings: ImageEmbeddings, config: DistillConfig, raw: bool) -> Vectors | None:
    """Returns the imported embeddings of texts, (k, dim) float32, memory-mapped; None where one is missing."""
    if not embeddings.manifest.text_shards:
        return None
    stored = TextEmbeddings.of(embeddings)
    rows = stored.find(texts)
    if (rows < 0).any():
        return None
    vectors: Vectors = unnamed_array((len(rows), embeddings.manifest.dim), np.float32, config.folder)
    for places, found in stored.by_shard(rows):
        vectors[places] = found if raw else unit(found.astype(np.float32))
    return vectors


def _encoded(texts: Iterator[str], embeddings: ImageEmbeddings, config: DistillConfig, raw: bool) -> Iterator[Vectors]:
    """Yields the teacher's embeddings of texts, raw or of norm 1, in order: (up to BLOCK_ROWS, dim) float32."""
    from turkish_clip.encoder import as_texts, query_prompt

    teacher = load_teacher(embeddings, config)
    if teacher is None:
        raise SourceError(
            f"expected an image model with a text tower for objective {config.objective!r}, got {config.image_model}, "
            "which has none; choose objective mse"
        )
    prompt = query_prompt(teacher)
    while batch := list(islice(texts, BLOCK_ROWS)):
        inputs = as_texts(teacher, batch)
        encoded = teacher.encode(inputs, prompt=prompt, batch_size=TEXT_BATCH_SIZE, show_progress_bar=False)
        vectors = np.asarray(encoded, np.float32)
        yield vectors if raw else unit(vectors)


def _blocks(length: int) -> Iterator[slice]:
    """Yields slices of at most BLOCK_ROWS rows that cover a length."""
    return (slice(start, start + BLOCK_ROWS) for start in range(0, length, BLOCK_ROWS))
