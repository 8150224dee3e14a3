"""Measures retrieval during training, in both directions, from the stored image embeddings of a validation split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.evaluation import BaseEvaluator

from turkish_clip.encoder import as_texts
from turkish_clip.errors import InputError
from turkish_clip.metrics import Relevance, Retrieval, Vectors, unit


class RetrievalEvaluator(BaseEvaluator):  # type: ignore[misc]
    """Ranks images for captions and captions for images, as an `evaluator` of the trainer.

    The primary metric, by which the trainer selects the best checkpoint, is `mrr`: the mean of both directions' mean
    reciprocal ranks, which is smoother than recall@1 on a small split.
    """

    def __init__(
        self,
        captions: Sequence[Sequence[str]],
        image_vectors: NDArray[np.floating],
        *,
        name: str = "validation",
        batch_size: int = 256,
    ) -> None:
        """Prepares the split.

        Args:
            captions: the captions of each image, at least one.
            image_vectors: (images, dim), raw or unit.
            name: prefix of each metric's name.
            batch_size: texts encoded at a time.

        Raises:
            ValueError: there is no image, or not one entry of captions for each.
        """
        super().__init__()
        if len(captions) != len(image_vectors) or not len(captions):
            raise ValueError(f"expected captions for each of {len(image_vectors)} images, got {len(captions)}")
        self.relevance = Relevance.from_captions(captions)
        self.unit_images = unit(image_vectors)
        self.name = name
        self.batch_size = batch_size
        self.primary_metric = f"{name}_mrr"

    def __call__(
        self, model: SentenceTransformer, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        """Returns the metrics of a model as fractions of 1, and median ranks from 1, each prefixed by the name.

        Raises:
            InputError: the model returns vectors that are not finite.
        """
        captions = as_texts(model, self.relevance.texts)
        texts = unit(model.encode(captions, batch_size=self.batch_size, show_progress_bar=False))
        if not np.isfinite(texts).all():
            raise InputError(
                f"expected finite vectors from the text encoder, got NaN or infinity at step {steps}: the training has "
                "diverged; lower the learning rate"
            )
        forth, back = self._measure(texts)
        metrics: dict[str, Any] = {"mrr": (forth.mrr + back.mrr) / 2}
        for direction, retrieval in (("text_to_image", forth), ("image_to_text", back)):
            numbers = {metric: value for metric, value in asdict(retrieval).items() if metric != "ci95"}
            metrics |= {f"{direction}_{metric}": value for metric, value in numbers.items()}
        prefixed: dict[str, float] = self.prefix_name_to_metrics(metrics, self.name)
        self.store_metrics_in_model_card_data(model, prefixed, epoch, steps)
        return prefixed

    def mrr(self, texts: NDArray[np.floating]) -> float:
        """Returns the primary metric for vectors of the split's texts, `relevance.texts`: (n, dim), raw or unit."""
        forth, back = self._measure(unit(texts))
        return (forth.mrr + back.mrr) / 2

    def _measure(self, unit_texts: Vectors) -> tuple[Retrieval, Retrieval]:
        forth = self.relevance.text_to_image(unit_texts, self.unit_images)
        return forth, self.relevance.image_to_text(unit_texts, self.unit_images)


class MeanOfBoth(BaseEvaluator):  # type: ignore[misc]
    """Measures the new and the old validation split; the primary metric is the mean of their MRR.

    By the new one alone, the checkpoint that has forgotten most could be kept.
    """

    def __init__(self, new: RetrievalEvaluator, old: RetrievalEvaluator) -> None:
        """Takes both evaluators.

        Args:
            new: of the new validation split, named "validation".
            old: of the old one, under another name.
        """
        super().__init__()
        self.new, self.old = new, old
        self.primary_metric = new.primary_metric

    def __call__(self, model: SentenceTransformer, *args: Any, **options: Any) -> dict[str, float]:
        """Returns the metrics of both; the MRR of the first is the mean.

        Args:
            model: the text encoder.
            args: as of `RetrievalEvaluator`.
            options: likewise.
        """
        new, old = self.new(model, *args, **options), self.old(model, *args, **options)
        mean = (new[self.new.primary_metric] + old[self.old.primary_metric]) / 2
        return {**old, **new, "new_mrr": new[self.new.primary_metric], self.primary_metric: mean}
