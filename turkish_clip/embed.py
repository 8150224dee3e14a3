"""Embeds images in bulk and in one pass: others are decoded ahead, and an image that does not open stops no other."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, cast

from turkish_clip.decoding import (
    BY_THREADS,
    IMAGES_AT_ONCE,
    Decoded,
    DecodingProcesses,
    Openable,
    decode,
    processes_for,
)
from turkish_clip.images import ImageError
from turkish_clip.photo import Photo

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from PIL import Image
    from sentence_transformers import SentenceTransformer
    from torch import Tensor

    from turkish_clip.preprocessing import FastPreprocessing

log = logging.getLogger("turkish_clip")
# With one of these CPU capabilities, as torch names them, bf16 is faster than float32; ARM's have not been measured.
FAST_BF16 = ("avx512_bf16", "amx_bf16")


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
class Prepared:
    """A batch that is ready for the image model; other attributes as in `EmbeddedBatch`.

    Attributes:
        features: on the CPU, of the images that opened, or None with pixels.
        pixels: (len(opened), height, width, 3) uint8, from which the device makes the features, or None.
    """

    opened: list[int]
    errors: dict[int, ImageError]
    contents: list[bytes]
    photos: list[Photo]
    features: dict[str, Any] | None = None
    pixels: Tensor | None = None


class ImageDecoder:
    """Opens and prepares the images of batches ahead of the image model, in threads or in processes.

    Args:
        model: an image model, or a pair.
        workers: threads that open images where no processes do; Pillow decodes outside the interpreter lock.
        processes: that decode, as in `processes_for`; they want an image model with a fast preprocessing path.
        dtype: of the computation, as in `preprocessing_for`.
    """

    def __init__(
        self, model: SentenceTransformer, *, workers: int = 2, processes: int = 0, dtype: str = "float32"
    ) -> None:
        from turkish_clip.encoder import image_side
        from turkish_clip.preprocessing import FastPreprocessing, preprocessing_for

        self._side, self._prepare = image_side(model), preprocessing_for(model, dtype)
        self._fast = self._prepare if isinstance(self._prepare, FastPreprocessing) else None
        self._pinned = model.device.type == "cuda"
        count = processes_for(processes, model.device.type)
        if count and self._fast is None:
            log.warning(BY_THREADS, "the image model's own processor prepares whole batches")
            count = 0
        self.processes, self._workers = count, workers
        self._processes = DecodingProcesses(count, self._side, self._fast) if count and self._fast else None
        self._threads = ThreadPoolExecutor(count or workers, thread_name_prefix="decode")

    def __enter__(self) -> ImageDecoder:
        return self

    def __exit__(self, *_: object) -> None:
        if self._processes is not None:
            self._processes.close()
        self._threads.shutdown(cancel_futures=True)

    def batches_ahead(self, batch_size: int) -> int:
        """Returns how many batches of a size are to be prepared ahead, so that no thread or process waits for work."""
        return -(-2 * self.processes * IMAGES_AT_ONCE // max(batch_size, 1)) if self.processes else self._workers

    def features(self, prepared: Prepared, device: torch.device) -> dict[str, Any]:
        """Returns the features of a batch, those of pixels made on the device.

        Args:
            prepared: in which an image opened.
            device: of the image model.
        """
        if prepared.pixels is None or self._fast is None:
            return prepared.features or {}
        return self._fast.features(prepared.pixels.to(device, non_blocking=True))

    def begin(self, batch: Sequence[Openable]) -> Callable[[], Prepared]:
        """Begins to prepare a batch; the result waits until that is done."""
        if self._fast is None:
            return self._threads.submit(self._prepared_whole, batch).result
        import torch

        width, height = self._fast.size
        pixels = torch.empty((len(batch), height, width, 3), dtype=torch.uint8, pin_memory=self._pinned)
        size = IMAGES_AT_ONCE if self.processes else max(len(batch), 1)
        if self._processes is not None:
            self._processes.start(-(-len(batch) // size))
        parts = [
            self._threads.submit(self._decoded, batch[start : start + size], pixels[start : start + size].numpy())
            for start in range(0, len(batch), size)
        ]
        return lambda: _joined(pixels, [found for part in parts for found in part.result()])

    def _decoded(self, images: Sequence[Openable], pixels: NDArray[np.uint8]) -> list[Decoded | ImageError]:
        if self._processes is not None:
            return self._processes.decode(images, pixels)
        return decode(images, pixels, self._side, cast("FastPreprocessing", self._fast))

    def _prepared_whole(self, batch: Sequence[Openable]) -> Prepared:
        prepared = Prepared([], {}, [], [])

        def opened() -> Iterator[Image.Image]:
            for place, source in enumerate(batch):
                try:
                    image = source.load(min_side=self._side)
                except ImageError as error:
                    prepared.errors[place] = error
                    continue
                prepared.opened.append(place)
                prepared.contents.append(image.content)
                prepared.photos.append(image.photo)
                yield image.image

        return replace(prepared, features=self._prepare(opened()))


def embed_batches(
    model: SentenceTransformer,
    batches: Iterable[Sequence[Openable]],
    *,
    dim: int,
    workers: int = 2,
    compute_threads: int = 0,
    dtype: str = "float32",
    decode_processes: int = 0,
    decoder: ImageDecoder | None = None,
) -> Iterator[EmbeddedBatch]:
    """Embeds batches in order, while threads or processes open and prepare the next ones.

    With `compute_threads`, each thread computes a batch of its own on one CPU core. Where decoding needs the cores too,
    this is faster than one batch on all cores, and the vectors do not depend on the number of cores. On CUDA, a batch
    is sent and computed while the vectors of the one before are fetched.

    Args:
        model: an image model, or a pair, after `set_weights_dtype`.
        batches: read as they are needed, `compute_threads` + 2 ahead at most, beside `ImageDecoder.batches_ahead`.
        dim: width of the vectors, for a batch in which no image opened.
        workers: as in `ImageDecoder`.
        compute_threads: threads that compute; 0 computes in the caller's thread, with all of torch's threads.
        dtype: of the computation, "float32" or "bf16"; the vectors are float32 in both cases.
        decode_processes: as in `ImageDecoder`; a single batch is left to a thread.
        decoder: one of this model and dtype, in place of `workers` and `decode_processes`; it is left open.
    """
    model.eval()
    batches, queued = iter(batches), 1 if model.device.type == "cuda" else 0  # batches on the device beside the next
    ahead: deque[Callable[[], Callable[[], EmbeddedBatch]]] = deque()
    computed: deque[Callable[[], EmbeddedBatch]] = deque()
    with ExitStack() as stack:
        if decoder is None:
            first = list(islice(batches, 2)) if decode_processes else []
            batches, processes = chain(first, batches), decode_processes if len(first) > 1 else 0
            decoder = stack.enter_context(ImageDecoder(model, workers=workers, processes=processes, dtype=dtype))
        decoding, compute = decoder, _computer(model, decoder, dim, dtype)
        computing = stack.enter_context(_single_threaded(compute_threads)) if compute_threads else None

        def begin(batch: Sequence[Openable]) -> Callable[[], Callable[[], EmbeddedBatch]]:
            prepared = decoding.begin(batch)
            if computing is None:
                return lambda: compute(prepared())
            future = computing.submit(lambda: compute(prepared())())
            return lambda: future.result

        for batch in batches:
            ahead.append(begin(batch))
            if len(ahead) > decoding.batches_ahead(len(batch)) + compute_threads + 1:
                computed.append(ahead.popleft()())
            if len(computed) > queued:
                yield computed.popleft()()
        while ahead:
            computed.append(ahead.popleft()())
            if len(computed) > queued:
                yield computed.popleft()()
        while computed:
            yield computed.popleft()()


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


def _joined(pixels: Tensor, found: Sequence[Decoded | ImageError]) -> Prepared:
    """Returns a batch from the pixels of all its images, of which only those that opened have any."""
    errors = {place: one for place, one in enumerate(found) if isinstance(one, ImageError)}
    opened = [place for place in range(len(found)) if place not in errors]
    decoded = [one for one in found if isinstance(one, Decoded)]
    contents, photos = [one.content for one in decoded], [one.photo for one in decoded]
    return Prepared(opened, errors, contents, photos, pixels=pixels[opened] if errors else pixels)


def _computer(
    model: SentenceTransformer, decoder: ImageDecoder, dim: int, dtype: str
) -> Callable[[Prepared], Callable[[], EmbeddedBatch]]:
    """Returns what begins to compute a batch; the result of that waits for the vectors."""
    import numpy as np
    import torch
    from sentence_transformers.util import batch_to_device

    def compute(prepared: Prepared) -> Callable[[], EmbeddedBatch]:
        def batch_of(vectors: NDArray[np.float32]) -> EmbeddedBatch:
            return EmbeddedBatch(prepared.opened, vectors, prepared.errors, prepared.contents, prepared.photos)

        if not prepared.opened:
            return lambda: batch_of(np.empty((0, dim), np.float32))
        autocast = torch.autocast(model.device.type, torch.bfloat16, enabled=dtype == "bf16")
        with torch.inference_mode(), autocast:  # both hold for one thread only
            features = batch_to_device(decoder.features(prepared, model.device), model.device)
            vectors = model(features)["sentence_embedding"].float()
        if vectors.device.type != "cuda":
            return lambda: batch_of(vectors.cpu().numpy())
        fetched = vectors.to("cpu", non_blocking=True)
        done = torch.cuda.current_stream(vectors.device).record_event()

        def when_done() -> EmbeddedBatch:
            done.synchronize()
            return batch_of(fetched.numpy())

        return when_done

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
