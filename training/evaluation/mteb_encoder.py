"""A text encoder and its image model behind MTEB's interface."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction

from training.evaluation.published import BenchmarkError
from turkish_clip.dual_encoder import DualEncoder, weights_sha256
from turkish_clip.metrics import Vectors


class MtebPair(AbsEncoder):  # type: ignore[misc]
    """A dual encoder as MTEB takes a model.

    Its revision is a hash of both sides' weights: MTEB stores results by name and revision, and would return those of
    older weights for the same name.
    """

    def __init__(self, encoder: DualEncoder, batch_size: int) -> None:
        self.model = encoder
        self.batch_size = batch_size
        self.model_prompts = {name: prompt for name, prompt in encoder.text.prompts.items() if prompt}
        both = weights_sha256(encoder.text) + encoder.image_weights_sha256
        name = encoder.spec.text.strip("/").replace("/", "-").lstrip(".") or "model"
        self.mteb_model_meta = ModelMeta.create_empty(
            overwrites={
                "name": f"turkish-clip/{name}",
                "revision": hashlib.sha256(both.encode()).hexdigest(),
                "modalities": ["text", "image"],
                "similarity_fn_name": ScoringFunction.COSINE,
                "embed_dim": encoder.dim,
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
        """Returns the (n, dim) float32 unit vectors of a loader's batches of texts or of images.

        Texts get the model's prompt for the task, its type or the kind of text, by MTEB's order of names, else the one
        for queries; most text encoders have none. Images get none.

        Raises:
            BenchmarkError: an image of the benchmark does not open.
        """
        return np.concatenate([self._batch(batch, task_metadata, prompt_type) for batch in inputs])

    def _batch(self, batch: dict[str, Any], task: Any, prompt_type: Any) -> Vectors:
        images = batch.get("image")
        if images is None or images[0] is None:
            name = self.get_prompt_name(task, prompt_type)
            prompt = self.model_prompts[name] if name else None
            return self.model.encode_texts(batch["text"], batch_size=self.batch_size, prompt=prompt, warn=False)
        parts = []
        for embedded in self.model.embed_images(images, batch_size=self.batch_size):
            if embedded.errors:
                reason = next(iter(embedded.errors.values()))
                raise BenchmarkError(f"expected images that open in {task.name}, got {reason}; download the data again")
            parts.append(embedded.vectors)
        return np.concatenate(parts)
