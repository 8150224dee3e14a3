"""Measures the retrieval of a split and of each source, with the teacher reference and with corrupted captions."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from training.data.samples import Row
from training.embeddings.store import deduplicate
from training.evaluation.corruptions import CORRUPTIONS
from training.evaluation.results import Corrupted, Csls, Estimate, Figures, HubCorrected, Hubness
from training.pairs.teacher import NoTowerError, Teacher
from training.run.config import EvaluateConfig
from turkish_clip.metrics import (
    HUB_NEIGHBOURS,
    HUB_WEIGHT,
    Relevance,
    Retrieval,
    Vectors,
    hub_scores,
    hubness,
    ranks,
    ratio_interval,
    recall_by_chance,
    unit,
    with_penalties,
)

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from training.embeddings.store import ImageEmbeddings
    from turkish_clip.bank import TextBank

log = logging.getLogger("training")


@dataclass(frozen=True)
class Split:
    """One split, encoded and measured: (n, dim) float32 unit vectors of its distinct texts and of its images."""

    relevance: Relevance
    texts: Vectors
    images: Vectors
    text_to_image: Retrieval
    image_to_text: Retrieval


def measure(
    student: SentenceTransformer, rows: Sequence[Row], embeddings: ImageEmbeddings, config: EvaluateConfig
) -> Split:
    """Encodes a split and measures its retrieval in both directions, with intervals.

    Args:
        student: the text encoder.
        rows: of the split, each image once.
        embeddings: of their images.
        config: gives the batch size and the number of bootstrap samples.

    Raises:
        EmbeddingsError: an image has no embedding.
    """
    relevance = Relevance.from_captions([row.captions for row in rows])
    images = embeddings.unit_rows([row.image_id for row in rows])
    texts = encode(student, relevance.texts, config)
    samples = config.bootstrap_samples
    return Split(
        relevance,
        texts,
        images,
        relevance.text_to_image(texts, images, bootstrap_samples=samples),
        relevance.image_to_text(texts, images, bootstrap_samples=samples),
    )


def figures(
    split: Split, teacher: SentenceTransformer | Teacher | None, rows: Sequence[Row], config: EvaluateConfig
) -> Figures:
    """Returns the figures of a split, with the teacher reference if every image has an English caption.

    Args:
        split: from `measure`.
        teacher: the image model with its own text tower, or imported embeddings; None leaves the teacher reference out.
        rows: that the split was measured on.
        config: as in `measure`.
    """
    relevance, samples = split.relevance, config.bootstrap_samples
    student = Figures(
        images=len(split.images),
        captions=len(relevance.texts),
        text_to_image=split.text_to_image,
        image_to_text=split.image_to_text,
        chance={
            "text_to_image": recall_by_chance(relevance.images_of, len(relevance.texts_of)),
            "image_to_text": recall_by_chance(relevance.texts_of, len(relevance.images_of)),
        },
    )
    without = sum(not row.english for row in rows)
    if teacher is None or without:
        if teacher is not None:
            log.info("no teacher reference: %d of %d images have no English caption", without, len(rows))
        return student
    english = Relevance.from_captions([row.english for row in rows])
    try:
        texts = encode(teacher, english.texts, config)
    except NoTowerError as error:
        log.info("no teacher reference: %s", error)
        return student
    return replace(
        student,
        teacher_captions=len(english.texts),
        teacher_text_to_image=english.text_to_image(texts, split.images, bootstrap_samples=samples),
        teacher_image_to_text=english.image_to_text(texts, split.images, bootstrap_samples=samples),
    )


def measure_sources(
    student: SentenceTransformer,
    teacher: SentenceTransformer | Teacher | None,
    rows: Sequence[Row],
    embeddings: ImageEmbeddings,
    config: EvaluateConfig,
) -> dict[str, Figures]:
    """Measures each of several sources separately, as published results are; returns {} for a single source.

    Args:
        student: the text encoder.
        teacher: as in `figures`.
        rows: of the split, from all sources.
        embeddings: of their images.
        config: as in `measure`; names the sources.
    """
    sources = {}
    for source in config.sources:
        own = deduplicate([row for row in rows if row.source == source.captions], embeddings)
        if own:
            sources[source.captions] = figures(measure(student, own, embeddings, config), teacher, own, config)
    return sources


def measure_widths(split: Split, widths: Sequence[int], config: EvaluateConfig) -> dict[str, Figures]:
    """Measures the first components of all vectors, as a text encoder of several widths is used.

    Args:
        split: from `measure`.
        widths: of the first components.
        config: gives the number of bootstrap samples.
    """
    relevance, samples, measured = split.relevance, config.bootstrap_samples, {}
    for width in widths:
        texts, images = unit(split.texts[:, :width]), unit(split.images[:, :width])
        measured[str(width)] = Figures(
            images=len(images),
            captions=len(relevance.texts),
            text_to_image=relevance.text_to_image(texts, images, bootstrap_samples=samples),
            image_to_text=relevance.image_to_text(texts, images, bootstrap_samples=samples),
        )
    return measured


def measure_robustness(student: SentenceTransformer, split: Split, config: EvaluateConfig) -> dict[str, Corrupted]:
    """Measures text → image retrieval with each corruption of the captions.

    Args:
        student: the text encoder.
        split: from `measure`, with clean captions.
        config: as in `measure`.
    """
    relevance = split.relevance
    clean = ranks(split.texts, split.images, relevance.images_of) == 1
    results = {}
    for name, corrupt in CORRUPTIONS.items():
        corrupted = [corrupt(text) for text in relevance.texts]
        texts = encode(student, corrupted, config)
        measured = relevance.text_to_image(texts, split.images, bootstrap_samples=config.bootstrap_samples)
        changed = np.array([text != written for text, written in zip(corrupted, relevance.texts)])
        hit = ranks(texts, split.images, relevance.images_of) == 1
        found = int(clean[changed].sum())
        results[name] = Corrupted(
            **vars(measured),
            changed=int(changed.sum()),
            found=found,
            retention=_retention(hit, clean, changed, relevance, config) if found else None,
        )
    return results


def _retention(
    hit: NDArray[np.bool_],
    clean: NDArray[np.bool_],
    changed: NDArray[np.bool_],
    relevance: Relevance,
    config: EvaluateConfig,
) -> Estimate:
    """Returns how many changed captions find their image, as a fraction of those that did before, with its interval."""
    owners = np.array([images[0] for images in relevance.images_of])[changed]
    parts, wholes = hit[changed], clean[changed]
    ends = ratio_interval(parts, wholes, owners.tolist(), bootstrap_samples=config.bootstrap_samples)
    return Estimate(float(parts.sum() / wholes.sum()), ends)


def measure_hub_corrected(split: Split, bank: TextBank, config: EvaluateConfig) -> HubCorrected:
    """Measures text → image retrieval with the correction of hubs that an index makes.

    Args:
        split: from `measure`.
        bank: of the text encoder that was measured.
        config: as in `measure`.
    """
    penalties = HUB_WEIGHT * hub_scores(split.images, bank.unit_vectors)
    texts, images = with_penalties(split.texts, split.images, penalties)
    return HubCorrected(
        texts=len(bank.vectors),
        neighbours=HUB_NEIGHBOURS,
        weight=HUB_WEIGHT,
        text_to_image=split.relevance.text_to_image(texts, images, bootstrap_samples=config.bootstrap_samples),
        hubness=hubness(texts, images),
    )


def measure_csls(split: Split, config: EvaluateConfig) -> Csls:
    """Measures retrieval by CSLS, with ten neighbours as its authors have them.

    Source: Conneau et al., Word Translation Without Parallel Data, ICLR 2018, section 2.3. Its term for the query does
    not change the order of the candidates, and is left out.

    Args:
        split: from `measure`.
        config: as in `measure`.
    """
    texts, images, samples = split.texts, split.images, config.bootstrap_samples
    to_images = with_penalties(texts, images, np.float32(0.5) * hub_scores(images, texts, 10))
    images_first = with_penalties(images, texts, np.float32(0.5) * hub_scores(texts, images, 10))
    return Csls(
        text_to_image=split.relevance.text_to_image(*to_images, bootstrap_samples=samples),
        image_to_text=split.relevance.image_to_text(*images_first[::-1], bootstrap_samples=samples),
        hubness=Hubness(hubness(*to_images), hubness(*images_first)),
    )


def encode(model: SentenceTransformer | Teacher, texts: list[str], config: EvaluateConfig) -> Vectors:
    """Returns the (n, dim) float32 unit vectors of n texts, in order.

    Args:
        model: any text encoder, or imported embeddings.
        texts: the texts.
        config: gives the batch size.
    """
    from turkish_clip.encoder import as_texts, query_prompt

    options = {"batch_size": config.text_batch_size, "show_progress_bar": len(texts) > 20_000}
    return unit(model.encode(as_texts(model, texts), prompt=query_prompt(model), **options))
