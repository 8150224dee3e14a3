"""Where in an image something is: the best regions for words, and which of several things an image shows where.

An image is cut into square windows of several sizes, and each is embedded as an image by itself, so that any image
model will do. A window that shows a thing is near to its name, and so are most windows that overlap the thing, while
the nearest by itself often is one that shows a corner of it. So all windows vote: each is laid over the image with a
weight that grows with its cosine and falls with its area, and the thing is where the sum is largest.

On the miniature world this points better than the best window and than patch tokens, projected as they are or by the
last layer's values (MaskCLIP, Zhou et al. 2022, section 3.2); the figures are in training/LOG.md.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from turkish_clip.dual_encoder import with_image_side
from turkish_clip.errors import InputError
from turkish_clip.images import ImageLike, open_image
from turkish_clip.zero_shot import softmax

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from PIL import Image

    from turkish_clip.bank import TextBank
    from turkish_clip.dual_encoder import DualEncoder
    from turkish_clip.metrics import Vectors
    from turkish_clip.text_side import TextSide
    from turkish_clip.zero_shot import ZeroShotClassifier

log = logging.getLogger("turkish_clip")
Box = tuple[int, int, int, int]

# The numbers were chosen on the miniature world's validation images (training/LOG.md).
SIDES = (1.0, 0.75, 0.5, 0.375)  # of windows, in fractions of the image's shorter side
STEP = 1 / 3  # largest distance of neighbouring windows, in fractions of their side
MOST_ALONG = 24  # windows of one size along a side, which bounds the work for a long strip
SPREAD = 0.5  # of a window's weight: in standard deviations of the image's cosines with the text
AGAIN = 0.2  # of the sum of weights at the best region, which a further region for the same text reaches at least
MOST_OF_A_LABEL = 3  # regions of one label in an image
PRESENT = 1.0  # standard deviations above the text bank's mean, from which on an image may show a label somewhere
MIN_PROBABILITY = 0.5  # among the labels, which a region has at least
DETAIL = 2  # pixels of an image for each that its smallest windows need: more would change their vectors little
ROUNDING = 1e-6  # pixels by which edges differ in floating point
APART = 0.1  # intersection over union, below which a further region of a label is of others that are kept
OVERLAP = 0.4  # intersection over union, from which on the less probable of two regions is left out


class RegionError(InputError):
    """Regions that can't be told, for lack of what tells that a thing is there at all."""


@dataclass(frozen=True)
class Region:
    """A part of an image.

    Attributes:
        box: left, top, right and bottom in pixels of the upright image; right and bottom are not part of it.
        point: x and y in pixels of where the thing most likely is; it lies in the box.
        score: the largest cosine of the text and a window that contains the point.
    """

    box: Box
    point: tuple[float, float]
    score: float


@dataclass(frozen=True)
class FoundThing(Region):
    """A thing in an image.

    Attributes:
        label: what it is.
        probability: of the label among all labels, for the whole image and the region together.
    """

    label: str
    probability: float


@dataclass(frozen=True)
class Windows:
    """The windows of one image.

    Attributes:
        size: width and height of the upright image in pixels.
        boxes: (n, 4) float64, left, top, right and bottom of each in pixels.
        vectors: (n, dim) float32, their unit vectors.
    """

    size: tuple[int, int]
    boxes: NDArray[np.float64]
    vectors: Vectors

    @property
    def whole(self) -> NDArray[np.bool_]:
        """Which windows have the image's shorter side: (n,); of a square image one, the image itself."""
        return np.asarray(self._sides >= min(self.size) - ROUNDING)

    @property
    def _sides(self) -> NDArray[np.float64]:
        return np.asarray(self.boxes[:, 2] - self.boxes[:, 0])

    def best(self, text: Vectors, k: int = 1) -> list[Region]:
        """Returns the best regions for a text, the best first; there is always one, also if nothing fits.

        Args:
            text: (dim,) float32 unit vector.
            k: the most regions; those of less than AGAIN times the weight of the first are left out.
        """
        return [region for region, _ in self._regions(self.vectors @ text, k)]

    def _regions(self, scores: Vectors, k: int) -> Iterator[tuple[Region, NDArray[np.float64]]]:
        """Yields regions, each with the (n,) weights, summing to 1, of the windows that it is made of.

        Args:
            scores: (n,) float32, the cosine of each window and the text.
            k: as in `best`.
        """
        spread = SPREAD * float(scores.std()) or 1.0  # without any spread, all windows weigh alike
        weights = np.exp((scores.astype(np.float64) - scores.max()) / spread) / self._sides**2
        columns, across = _cells(self.boxes[:, 0], self.boxes[:, 2])
        rows, down = _cells(self.boxes[:, 1], self.boxes[:, 3])
        best = 0.0
        for _ in range(k):
            votes = (down * weights[:, None]).T @ across
            row, column = np.unravel_index(votes.argmax(), votes.shape)
            if votes[row, column] <= AGAIN * best:
                return
            best = best or float(votes[row, column])
            here = weights * down[:, row] * across[:, column]
            here /= here.sum()
            yield (
                Region(
                    _around(here @ self.boxes),
                    (float(columns[column]), float(rows[row])),
                    float(scores[here > 0].max()),
                ),
                here,
            )
            weights = np.where(here > 0, 0.0, weights)


def _around(box: NDArray[np.float64]) -> Box:
    """Returns the smallest box of whole pixels around a box."""
    left, top = (math.floor(float(edge) + ROUNDING) for edge in box[:2])
    right, bottom = (math.ceil(float(edge) - ROUNDING) for edge in box[2:])
    return left, top, right, bottom


def _cells(starts: NDArray[np.float64], ends: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the middles of the cells into which the edges of windows cut a side, and which windows cover them.

    Args:
        starts: (n,) first edge of each window.
        ends: (n,) last edge of each.

    Returns:
        (cells,) and (n, cells), the latter 1 where a window covers a cell, else 0.
    """
    edges = np.unique(np.concatenate([starts, ends]))
    middles = (edges[:-1] + edges[1:]) / 2
    covered = (starts[:, None] < middles) & (middles < ends[:, None])
    return middles, covered.astype(np.float64)


def boxes_of(width: int, height: int) -> NDArray[np.float64]:
    """Returns the windows of an image, (n, 4) float64: left, top, right and bottom in pixels, the largest first.

    >>> len(boxes_of(64, 64)), boxes_of(64, 64)[0].tolist(), boxes_of(96, 64)[:3, 0].tolist()
    (57, [0.0, 0.0, 64.0, 64.0], [0.0, 16.0, 32.0])

    Args:
        width: of the image.
        height: of the image.
    """
    boxes = []
    for fraction in SIDES:
        side = fraction * min(width, height)
        lefts, tops = _starts(width, side), _starts(height, side)
        boxes += [(left, top, left + side, top + side) for top in tops for left in lefts]
    return np.asarray(boxes, np.float64)


def _starts(length: int, side: float) -> list[float]:
    """Returns where windows start along one side of an image, the first at its beginning and the last at its end."""
    count = min(MOST_ALONG, math.ceil((length - side) / (STEP * side) - 1e-9) + 1)
    return [float(start) for start in np.linspace(0, length - side, count)]


def windows_of(encoder: TextSide, image: ImageLike, *, batch_size: int = 32) -> Windows:
    """Embeds the windows of an image: 57 of a square one, 101 of one of 3:2; each costs as much as an image.

    Args:
        encoder: from `load_dual_encoder`.
        image: a path, the bytes of a file, or a PIL image.
        batch_size: windows embedded at a time.

    Raises:
        ImageError: the image does not open.
        ModelError: the encoder is a text side alone.
    """
    from turkish_clip.encoder import image_side

    both = with_image_side(encoder, "look for regions")
    opened = open_image(image)
    if max(opened.size) > MOST_ALONG * min(opened.size):
        log.warning(
            "an image of %d × %d pixels is so long that parts of it are not looked at; cut it into pieces",
            opened.width,
            opened.height,
        )
    boxes = boxes_of(*opened.size)
    small = _reduced(opened, image_side(both.image))
    scale = min(small.size) / min(opened.size)
    crops = (small.crop(_pixels(box * scale, small.size)) for box in boxes)
    batches = both.embed_images(crops, batch_size=batch_size, decode_processes=0)
    return Windows(opened.size, boxes, np.concatenate([batch.vectors for batch in batches]))


def _reduced(image: Image.Image, side: int | None) -> Image.Image:
    """Returns an image no larger than DETAIL times what its smallest windows need for the side that the model takes."""
    scale = 1.0 if side is None else DETAIL * side / (min(image.size) * SIDES[-1])
    if scale >= 1:
        return image
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), reducing_gap=3)


def _pixels(box: NDArray[np.float64], size: tuple[int, int]) -> Box:
    """Returns a box in whole pixels, at least one wide and high, within a size."""
    left, top = (min(round(float(edge)), length - 1) for edge, length in zip(box[:2], size))
    right, bottom = (min(round(float(edge)), length) for edge, length in zip(box[2:], size))
    return left, top, max(right, left + 1), max(bottom, top + 1)


def find_regions(encoder: TextSide, image: ImageLike, text: str, k: int = 1) -> list[Region]:
    """Returns the regions of an image that fit a text best, the best first; there is always one.

    >>> find_regions(load_dual_encoder("org/turkish-clip"), photo, "kırmızı araba")  # doctest: +SKIP
    [Region(box=(310, 220, 618, 471), ...)]

    Args:
        encoder: from `load_dual_encoder`.
        image: a path, the bytes of a file, or a PIL image.
        text: what to look for.
        k: the most regions.

    Raises:
        ImageError: the image does not open.
        TextError: the text is not UTF-8.
        ModelError: the encoder is a text side alone.
    """
    return windows_of(encoder, image).best(encoder.encode_texts([text])[0], k)


def shows(windows: Windows, text: Vectors, bank: TextBank | None) -> bool | None:
    """Returns whether an image shows somewhere what a text says, by the whole of it; None without a text bank.

    Args:
        windows: of the image.
        text: (dim,) float32 unit vector.
        bank: of the text encoder.
    """
    if bank is None:
        return None
    from turkish_clip.cutoff import Cutoff

    return bool(Cutoff(bank).distances(text, windows.vectors[windows.whole]).max() >= PRESENT)


class ThingFinder:
    """Finds things of several labels in images, and where they are.

    A label is looked for in an image that may show it: whose whole stands out for the label by PRESENT standard
    deviations among the texts of the text bank, or whose cosine with it is at least the classifier's `reject_below`,
    where it has one. Its best region is kept if the label is the most probable there, and of two that overlap the more
    probable one; then its further regions, where nothing else is.

    Args:
        classifier: has the labels and the temperature; its encoder has an image side.

    Raises:
        RegionError: the model has no text bank, and the classifier no `reject_below`.
        ModelError: the classifier's encoder is a text side alone.
    """

    def __init__(self, classifier: ZeroShotClassifier) -> None:
        from turkish_clip.cutoff import Cutoff

        self.encoder: DualEncoder = with_image_side(classifier.encoder, "look for things")
        self._classifier = classifier
        self._least = classifier.reject_below
        bank = self.encoder.bank if self._least is None else None
        self._cutoff = None if bank is None else Cutoff(bank)
        if self._least is None and self._cutoff is None:
            raise RegionError(
                f"expected a model with a text bank, which tells whether a thing is there at all, got "
                f"{self.encoder.text_name} without one; name the cosine from which on it is: reject_below "
                "(--reject-below)"
            )

    def find(self, image: ImageLike) -> list[FoundThing]:
        """Returns the things in an image: of each label the best, the most certain first, then further ones.

        Args:
            image: a path, the bytes of a file, or a PIL image.

        Raises:
            ImageError: the image does not open.
        """
        return self.find_in(windows_of(self.encoder, image))

    def find_in(self, windows: Windows) -> list[FoundThing]:
        """Returns the things in an image of which the windows are known, as `find` does."""
        vectors = self._classifier.label_vectors
        scores = windows.vectors @ vectors.T
        whole = scores[windows.whole].max(axis=0)
        best: list[tuple[float, FoundThing]] = []  # with the mean of the two cosines, by which equals are ordered
        further: list[tuple[float, FoundThing]] = []
        for number in np.flatnonzero(self._may_show(windows, whole)):
            for place, (region, weights) in enumerate(windows._regions(scores[:, number], MOST_OF_A_LABEL)):
                together = (whole + weights @ scores) / 2
                probability = float(softmax(together[None] / self._classifier.temperature)[0, number])
                if probability >= MIN_PROBABILITY:
                    label = self._classifier.labels[number]
                    thing = FoundThing(region.box, region.point, region.score, label, probability)
                    (further if place else best).append((float(together[number]), thing))
        kept = without_overlap(_surest_first(best))
        labels = {thing.label for thing in kept}
        return without_overlap(
            [*kept, *(thing for thing in _surest_first(further) if thing.label in labels)], APART, len(kept)
        )

    def _may_show(self, windows: Windows, whole: Vectors) -> NDArray[np.bool_]:
        """Returns which labels an image may show: (labels,).

        Args:
            windows: of the image.
            whole: (labels,) cosines with the whole image.
        """
        if self._cutoff is None:
            return np.asarray(whole >= np.float64(self._least or 0.0))
        images = windows.vectors[windows.whole]
        away = [self._cutoff.distances(vector, images).max() for vector in self._classifier.label_vectors]
        return np.asarray(away) >= PRESENT


def _surest_first(things: Sequence[tuple[float, FoundThing]]) -> list[FoundThing]:
    """Returns things by falling probability, those of the same one by falling cosine."""
    return [thing for _, thing in sorted(things, key=lambda pair: (-pair[1].probability, -pair[0]))]


def without_overlap(things: Sequence[FoundThing], overlap: float = OVERLAP, sure: int = 0) -> list[FoundThing]:
    """Leaves out each thing whose box overlaps that of an earlier one that is kept (non-maximum suppression).

    Args:
        things: the best first.
        overlap: intersection over union from which on two boxes overlap.
        sure: how many of the first are kept in any case.
    """
    kept = list(things[:sure])
    for thing in things[sure:]:
        if all(intersection_over_union(thing.box, other.box) < overlap for other in kept):
            kept.append(thing)
    return kept


def intersection_over_union(one: Sequence[float], other: Sequence[float]) -> float:
    """Returns the area that two boxes share, as a fraction of the area that they cover together.

    >>> intersection_over_union((0, 0, 2, 2), (1, 0, 3, 2)), intersection_over_union((0, 0, 1, 1), (1, 0, 2, 1))
    (0.3333333333333333, 0.0)

    Args:
        one: left, top, right, bottom.
        other: the same.
    """
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    shared = width * height
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in (cast(Box, one), cast(Box, other))]
    return shared / (sum(areas) - shared)
