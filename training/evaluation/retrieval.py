"""How well texts and images find each other: a split, its sources, the teacher beside it, and corrupted captions."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from training.data.samples import Row
from training.embeddings.store import deduplicate
from training.evaluation.corruptions import CORRUPTIONS
from training.run.config import EvaluateConfig
from turkish_clip.dual_encoder import weights_sha256
from turkish_clip.metrics import Relevance, Retrieval, Vectors, ranks, unit

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from training.embeddings.store import ImageEmbeddings

log = logging.getLogger("training")


def about(
    student: SentenceTransformer, embeddings: ImageEmbeddings, dataset: str, config: EvaluateConfig
) -> dict[str, Any]:
    """Which weights were measured, on what."""
    return {
        "model": str(config.model or config.folder / "model"),
        "weights_sha256": weights_sha256(student),
        "image_model": embeddings.manifest.image_model,
        "dataset": dataset,
        "split": config.split,
    }


@dataclass(frozen=True)
class Split:
    """One split, encoded and measured: unit float32 vectors of its distinct texts and of its images."""

    relevance: Relevance
    texts: Vectors
    images: Vectors
    text_to_image: Retrieval
    image_to_text: Retrieval


def measure(
    student: SentenceTransformer, rows: Sequence[Row], embeddings: ImageEmbeddings, config: EvaluateConfig
) -> Split:
    """Both directions, with intervals."""
    relevance = Relevance.of([row.captions for row in rows])
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
    split: Split, teacher: SentenceTransformer | None, rows: Sequence[Row], config: EvaluateConfig
) -> dict[str, Any]:
    """The figures of some images and their captions, the teacher's beside them where it can be measured."""
    return {
        "images": len(split.images),
        "captions": len(split.relevance.texts),
        "text_to_image": dataclasses.asdict(split.text_to_image),
        "image_to_text": dataclasses.asdict(split.image_to_text),
        **(_measure_teacher(teacher, rows, split, config) if teacher is not None else {}),
    }


def measure_sources(
    student: SentenceTransformer,
    teacher: SentenceTransformer | None,
    rows: Sequence[Row],
    embeddings: ImageEmbeddings,
    config: EvaluateConfig,
) -> dict[str, Any]:
    """Each of several sources by itself, as it would be in a table of published results; nothing for a single one."""
    sources = {}
    for source in config.sources:
        own = deduplicate([row for row in rows if row.source == source.captions], embeddings)
        if own:
            sources[source.captions] = figures(measure(student, own, embeddings, config), teacher, own, config)
    return {"sources": sources} if sources else {}


def _measure_teacher(
    teacher: SentenceTransformer, rows: Sequence[Row], split: Split, config: EvaluateConfig
) -> dict[str, Any]:
    """The image model's own text tower on the same images' English captions.

    Returns:
        teacher_captions, teacher_text_to_image and teacher_image_to_text; empty where an image has no English caption.
    """
    without = sum(not row.english for row in rows)
    if without:
        log.info("no teacher_reference: %d of %d images have no English caption", without, len(rows))
        return {}
    relevance = Relevance.of([row.english for row in rows])
    texts = encode(teacher, relevance.texts, config)
    samples = config.bootstrap_samples
    forth = relevance.text_to_image(texts, split.images, bootstrap_samples=samples)
    back = relevance.image_to_text(texts, split.images, bootstrap_samples=samples)
    return {
        "teacher_captions": len(relevance.texts),
        "teacher_text_to_image": dataclasses.asdict(forth),
        "teacher_image_to_text": dataclasses.asdict(back),
    }


def measure_robustness(student: SentenceTransformer, split: Split, config: EvaluateConfig) -> dict[str, Any]:
    """Text→image with each caption typed otherwise.

    Returns:
        Per corruption the figures of all captions, the share that it changed, and `retention`: of the changed ones' clean
        recall@1 the share that is left.
    """
    relevance = split.relevance
    clean = ranks(split.texts, split.images, relevance.images_of) == 1
    results = {}
    for name, corrupt in CORRUPTIONS.items():
        typed = [corrupt(text) for text in relevance.texts]
        texts = encode(student, typed, config)
        found = relevance.text_to_image(texts, split.images, bootstrap_samples=config.bootstrap_samples)
        changed = np.array([one != other for one, other in zip(typed, relevance.texts)])
        hit = ranks(texts, split.images, relevance.images_of) == 1
        results[name] = {
            **dataclasses.asdict(found),
            "changed": float(changed.mean()),
            "retention": float(hit[changed].sum() / clean[changed].sum())
            if clean[changed].any()
            else float(not changed.any()),
        }
    return results


def encode(model: SentenceTransformer, texts: list[str], config: EvaluateConfig) -> Vectors:
    """The (n, dim) float32 unit vectors of texts."""
    return unit(model.encode(texts, batch_size=config.text_batch_size, show_progress_bar=len(texts) > 20_000))
