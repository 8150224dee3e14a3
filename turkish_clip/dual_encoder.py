"""The dual encoder: a text encoder and its image model, loaded from one pair or from two models."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from turkish_clip.errors import InputError, is_encodable, printable
from turkish_clip.images import ImageError, ImageLike, OpenedImage, open_hashed, open_image
from turkish_clip.resolve import ModelSpec, check_reachable, resolve_models

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn

    from turkish_clip.bank import TextBank
    from turkish_clip.embed import EmbeddedBatch
    from turkish_clip.metrics import Vectors

log = logging.getLogger("turkish_clip")
DEFAULT_TEMPERATURE = 0.01  # CLIP's at the end of its training: 1 / 100 (Source: Radford et al. 2021, section 2.5)
Result = TypeVar("Result")


class TextError(InputError):
    """A text that can't be encoded."""


def check_texts(texts: Sequence[str]) -> None:
    """Checks that texts can be written as UTF-8; those of a command line and names of files may hold other bytes.

    Raises:
        TextError: one can't.
    """
    for text in texts:
        if not is_encodable(text):
            raise TextError(
                f"expected text in UTF-8, got {printable(text[:80])!r}; check the encoding of the terminal or the file"
            )


@dataclass(frozen=True)
class ImageInput:
    """An image that `embed_batches` opens; if `hashed`, its file is read once and hashed, too."""

    source: ImageLike
    hashed: bool = False

    def load(self, min_side: int | None = None) -> OpenedImage:
        """Opens the image as `open_image` or `open_hashed` does."""
        if self.hashed and isinstance(self.source, (Path, bytes)):
            return open_hashed(self.source, min_side=min_side)
        return OpenedImage(open_image(self.source, min_side=min_side))


@dataclass(frozen=True)
class DualEncoder:
    """A text encoder and its image model.

    Attributes:
        spec: from where they were loaded.
        text: the text encoder, or the pair.
        image: the image model, or the same pair.
    """

    spec: ModelSpec
    text: SentenceTransformer
    image: SentenceTransformer

    @property
    def temperature(self) -> float:
        """The temperature of zero-shot probabilities: that of the model's record, or CLIP's."""
        return (self.spec.record and self.spec.record.temperature) or DEFAULT_TEMPERATURE

    @property
    def temperature_is_fitted(self) -> bool:
        """Whether the model's record has a temperature."""
        return bool(self.spec.record and self.spec.record.temperature)

    @property
    def temperature_info(self) -> dict[str, float | bool]:
        """The temperature and whether it is fitted, as the commands print them."""
        return {"temperature": self.temperature, "temperature_is_fitted": self.temperature_is_fitted}

    @cached_property
    def dim(self) -> int:
        """Width of the vectors."""
        return int(self.encode_texts(["a"]).shape[1])

    @cached_property
    def image_weights_sha256(self) -> str:
        """The hash of the image side's weights: vectors of other weights can't be compared."""
        return weights_sha256(image_side_of(self.image))

    @cached_property
    def text_weights_sha256(self) -> str:
        """The hash of the text side's weights, as a model's record has it."""
        return weights_sha256(text_side_of(self.text))

    @cached_property
    def bank(self) -> TextBank | None:
        """The text bank that the model's record names; None, after a warning, if it is of other weights.

        Raises:
            BankError: it is missing or damaged.
        """
        from turkish_clip.bank import BANK, read_bank

        named = self.spec.record and self.spec.record.bank
        if not named:
            return None
        bank = read_bank(self.spec.text, self.spec.revision, named)
        if bank.weights_sha256 != self.text_weights_sha256:
            log.warning("%s of %s was made by other weights, and is left out; train again", BANK, self.spec.text)
            return None
        return bank

    @property
    def image_processor(self) -> str:
        """The class that prepares images: with torchvision installed it is another one, which gives other pixels."""
        from turkish_clip.encoder import image_processor

        return type(image_processor(self.image)).__name__

    @property
    def image_name(self) -> str:
        """The Hub id or folder of the image model or the pair."""
        return self.spec.image or self.spec.text

    def encode_texts(self, texts: Sequence[str], *, batch_size: int = 64, prompt: str | None = None) -> Vectors:
        """Returns the (n, dim) float32 unit vectors of n texts, in order. No text is taken for a path or an address.

        Args:
            texts: to encode.
            batch_size: texts encoded at a time.
            prompt: what is put before each text; None takes the model's own for queries, if it has one.

        Raises:
            TextError: one is not UTF-8.
        """
        from turkish_clip.encoder import as_texts, query_prompt
        from turkish_clip.metrics import unit

        check_texts(texts)
        if not len(texts):
            return unit(self.text.encode(as_texts(self.text, ["a"]))[:0])
        prompt = query_prompt(self.text) if prompt is None else prompt
        inputs = as_texts(self.text, texts)
        return unit(self.text.encode(inputs, prompt=prompt, batch_size=batch_size, show_progress_bar=False))

    def embed_images(
        self, images: Iterable[ImageLike], *, batch_size: int = 32, workers: int = 2, hashed: bool = False
    ) -> Iterator[EmbeddedBatch]:
        """Yields batches, in order, of the float32 unit vectors of images, and of the errors of those that do not open.

        Args:
            images: paths, bytes of files, or PIL images; read as they are needed.
            batch_size: images embedded at a time.
            workers: threads that open images.
            hashed: whether `contents` of the batches has the hashes of files, of the bytes that are embedded.
        """
        from itertools import islice

        from turkish_clip.embed import embed_batches
        from turkish_clip.metrics import unit

        stream = (ImageInput(image, hashed) for image in images)
        batches = iter(lambda: list(islice(stream, batch_size)), [])
        for batch in embed_batches(self.image, batches, dim=self.dim, workers=workers):
            yield replace(batch, vectors=unit(batch.vectors))


def map_in_order(
    batches: Iterable[EmbeddedBatch],
    of_vectors: Callable[[Vectors], Sequence[Result]],
    of_error: Callable[[ImageError], Result],
) -> Iterator[Result]:
    """Yields the result of each image in batches, in order.

    Args:
        batches: from `DualEncoder.embed_images`.
        of_vectors: maps (n, dim) float32 vectors to their n results.
        of_error: maps the error of an image that did not open to its result.
    """
    for batch in batches:
        results = iter(of_vectors(batch.vectors) if batch.opened else [])
        for place in range(len(batch.opened) + len(batch.errors)):
            yield of_error(batch.errors[place]) if place in batch.errors else next(results)


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
        model: as in `resolve_models`.
        image_model: as in `resolve_models`; a pair is used alone unless this is given.
        revision: as in `resolve_models`.
        image_revision: as in `resolve_models`.
        device: torch device; None lets sentence-transformers choose.

    Raises:
        NoModelError: as in `resolve_models`.
        UnreachableError: one of them is no folder, and the Hub does not answer.
        ModelError: one can't be loaded, they do not fit together, or this machine has no such device.
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
    """Warns if the folder of the image model has other weights than the text encoder was trained for."""
    named = encoder.spec.record.image_model if encoder.spec.record is not None else {}
    if named.get("id") != encoder.spec.image or not Path(named["id"]).is_dir():
        return
    expected = named.get("weights_sha256")
    if expected and expected not in (
        encoder.image_weights_sha256,
        weights_sha256(encoder.image),
    ):  # or those of a whole pair
        log.warning(
            "%s has other weights than the image model that %s was trained for: scores are wrong; train anew, or name "
            "the right one with --image-model",
            encoder.spec.image,
            encoder.spec.text,
        )


def weights_sha256(module: nn.Module) -> str:
    """Returns the hex SHA-256 of a module's named tensors, which does not depend on the file format."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def image_side_of(model: SentenceTransformer) -> Any:
    """Returns the modules that images pass: all of an image model, or the image route of a pair."""
    return _side_of(model, "image")


def text_side_of(model: SentenceTransformer) -> Any:
    """Returns the modules that texts pass: all of a text encoder, or the text route of a pair."""
    return _side_of(model, "text")


def _side_of(model: SentenceTransformer, side: str) -> Any:
    routes = getattr(model[0], "sub_modules", None)
    return routes[side] if routes is not None and side in routes else model
