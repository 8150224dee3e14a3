"""Pictures to vectors in bulk: decoded ahead in threads, one pass, and no picture that stops the others."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from turkish_clip.images import ImageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image
    from sentence_transformers import SentenceTransformer


class Openable(Protocol):
    """Something that opens as a picture, at a reduced size where a reader needs no more than `min_side` pixels."""

    def open(self, min_side: int | None = None) -> Image.Image: ...


@dataclass(frozen=True)
class EmbeddedBatch:
    """What one batch became.

    Attributes:
        kept: the places in the batch of the pictures that opened.
        vectors: (len(kept), dim) float32, as the image model leaves them: raw or unit.
        errors: for each other place why it did not open.
    """

    kept: list[int]
    vectors: NDArray[np.float32]
    errors: dict[int, ImageError]


@dataclass(frozen=True)
class _Decoded:
    kept: list[int]
    features: dict[str, Any]
    errors: dict[int, ImageError]


def embed_batches(
    model: SentenceTransformer, batches: Iterable[Sequence[Openable]], *, dim: int, workers: int = 2
) -> Iterator[EmbeddedBatch]:
    """Embeds batches in order; workers open and preprocess those that come next while the tower computes.

    Args:
        model: an image model, or a pair.
        batches: read as they are needed, `workers` + 2 ahead at most.
        dim: width of the vectors, for a batch in which nothing opened.
        workers: threads; Pillow decodes outside the interpreter lock.
    """
    import numpy as np
    import torch
    from sentence_transformers.util import batch_to_device

    model.eval()
    for decoded in _ahead(model, batches, workers):
        vectors = np.empty((0, dim), np.float32)
        if decoded.kept:
            with torch.inference_mode():
                features = batch_to_device(decoded.features, model.device)
                vectors = model(features)["sentence_embedding"].float().cpu().numpy()
        yield EmbeddedBatch(decoded.kept, vectors, decoded.errors)


def _ahead(model: SentenceTransformer, batches: Iterable[Sequence[Openable]], workers: int) -> Iterator[_Decoded]:
    from turkish_clip.encoder import image_side

    side = image_side(model)

    def decode(batch: Sequence[Openable]) -> _Decoded:
        pictures, kept, errors = [], [], {}
        for place, source in enumerate(batch):
            try:
                pictures.append(source.open(min_side=side))
                kept.append(place)
            except ImageError as error:
                errors[place] = error
        return _Decoded(kept, model.preprocess(pictures) if pictures else {}, errors)

    ahead: deque[Future[_Decoded]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            for batch in batches:
                ahead.append(pool.submit(decode, batch))
                if len(ahead) > workers + 1:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
