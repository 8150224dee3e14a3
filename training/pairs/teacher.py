"""The teacher: the image model's embeddings of English texts, imported ones or by its own text tower."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from training.embeddings.store import TextEmbeddings
from training.run.record import RunError, open_image_model
from turkish_clip.dual_encoder import weights_sha256
from turkish_clip.errors import InputError
from turkish_clip.metrics import Vectors, unit

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from training.embeddings.store import ImageEmbeddings
    from training.run.config import EmbeddingsConfig


class NoTowerError(InputError):
    """English texts without imported embeddings, where the image model's text tower can't be had."""


class Teacher:
    """The imported embeddings of English texts; those of other texts are by the text tower, loaded for the first.

    Attributes:
        prompts: none, as callers look for; the text tower's prompt of queries is put before the texts that it reads.
        default_prompt_name: none.
    """

    prompts: ClassVar[dict[str, str]] = {}
    default_prompt_name: ClassVar[str | None] = None

    def __init__(self, embeddings: ImageEmbeddings, config: EmbeddingsConfig) -> None:
        """Reads the imported texts.

        Args:
            embeddings: imported ones; there may be none of texts among them.
            config: names the image model, its revision and the device.
        """
        self._embeddings = embeddings
        self._config = config
        self._texts = TextEmbeddings.of(embeddings)
        self._tower: SentenceTransformer | None = None

    def encode(self, texts: Sequence[str], **options: Any) -> Vectors:
        """Returns the (n, dim) float32 embeddings of n texts, of norm 1 if all imported ones are.

        Args:
            texts: English texts, as rows hold them.
            options: for the text tower's own `encode`.

        Raises:
            NoTowerError: a text was not imported, and there is no text tower for it.
            RunError: the image model has other weights now.
        """
        from turkish_clip.encoder import as_texts, query_prompt

        rows = self._texts.find(texts)
        vectors: Vectors = np.empty((len(rows), self._embeddings.manifest.dim), np.float32)
        for places, stored in self._texts.by_shard(rows):
            vectors[places] = stored
        missing = np.flatnonzero(rows < 0)
        if len(missing):
            tower = self._tower = self._tower or self._load_tower(texts[int(missing[0])], len(missing), len(texts))
            unknown = as_texts(tower, [texts[place] for place in missing.tolist()])
            encoded = np.asarray(tower.encode(unknown, **{**options, "prompt": query_prompt(tower)}), np.float32)
            vectors[missing] = unit(encoded) if self._texts.normalised else encoded
        return vectors

    def _load_tower(self, first: str, missing: int, total: int) -> SentenceTransformer:
        from turkish_clip.encoder import ModelError

        model, tower, reason = self._config.image_model, None, ""
        if not self._embeddings.manifest.weights_sha256:
            reason = f"the weights of {model} that made the vectors are unknown"
        else:
            try:
                tower = load_text_tower(self._embeddings, self._config)
                reason = f"{model} has none"
            except ModelError as error:
                reason = str(error)
        if tower is None:
            raise NoTowerError(
                f"expected imported vectors of English texts, or a text tower, got neither for {missing} of {total}, "
                f"the first {first!r} ({reason}); import them with --text_vectors"
            )
        return tower


def load_teacher(embeddings: ImageEmbeddings, config: EmbeddingsConfig) -> SentenceTransformer | Teacher | None:
    """Returns what embeds English texts as the image model does; None where it has no text tower.

    Args:
        embeddings: with the hash of the model's weights.
        config: names the image model, its revision and the device.

    Raises:
        RunError: the image model has other weights now.
    """
    return Teacher(embeddings, config) if embeddings.manifest.imported_from else load_text_tower(embeddings, config)


def load_text_tower(embeddings: ImageEmbeddings, config: EmbeddingsConfig) -> SentenceTransformer | None:
    """Loads the image model that made the image embeddings; returns None where it has no text tower.

    Args:
        embeddings: as in `load_image_model`.
        config: as in `load_image_model`.

    Raises:
        ModelError: it can't be loaded.
        RunError: the image model has other weights now.
    """
    teacher = load_image_model(embeddings, config)
    return teacher if teacher.supports("text") else None


def load_image_model(embeddings: ImageEmbeddings, config: EmbeddingsConfig) -> SentenceTransformer:
    """Loads the image model that made the image embeddings.

    Args:
        embeddings: with the hash of the model's weights.
        config: names the image model, its revision and the device.

    Raises:
        ModelError: it can't be loaded.
        RunError: the image model has other weights now, or those that made the embeddings are unknown.
    """
    teacher = open_image_model(config)
    if weights_sha256(teacher) != embeddings.manifest.weights_sha256:
        raise RunError(
            f"expected the image model that {embeddings.folder} was made with, got other weights in "
            f"{config.image_model}; embed again with another --embeddings"
        )
    return teacher
