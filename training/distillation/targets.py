"""Regression targets: what captions should become, made of image embeddings and of the teacher's English texts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, compress, islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from training.data.store import Ids, Rows
from training.run.objectives import OBJECTIVES, Objective
from training.run.provenance import sha256_of_texts
from training.run.record import RunError
from training.run.source import CaptionsError
from training.run.temp_storage import scratch_array
from turkish_clip.atomic import whole_file
from turkish_clip.metrics import Vectors, unit
from turkish_clip.towers import weights_sha256

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from training.embeddings.store import Targets
    from training.run.config import DistillConfig, TargetsConfig


def load_teacher(targets: Targets, config: TargetsConfig) -> SentenceTransformer | None:
    """The image model that the targets are of; None where it has no text tower.

    Raises:
        RunError: it is no longer the one that the targets are of.
    """
    from training.run.distributed import device_of
    from turkish_clip.encoder import load_model

    device = device_of(config.device)
    teacher = load_model(config.image_model, revision=config.image_model_revision, device=device)
    if weights_sha256(teacher) != targets.manifest.weights_sha256:
        raise RunError(
            f"expected the image model that {targets.folder} was made with, got other weights in {config.image_model}; "
            "embed again with another --targets"
        )
    return teacher if teacher.supports("text") else None


log = logging.getLogger("training")
TEXTS_A_STEP = 256
AT_ONCE = 16384  # rows, or texts: 32 MB of vectors that are 512 wide


def labels(rows: Rows, targets: Targets, config: DistillConfig) -> Vectors:
    """What the captions should become: (n, dim) float32, of norm 1 unless the objective is raw.

    A row is of a picture, for all its captions; where the objective is aligned, of a caption, in the order of the rows.
    A mix of two labels is their mean: the squared distances to both differ from the one to the mean by a constant.
    They lie in a file without a name, mapped.

    Raises:
        CaptionsError: the objective wants English captions, and a picture has none.
        TargetsError: a picture has no target.
    """
    objective = OBJECTIVES[config.objective]
    make = translations if objective.aligned else of_pictures
    wanted = make(rows, targets, config, objective)
    if not objective.raw:
        for some in blocks(len(wanted)):
            wanted[some] = unit(wanted[some])
    return wanted


def of_pictures(rows: Rows, targets: Targets, config: DistillConfig, objective: Objective) -> Vectors:
    """One label for each picture, not yet scaled: (n, dim) float32."""
    wanted: Vectors = scratch_array((len(rows), targets.manifest.dim), np.float32, config.folder)
    if objective.picture:
        for places, vectors in targets.by_shard(targets.rows(rows.image_ids())):
            wanted[places] += np.float32(objective.picture) * unit(vectors.astype(np.float32))
    if objective.text:
        for some, means in English.of(rows, targets, config, raw=objective.raw).means():
            wanted[some] += np.float32(objective.text) * means
    if objective.centred:
        wanted -= wanted.mean(axis=0)
    return wanted


def translations(rows: Rows, targets: Targets, config: DistillConfig, objective: Objective) -> Vectors:
    """One label for each caption, not yet scaled, of the English text that it translates: (captions, dim) float32.

    Where that is not known, as in a picture with more captions in one language than in the other, it is the mean of all
    English ones of the picture.
    """
    english = English.of(rows, targets, config, raw=objective.raw)
    count = sum(len(row.captions) for row in rows)
    wanted: Vectors = scratch_array((count, targets.manifest.dim), np.float32, config.folder)
    number = unknown = 0
    for picture, row in enumerate(rows):
        vectors = english.vectors[english.places(picture)]
        for place in row.translations or (-1,) * len(row.captions):
            wanted[number] = vectors[place] if place >= 0 else vectors.mean(axis=0)
            number, unknown = number + 1, unknown + (place < 0)
    if unknown:
        log.warning(
            "%d of %d captions have no English one in their place: the mean of their picture's is the label",
            unknown,
            count,
        )
    return wanted


@dataclass(frozen=True)
class English:
    """The image model's vectors of the English captions of pictures.

    Attributes:
        vectors: (k, dim) float32 of the distinct captions, in a mapped file beside the targets.
        number_of: (m,) for each caption of each picture which of them.
        counts: (n,) how many captions each picture has.
        ends: (n,) where they end in number_of.
    """

    vectors: Vectors
    number_of: NDArray[np.int64]
    counts: NDArray[np.int64]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Rows, targets: Targets, config: DistillConfig, *, raw: bool) -> English:
        """Computes them, or takes those that were kept.

        Raises:
            CaptionsError: a picture has no English caption.
        """
        counts = np.fromiter((len(row.english) for row in rows), np.int64, len(rows))
        without = np.flatnonzero(counts == 0)
        if len(without):
            raise CaptionsError(
                f"expected English captions for objective {config.objective!r}, got none for {len(without)} of "
                f"{len(rows)} pictures, the first {rows[int(without[0])].image_id!r}; name --english_columns, or "
                "choose objective mse"
            )

        def texts() -> Iterator[str]:
            return (text for row in rows for text in row.english)

        firsts = Ids(texts()).firsts()
        new = firsts == np.arange(len(firsts))
        number_of = (np.cumsum(new) - 1)[firsts]  # among the distinct texts, in the order in which they come first
        key = sha256_of_texts(chain([targets.manifest.weights_sha256, str(raw)], compress(texts(), new)))[:16]
        path = targets.folder / f"english-{key}.npy"
        if not path.is_file():
            shape = (int(new.sum()), targets.manifest.dim)
            with whole_file(path) as partial, partial.open("wb") as stream:
                np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
                for vectors in _encoded(compress(texts(), new), targets, config, raw):
                    stream.write(vectors.tobytes())
        return cls(np.load(path, mmap_mode="r"), number_of, counts, np.cumsum(counts))

    def places(self, picture: int) -> NDArray[np.int64]:
        """Where in vectors those of one picture are."""
        return self.number_of[self.ends[picture] - self.counts[picture] : self.ends[picture]]

    def means(self) -> Iterator[tuple[slice, Vectors]]:
        """The mean of each picture's: some of the pictures, and for them (k, dim) float32."""
        for some in blocks(len(self.counts)):
            pictures = range(*some.indices(len(self.counts)))
            yield some, np.stack([self.vectors[self.places(picture)].mean(axis=0) for picture in pictures])


def _encoded(texts: Iterator[str], targets: Targets, config: DistillConfig, raw: bool) -> Iterator[Vectors]:
    pass

    teacher = load_teacher(targets, config)
    if teacher is None:
        raise CaptionsError(
            f"expected an image model with a text tower for objective {config.objective!r}, got {config.image_model}, "
            "which has none; choose objective mse"
        )
    while some := list(islice(texts, AT_ONCE)):
        vectors = np.asarray(teacher.encode(some, batch_size=TEXTS_A_STEP, show_progress_bar=False), np.float32)
        yield vectors if raw else unit(vectors)


def blocks(length: int) -> Iterator[slice]:
    """The slices of so many rows that are held in memory at once."""
    return (slice(start, start + AT_ONCE) for start in range(0, length, AT_ONCE))
