"""Embeds images in bulk and in one pass: threads decode ahead, and an image that does not open stops no other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from turkish_clip.images import ImageError, OpenedImage
from turkish_clip.photo import Photo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image
    from sentence_transformers import SentenceTransformer

# With one of these CPU capabilities, as torch names them, bf16 is faster than float32; ARM's have not been measured.
FAST_BF16 = ("avx512_bf16", "amx_bf16")


class Openable(Protocol):
    """Anything that opens as an image, at a reduced size if no more than `min_side` pixels are needed."""

    def load(self, min_side: int | None = None) -> OpenedImage: ...


@dataclass(frozen=True)
class EmbeddedBatch:
    """The result of one batch.

    Attributes:
        opened: the positions in the batch of the images that opened.
        vectors: (len(kept), dim) float32, raw or unit as the image model gives them.
        errors: for each other position why the image did not open.
        contents: for each of `opened` the SHA-256 of its file, or empty, as `load` returned it.
        photos: for each of `opened` when, where and with what it was taken, likewise.
    """

    opened: list[int]
    vectors: NDArray[np.float32]
    errors: dict[int, ImageError]
    contents: list[bytes]
    photos: list[Photo] = field(default_factory=list)


@dataclass(frozen=True)
class _Decoded:
    opened: list[int]
    features: dict[str, Any]
    errors: dict[int, ImageError]
    contents: list[bytes]
    photos: list[Photo]


def embed_batches(
    model: SentenceTransformer,
    batches: Iterable[Sequence[Openable]],
    *,
    dim: int,
    workers: int = 2,
    compute_threads: int = 0,
    dtype: str = "float32",
) -> Iterator[EmbeddedBatch]:
    """Embeds batches in order, while workers open and preprocess the next ones.

    With `compute_threads`, each thread computes a batch of its own on one CPU core. Where workers need the cores too,
    this is faster than one batch on all cores, and the vectors do not depend on the number of cores.

    Args:
        model: an image model, or a pair, after `set_weights_dtype`.
        batches: read as they are needed, `workers` + `compute_threads` + 2 ahead at most.
        dim: width of the vectors, for a batch in which no image opened.
        workers: threads that open images; Pillow decodes outside the interpreter lock.
        compute_threads: threads that compute; 0 computes in the caller's thread, with all of torch's threads.
        dtype: of the computation, "float32" or "bf16"; the vectors are float32 in both cases.
    """
    decode, compute = _decoder(model), _computer(model, dim, dtype)
    model.eval()
    ahead: deque[Callable[[], EmbeddedBatch]] = deque()
    with ExitStack() as stack:
        opening = stack.enter_context(_pool(workers, "decode"))
        computing = stack.enter_context(_single_threaded(compute_threads)) if compute_threads else None

        def begin(batch: Sequence[Openable]) -> Callable[[], EmbeddedBatch]:
            decoded: Future[_Decoded] = opening.submit(decode, batch)
            if computing is None:
                return lambda: compute(decoded.result())
            return computing.submit(lambda: compute(decoded.result())).result

        for batch in batches:
            ahead.append(begin(batch))
            if len(ahead) > workers + compute_threads + 1:
                yield ahead.popleft()()
        while ahead:
            yield ahead.popleft()()


def fast_dtype(device: str) -> str:
    """Returns the dtype in which a device computes fastest: "bf16" where the hardware has it, else "float32".

    A CPU without bf16 emulates it, more slowly. The effect on vectors is measured in tests/turkish_clip/test_embed.py.
    """
    import torch

    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    has: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of torch don't list them
    return "bf16" if device == "cpu" and any(has.get(name) for name in FAST_BF16) else "float32"


def set_weights_dtype(model: SentenceTransformer, dtype: str) -> None:
    """Converts a model's weights, which may be stored in another format, to compute in a dtype.

    Args:
        model: the image model.
        dtype: "float32", or "bf16", for which `bf16_weights` is called.
    """
    if dtype == "bf16":
        bf16_weights(model)
    else:
        model.float()


def bf16_weights(model: SentenceTransformer) -> None:
    """Converts the weights of linear and convolutional layers to bf16, once, as autocast would for every batch."""
    import torch

    for module in model.modules():
        if type(module) in (torch.nn.Linear, torch.nn.Conv2d):  # not subclasses, which may read their weights
            module.to(torch.bfloat16)


def _decoder(model: SentenceTransformer) -> Callable[[Sequence[Openable]], _Decoded]:
    from turkish_clip.encoder import image_side
    from turkish_clip.preprocessing import preprocessing_for

    side, prepare = image_side(model), preprocessing_for(model)

    def decode(batch: Sequence[Openable]) -> _Decoded:
        decoded = _Decoded([], {}, {}, [], [])

        def opened() -> Iterator[Image.Image]:
            """Yields one image at a time: a whole batch of large scans would fill the memory."""
            for place, source in enumerate(batch):
                try:
                    image = source.load(min_side=side)
                except ImageError as error:
                    decoded.errors[place] = error
                    continue
                decoded.opened.append(place)
                decoded.contents.append(image.content)
                decoded.photos.append(image.photo)
                yield image.image

        decoded.features.update(prepare(opened()))
        return decoded

    return decode


def _computer(model: SentenceTransformer, dim: int, dtype: str) -> Callable[[_Decoded], EmbeddedBatch]:
    import numpy as np
    import torch
    from sentence_transformers.util import batch_to_device

    def compute(decoded: _Decoded) -> EmbeddedBatch:
        vectors = np.empty((0, dim), np.float32)
        if decoded.opened:
            autocast = torch.autocast(model.device.type, torch.bfloat16, enabled=dtype == "bf16")
            with torch.inference_mode(), autocast:  # both hold for one thread only
                features = batch_to_device(decoded.features, model.device)
                vectors = model(features)["sentence_embedding"].float().cpu().numpy()
        return EmbeddedBatch(decoded.opened, vectors, decoded.errors, decoded.contents, decoded.photos)

    return compute


@contextmanager
def _pool(threads: int, name: str, begin: Callable[[], None] | None = None) -> Iterator[ThreadPoolExecutor]:
    """Yields a pool of threads; what has not started when the block ends is cancelled."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name, initializer=begin)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _single_threaded(compute_threads: int) -> Iterator[ThreadPoolExecutor]:
    """Yields a pool of threads, in each of which torch computes on that thread only."""
    import torch

    threads = torch.get_num_threads()
    try:
        with _pool(compute_threads, "compute", lambda: torch.set_num_threads(1)) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)  # the setting also holds for threads started later
