"""Both sides of the space, text and images, from a pair or two models: what everything that uses a model takes."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from turkish_clip.errors import InputError
from turkish_clip.images import ImageError, ImageLike, Opened, open_image
from turkish_clip.resolve import ModelSpec, check_reachable, resolve_models

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn

    from turkish_clip.embed import EmbeddedBatch
    from turkish_clip.metrics import Vectors

log = logging.getLogger("turkish_clip")
DEFAULT_TEMPERATURE = 0.01  # what CLIP's training ends with: 1 / 100 (Source: Radford et al. 2021, section 2.5)
Result = TypeVar("Result")


@dataclass(frozen=True)
class ImageInput:
    """An image on its way to the tower."""

    source: ImageLike

    def load(self, min_side: int | None = None) -> Opened:
        """The image as RGB."""
        return Opened(open_image(self.source, min_side=min_side))


@dataclass(frozen=True)
class DualEncoder:
    """A text encoder and its image model, loaded.

    Attributes:
        temperature: of zero-shot probabilities.
        temperature_is_fitted: whether it came with the model, or is the default.
    """

    spec: ModelSpec
    text: SentenceTransformer
    image: SentenceTransformer

    @property
    def temperature(self) -> float:
        return (self.spec.record and self.spec.record.temperature) or DEFAULT_TEMPERATURE

    @property
    def temperature_is_fitted(self) -> bool:
        return bool(self.spec.record and self.spec.record.temperature)

    @property
    def temperature_info(self) -> dict[str, float | bool]:
        """Both, as the commands print them."""
        return {"temperature": self.temperature, "temperature_is_fitted": self.temperature_is_fitted}

    @cached_property
    def dim(self) -> int:
        """Width of the shared space."""
        return int(self.encode_texts(["a"]).shape[1])

    @cached_property
    def image_weights_sha256(self) -> str:
        """What identifies the image side: vectors of other weights can't be compared."""
        return weights_sha256(image_side_of(self.image))

    @property
    def image_name(self) -> str:
        """The image model's name, or the pair's."""
        return self.spec.image or self.spec.text

    def encode_texts(self, texts: Sequence[str], *, batch_size: int = 64) -> Vectors:
        """The (n, dim) float32 unit vectors of texts."""
        from turkish_clip.metrics import unit

        return unit(self.text.encode(list(texts), batch_size=batch_size, show_progress_bar=False))

    def embed_images(
        self, images: Iterable[ImageLike], *, batch_size: int = 32, workers: int = 2
    ) -> Iterator[EmbeddedBatch]:
        """Batches of (n, dim) float32 unit vectors of the images that open, and why the others do not, in order."""
        from itertools import islice

        from turkish_clip.embed import embed_batches
        from turkish_clip.metrics import unit

        stream = (ImageInput(image) for image in images)
        batches = iter(lambda: list(islice(stream, batch_size)), [])
        for batch in embed_batches(self.image, batches, dim=self.dim, workers=workers):
            yield replace(batch, vectors=unit(batch.vectors))


def map_in_order(
    batches: Iterable[EmbeddedBatch],
    of_vectors: Callable[[Vectors], Sequence[Result]],
    of_error: Callable[[ImageError], Result],
) -> Iterator[Result]:
    """What each image of some batches gives, in order: by its vector, or by the error where it did not open."""
    for batch in batches:
        found = iter(of_vectors(batch.vectors) if batch.kept else [])
        for place in range(len(batch.kept) + len(batch.errors)):
            yield of_error(batch.errors[place]) if place in batch.errors else next(found)


def load_dual_encoder(
    model: str | Path | None = None,
    image_model: str | Path | None = None,
    *,
    revision: str | None = None,
    image_revision: str | None = None,
    device: str | None = None,
) -> DualEncoder:
    """Loads a pair, or a text encoder and its image model.

    Args:
        model: Hub id or folder of a pair or a text encoder, or the folder of a training run; None takes
            TURKISH_CLIP_MODEL.
        image_model: Hub id or folder; None takes TURKISH_CLIP_IMAGE_MODEL, then what the model names.
        revision: of the model on the Hub.
        image_revision: of the image model.
        device: None lets sentence-transformers choose.

    Raises:
        NoModelError: no model is named anywhere.
        UnreachableError: one is no folder, and the Hub does not answer.
        ModelError: one can't be loaded, or they do not fit together.
    """
    from turkish_clip.encoder import ModelError, check_one_width, load_model

    spec = resolve_models(model, image_model, revision, image_revision)
    text = load_model(spec.text, revision=spec.revision, device=device)
    if not text.supports("text"):
        raise ModelError(f"expected a text encoder or a pair, got {spec.text}, which takes images alone")
    if text.supports("image") and not image_model:
        return DualEncoder(ModelSpec(spec.text, "", spec.revision, "", spec.record), text, text)
    image = _image_model(spec, device)
    if not image.supports("image"):
        raise ModelError(f"expected an image model, got {spec.image}, which takes text alone; name --image-model")
    check_one_width(text, image, spec.text, spec.image)
    encoder = DualEncoder(spec, text, image)
    _warn_of_other_weights(encoder)
    return encoder


def _image_model(spec: ModelSpec, device: str | None) -> SentenceTransformer:
    from turkish_clip.encoder import ModelError, load_model

    try:
        check_reachable(spec.image, spec.image_revision)
        return load_model(spec.image, revision=spec.image_revision, device=device)
    except InputError as error:
        if not spec.image_is_guessed:
            raise
        raise ModelError(
            f"expected the image model of {spec.text}, which names none; name it with --image-model; CLIP's own "
            f"can't be had: {error}"
        ) from error


def _warn_of_other_weights(encoder: DualEncoder) -> None:
    """Says so where the folder of the image model has changed since the text encoder was trained for it."""
    named = encoder.spec.record.image_model if encoder.spec.record is not None else {}
    if named.get("id") != encoder.spec.image or not Path(named["id"]).is_dir():
        return
    expected = named.get("weights_sha256")
    if expected and expected not in (encoder.image_weights_sha256, weights_sha256(encoder.image)):  # of a pair, all
        log.warning(
            "%s has other weights than the image model that %s was trained for: scores are wrong; train anew, or name "
            "the right one with --image-model",
            encoder.spec.image,
            encoder.spec.text,
        )


def weights_sha256(module: nn.Module) -> str:
    """The hex SHA-256 over a module's named tensors: the same weights give the same hash in any file format."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def image_side_of(model: SentenceTransformer) -> Any:
    """The modules through which images go: all of an image model, the image route of a pair."""
    routes = getattr(model[0], "sub_modules", None)
    return routes["image"] if routes is not None and "image" in routes else model
