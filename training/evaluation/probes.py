"""Probes of what retrieval hides: forced choices, the spread over prompts, and the shift between slices of a split."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.samples import Negative, Row
from training.evaluation.calibration import Encode
from training.evaluation.results import Estimate, Figures, Probe, Probed, PromptSpread, Slice
from training.evaluation.retrieval import Split
from training.run.config import EvaluateConfig
from turkish_clip.metrics import (
    SCORES_PER_CHUNK,
    Relevance,
    Retrieval,
    Vectors,
    bootstrap_means,
    interval,
    ranks,
    unit,
)
from turkish_clip.templates import PHOTOGRAPHS, fill

log = logging.getLogger("training")
CHANCE = 0.5  # of two texts
PAIRS_AT_ONCE = 8192  # whose vectors are held in float64, 34 MB each at a width of 512
FEWEST_IMAGES = 10  # of a slice: among fewer, nearly everything is found

Values = NDArray[np.float64]


def has_english(row: Row) -> bool:
    """Returns whether an image has an English caption, or a negative in English, for the teacher."""
    return bool(row.english) or any(map(_is_bilingual, row.negatives))


class Remembered:
    """An encoder that encodes each distinct text once."""

    def __init__(self, encode: Encode, texts: Sequence[str] = (), vectors: Vectors | None = None) -> None:
        """Takes the encoder, and texts that it has encoded with their (n, dim) float32 unit vectors."""
        self.encode = encode
        self.known: dict[str, Vectors] = {} if vectors is None else dict(zip(texts, vectors, strict=True))

    def __call__(self, texts: list[str]) -> Vectors:
        """Returns the (n, dim) float32 unit vectors of n texts, at least one."""
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        if new:
            self.known.update(zip(new, self.encode(new), strict=True))
        return np.stack([self.known[text] for text in texts])


def measure_probed(
    student: Encode, teacher: Encode | None, split: Split, rows: Sequence[Row], config: EvaluateConfig
) -> Probed:
    """Measures what a split's negatives, labels and slices allow.

    Args:
        student: encodes Turkish texts.
        teacher: encodes English texts; None leaves the teacher out.
        split: from `measure`.
        rows: that it was measured on.
        config: gives the number of bootstrap samples.
    """
    turkish = Remembered(student, split.relevance.texts, split.texts)
    english = None if teacher is None else Remembered(teacher)
    return Probed(
        probes=measure_probes(turkish, english, rows, split.images, config),
        prompts=measure_prompts(student, rows, split.images, config),  # of many labels, not to be remembered
        slices=measure_slices(turkish, english, rows, split.images, config),
    )


def measure_probes(
    student: Encode, teacher: Encode | None, rows: Sequence[Row], images: Vectors, config: EvaluateConfig
) -> dict[str, Probe]:
    """Measures each probe of a split: how often an image is nearer to its caption than to the caption's false change.

    Sources: Thrush et al., Winoground, 2022 (text score); Yuksekgonul et al., When and Why Vision-Language Models
    Behave like Bags-Of-Words, 2023; Hsieh et al., SugarCrepe, 2023.

    Args:
        student: encodes Turkish texts.
        teacher: encodes English texts; None leaves the teacher out.
        rows: of the split, each image once.
        images: (n, dim) float32 unit vectors of the rows' images, in order.
        config: gives the number of bootstrap samples.
    """
    pairs: dict[str, list[tuple[int, Negative]]] = {}
    for number, row in enumerate(rows):
        for negative in row.negatives:
            pairs.setdefault(negative.probe, []).append((number, negative))
    english = {name: own for name, own in pairs.items() if all(_is_bilingual(negative) for _, negative in own)}
    turkish_hits = _hits(student, pairs, images, lambda negative: (negative.caption, negative.negative))
    english_hits: dict[str, Values] = {}
    if teacher is not None and english:
        english_hits = _hits(teacher, english, images, lambda negative: (negative.caption_en, negative.negative_en))
    probes = {}
    for name, own in pairs.items():
        numbers = [number for number, _ in own]
        probes[name] = Probe(
            pairs=len(own),
            images=len(set(numbers)),
            chance=CHANCE,
            student=_estimate(turkish_hits[name], numbers, config),
            teacher=_estimate(english_hits[name], numbers, config) if name in english_hits else None,
        )
    return probes


def _is_bilingual(negative: Negative) -> bool:
    return bool(negative.caption_en and negative.negative_en)


def _hits(
    encode: Encode,
    pairs: dict[str, list[tuple[int, Negative]]],
    images: Vectors,
    texts_of: Callable[[Negative], tuple[str, str]],
) -> dict[str, Values]:
    """Returns the outcome of each probe's choices, as `forced_choices` has it; each distinct text is encoded once."""
    texts = [texts_of(negative) for own in pairs.values() for _, negative in own]
    place = {text: number for number, text in enumerate(dict.fromkeys(text for both in texts for text in both))}
    vectors = encode(list(place)) if place else images[:0]
    hits = {}
    for name, own in pairs.items():
        numbers = np.array([(number, *map(place.__getitem__, texts_of(negative))) for number, negative in own])
        parts = np.split(numbers, range(PAIRS_AT_ONCE, len(numbers), PAIRS_AT_ONCE))
        hits[name] = np.concatenate(
            [forced_choices(images[part[:, 0]], vectors[part[:, 1]], vectors[part[:, 2]]) for part in parts]
        )
    return hits


def forced_choices(images: Vectors, captions: Vectors, negatives: Vectors) -> Values:
    """Returns for each image 1 where its caption has the higher cosine, 0 where the negative has, and ½ for equal ones.

    >>> forced_choices(np.eye(2)[[0, 0, 0]], np.eye(2)[[0, 1, 1]], np.eye(2)[[1, 0, 1]]).tolist()
    [1.0, 0.0, 0.5]

    Args:
        images: (n, dim) float32 unit vectors.
        captions: (n, dim) float32 unit vectors of a true caption of each.
        negatives: (n, dim) float32 unit vectors of a false one. NaN is never right.
    """
    margins = np.einsum("ij,ij->i", images.astype(np.float64), captions.astype(np.float64) - negatives)
    return np.where(margins > 0, 1.0, np.where(margins == 0, 0.5, 0.0))


def _estimate(values: Values, image_numbers: Sequence[int], config: EvaluateConfig) -> Estimate:
    """Returns the mean of the values of queries about images, with its interval."""
    drawn = _drawn_means(values, image_numbers, config)
    return Estimate(float(values.mean()), interval(drawn) if len(drawn) else None)


def _drawn_means(values: Values, image_numbers: Sequence[int], config: EvaluateConfig, seed: int = 0) -> Values:
    """Returns the mean of the values in each bootstrap sample."""
    return bootstrap_means({"": values}, image_numbers, bootstrap_samples=config.bootstrap_samples, seed=seed)[""]


def measure_prompts(
    encode: Encode, rows: Sequence[Row], images: Vectors, config: EvaluateConfig
) -> PromptSpread | None:
    """Measures zero-shot accuracy among the labels with each template, and with all; None where no image has labels.

    As in the calibration, an image chooses once for each of its labels: among that label and all that are not its own.

    Args:
        encode: encodes Turkish texts.
        rows: of the split, each image once.
        images: (n, dim) float32 unit vectors of the rows' images, in order.
        config: gives the number of bootstrap samples.
    """
    labels = list(dict.fromkeys(label for row in rows for label in row.labels))
    place = {label: number for number, label in enumerate(labels)}
    numbers = [number for number, row in enumerate(rows) if 0 < len(row.labels) < len(labels)]
    if not numbers:
        return None
    correct = [[place[label] for label in rows[number].labels] for number in numbers]
    accuracy: dict[str, float] = {}
    total: NDArray[np.float32] = np.zeros((len(labels), images.shape[1]), np.float32)
    for template in PHOTOGRAPHS:
        vectors = encode([fill(template, label) for label in labels])
        accuracy[template] = float(label_hits(vectors, images[numbers], correct).mean())
        total += vectors
    choosing = [number for number, own in zip(numbers, correct) for _ in own]
    values = list(accuracy.values())
    return PromptSpread(
        images=len(numbers),
        labels=len(labels),
        chance=float(np.mean([1 / (len(labels) - len(own) + 1) for own in correct for _ in own])),
        templates=accuracy,
        mean=float(np.mean(values)),
        min=min(values),
        max=max(values),
        standard_deviation=float(np.std(values, ddof=1)),
        ensemble=_estimate(label_hits(unit(total), images[numbers], correct), choosing, config),
    )


def label_hits(labels: Vectors, images: Vectors, correct: Sequence[Sequence[int]]) -> Values:
    """Returns 1 for each image and each of its labels that has a higher cosine than all that are not the image's.

    Args:
        labels: (c, dim) float32 unit vectors.
        images: (n, dim) float32 unit vectors.
        correct: for each image the rows of its labels, fewer than c.

    Returns:
        (choices,) float64 of 0 and 1, image by image. Of equal cosines the wrong one counts as higher.
    """
    hits = []
    step = max(1, SCORES_PER_CHUNK // len(labels))
    for start in range(0, len(images), step):
        part = correct[start : start + step]
        scores = images[start : start + step] @ labels.T
        image_of = np.repeat(np.arange(len(part)), [len(own) for own in part])
        own = np.concatenate([np.asarray(one, dtype=np.int64) for one in part])
        cosines = scores[image_of, own]
        scores[image_of, own] = -np.inf
        hits.append((cosines > scores.max(axis=1)[image_of]).astype(np.float64))
    return np.concatenate(hits)


@dataclass(frozen=True)
class Part:
    """Some images with their texts: (n, dim) float32 unit vectors of the distinct texts and of the images."""

    relevance: Relevance
    texts: Vectors
    images: Vectors


@dataclass(frozen=True)
class Side:
    """A split's images and their texts in one language, encoded once, of which parts are measured.

    Attributes:
        captions: of each image.
        place: text → its row in `texts`.
    """

    captions: Sequence[Sequence[str]]
    place: dict[str, int]
    texts: Vectors
    images: Vectors

    @classmethod
    def of(cls, captions: Sequence[Sequence[str]], images: Vectors, encode: Encode) -> Side:
        """Encodes the texts.

        Args:
            captions: of each image, at least one.
            images: (n, dim) float32 unit vectors.
            encode: encodes the texts.
        """
        place = {text: number for number, text in enumerate(dict.fromkeys(text for own in captions for text in own))}
        return cls(captions, place, encode(list(place)), images)

    def part(self, members: Sequence[int]) -> Part:
        """Returns the images of these numbers, with their texts."""
        relevance = Relevance.from_captions([self.captions[number] for number in members])
        texts = self.texts[[self.place[text] for text in relevance.texts]]
        return Part(relevance, texts, self.images[list(members)])


def measure_slices(
    student: Encode, teacher: Encode | None, rows: Sequence[Row], images: Vectors, config: EvaluateConfig
) -> dict[str, Slice]:
    """Measures the retrieval of each slice of a split among its own images, and its difference from all other images.

    Args:
        student: encodes Turkish texts.
        teacher: encodes English texts; it is measured where every image has one, and None leaves it out.
        rows: of the split, each image once.
        images: (n, dim) float32 unit vectors of the rows' images, in order.
        config: gives the number of bootstrap samples.
    """
    members: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        for name in row.slices:
            members.setdefault(name, []).append(number)
    measured = {name: own for name, own in members.items() if len(own) >= FEWEST_IMAGES}
    if few := [name for name in members if name not in measured]:
        log.info("not measured, with fewer than %d images: %d slices, such as %s", FEWEST_IMAGES, len(few), few[0])
    if not measured:
        return {}
    sides = {"": Side.of([row.captions for row in rows], images, student)}
    if teacher is not None and all(row.english for row in rows):
        sides["teacher_"] = Side.of([row.english for row in rows], images, teacher)
    return {name: _measured_slice(sides, own, len(rows), config) for name, own in measured.items()}


def _measured_slice(sides: dict[str, Side], members: list[int], total: int, config: EvaluateConfig) -> Slice:
    """Measures one slice on each side; the keys of `sides` begin the names of their figures."""
    others = sorted(set(range(total)) - set(members))
    figures: dict[str, Any] = {"images": len(members)}
    shift: dict[str, Estimate] = {}
    for prefix, side in sides.items():
        part = side.part(members)
        figures[f"{prefix}captions"] = len(part.relevance.texts)
        figures |= {f"{prefix}{way}": measured for way, measured in _both_ways(part, config).items()}
        if len(others) >= FEWEST_IMAGES:
            rest = side.part(others)
            shift |= {f"{prefix}{way}": found for way, found in _shift(part, rest, config).items()}
    return Slice(**vars(Figures(**figures)), shift=shift)


def _both_ways(part: Part, config: EvaluateConfig) -> dict[str, Retrieval]:
    """Returns the retrieval metrics of a part in both directions."""
    samples = config.bootstrap_samples
    return {
        "text_to_image": part.relevance.text_to_image(part.texts, part.images, bootstrap_samples=samples),
        "image_to_text": part.relevance.image_to_text(part.texts, part.images, bootstrap_samples=samples),
    }


def _shift(part: Part, rest: Part, config: EvaluateConfig) -> dict[str, Estimate]:
    """Returns for both directions recall@1 of a part less that of the rest, in galleries of one size."""
    shift = {}
    for way in ("text_to_image", "image_to_text"):
        gallery = min(len(part.images), len(rest.images))
        if way == "image_to_text":
            gallery = min(len(part.texts), len(rest.texts))
        means, draws = [], []
        for seed, one in enumerate((part, rest)):  # drawn independently
            if way == "text_to_image":
                hits = recall_in_gallery(one.texts, one.images, one.relevance.images_of, gallery)
                image_numbers = [owners[0] for owners in one.relevance.images_of]
            else:
                hits = recall_in_gallery(one.images, one.texts, one.relevance.texts_of, gallery)
                image_numbers = list(range(len(hits)))
            means.append(float(hits.mean()))
            draws.append(_drawn_means(hits, image_numbers, config, seed))
        differences = draws[0] - draws[1]
        shift[way] = Estimate(means[0] - means[1], interval(differences) if len(differences) else None)
    return shift


def recall_in_gallery(queries: Vectors, candidates: Vectors, relevant: Sequence[Sequence[int]], gallery: int) -> Values:
    """Returns for each query the probability that a relevant candidate ranks first in a random gallery.

    The gallery has the query's relevant candidates, and irrelevant ones drawn from the others without replacement. Of n
    irrelevant candidates of which b rank before the best relevant one, d are drawn, none of the b with probability
    C(n − b, d) / C(n, d).

    Args:
        queries: (q, dim) float32 unit vectors.
        candidates: (c, dim) float32 unit vectors.
        relevant: for each query the row numbers of its relevant candidates, at least one.
        gallery: number of candidates in the gallery.

    Returns:
        (q,) float64; with a gallery of all candidates 1 where a relevant one ranks first and 0 elsewhere.
    """
    from scipy.special import gammaln

    before = ranks(queries, candidates, relevant) - 1
    sizes = np.array([len(rows) for rows in relevant])
    irrelevant = len(candidates) - sizes
    drawn = np.clip(gallery - sizes, 0, irrelevant)
    left = irrelevant - before - drawn  # candidates that rank behind and are not drawn
    logarithm = gammaln(irrelevant - before + 1) - gammaln(np.maximum(left, 0) + 1)
    logarithm += gammaln(irrelevant - drawn + 1) - gammaln(irrelevant + 1)
    return np.where(left < 0, 0.0, np.exp(np.minimum(logarithm, 0.0)))
