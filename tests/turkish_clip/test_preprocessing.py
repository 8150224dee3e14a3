"""The fast preprocessing path is bit-identical to the model's processor, or is not used."""

from __future__ import annotations

import dataclasses
import random
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops
from sentence_transformers import SentenceTransformer

from turkish_clip import preprocessing
from turkish_clip.encoder import image_processor, load_model
from turkish_clip.preprocessing import other_processor, preprocessing_for

# With torchvision, transformers takes its image processor, which gives other bits than the fast preprocessing. So the
# slower way is used, and there is nothing to compare.
pytestmark = pytest.mark.skipif(find_spec("torchvision") is not None, reason="torchvision is installed")


@pytest.fixture
def model(tiny_clip: Path) -> SentenceTransformer:
    return load_model(tiny_clip, device="cpu")


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8))


def fast_path(model: SentenceTransformer) -> preprocessing.Prepare:
    prepare = preprocessing_for(model)
    assert isinstance(prepare, preprocessing.FastPreprocessing)
    return prepare


def test_every_size_gives_the_features_of_the_processor(model: SentenceTransformer, rng: random.Random) -> None:
    sizes = [(1, 1), (32, 32), (33, 32), (32, 33), (31, 500), (500, 31), (640, 480)]
    sizes += [(rng.randint(1, 300), rng.randint(1, 300)) for _ in range(40)]
    images = [noise(*size) for size in sizes if max(size) <= preprocessing.LONGEST * min(size)]
    found, expected = fast_path(model)(images), model.preprocess(images)
    assert found.keys() == expected.keys()
    assert found["pixel_values"].dtype == torch.float32
    assert torch.equal(found["pixel_values"], expected["pixel_values"])


def test_a_processor_that_resizes_without_a_crop(model: SentenceTransformer) -> None:
    processor = image_processor(model)
    processor.size, processor.do_center_crop = type(processor.size)(height=24, width=40), False
    images = [noise(100, 60), noise(7, 9)]
    found = fast_path(model)(images)["pixel_values"]
    assert found.shape == (2, 3, 24, 40)
    assert torch.equal(found, model.preprocess(images)["pixel_values"])


def test_a_pair_has_the_fast_path_too(pair_folder: Path) -> None:
    model = load_model(pair_folder, device="cpu")
    images = [noise(100, 60)]
    assert torch.equal(fast_path(model)(images)["pixel_values"], model.preprocess(images)["pixel_values"])


@pytest.mark.skipif(not preprocessing._is_vectorised(), reason="torch has no vectorised resize for this processor")
def test_for_bf16_torch_resizes_and_levels_hardly_differ(model: SentenceTransformer, rng: random.Random) -> None:
    near, exact = preprocessing_for(model, "bf16"), fast_path(model)
    assert isinstance(near, preprocessing.FastPreprocessing)
    assert (near.vectorised, exact.vectorised) == (True, False)
    sizes = [(1, 1), (32, 32), (33, 32), (31, 500), (500, 31), (640, 480), (5, 499), (1500, 40)]
    sizes += [(rng.randint(1, 300), rng.randint(1, 300)) for _ in range(40)]
    images = [noise(*size) for size in sizes]
    differences = [np.abs(near.pixels(image).astype(int) - exact.pixels(image)) for image in images]
    assert 1 <= max(difference.max() for difference in differences) <= preprocessing.NEAR
    assert np.concatenate(differences).mean() < 0.02


def test_pixels_of_a_large_image_are_those_of_pillow(
    model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = fast_path(model)
    near = dataclasses.replace(exact, vectorised=True)
    assert not np.array_equal(near.pixels(noise(640, 480)), exact.pixels(noise(640, 480)))
    monkeypatch.setattr(preprocessing, "MOST_VECTORISED", 640 * 480 - 1)
    assert np.array_equal(near.pixels(noise(640, 480)), exact.pixels(noise(640, 480)))


def test_a_device_looks_up_the_values_of_the_processor(model: SentenceTransformer) -> None:
    fast, images = fast_path(model), [noise(100, 60), noise(7, 9)]
    pixels = torch.from_numpy(np.stack([fast.pixels(image) for image in images]))
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (2, 32, 32, 3))
    values = torch.empty(2, 3, 32, 32)
    preprocessing.look_up(pixels, torch.from_numpy(fast.levels), values)
    assert torch.equal(values, model.preprocess(images)["pixel_values"])


@pytest.mark.parametrize("name", ["pads", "another filter", "one pixel aside", "no resizing"])
def test_a_processor_that_does_anything_else_is_used_itself(
    model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    processor = image_processor(model)
    if name == "pads":
        processor.crop_size = type(processor.crop_size)(height=48, width=48)
    elif name == "no resizing":
        processor.do_resize = False
    else:
        resize = Image.Image.resize

        def other(image: Image.Image, size: tuple[int, int], resample: int, **more: object) -> Image.Image:
            if name == "another filter":
                return resize(image, size, Image.Resampling.BOX)
            return ImageChops.offset(resize(image, size, resample), 1, 0)

        real = model.preprocess

        def preprocess(*inputs: object) -> dict[str, object]:
            with monkeypatch.context() as patch:
                patch.setattr(Image.Image, "resize", other)
                return dict(real(*inputs))

        monkeypatch.setattr(model, "preprocess", preprocess)
    assert not isinstance(preprocessing_for(model), preprocessing.FastPreprocessing)


def test_a_long_strip_does_not_fill_the_memory(model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare, resize, largest = fast_path(model), Image.Image.resize, 0

    def watched(image: Image.Image, size: tuple[int, int], *more: object) -> Image.Image:
        nonlocal largest
        largest = max(largest, *size)
        return resize(image, size, *more)

    monkeypatch.setattr(Image.Image, "resize", watched)
    middle = Image.new("RGB", (200_000, 2))
    middle.paste((255, 0, 0), (99_900, 0, 100_100, 2))
    found = prepare([middle, middle.transpose(Image.Transpose.ROTATE_90)])["pixel_values"]
    assert largest == 32 * preprocessing.LONGEST
    assert torch.equal(
        found[:, :, 16, 16], prepare([Image.new("RGB", (32, 32), (255, 0, 0))] * 2)["pixel_values"][:, :, 0, 0]
    )


@pytest.mark.parametrize(
    ("then", "now", "advice"),
    [
        ("CLIPImageProcessorPil", "CLIPImageProcessor", "had a cosine of at least 0.999999, where measured; for the"),
        ("SiglipImageProcessor", "SiglipImageProcessorPil", "install or remove torchvision"),
        (
            "",
            "CLIPImageProcessorPil",
            "by an unknown class, and are now by CLIPImageProcessorPil: their vectors may",
        ),
        ("CLIPImageProcessorPil", "SiglipImageProcessorPil", "or make the vectors again"),
    ],
)
def test_what_is_said_of_another_processor(then: str, now: str, advice: str) -> None:
    assert advice in other_processor(then, now)
