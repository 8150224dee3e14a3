"""Regression targets: what captions should become, made of image embeddings and of the teacher's English texts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, compress, islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from training.data.store import IdIndex, Rows
from training.run.objectives import OBJECTIVES, Objective
from training.run.provenance import sha256_of_texts
from training.run.record import RunError
from training.run.source import SourceError
from training.run.temp_storage import unnamed_array
from turkish_clip.atomic import atomic_write
from turkish_clip.dual_encoder import weights_sha256
from turkish_clip.metrics import Vectors, unit

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from training.embeddings.store import ImageEmbeddings
    from training.run.config import DistillConfig, EmbeddingsConfig


def load_teacher(embeddings: ImageEmbeddings, config: EmbeddingsConfig) -> SentenceTransformer | None:
    """The image model that the image embeddings are of; None where it has no text tower.

    Raises:
        RunError: it is no longer the one that the image embeddings are of.
    """
    from training.run.distributed import device_of
    from turkish_clip.encoder import load_model

    device = device_of(config.device)
    teacher = load_model(config.image_model, revision=config.image_model_revision, device=device)
    if weights_sha256(teacher) != embeddings.manifest.weights_sha256:
        raise RunError(
            f"expected the image model that {embeddings.folder} was made with, got other weights in {config.image_model}; "
            "embed again with another --embeddings"
        )
    return teacher if teacher.supports("text") else None


log = logging.getLogger("training")
TEXTS_A_STEP = 256
AT_ONCE = 16384  # rows, or texts: 32 MB of vectors that are 512 wide


def regression_targets(rows: Rows, embeddings: ImageEmbeddings, config: DistillConfig) -> Vectors:
    """What the captions should become: (n, dim) float32, of norm 1 unless the objective is raw.

    A row is of an image, for all its captions; where the objective is aligned, of a caption, in the order of the rows.
    A mix of two labels is their mean: the squared distances to both differ from the one to the mean by a constant.
    They lie in a file without a name, mapped.

    Raises:
        SourceError: the objective wants English captions, and an image has none.
        EmbeddingsError: an image has no target.
    """
    objective = OBJECTIVES[config.objective]
    make = _translation_targets if objective.aligned else _image_targets
    targets = make(rows, embeddings, config, objective)
    if not objective.raw:
        for some in _blocks(len(targets)):
            targets[some] = unit(targets[some])
    return targets


def _image_targets(rows: Rows, embeddings: ImageEmbeddings, config: DistillConfig, objective: Objective) -> Vectors:
    """One label for each image, not yet scaled: (n, dim) float32."""
    targets: Vectors = unnamed_array((len(rows), embeddings.manifest.dim), np.float32, config.folder)
    if objective.image:
        for places, vectors in embeddings.by_shard(embeddings.rows(rows.image_ids())):
            targets[places] += np.float32(objective.image) * unit(vectors.astype(np.float32))
    if objective.text:
        for some, means in EnglishEmbeddings.of(rows, embeddings, config, raw=objective.raw).means():
            targets[some] += np.float32(objective.text) * means
    if objective.centred:
        targets -= targets.mean(axis=0)
    return targets


def _translation_targets(
    rows: Rows, embeddings: ImageEmbeddings, config: DistillConfig, objective: Objective
) -> Vectors:
    """One label for each caption, not yet scaled, of the English text that it translates: (captions, dim) float32.

    Where that is not known, as in an image with more captions in one language than in the other, it is the mean of all
    English ones of the image.
    """
    english = EnglishEmbeddings.of(rows, embeddings, config, raw=objective.raw)
    count = sum(len(row.captions) for row in rows)
    targets: Vectors = unnamed_array((count, embeddings.manifest.dim), np.float32, config.folder)
    number = unknown = 0
    for image, row in enumerate(rows):
        vectors = english.vectors[english.places(image)]
        for place in row.translations or (-1,) * len(row.captions):
            targets[number] = vectors[place] if place >= 0 else vectors.mean(axis=0)
            number, unknown = number + 1, unknown + (place < 0)
    if unknown:
        log.warning(
            "%d of %d captions have no English one in their place: the mean of their image's is the label",
            unknown,
            count,
        )
    return targets


@dataclass(frozen=True)
class EnglishEmbeddings:
    """The image model's vectors of the English captions of images.

    Attributes:
        vectors: (k, dim) float32 of the distinct captions, in a mapped file beside the image embeddings.
        number_of: (m,) for each caption of each image which of them.
        counts: (n,) how many captions each image has.
        ends: (n,) where they end in number_of.
    """

    vectors: Vectors
    number_of: NDArray[np.int64]
    counts: NDArray[np.int64]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Rows, embeddings: ImageEmbeddings, config: DistillConfig, *, raw: bool) -> EnglishEmbeddings:
        """Computes them, or takes those that were kept.

        Raises:
            SourceError: an image has no English caption.
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
        number_of = (np.cumsum(new) - 1)[firsts]  # among the distinct texts, in the order in which they come first
        key = sha256_of_texts(chain([embeddings.manifest.weights_sha256, str(raw)], compress(texts(), new)))[:16]
        path = embeddings.folder / f"english-{key}.npy"
        if not path.is_file():
            shape = (int(new.sum()), embeddings.manifest.dim)
            with atomic_write(path) as partial, partial.open("wb") as stream:
                np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
                for vectors in _encoded(compress(texts(), new), embeddings, config, raw):
                    stream.write(vectors.tobytes())
        return cls(np.load(path, mmap_mode="r"), number_of, counts, np.cumsum(counts))

    def places(self, image: int) -> NDArray[np.int64]:
        """Where in vectors those of one image are."""
        return self.number_of[self.ends[image] - self.counts[image] : self.ends[image]]

    def means(self) -> Iterator[tuple[slice, Vectors]]:
        """The mean of each image's: some of the images, and for them (k, dim) float32."""
        for some in _blocks(len(self.counts)):
            images = range(*some.indices(len(self.counts)))
            yield some, np.stack([self.vectors[self.places(image)].mean(axis=0) for image in images])


def _encoded(texts: Iterator[str], embeddings: ImageEmbeddings, config: DistillConfig, raw: bool) -> Iterator[Vectors]:
    pass

    teacher = load_teacher(embeddings, config)
    if teacher is None:
        raise SourceError(
            f"expected an image model with a text tower for objective {config.objective!r}, got {config.image_model}, "
            "which has none; choose objective mse"
        )
    while some := list(islice(texts, AT_ONCE)):
        vectors = np.asarray(teacher.encode(some, batch_size=TEXTS_A_STEP, show_progress_bar=False), np.float32)
        yield vectors if raw else unit(vectors)


def _blocks(length: int) -> Iterator[slice]:
    """The slices of so many rows that are held in memory at once."""
    return (slice(start, start + AT_ONCE) for start in range(0, length, AT_ONCE))
