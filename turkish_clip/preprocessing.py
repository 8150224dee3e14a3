"""Preprocesses images for the image tower: a fast path that gives the same bits as the model's processor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer
    from torch import Tensor

LEVELS = 256  # of an 8-bit channel
PROBE_SIZES = ((97, 61), (50, 131), (33, 33), (700, 515))  # landscape, portrait, enlarged, reduced
LONGEST = 100  # the largest aspect ratio that is resized whole; of a longer strip only the middle is used
WITH_PILLOW = "Pil"  # ends the names of transformers' processors without torchvision
# Between vectors of one image with and without torchvision 0.28: of 408 images by the miniature world's CLIP; 128 by a
# ViT-B/32 of random weights had 0.9999998, while bf16 and float32 had 0.99999.
SMALLEST_COSINE = 0.999999
NEAR = 2  # levels; one in 300 differs by one in photographs
MOST_VECTORISED = 1 << 24  # pixels; of larger images, torch's copy would take memory
VECTORISED = {Image.Resampling.BICUBIC: "bicubic", Image.Resampling.BILINEAR: "bilinear"}  # filters that torch has
Prepare = Callable[[Iterable[Image.Image]], dict[str, Any]]


def preprocessing_for(model: SentenceTransformer, dtype: str = "float32") -> Prepare:
    """Returns the fast preprocessing path if it is bit-identical to the model's processor, else the processor itself.

    A processor that resizes with Pillow, crops and normalises goes through float64 and many copies. One resize and one
    look-up table give the same features, and release each image before the next is opened. Both are compared on images
    of noise. The model may be a pair; the result maps RGB images to its input features.

    A tower that computes in bf16 gets pixels of torch's vectorised resize, which takes a quarter of the time, where
    they differ from Pillow's by NEAR of 255 levels at most, as with torchvision: bf16 itself changes the vectors more.

    Args:
        model: an image model, or a pair.
        dtype: of the computation, "float32" or "bf16".
    """
    fast, probes = FastPreprocessing.of(model), [_noise(*size) for size in PROBE_SIZES]
    expected = model.preprocess(probes)
    if fast is not None and not _equal(fast(probes), expected):  # with torchvision, processors resize as torch does
        fast = replace(fast, vectorised=True) if fast.resample in VECTORISED else None
        fast = fast if fast is not None and _equal(fast(probes), expected) else None
    if fast is not None:
        near = replace(fast, vectorised=True)
        return near if dtype == "bf16" and _is_vectorised() and _is_near(near, fast, probes) else fast
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
class FastPreprocessing:
    """One resize, one crop and one look-up table.

    Attributes:
        shortest: what the shorter side becomes before the crop; None resizes to `size` without one.
        size: width and height of every result.
        levels: (3, 256) float32, the value of each level of each channel.
        rest: the features other than pixel_values.
        vectorised: whether torch resizes, and not Pillow.
    """

    shortest: int | None
    size: tuple[int, int]
    resample: Image.Resampling
    levels: NDArray[np.float32]
    rest: dict[str, Any]
    vectorised: bool = False
    _levels_on: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)  # device → levels

    @classmethod
    def of(cls, model: SentenceTransformer) -> FastPreprocessing | None:
        """Builds the fast path for a model's processor; returns None if the processor is of another kind."""
        from turkish_clip.encoder import image_processor

        processor = image_processor(model)
        crop = getattr(processor, "crop_size", None) if getattr(processor, "do_center_crop", False) else None
        geometry, resample = _geometry(getattr(processor, "size", None), crop), getattr(processor, "resample", None)
        if geometry is None or resample is None:
            return None
        shortest, (width, height) = geometry
        ramp = np.resize(np.arange(LEVELS, dtype=np.uint8), (height, width))
        features = dict(model.preprocess([Image.fromarray(ramp).convert("RGB")]))
        pixels = features.pop("pixel_values", None)
        if pixels is None or tuple(pixels.shape) != (1, 3, height, width):
            return None
        levels = pixels.numpy().reshape(3, -1)[:, :LEVELS].astype(np.float32)
        return cls(shortest, (width, height), Image.Resampling(int(resample)), levels, features)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> FastPreprocessing | None:
        """Builds the fast path by a preprocessor_config.json, without torch; returns None if it says something else.

        Args:
            config: the content of the file.
        """
        crop = config.get("crop_size") if config.get("do_center_crop") else None
        geometry = _geometry(config.get("size"), crop)
        try:
            resample = Image.Resampling(int(config["resample"]))
            mean, std = (np.asarray(config[name], np.float64).reshape(3, 1) for name in ("image_mean", "image_std"))
            ramp = np.arange(LEVELS) * float(config["rescale_factor"])
        except (KeyError, TypeError, ValueError):
            return None
        steps = all(config.get(f"do_{step}") is True for step in ("resize", "rescale", "normalize"))
        if geometry is None or not steps or not (std > 0).all():
            return None
        return cls(*geometry, resample, ((ramp - mean) / std).astype(np.float32), {})

    def __call__(self, images: Iterable[Image.Image]) -> dict[str, Any]:
        """Returns the features of RGB images: (n, 3, height, width) float32 pixel_values and the rest; {} for none."""
        import torch

        pixels = [self.pixels(image) for image in images]
        return self.features(torch.from_numpy(np.stack(pixels))) if pixels else {}

    def pixel_values(self, images: Iterable[Image.Image]) -> NDArray[np.float32]:
        """Returns the prepared pixels of RGB images, (n, 3, height, width), without torch unless torch resizes."""
        found = [
            np.stack([self.levels[channel][pixels[..., channel]] for channel in range(3)])
            for pixels in map(self.pixels, images)
        ]
        return np.stack(found) if found else np.empty((0, 3, *self.size[::-1]), np.float32)

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """Returns an RGB image at the model's input size: (height, width, 3)."""
        if self.shortest is None:
            return self._resized(image, self.size)
        image = _middle(image)
        short, long = sorted(image.size)
        longer = int(self.shortest * long / short)
        size = (longer, self.shortest) if image.width > image.height else (self.shortest, longer)
        resized = self._resized(image, size)
        width, height = self.size
        left, top = (size[0] - width) // 2, (size[1] - height) // 2
        return resized[top : top + height, left : left + width]

    def features(self, pixels: Tensor) -> dict[str, Any]:
        """Returns the features of pixels, on their device; every device gives the same bits.

        Args:
            pixels: (n, height, width, 3) uint8.
        """
        import torch

        values = torch.empty((len(pixels), 3, *pixels.shape[1:3]), dtype=torch.float32, device=pixels.device)
        if pixels.device.type == "cpu":
            for image, result in zip(pixels.numpy(), values.numpy()):
                for channel in range(3):
                    np.take(self.levels[channel], image[:, :, channel], out=result[channel], mode="clip")
        else:
            if pixels.device not in self._levels_on:
                self._levels_on[pixels.device] = torch.from_numpy(self.levels).to(pixels.device)
            look_up(pixels, self._levels_on[pixels.device], values)
        return {**self.rest, "pixel_values": values}

    def in_one_thread(self) -> None:
        """Makes this process resize in one thread; one that was forked must not use torch's others."""
        if self.vectorised:
            import torch

            torch.set_num_threads(1)

    def _resized(self, image: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
        if not self.vectorised or image.width * image.height > MOST_VECTORISED:
            return np.asarray(image.resize(size, self.resample))
        from torch import from_numpy
        from torch.nn.functional import interpolate

        # In memory the channels stay the last, before and, by these strides, after: nothing is laid out anew.
        channels = from_numpy(np.array(image)).unsqueeze(0).permute(0, 3, 1, 2)
        resized = interpolate(channels, size[::-1], mode=VECTORISED[self.resample], antialias=True)
        return np.asarray(resized.squeeze(0).permute(1, 2, 0).numpy())


def look_up(pixels: Tensor, levels: Tensor, values: Tensor) -> None:
    """Writes the value of each level of each channel, as `FastPreprocessing.features` does, on any device.

    Args:
        pixels: (n, height, width, 3) uint8.
        levels: (3, 256) float32.
        values: (n, 3, height, width) float32, which are written.
    """
    for channel in range(3):
        places = pixels[..., channel].reshape(-1).int()
        values[:, channel] = levels[channel].index_select(0, places).view(pixels.shape[:3])


def _middle(image: Image.Image) -> Image.Image:
    """Returns the middle of a long strip, which would fill the memory once enlarged, or any other image unchanged."""
    width, height = image.size
    across, down = min(width, LONGEST * height), min(height, LONGEST * width)
    if (across, down) == image.size:
        return image
    left, top = (width - across) // 2, (height - down) // 2
    return image.crop((left, top, left + across, top + down))


def _geometry(size: Any, crop: Any) -> tuple[int | None, tuple[int, int]] | None:
    """Returns what the shorter side becomes, or None if both are set, and the width and height of every result.

    Args:
        size: of a processor.
        crop: likewise, if it crops the middle.

    Returns:
        None if it can't be told, or is something else than a resize and a crop within it.
    """
    shortest, last = _side(size, "shortest_edge"), size if crop is None else crop
    width, height = (_side(last, name) or shortest for name in ("width", "height"))
    if width is None or height is None or width * height < LEVELS:
        return None
    if shortest is None and (_side(size, "width"), _side(size, "height")) != (width, height):
        return None
    if shortest is not None and (last is size or max(width, height) > shortest):
        return None
    return shortest, (width, height)


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


def _is_vectorised() -> bool:
    """Returns whether torch resizes bytes by the processor's vector instructions; elsewhere Pillow is as fast."""
    import torch

    return str(torch.backends.cpu.get_cpu_capability()).startswith("AVX")


def _is_near(one: FastPreprocessing, other: FastPreprocessing, images: Iterable[Image.Image]) -> bool:
    """Returns whether two ways of resizing give levels that differ by NEAR at most."""
    if one.resample not in VECTORISED:
        return False
    pairs = ((one.pixels(image).astype(np.int16), other.pixels(image).astype(np.int16)) for image in images)
    return all(np.abs(left - right).max() <= NEAR for left, right in pairs)
