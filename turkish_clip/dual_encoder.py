"""The dual encoder: a text encoder and its image model, loaded from one pair or from two models."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from turkish_clip.errors import InputError
from turkish_clip.images import ImageError, ImageLike
from turkish_clip.resolve import ModelError, ModelSpec, UnreachableError, resolve_models
from turkish_clip.text_side import DEFAULT_TEMPERATURE, TextSide, examine, log_cautions
from turkish_clip.text_side import TextError as TextError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn

    from turkish_clip.bank import TextBank
    from turkish_clip.embed import EmbeddedBatch, ImageDecoder
    from turkish_clip.metrics import Vectors
    from turkish_clip.reading import Caution, TextReader

log = logging.getLogger("turkish_clip")
# The image model of the demo, training/mini/clip, by the hash of its weights: a test compares it with the folder's.
MINIATURE_SHA256 = "ec7910ad3e26047d0002aafa8e1b040c17c946300c08f3ee80d56dccbee7bebd"
Result = TypeVar("Result")


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
        return int(self.encode_texts(["a"], warn=False).shape[1])

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
    def text_name(self) -> str:
        """The Hub id or folder of the text encoder or the pair."""
        return self.spec.text

    @property
    def image_name(self) -> str:
        """The Hub id or folder of the image model or the pair."""
        return self.spec.image or self.spec.text

    @cached_property
    def _reader(self) -> TextReader | None:
        from turkish_clip.encoder import query_prompt
        from turkish_clip.reading import reader_of

        return reader_of(self.text, query_prompt(self.text) or "")

    def cautions(self, texts: Iterable[str]) -> list[Caution]:
        """Returns what the text encoder does not read of texts: unknown words, and what is beyond its token limit.

        There is at most one for each kind, and none from a model whose tokenizer does not show what it does.

        Raises:
            TextError: one is not UTF-8.
        """
        return [] if self._reader is None else self._reader.cautions(texts)

    @cached_property
    def model_cautions(self) -> tuple[Caution, ...]:
        """What is to be said of the models themselves, whatever the texts; `load_dual_encoder` logs it."""
        return tuple(_model_cautions(self))

    def encode_texts(
        self, texts: Sequence[str], *, batch_size: int = 64, prompt: str | None = None, warn: bool = True
    ) -> Vectors:
        """Returns the (n, dim) float32 unit vectors of n texts, in order. No text is taken for a path or an address.

        Args:
            texts: to encode.
            batch_size: texts encoded at a time.
            prompt: what is put before each text; None takes the model's own for queries, if it has one.
            warn: log the `cautions` of the texts as warnings.

        Raises:
            TextError: one is not UTF-8.
        """
        from turkish_clip.encoder import as_texts, query_prompt
        from turkish_clip.metrics import unit

        examine(self, texts, warn=warn)
        if not len(texts):
            return unit(self.text.encode(as_texts(self.text, ["a"]))[:0])
        prompt = query_prompt(self.text) if prompt is None else prompt
        inputs = as_texts(self.text, texts)
        return unit(self.text.encode(inputs, prompt=prompt, batch_size=batch_size, show_progress_bar=False))

    def embed_images(
        self,
        images: Iterable[ImageLike],
        *,
        batch_size: int = 32,
        workers: int = 2,
        decode_processes: int = -1,
        hashed: bool = False,
        decoder: ImageDecoder | None = None,
    ) -> Iterator[EmbeddedBatch]:
        """Yields batches, in order, of the float32 unit vectors of images, and of the errors of those that do not open.

        Args:
            images: paths, bytes of files, or PIL images; read as they are needed.
            batch_size: images embedded at a time.
            workers: threads that open images, where processes do not.
            decode_processes: processes that do; -1: on a GPU one fewer than there are cores, on the CPU none.
            hashed: whether `contents` of the batches has the hashes of files, of the bytes that are embedded.
            decoder: from `image_decoder`, in place of `workers` and `decode_processes`.
        """
        from itertools import islice

        from turkish_clip.decoding import ImageInput
        from turkish_clip.embed import embed_batches
        from turkish_clip.metrics import unit

        stream = (ImageInput(image, hashed) for image in images)
        batches = iter(lambda: list(islice(stream, batch_size)), [])
        how: dict[str, Any] = {"workers": workers, "decode_processes": decode_processes, "decoder": decoder}
        for batch in embed_batches(self.image, batches, dim=self.dim, **how):
            yield replace(batch, vectors=unit(batch.vectors))

    def image_decoder(self, workers: int = 2, decode_processes: int = -1) -> ImageDecoder:
        """Returns what opens images for several calls of `embed_images`; a context, which ends with its processes.

        Args:
            workers: as in `embed_images`.
            decode_processes: as in `embed_images`.
        """
        from turkish_clip.embed import ImageDecoder

        return ImageDecoder(self.image, workers=workers, processes=decode_processes)


def with_image_side(encoder: TextSide, to_do: str) -> DualEncoder:
    """Returns an encoder that embeds images, too.

    Args:
        encoder: that a caller gave.
        to_do: what the images are needed for, for the message.

    Raises:
        ModelError: it is a text side alone.
    """
    if not isinstance(encoder, DualEncoder):
        raise ModelError(
            f"expected a model with its image side to {to_do}, got the text side of {encoder.text_name} alone; load it "
            "with load_dual_encoder(...)"
        )
    return encoder


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
        ModelError: one can't be loaded, they do not fit together, the image model is of other weights than the text
            encoder was trained for, or this machine has no such device.
    """
    from turkish_clip.encoder import check_one_width, load_model

    spec = resolve_models(model, image_model, revision, image_revision)
    text = load_model(spec.text, revision=spec.revision, device=device)
    if not text.supports("text"):
        raise ModelError(f"expected a text encoder or a pair, got {spec.text}, which takes images alone")
    if text.supports("image") and not image_model:
        both = DualEncoder(replace(spec, image="", image_revision="", image_is_guessed=False), text, text)
        _check_image_weights(both)
        log_cautions(both.model_cautions)
        return both
    image = _image_model(spec, device)
    if not image.supports("image"):
        raise ModelError(f"expected an image model, got {spec.image}, which takes text alone; name --image-model")
    check_one_width(text, image, spec.text, spec.image)
    encoder = DualEncoder(spec, text, image)
    _check_image_weights(encoder)
    log_cautions(encoder.model_cautions)
    return encoder


def _image_model(spec: ModelSpec, device: str | None) -> SentenceTransformer:
    from turkish_clip.encoder import load_model

    try:
        return load_model(spec.image, revision=spec.image_revision, device=device)
    except InputError as error:
        named = spec.record.image_model if spec.record is not None else {}
        if spec.image == named.get("id") and isinstance(error, UnreachableError):
            raise ModelError(
                f"expected the image model that {spec.text} names, got {spec.image}, which is not found from here; "
                f"name its folder or Hub id with --image-model: {error}"
            ) from error
        if not spec.image_is_guessed:
            raise
        raise ModelError(
            f"expected the image model of {spec.text}, which names none; name it with --image-model; CLIP's own "
            f"can't be had: {error}"
        ) from error


def _check_image_weights(encoder: DualEncoder) -> None:
    """Checks that the image model is the one that the text encoder was trained for, by its weights, not by its name.

    Other weights that give the golden images their vectors are another copy of it, for example in another dtype.

    Raises:
        ModelError: it is another one.
    """
    named = encoder.spec.record.image_model if encoder.spec.record is not None else {}
    expected = named.get("weights_sha256")
    if not expected or expected == encoder.image_weights_sha256:
        return
    if expected == weights_sha256(encoder.image) or _gives_golden_vectors(encoder):  # the hash of a whole pair
        return
    changed = ", which have changed since" if encoder.spec.image == named.get("id") else ""
    raise ModelError(
        f"expected the image model that {encoder.spec.text} was trained for ({named.get('id')}), got other weights in "
        f"{encoder.image_name}{changed}: scores would mean nothing; name the right one with --image-model, or train a "
        "text encoder for this one"
    )


def _gives_golden_vectors(encoder: DualEncoder) -> bool:
    """Returns whether the image model gives the golden images the vectors of a published text encoder's record."""
    import numpy as np

    from turkish_clip.metrics import unit
    from turkish_clip.verify import IMAGE_COSINE, encode_each, golden_images

    record = encoder.spec.record
    stored = record.golden.get("image_vectors") if record is not None and record.golden is not None else None
    if stored is None:
        return False
    try:
        expected = np.asarray(stored, np.float64)
    except (ValueError, TypeError):
        return False
    found = unit(encode_each(encoder.image, golden_images()))
    return expected.shape == found.shape and bool(((expected * found).sum(axis=1) >= IMAGE_COSINE).all())


def _model_cautions(encoder: DualEncoder) -> Iterator[Caution]:
    """Yields what is to be said of the models, whatever the texts."""
    from turkish_clip.reading import TORN, TURKISH_WORDS, Caution

    name = encoder.spec.text
    if encoder.image_weights_sha256 == MINIATURE_SHA256:
        yield Caution("miniature", (name,))
    if encoder.spec.record is not None:
        return
    if not encoder.text.supports("image"):
        yield Caution("unrecorded", (name,))
    elif text_side_of(encoder.text) is encoder.text:  # not a text encoder and an image model, as `pair` joins them
        reader = encoder._reader
        if reader is not None and reader.pieces_per_word(TURKISH_WORDS) >= TORN:
            yield Caution("no Turkish", (name,))


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
