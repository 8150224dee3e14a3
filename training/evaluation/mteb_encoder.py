"""A text encoder and its image model as MTEB takes a model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction

from training.evaluation.published import BenchmarkError
from turkish_clip.metrics import Vectors
from turkish_clip.towers import Towers, weights_sha256


class MtebPair(AbsEncoder):  # type: ignore[misc]
    """A text encoder and its image model behind MTEB's interface.

    The revision is a hash of both sides' weights: MTEB keeps results by name and revision, and would return an older
    model's for a name alone.
    """

    def __init__(self, towers: Towers, batch_size: int) -> None:
        self.model = towers
        self.batch_size = batch_size
        both = weights_sha256(towers.text) + towers.image_weights_sha256
        name = towers.names.text.strip("/").replace("/", "-").lstrip(".") or "model"
        self.mteb_model_meta = ModelMeta.create_empty(
            overwrites={
                "name": f"turkish-clip/{name}",
                "revision": hashlib.sha256(both.encode()).hexdigest(),
                "modalities": ["text", "image"],
                "similarity_fn_name": ScoringFunction.COSINE,
                "embed_dim": towers.dim,
            }
        )

    def encode(
        self,
        inputs: Iterable[dict[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        **_: Any,
    ) -> Vectors:
        """The (n, dim) float32 unit vectors of a loader's batches, of texts or of pictures; prompts are not ours.

        Raises:
            BenchmarkError: a picture of the benchmark does not open.
        """
        return np.concatenate([self._batch(batch, task_metadata.name) for batch in inputs])

    def _batch(self, batch: dict[str, Any], task: str) -> Vectors:
        pictures = batch.get("image")
        if pictures is None or pictures[0] is None:
            return self.model.encode_texts(batch["text"], batch_size=self.batch_size)
        parts = []
        for embedded in self.model.embed_pictures(pictures, batch_size=self.batch_size):
            if embedded.errors:
                reason = next(iter(embedded.errors.values()))
                raise BenchmarkError(f"expected pictures that open in {task}, got {reason}; download the data again")
            parts.append(embedded.vectors)
        return np.concatenate(parts)
