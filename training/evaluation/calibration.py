"""The temperature of zero-shot probabilities, fitted on validation images; how far these can be believed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.samples import Row
from training.data.sources import Captions
from training.distillation.dataset import with_embeddings
from training.embeddings.store import ImageEmbeddings, deduplicate
from training.run.config import EvaluateConfig
from turkish_clip.atomic import write_json
from turkish_clip.dual_encoder import DEFAULT_TEMPERATURE
from turkish_clip.metrics import Relevance, Vectors
from turkish_clip.templates import PHOTOGRAPHS, fill
from turkish_clip.verify import RECORD
from turkish_clip.zero_shot import prompt_averages, softmax

CANDIDATES_PER_IMAGE = 10  # captions that an image chooses among, where there are no labels
ROUNDS = 20  # of drawing a caption for each image, and groups of images
LOWEST, HIGHEST = 1e-3, 1.0
STEPS = 40  # of the golden section: the bracket shrinks to a billionth
BINS = 15
PAIRS = 20_000  # of images and captions of others, drawn
PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Candidates:
    """What images chose among: of each choice the cosines, and which of them is right.

    Attributes:
        cosines: (n, c) float64; -inf where a text would be right, too, and is not on offer.
        right: (n,) int64, the column of the right text.
        kind: "labels" or "captions".
    """

    cosines: NDArray[np.float64]
    right: NDArray[np.int64]
    kind: str


def label_candidates(labels: Vectors, images: Vectors, right: Sequence[Sequence[int]]) -> Candidates:
    """A choice for each image and each label that is right for it, among that one and all that are not.

    Args:
        labels: (c, dim) float32 unit vectors.
        images: (p, dim) float32 unit vectors.
        right: of each image its labels' numbers.
    """
    cosines, columns = [], []
    for scores, own in zip((images @ labels.T).astype(np.float64), right):
        for column in own:
            offered = scores.copy()
            offered[[other for other in own if other != column]] = -np.inf
            cosines.append(offered)
            columns.append(column)
    return Candidates(np.stack(cosines), np.array(columns, np.int64), "labels")


def caption_candidates(relevance: Relevance, texts: Vectors, images: Vectors, *, seed: int = 0) -> Candidates:
    """Images choose among ten captions, their own and those of nine others, drawn twenty times.

    Args:
        relevance: which texts belong to which images.
        texts: (t, dim) float32 unit vectors.
        images: (p, dim) float32 unit vectors, at least ten.
        seed: of the drawing.
    """
    rng = np.random.default_rng(seed)
    groups = []
    for _ in range(ROUNDS):
        order = rng.permutation(len(images))
        for start in range(0, len(order) - CANDIDATES_PER_IMAGE + 1, CANDIDATES_PER_IMAGE):
            rows = order[start : start + CANDIDATES_PER_IMAGE]
            columns = [int(rng.choice(relevance.texts_of[row])) for row in rows]
            scores = (images[rows] @ texts[columns].T).astype(np.float64)
            for place, row in enumerate(rows):  # another image's caption that is right for this one, too
                for other, column in enumerate(columns):
                    if other != place and column in relevance.texts_of[row]:
                        scores[place, other] = -np.inf
            groups.append(scores)
    return Candidates(np.concatenate(groups), np.tile(np.arange(CANDIDATES_PER_IMAGE), len(groups)), "captions")


def fit_temperature(candidates: Candidates) -> float:
    """The temperature at which the right texts negative_log_likelihood least.

    Returns:
        What minimises the mean negative log-likelihood of softmax(cosine / temperature).
        Source: Guo et al., On Calibration of Modern Neural Networks, 2017, section 4.2.
    """

    def negative_log_likelihood(log_temperature: float) -> float:
        logits = candidates.cosines / np.exp(log_temperature)
        highest = logits.max(axis=1)
        total = highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1))
        return float((total - logits[np.arange(len(logits)), candidates.right]).mean())

    return float(np.exp(_lowest_point(negative_log_likelihood, float(np.log(LOWEST)), float(np.log(HIGHEST)))))


def reliability(candidates: Candidates, temperature: float) -> dict[str, Any]:
    """How sure images are of the best text, and how often it is right, at one temperature.

    Returns:
        `accuracy`, `expected_calibration_error` (Source: Guo et al. 2017, equation 3; 15 bins of equal width) and
        `bins`: of each that is not empty the mean confidence, the accuracy and the share of the choices, all fractions
        of 1.
    """
    probabilities = softmax(candidates.cosines / temperature)
    confidence = probabilities.max(axis=1)
    accuracy = (probabilities.argmax(axis=1) == candidates.right).astype(np.float64)
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    bins = [
        {
            "confidence": float(confidence[place == number].mean()),
            "accuracy": float(accuracy[place == number].mean()),
            "fraction": float((place == number).mean()),
        }
        for number in sorted(set(place.tolist()))
    ]
    error = sum(found["fraction"] * abs(found["confidence"] - found["accuracy"]) for found in bins)
    return {"accuracy": float(accuracy.mean()), "expected_calibration_error": float(error), "bins": bins}


def cosine_percentiles(relevance: Relevance, texts: Vectors, images: Vectors, *, seed: int = 0) -> dict[str, Any]:
    """What a cosine means: percentiles of those of images with their own captions, and with captions of others.

    Returns:
        `percentiles`, and at each the cosine of `right` and of `wrong` pairs; empty where every text is right.
    """
    rng = np.random.default_rng(seed)
    own = [(image, text) for image, mine in enumerate(relevance.texts_of) for text in mine]
    right = np.array([float(images[image] @ texts[text]) for image, text in own])
    image, text = rng.integers(0, len(images), PAIRS), rng.integers(0, len(texts), PAIRS)
    wrong = (images[image] * texts[text]).sum(axis=1)
    wrong = wrong[[one not in relevance.texts_of[other] for one, other in zip(text.tolist(), image.tolist())]]
    return {
        "percentiles": list(PERCENTILES),
        "right": [float(value) for value in np.percentile(right, PERCENTILES)],
        "wrong": [float(value) for value in np.percentile(wrong, PERCENTILES)] if len(wrong) else [],
    }


def _lowest_point(value: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one valley is lowest, by the golden section.

    >>> round(_lowest_point(lambda x: (x - 2) ** 2, 0, 5), 6)
    2.0
    """
    for _ in range(STEPS):
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        if value(left) < value(right):
            high = right
        else:
            low = left
    return (low + high) / 2


Encode = Callable[[list[str]], Vectors]  # texts → (n, dim) float32 unit vectors


def calibrate(
    encode: Encode, captions: Captions, rows: Sequence[Row], embeddings: ImageEmbeddings, config: EvaluateConfig
) -> dict[str, Any]:
    """The temperature of zero-shot probabilities, fitted on the validation split; left beside the run's own model.

    It is measured on `rows`, those of the measured split.

    Images choose among the source's labels, put into the templates of zero-shot classification, where the rows have
    any; among captions where not, which tell more than a label does, so that the temperature comes out too sure for
    labels.

    Returns:
        `temperature`: its value, the images that it was fitted on, among what these chose, how many choices there
        were, and on the measured split the share of choices that are right, and how far probabilities can be believed
        with the default temperature (`before`) and with it (`after`); empty where either split has too few images.
    """
    fitted_on = deduplicate(with_embeddings(captions.rows.of_split("validation"), embeddings), embeddings)
    labels = list(dict.fromkeys(label for row in (*fitted_on, *rows) for label in row.labels))
    named = [[row for row in some if 0 < len(row.labels) < len(labels)] for some in (fitted_on, rows)]
    if min(map(len, named)) < CANDIDATES_PER_IMAGE:
        labels = []
    else:
        fitted_on, rows = named
    candidates_of = partial(_candidates, encode, embeddings, labels)
    fitting, measured = candidates_of(fitted_on), candidates_of(rows)
    if fitting is None or measured is None:
        return {}
    temperature = round(fit_temperature(fitting), 6)
    if not config.model:
        write_json(config.folder / "model" / RECORD, {"temperature": temperature})
    found: dict[str, Any] = {
        "value": temperature,
        "images": len(fitted_on),
        "candidate_kind": fitting.kind,
        "candidates": fitting.cosines.shape[1],
        "accuracy": reliability(measured, temperature)["accuracy"],
    }
    if config.split != "validation":  # on which it was fitted
        found["calibration"] = {
            "before": reliability(measured, DEFAULT_TEMPERATURE),
            "after": reliability(measured, temperature),
        }
    return {"temperature": found}


def _candidates(
    encode: Encode, embeddings: ImageEmbeddings, labels: list[str], rows: Sequence[Row]
) -> Candidates | None:
    """What images choose among: labels if there are any, else captions; None where there are too few of them."""
    if len(rows) < CANDIDATES_PER_IMAGE:
        return None
    images = embeddings.unit_rows([row.image_id for row in rows])
    if labels:
        vectors = prompt_averages(encode, [[fill(template, label) for template in PHOTOGRAPHS] for label in labels])
        return label_candidates(vectors, images, [[labels.index(label) for label in row.labels] for row in rows])
    relevance = Relevance.of([row.captions for row in rows])
    return caption_candidates(relevance, encode(relevance.texts), images)
