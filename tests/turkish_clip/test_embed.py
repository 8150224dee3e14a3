"""Bulk embedding gives the same vectors in any number of threads; bf16 and reduced decoding change them little."""

from __future__ import annotations

import dataclasses
import io
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer

from training.mini import captions, scene
from training.mini.world import SMALL_CLIP
from turkish_clip import preprocessing
from turkish_clip.embed import EmbeddedBatch, bf16_weights, embed_batches, fast_dtype
from turkish_clip.encoder import load_model
from turkish_clip.images import ImageError, OpenedImage, open_hashed, open_image
from turkish_clip.metrics import Relevance, Retrieval, Vectors, unit
from turkish_clip.preprocessing import preprocessing_for

WORKERS = 2


@dataclass(frozen=True)
class NoiseImage:
    """An image of noise, one that does not open, or one that raises an error of the program."""

    number: int
    reason: str = ""

    def load(self, min_side: int | None = None) -> OpenedImage:
        if self.reason == "defect":
            raise ZeroDivisionError("a defect")
        if self.reason:
            raise ImageError(str(self.number), self.reason)
        levels = np.random.default_rng(self.number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        return OpenedImage(Image.fromarray(levels), bytes([self.number]))

    def fetched(self) -> NoiseImage:
        return self


@dataclass(frozen=True)
class JpegFile:
    """The bytes of a JPEG, decoded at full or at reduced size."""

    data: bytes
    whole: bool

    def load(self, min_side: int | None = None) -> OpenedImage:
        return OpenedImage(open_image(self.data, min_side=None if self.whole else min_side))

    def fetched(self) -> JpegFile:
        return self


@pytest.fixture(scope="module")
def model(tiny_clip: Path) -> SentenceTransformer:
    return load_model(tiny_clip, device="cpu")


def embedded(model: SentenceTransformer, batches: list[list[NoiseImage]], **options: int) -> list[EmbeddedBatch]:
    return list(embed_batches(model, batches, dim=16, **options))


def test_any_number_of_compute_threads_gives_the_same_vectors_in_order(model: SentenceTransformer) -> None:
    batches = [
        [NoiseImage(5 * batch + place, "bad" if place == batch % 6 else "") for place in range(5)] for batch in range(9)
    ]
    batches.append([NoiseImage(90, "bad"), NoiseImage(91, "worse")])
    threads = torch.get_num_threads()
    found = {
        compute_threads: embedded(model, batches, compute_threads=compute_threads, workers=WORKERS)
        for compute_threads in (1, 3)
    }
    assert torch.get_num_threads() == threads
    for one, other, batch in zip(found[1], found[3], batches, strict=True):
        assert one.opened == other.opened == [place for place, image in enumerate(batch) if not image.reason]
        assert one.contents == other.contents == [bytes([batch[place].number]) for place in one.opened]
        assert {place: error.reason for place, error in one.errors.items()} == {
            place: image.reason for place, image in enumerate(batch) if image.reason
        }
        assert np.array_equal(one.vectors, other.vectors)
        expected = (
            model.encode([batch[place].load().image for place in one.opened]) if one.opened else np.empty((0, 16))
        )
        assert np.allclose(one.vectors, expected, atol=1e-5)
    assert found[1][-1].vectors.shape == (0, 16)
    for one, other in zip(found[1], embedded(model, batches, compute_threads=0), strict=True):
        assert np.allclose(one.vectors, other.vectors, atol=1e-5)


@pytest.mark.parametrize("compute_threads", [0, 2])
def test_no_more_batches_are_read_than_are_needed(model: SentenceTransformer, compute_threads: int) -> None:
    read = 0

    def batches() -> Iterator[list[NoiseImage]]:
        nonlocal read
        for number in range(200):
            read += 1
            yield [NoiseImage(number)]

    results = embed_batches(model, batches(), dim=16, workers=WORKERS, compute_threads=compute_threads)
    for taken, _ in zip(range(1, 50), results):
        assert read <= taken + WORKERS + compute_threads + 1
    results.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("compute", "decode"))]


@pytest.mark.parametrize("compute_threads", [0, 2])
def test_an_error_of_the_program_is_not_taken_for_a_bad_image(model: SentenceTransformer, compute_threads: int) -> None:
    batches = [[NoiseImage(0)], [NoiseImage(1, "defect")], [NoiseImage(2)]]
    with pytest.raises(ZeroDivisionError, match="a defect"):
        embedded(model, batches, compute_threads=compute_threads)


@pytest.mark.parametrize(
    ("device", "has", "dtype"),
    [
        ("cpu", {"avx512_bf16": True}, "bf16"),
        ("cpu", {"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, "float32"),
        ("cpu", {"amx_bf16": True}, "bf16"),
        ("mps", {"avx512_bf16": True}, "float32"),
    ],
)
def test_bf16_is_used_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, device: str, has: dict[str, bool], dtype: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: MappingProxyType(has), raising=False)
    assert fast_dtype(device) == dtype


def test_a_torch_that_does_not_list_the_capabilities_uses_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert fast_dtype("cpu") == "float32"


@dataclass(frozen=True)
class Measured:
    """Image vectors, and how well the text tower of the same CLIP finds them."""

    vectors: Vectors
    retrieval: Retrieval


class Gallery:
    """Scenes of the toy dataset as JPEGs six times as large as the small CLIP's input."""

    def __init__(self, images: int) -> None:
        rng = random.Random(7)
        scenes = [scene.random_scene(rng) for _ in range(images)]
        self.files = [self._jpeg(drawn, rng) for drawn in scenes]
        self.relevance = Relevance.from_captions(
            [[captions.english_caption(drawn, rng) for _ in range(2)] for drawn in scenes]
        )
        self.texts = unit(load_model(SMALL_CLIP, device="cpu").encode(self.relevance.texts, batch_size=64))

    @staticmethod
    def _jpeg(drawn: scene.Scene, rng: random.Random) -> bytes:
        buffer = io.BytesIO()
        scene.draw_scene(drawn, rng).save(buffer, "JPEG", quality=90)
        return buffer.getvalue()

    def measure(self, *, whole: bool, dtype: str = "float32") -> Measured:
        model = load_model(SMALL_CLIP, device="cpu")
        if dtype == "bf16":
            bf16_weights(model)
        files = [JpegFile(data, whole) for data in self.files]
        batches = [files[start : start + 20] for start in range(0, len(files), 20)]
        parts = embed_batches(model, batches, dim=512, workers=1, compute_threads=1, dtype=dtype)
        vectors = unit(np.concatenate([part.vectors for part in parts]))
        return Measured(vectors, self.relevance.text_to_image(self.texts, vectors))


@pytest.fixture(scope="module")
def gallery() -> Iterator[Gallery]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene, "IMAGE_PIXELS", 400)
        patch.setattr(scene, "SUPERSAMPLING", 1)
        yield Gallery(160)


@pytest.fixture(scope="module")
def exact(gallery: Gallery) -> Measured:
    return gallery.measure(whole=True)


def test_a_jpeg_that_is_decoded_at_reduced_size_keeps_its_vector(gallery: Gallery, exact: Measured) -> None:
    assert open_hashed(gallery.files[0], min_side=64).image.size == (100, 100)
    found = gallery.measure(whole=False)
    cosines = (found.vectors * exact.vectors).sum(axis=1)
    assert 0.999 < cosines.min() < 1 - 1e-6
    assert abs(found.retrieval.recall_at_1 - exact.retrieval.recall_at_1) <= 0.005
    assert abs(found.retrieval.recall_at_10 - exact.retrieval.recall_at_10) <= 0.005
    print(f"\nreduced size: cosine {cosines.min():.6f} at least, median {np.median(cosines):.6f}; recall@1, @10:")
    print(*((one.recall_at_1, one.recall_at_10) for one in (exact.retrieval, found.retrieval)))


def test_the_resize_of_torch_changes_a_vector_less_than_bf16_does(
    gallery: Gallery, exact: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def vectorised(model: SentenceTransformer, dtype: str) -> preprocessing.FastPreprocessing:
        fast = preprocessing_for(model, dtype)
        assert isinstance(fast, preprocessing.FastPreprocessing)
        return dataclasses.replace(fast, vectorised=True)

    monkeypatch.setattr(preprocessing, "preprocessing_for", vectorised)
    found = gallery.measure(whole=True)
    cosines = (found.vectors * exact.vectors).sum(axis=1)
    assert cosines.min() > 0.999999
    assert not np.array_equal(found.vectors, exact.vectors)
    print(f"\nresize of torch: cosine {cosines.min():.9f} at least, median {np.median(cosines):.9f}")


def test_bf16_keeps_the_vectors(gallery: Gallery, exact: Measured) -> None:
    found = gallery.measure(whole=True, dtype="bf16")
    cosines = (found.vectors * exact.vectors).sum(axis=1)
    assert 0.9999 < cosines.min() < 1 - 1e-7
    assert abs(found.retrieval.recall_at_1 - exact.retrieval.recall_at_1) <= 0.005
    assert abs(found.retrieval.recall_at_10 - exact.retrieval.recall_at_10) <= 0.005
    print(f"\nbf16: cosine {cosines.min():.6f} at least, median {np.median(cosines):.6f}; recall@1, @10:")
    print(*((one.recall_at_1, one.recall_at_10) for one in (exact.retrieval, found.retrieval)))
