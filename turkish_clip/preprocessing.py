"""Images to the numbers that the image tower takes, on a shorter way than the processor's, to the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

LEVELS = 256  # of a channel
PROBE_SIZES = ((97, 61), (50, 131), (33, 33), (700, 515))  # lying, upright, to be enlarged, to be reduced
LONGEST = 100  # times as long as wide: of a longer strip the middle is taken before it is enlarged
Prepare = Callable[[Iterable[Image.Image]], dict[str, Any]]


def preprocessing_for(model: SentenceTransformer) -> Prepare:
    """What makes features for a model (or a pair) of RGB images: the short way where it gives the same as the long.

    A processor that resizes by Pillow, crops, and maps each level of a channel to a number goes through float64 and
    many copies; one resize and one look-up do the same, and let go of each image before the next is opened. Whether
    they do is tried on images of noise; a processor that gives anything else, by a single bit, is used itself.
    """
    short = _FastPreprocessing.of(model)
    probes = [_noise(*size) for size in PROBE_SIZES]
    if short is not None and _equal(short(probes), model.preprocess(probes)):
        return short
    return lambda images: dict(model.preprocess(every)) if (every := list(images)) else {}


@dataclass(frozen=True)
class _FastPreprocessing:
    """One resize, one crop, one look-up.

    Attributes:
        shortest: the side that an image's shorter one becomes, or None where all become of `size`.
        size: width and height that all images get.
        levels: (3, 256) float32, the number that each level of each channel becomes.
        rest: the features beside the pixels.
    """

    shortest: int | None
    size: tuple[int, int]
    resample: Image.Resampling
    levels: NDArray[np.float32]
    rest: dict[str, Any]

    @classmethod
    def of(cls, model: SentenceTransformer) -> _FastPreprocessing | None:
        """The short way of a model's processor; None where it is of another kind."""
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
        """The features of RGB images: pixel_values (n, 3, height, width) float32, and the rest; nothing for none."""
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
        lying = image.width > image.height
        resized = image.resize((longer, self.shortest) if lying else (self.shortest, longer), self.resample)
        width, height = self.size
        left, top = (resized.width - width) // 2, (resized.height - height) // 2
        return resized.crop((left, top, left + width, top + height))


def _middle(image: Image.Image) -> Image.Image:
    """The middle of a strip, of which an enlarged whole would fill the memory; any other image as it is."""
    width, height = image.size
    across, down = min(width, LONGEST * height), min(height, LONGEST * width)
    if (across, down) == image.size:
        return image
    left, top = (width - across) // 2, (height - down) // 2
    return image.crop((left, top, left + across, top + down))


def _side(size: Any, name: str) -> int | None:
    """A side of a processor's size, which is a mapping, an object or, in older ones, a number."""
    value = size.get(name) if isinstance(size, Mapping) else getattr(size, name, None)
    return value if isinstance(value, int) else None


def _noise(width: int, height: int) -> Image.Image:
    levels = np.random.default_rng(width).integers(0, LEVELS, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def _equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two sets of features have the same names and values, to the bit."""
    import torch

    if one.keys() != other.keys():
        return False
    return all(
        torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
        for name, value in one.items()
    )
