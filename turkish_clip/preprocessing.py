"""Preprocesses images for the image tower: a fast path that gives the same bits as the model's processor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

LEVELS = 256  # of an 8-bit channel
PROBE_SIZES = ((97, 61), (50, 131), (33, 33), (700, 515))  # landscape, portrait, enlarged, reduced
LONGEST = 100  # the largest aspect ratio that is resized whole; of a longer strip only the middle is used
WITH_PILLOW = "Pil"  # ends the names of transformers' processors without torchvision
# Between vectors of one image with and without torchvision 0.28: of 408 images by the miniature world's CLIP; 128 by a
# ViT-B/32 of random weights had 0.9999998, while bf16 and float32 had 0.99999.
SMALLEST_COSINE = 0.999999
Prepare = Callable[[Iterable[Image.Image]], dict[str, Any]]


def preprocessing_for(model: SentenceTransformer) -> Prepare:
    """Returns the fast preprocessing path if it is bit-identical to the model's processor, else the processor itself.

    A processor that resizes with Pillow, crops and normalises goes through float64 and many copies. One resize and one
    look-up table give the same features, and release each image before the next is opened. Both are compared on images
    of noise. The model may be a pair; the result maps RGB images to its input features.
    """
    fast = _FastPreprocessing.of(model)
    probes = [_noise(*size) for size in PROBE_SIZES]
    if fast is not None and _equal(fast(probes), model.preprocess(probes)):
        return fast
    prompt = model.prompts.get(model.default_prompt_name or "")  # which `encode` puts before the images of some models
    return lambda images: dict(model.preprocess(every, prompt=prompt)) if (every := list(images)) else {}


def other_processor(then: str, now: str) -> str:
    """Returns what to say where another class prepares images than prepared those whose vectors are stored.

    Args:
        then: the class that prepared the stored images.
        now: the class that prepares images now.
    """
    said = f"images were prepared by {then or 'an unknown class'}, and are now by {now}"
    if then.removesuffix(WITH_PILLOW) != now.removesuffix(WITH_PILLOW):
        return f"{said}: their vectors may differ; load the libraries of then, or make the vectors again"
    return (
        f"{said}: transformers takes the one or the other with and without torchvision; pixels differ by up to 2 of "
        f"255 levels, and the two vectors of an image had a cosine of at least {SMALLEST_COSINE}, where measured; for "
        "the same bits, install or remove torchvision"
    )


@dataclass(frozen=True)
class _FastPreprocessing:
    """One resize, one crop and one look-up table.

    Attributes:
        shortest: what the shorter side becomes before the crop; None resizes to `size` without one.
        size: width and height of every result.
        levels: (3, 256) float32, the value of each level of each channel.
        rest: the features other than pixel_values.
    """

    shortest: int | None
    size: tuple[int, int]
    resample: Image.Resampling
    levels: NDArray[np.float32]
    rest: dict[str, Any]

    @classmethod
    def of(cls, model: SentenceTransformer) -> _FastPreprocessing | None:
        """Builds the fast path for a model's processor; returns None if the processor is of another kind."""
        from turkish_clip.encoder import image_processor

        processor = image_processor(model)
        size, crop = (getattr(processor, name, None) for name in ("size", "crop_size"))
        shortest, resample = _side(size, "shortest_edge"), getattr(processor, "resample", None)
        last = crop if getattr(processor, "do_center_crop", False) else size
        width, height = (_side(last, name) or shortest for name in ("width", "height"))
        if width is None or height is None or resample is None or width * height < LEVELS:
            return None
        if shortest is None and (_side(size, "width"), _side(size, "height")) != (width, height):
            return None
        if shortest is not None and (last is size or max(width, height) > shortest):
            return None
        ramp = np.resize(np.arange(LEVELS, dtype=np.uint8), (height, width))
        features = dict(model.preprocess([Image.fromarray(ramp).convert("RGB")]))
        pixels = features.pop("pixel_values", None)
        if pixels is None or tuple(pixels.shape) != (1, 3, height, width):
            return None
        levels = pixels.numpy().reshape(3, -1)[:, :LEVELS].astype(np.float32)
        return cls(shortest, (width, height), Image.Resampling(int(resample)), levels, features)

    def __call__(self, images: Iterable[Image.Image]) -> dict[str, Any]:
        """Returns the features of RGB images: (n, 3, height, width) float32 pixel_values and the rest; {} for none."""
        import torch

        pixels = [self._pixels(image) for image in images]
        return {**self.rest, "pixel_values": torch.from_numpy(np.stack(pixels))} if pixels else {}

    def _pixels(self, image: Image.Image) -> NDArray[np.float32]:
        width, height = self.size
        fitted, pixels = np.asarray(self._fitted(image)), np.empty((3, height, width), np.float32)
        for channel in range(3):
            np.take(self.levels[channel], fitted[:, :, channel], out=pixels[channel], mode="clip")
        return pixels

    def _fitted(self, image: Image.Image) -> Image.Image:
        if self.shortest is None:
            return image.resize(self.size, self.resample)
        image = _middle(image)
        short, long = sorted(image.size)
        longer = int(self.shortest * long / short)
        size = (longer, self.shortest) if image.width > image.height else (self.shortest, longer)
        resized = image.resize(size, self.resample)
        width, height = self.size
        left, top = (resized.width - width) // 2, (resized.height - height) // 2
        return resized.crop((left, top, left + width, top + height))


def _middle(image: Image.Image) -> Image.Image:
    """Returns the middle of a long strip, which would fill the memory once enlarged, or any other image unchanged."""
    width, height = image.size
    across, down = min(width, LONGEST * height), min(height, LONGEST * width)
    if (across, down) == image.size:
        return image
    left, top = (width - across) // 2, (height - down) // 2
    return image.crop((left, top, left + across, top + down))


def _side(size: Any, name: str) -> int | None:
    """Returns one entry of a processor's size, which is a mapping, an object or, in older versions, a number."""
    value = size.get(name) if isinstance(size, Mapping) else getattr(size, name, None)
    return value if isinstance(value, int) else None


def _noise(width: int, height: int) -> Image.Image:
    levels = np.random.default_rng(width).integers(0, LEVELS, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def _equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Returns whether two sets of features have the same names and bit-identical values."""
    import torch

    if one.keys() != other.keys():
        return False
    return all(
        torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
        for name, value in one.items()
    )
