"""The temperature of zero-shot probabilities, fitted on validation images, and how well calibrated they are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.samples import Row
from training.data.sources import Captions
from training.embeddings.store import ImageEmbeddings, deduplicate
from training.pairs.dataset import without_skipped
from training.run.config import EvaluateConfig
from turkish_clip.metrics import Relevance, Vectors
from turkish_clip.reading import Caution, TextReader, listed
from turkish_clip.templates import PHOTOGRAPHS, fill
from turkish_clip.text_side import DEFAULT_TEMPERATURE
from turkish_clip.zero_shot import prompt_averages, softmax

log = logging.getLogger("training")
CANDIDATES_PER_IMAGE = 10  # captions per choice where there are no labels
ROUNDS = 20  # each draws a caption for every image and puts the images into groups
LOWEST, HIGHEST = 1e-3, 1.0  # temperatures that are tried
BINS = 15
PAIRS = 20_000  # drawn pairs of an image and another image's caption
PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
AS_GOOD = 1e-6  # nats: if LOWEST or HIGHEST are as good as the fitted temperature, it was not found between them
CHANCE_ERRORS = 1.645  # standard errors above chance that are more than chance: 5 %, one-sided
FOREIGN_FRACTION = 0.3  # of the labels, from which on they are of another language
UNREAD = ("unknown", "partly unknown", "empty")  # kinds of cautions about labels that the vocabulary does not know
# Words of common English labels that are no Turkish words: classes of COCO, CIFAR and Fashion-MNIST, colours, others.
ENGLISH_WORDS = frozenset(
    "the and with airplane animal apple backpack bag banana bear bed bench bicycle bird black blue boat book bottle "
    "bowl brown building bus cake car cat chair child clock cloud coat cow cup deer dog dress elephant fire fish "
    "flower food fork frog giraffe girl green grey horse house keyboard kite knife laptop man motorcycle mountain "
    "mouse orange person pink pizza plane plant red river road sandal sandwich sea sheep ship shirt shoe sign sink "
    "sky snow sofa spoon stop street suitcase sun table tie toilet traffic train tree truck umbrella vase water "
    "white woman yellow zebra".split()
)

Encode = Callable[[list[str]], Vectors]  # texts → (n, dim) float32 unit vectors


@dataclass(frozen=True)
class Candidates:
    """The candidate texts of n choices: their cosines to the image, and which of them is right.

    Attributes:
        cosines: (n, c) float64; -inf where another text would be right, too, and is no candidate.
        correct: (n,) int64, the column of the right text.
        kind: "labels" or "captions".
    """

    cosines: NDArray[np.float64]
    correct: NDArray[np.int64]
    kind: str


def label_candidates(labels: Vectors, images: Vectors, correct: Sequence[Sequence[int]]) -> Candidates:
    """Returns one choice for each image and each of its labels: among that label and all that are not the image's.

    Args:
        labels: (c, dim) float32 unit vectors.
        images: (p, dim) float32 unit vectors.
        correct: for each image the rows of its labels.
    """
    cosines, columns = [], []
    for scores, own in zip((images @ labels.T).astype(np.float64), correct):
        for column in own:
            offered = scores.copy()
            offered[[other for other in own if other != column]] = -np.inf
            cosines.append(offered)
            columns.append(column)
    return Candidates(np.stack(cosines), np.array(columns, np.int64), "labels")


def caption_candidates(relevance: Relevance, texts: Vectors, images: Vectors, *, seed: int = 0) -> Candidates:
    """Draws twenty times for each image ten candidate captions: one of its own and one of each of nine other images.

    Args:
        relevance: which texts belong to which images.
        texts: (t, dim) float32 unit vectors.
        images: (p, dim) float32 unit vectors, at least ten.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    groups = []
    for _ in range(ROUNDS):
        order = rng.permutation(len(images))
        for start in range(0, len(order) - CANDIDATES_PER_IMAGE + 1, CANDIDATES_PER_IMAGE):
            rows = order[start : start + CANDIDATES_PER_IMAGE]
            columns = [int(rng.choice(relevance.texts_of[row])) for row in rows]
            scores = (images[rows] @ texts[columns].T).astype(np.float64)
            for place, row in enumerate(rows):  # another image's caption may be right for this one, too
                for other, column in enumerate(columns):
                    if other != place and column in relevance.texts_of[row]:
                        scores[place, other] = -np.inf
            groups.append(scores)
    return Candidates(np.concatenate(groups), np.tile(np.arange(CANDIDATES_PER_IMAGE), len(groups)), "captions")


def fit_temperature(candidates: Candidates) -> float:
    """Returns the temperature that minimises the mean negative log-likelihood of softmax(cosines / temperature).

    Source: Guo et al., On Calibration of Modern Neural Networks, 2017, section 4.2.
    """
    from scipy.optimize import minimize_scalar

    bounds = (np.log(LOWEST), np.log(HIGHEST))
    found = minimize_scalar(
        lambda logarithm: _negative_log_likelihood(candidates, np.exp(logarithm)),
        method="bounded",
        bounds=bounds,
        options={"xatol": 1e-9},
    )
    return float(np.exp(found.x))


def _negative_log_likelihood(candidates: Candidates, temperature: float) -> float:
    """Returns the mean over the choices, in nats."""
    from scipy.special import logsumexp

    logits = candidates.cosines / temperature
    return float((logsumexp(logits, axis=1) - logits[np.arange(len(logits)), candidates.correct]).mean())


def temperature_doubts(
    candidates: Candidates, temperature: float, labels: Sequence[str], cautions: Sequence[Caution] = ()
) -> list[str]:
    """Returns why a temperature means nothing, in words for people; empty where it means something.

    Args:
        candidates: the choices that it was fitted on.
        temperature: the fitted one.
        labels: the class labels that are the candidates; empty where captions are.
        cautions: what the text encoder does not read of the labels.
    """
    doubts = []
    found = _negative_log_likelihood(candidates, temperature)
    if any(_negative_log_likelihood(candidates, bound) <= found + AS_GOOD for bound in (LOWEST, HIGHEST)):
        doubts.append(f"the best one is at a bound of those that are tried ({LOWEST:g} to {HIGHEST:g})")
    chances = 1 / np.isfinite(candidates.cosines).sum(axis=1)
    right = (candidates.cosines.argmax(axis=1) == candidates.correct).mean()
    chance, error = chances.mean(), np.sqrt((chances * (1 - chances)).sum()) / len(chances)
    if right <= chance + CHANCE_ERRORS * error:
        doubts.append(
            f"the {candidates.kind} are right no more often than by chance ({right:.1%}, chance {chance:.1%})"
        )
    few = max(1, FOREIGN_FRACTION * len(labels))
    foreign = [label for label in labels if not ENGLISH_WORDS.isdisjoint(label.lower().split())]
    if len(foreign) >= few:
        doubts.append(f"the labels seem to be English ({', '.join(foreign[:3])}), and the templates are Turkish")
    unread = {label for caution in cautions if caution.kind in UNREAD for label in caution.texts}
    unread_labels = [label for label in labels if label in unread]
    if len(unread_labels) >= few:
        doubts.append(
            f"the text encoder does not know {len(unread_labels)} of {len(labels)} labels ({listed(unread_labels)}), "
            "which may be of another language than its texts"
        )
    return doubts


def reliability(candidates: Candidates, temperature: float) -> dict[str, Any]:
    """Compares the probabilities of the most probable candidates at one temperature with how often these are right.

    Args:
        candidates: n choices.
        temperature: by which cosines are divided before the softmax.

    Returns:
        `accuracy`, `expected_calibration_error` (Source: Guo et al. 2017, equation 3; 15 bins of equal width) and
        `bins`: for each non-empty one the mean `confidence`, the `accuracy` and the `fraction` of the choices in it.
    """
    probabilities = softmax(candidates.cosines / temperature)
    confidence = probabilities.max(axis=1)
    accuracy = (probabilities.argmax(axis=1) == candidates.correct).astype(np.float64)
    bin_of = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    bins = [
        {
            "confidence": float(confidence[bin_of == number].mean()),
            "accuracy": float(accuracy[bin_of == number].mean()),
            "fraction": float((bin_of == number).mean()),
        }
        for number in sorted(set(bin_of.tolist()))
    ]
    error = sum(one["fraction"] * abs(one["confidence"] - one["accuracy"]) for one in bins)
    return {"accuracy": float(accuracy.mean()), "expected_calibration_error": float(error), "bins": bins}


def cosine_percentiles(relevance: Relevance, texts: Vectors, images: Vectors, *, seed: int = 0) -> dict[str, Any]:
    """Returns percentiles of the cosines of images with their own captions, and with captions of other images.

    Args:
        relevance: which texts belong to which images.
        texts: (t, dim) float32 unit vectors.
        images: (p, dim) float32 unit vectors.
        seed: of the draws of non-matching pairs.

    Returns:
        `percentiles`, and at each the cosine of `matching` and of `non_matching` pairs (empty where all texts match).
    """
    rng = np.random.default_rng(seed)
    own = [(image, text) for image, mine in enumerate(relevance.texts_of) for text in mine]
    matching = np.array([float(images[image] @ texts[text]) for image, text in own])
    image, text = rng.integers(0, len(images), PAIRS), rng.integers(0, len(texts), PAIRS)
    others = (images[image] * texts[text]).sum(axis=1)
    others = others[[one not in relevance.texts_of[other] for one, other in zip(text.tolist(), image.tolist())]]
    return {
        "percentiles": list(PERCENTILES),
        "matching": [float(value) for value in np.percentile(matching, PERCENTILES)],
        "non_matching": [float(value) for value in np.percentile(others, PERCENTILES)] if len(others) else [],
    }


def calibrate(
    encode: Encode,
    reader: TextReader | None,
    captions: Captions,
    rows: Sequence[Row],
    embeddings: ImageEmbeddings,
    config: EvaluateConfig,
) -> dict[str, Any]:
    """Fits the temperature of zero-shot probabilities on the validation split and measures it on `rows`.

    The candidates are the source's labels, filled into the zero-shot templates, where the rows have any; else captions,
    which describe an image more fully, so that a temperature fitted on captions is overconfident for labels.

    Args:
        encode: texts → (n, dim) float32 unit vectors.
        reader: finds what the text encoder does not read; None where its tokenizer does not show it.
        captions: the source, of which the validation split is used.
        rows: those of the measured split.
        embeddings: the image embeddings of both splits.
        config: names the measured split.

    Returns:
        The temperature `tried` and its `value`, None where `doubts` say why it means nothing, the number of `images`
        that it was fitted on, the `candidate_kind`, the number of `candidates` per choice, the `accuracy` on the
        measured split, and `calibration` there with the default temperature (`before`) and with the fitted one
        (`after`), left out where it was fitted on that split. Empty where either split has too few images.
    """
    fitted_on = deduplicate(without_skipped(captions.rows.of_split("validation"), embeddings), embeddings)
    labels = list(dict.fromkeys(label for row in (*fitted_on, *rows) for label in row.labels))
    labelled = [[row for row in part if 0 < len(row.labels) < len(labels)] for part in (fitted_on, rows)]
    if min(map(len, labelled)) < CANDIDATES_PER_IMAGE:
        labels = []
    else:
        fitted_on, rows = labelled
    candidates_of = partial(_candidates, encode, embeddings, labels)
    fitting, measured = candidates_of(fitted_on), candidates_of(rows)
    if fitting is None or measured is None:
        return {}
    temperature = round(fit_temperature(fitting), 6)
    doubts = temperature_doubts(fitting, temperature, labels, [] if reader is None else reader.cautions(labels))
    if doubts:
        log.warning("no temperature of zero-shot probabilities is stored: %s; CLIP's own is used", "; ".join(doubts))
    result: dict[str, Any] = {
        "value": None if doubts else temperature,
        "tried": temperature,
        "doubts": doubts,
        "images": len(fitted_on),
        "candidate_kind": fitting.kind,
        "candidates": fitting.cosines.shape[1],
        "accuracy": reliability(measured, temperature)["accuracy"],
    }
    if config.split != "validation":  # on which it was fitted
        result["calibration"] = {
            "before": reliability(measured, DEFAULT_TEMPERATURE),
            "after": reliability(measured, temperature),
        }
    return result


def _candidates(
    encode: Encode, embeddings: ImageEmbeddings, labels: list[str], rows: Sequence[Row]
) -> Candidates | None:
    """Returns the rows' candidates: labels if there are any, else captions; None where there are too few rows."""
    if len(rows) < CANDIDATES_PER_IMAGE:
        return None
    images = embeddings.unit_rows([row.image_id for row in rows])
    if labels:
        vectors = prompt_averages(encode, [[fill(template, label) for template in PHOTOGRAPHS] for label in labels])
        return label_candidates(vectors, images, [[labels.index(label) for label in row.labels] for row in rows])
    relevance = Relevance.from_captions([row.captions for row in rows])
    return caption_candidates(relevance, encode(relevance.texts), images)
