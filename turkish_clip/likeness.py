"""Tells whether two images are near duplicates: encoded again, resized or cropped, not two images of the same thing.

Two small copies are laid over each other, by the scale and shift of each axis under which they differ least
(Gauss-Newton, from coarse to fine), and compared where both are. What is left of a copy is spread thin; what two
images differ in, be it one small thing, stands in one place. Where both are large enough, pairs that pass are compared
once more, finer: a smile and a frown cancel out in the larger places. Source: B. Lucas and T. Kanade, "An Iterative
Image Registration Technique with an Application to Stereo Vision", 1981, section 4. The limits are measured, on
copies and on the most similar other images of two collections (tests/turkish_clip/search/test_duplicates.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

Images = NDArray[np.float32]  # (n, rows, 3 colours, columns), 0 to 1: in this order each axis takes one product
SIDE = 96  # of the small copies
LARGE = (
    2 * SIDE
)  # pixels of the shorter side from which on an image is compared finely: JPEG stores half as many colours
BLURRED = ((4, 0.15), (8, 0.2))  # side → root mean square from which on a pair is no near duplicate, as they are
LEVELS = (12, 24, 48)  # sides at which they are laid over each other, and at the last of which they are compared
AT_ONCE = 64  # pairs: their copies stay in the processor's cache
STEPS = (6, 4, 4)  # of Gauss-Newton at each
STARTS = (1.0, 0.92, 1.09)  # scales to begin with: the same, a part of the other, or the other a part of it
FARTHEST = 0.2  # of scale from 1, and twice that of shift: more is no crop of a few percent
LEAST_COMMON = 0.72  # fraction of each image that the other one has, too; cropped by a tenth on both sides it is 0.81
COARSE_RMS = (0.14, 0.11)  # root mean square at the first levels from which on a pair is no near duplicate
MAX_RMS = 0.07  # the same at the last
MAX_SPOT = 0.085  # difference of colour in one place, the mean over SPOT x SPOT pixels of the last level
SPOT = 6
MAX_UNEXPLAINED = 0.15  # fraction of the variance of the pixels that is left; in dark images all differences are small
NOISE = 2e-4  # variance that encoding leaves in an image of one colour
# Then, of large images, at SIDE in blocks of BLOCK x BLOCK pixels: the largest fraction of a block's
# variance, FLAT added to it, that is left. Of 922 copies none had more than 0.1, of 122 pairs of other
# pictograms that pass at the last of LEVELS none less than 0.7.
BLOCK, FLAT, MAX_BLOCK = 4, 0.01, 0.3


def small_copy(image: Image.Image) -> NDArray[np.uint8]:
    """Returns the (SIDE, 3, SIDE) pixels of an RGB image, squeezed to a square: rows, colours, columns."""
    from PIL import Image

    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)).transpose(0, 2, 1)


def near_duplicates(
    first: NDArray[np.uint8], second: NDArray[np.uint8], large: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Returns for each of n pairs of small copies whether they are near duplicates.

    Args:
        first: (n, SIDE, 3, SIDE).
        second: likewise.
        large: (n,) whether both images of a pair have at least LARGE pixels on each side; None: all have.
    """
    same = _alike(first, second)
    alike = np.flatnonzero(same)
    fine = np.ones(len(same), bool) if large is None else large
    for start in range(0, len(alike), AT_ONCE):
        left = alike[start : start + AT_ONCE]
        a, b = (_floats(images[left]) for images in (first, second))
        same[left] = _same(a, b, fine[left])
    return same


def _same(a: Images, b: Images, large: NDArray[np.bool_]) -> NDArray[np.bool_]:
    same, left = np.zeros(len(a), bool), np.arange(len(a))
    fit = _begun(_reduced(a, LEVELS[0]), _reduced(b, LEVELS[0]))
    for level, side in enumerate(LEVELS):
        over, under = _reduced(a, side), _reduced(b, side)
        if level:
            fit = _fitted(over, under, fit, level)
        rms, spot, variance, common = _differences(over, under, fit)
        if side == LEVELS[-1]:
            passes = (rms <= MAX_RMS) & (spot <= MAX_SPOT) & (rms**2 <= MAX_UNEXPLAINED * variance + NOISE)
            passes &= common >= LEAST_COMMON
            same[left[passes]] = True
            looked = passes & large[left]
            same[left[looked]] = _block_left(a[looked], b[looked], fit[looked]) <= MAX_BLOCK
            break
        kept = rms <= COARSE_RMS[level]
        left, a, b, fit = left[kept], a[kept], b[kept], fit[kept]
        if not len(left):
            break
    return same


def _begun(a: Images, b: Images) -> NDArray[np.float64]:
    """Returns the best fits at the first level, of those that were begun at each of STARTS."""
    fits = [_fitted(a, b, np.tile([scale, 0, scale, 0], (len(a), 1)), 0) for scale in STARTS]
    best = np.argmin([_differences(a, b, fit)[0] for fit in fits], axis=0)
    return np.asarray(np.stack(fits)[best, np.arange(len(a))])


def _alike(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Returns which pairs are so alike as they are, at a few pixels, that they may be near duplicates."""
    alike = np.ones(len(first), bool)
    for side, limit in BLURRED:
        a, b = (_reduced(_floats(images), side) for images in (first, second))
        alike &= np.sqrt(np.square(a - b).mean((1, 2, 3))) <= limit
    return alike


def _floats(images: NDArray[np.uint8]) -> Images:
    return np.asarray(images / np.float32(255), np.float32)


def _reduced(images: Images, side: int) -> Images:
    factor = images.shape[-1] // side
    if factor == 1:
        return images
    pooling = np.repeat(np.eye(side, dtype=np.float32), factor, axis=1) / factor  # products are faster than means
    whole = images.shape[-1]
    rows = (pooling @ images.reshape(-1, whole, 3 * whole)).reshape(-1, whole)
    return np.asarray((rows @ pooling.T).reshape(-1, side, 3, side))


def _sampling(side: int, scale: NDArray[np.float64], shift: NDArray[np.float64]) -> tuple[Images, NDArray[np.bool_]]:
    """Returns the (n, side, side) weights with which pixels are sampled along an axis, and where samples lie inside."""
    centres = (np.arange(side) + 0.5) / side - 0.5
    at = (scale[:, None] * centres + 0.5 + shift[:, None]) * side - 0.5
    inside = (at > -0.5) & (at < side - 0.5)
    weights = np.maximum(0, 1 - np.abs(np.clip(at, 0, side - 1)[:, :, None] - np.arange(side)))
    return weights.astype(np.float32), inside


def _laid_over(a: Images, fit: NDArray[np.float64]) -> tuple[Images, Images]:
    """Returns images as they lie over others, and an (n, side, 1, side) mask of where they are."""
    side = a.shape[-1]
    across, inside_across = _sampling(side, fit[:, 0], fit[:, 1])
    down, inside_down = _sampling(side, fit[:, 2], fit[:, 3])
    laid = (down @ a.reshape(-1, side, 3 * side)).reshape(-1, 3 * side, side) @ across.transpose(0, 2, 1)
    mask = inside_down[:, :, None, None] & inside_across[:, None, None, :]
    return np.asarray(laid.reshape(a.shape)), mask.astype(np.float32)


def _fitted(a: Images, b: Images, fit: NDArray[np.float64], level: int) -> NDArray[np.float64]:
    """Returns the (n, 4) scale and shift across, and down, under which images lie best over others."""
    side, count = a.shape[-1], len(a)
    centres = ((np.arange(side) + 0.5) / side - 0.5).astype(np.float32)
    lowest = np.array([1 - FARTHEST, -FARTHEST / 2] * 2)
    highest = np.array([1 + FARTHEST, FARTHEST / 2] * 2)
    damping = 1e-5 * side * side * np.eye(4)
    for _ in range(STEPS[level] if count else 0):
        laid, mask = _laid_over(a, fit)
        across, down = (np.gradient(laid, axis=axis) * side * mask for axis in (3, 1))
        slopes = np.stack([across * centres, across, down * centres[:, None, None], down], axis=1).reshape(count, 4, -1)
        rest = ((b - laid) * mask).reshape(count, -1, 1)
        step = np.linalg.solve(slopes @ slopes.transpose(0, 2, 1) + damping, slopes @ rest)[..., 0]
        fit = np.clip(fit + step, lowest, highest)
    return fit


def _differences(a: Images, b: Images, fit: NDArray[np.float64]) -> tuple[NDArray[np.float32], ...]:
    """Returns the root mean square, the largest spot, the variance of the pixels, and the fraction that is common."""
    laid, mask = _laid_over(a, fit)
    side, count = a.shape[-1], np.maximum(mask.sum((1, 2, 3)), 1)
    rest = (b - laid) * mask
    rms = np.sqrt(np.square(rest).sum((1, 2, 3)) / (3 * count))
    spot = max(1, side * SPOT // LEVELS[-1])
    spots = _reduced(rest, side // spot)
    mean = (b * mask).sum((1, 3), keepdims=True) / count[:, None, None, None]
    variance = (np.square(b - mean) * mask).sum((1, 2, 3)) / (3 * count)
    common = mask.mean((1, 2, 3)) * np.minimum(1, fit[:, 0] * fit[:, 2])
    return rms, np.abs(spots).max((1, 2, 3), initial=0), variance, common


def _block_left(a: Images, b: Images, fit: NDArray[np.float64]) -> NDArray[np.float32]:
    """Returns the largest fraction of the variance of a block that is left when images of SIDE lie over each other."""
    laid, mask = _laid_over(a, _fitted(a, b, fit, len(LEVELS) - 1))
    mask = np.repeat(mask, 3, axis=2)
    part = np.maximum(_reduced(mask, SIDE // BLOCK), 1 / BLOCK**2)

    def mean(images: Images) -> Images:
        return np.asarray(_reduced(images * mask, SIDE // BLOCK) / part)

    variance = np.maximum(*((mean(np.square(images)) - np.square(mean(images))).mean(2) for images in (laid, b)))
    left = mean(np.square(b - laid)).mean(2) / (variance + FLAT)
    return np.asarray(np.where(part[:, :, 0] >= 0.75, left, 0).max((1, 2), initial=0))
