"""Retrieval metrics over unit vectors: ranks, recall@k, MRR, median rank, intervals, hubness and its correction."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RECALL_AT = (1, 5, 10)
# The metrics that are averaged over queries, as fields and JSON keys → as people read them.
METRIC_LABELS = {"recall_at_1": "recall@1", "recall_at_5": "recall@5", "recall_at_10": "recall@10", "mrr": "MRR"}
METRIC_NAMES = tuple(METRIC_LABELS)
SCORES_PER_CHUNK = 16_000_000  # float32 scores held at a time: 64 MB
# The hub score of a candidate is the mean of so many largest cosines to reference queries. This fraction of it is taken
# off the candidate's cosines: larger fractions gain a little more where the references are like the queries, and lose
# where they are not (training/README.md).
HUB_NEIGHBOURS, HUB_WEIGHT = 10, 0.5
FEWEST_RESAMPLED = 10  # images of which a bootstrap gives the interval of a ratio

Vectors = NDArray[np.float32]
Ranks = NDArray[np.int64]


@dataclass(frozen=True)
class Retrieval:
    """The retrieval metrics of one direction: fractions of 1, and the median of ranks from 1.

    Attributes:
        ci95: for each of METRIC_NAMES the 2.5th and 97.5th percentile of a bootstrap over images; empty without one.
    """

    recall_at_1: float
    recall_at_5: float
    recall_at_10: float
    mrr: float
    median_rank: float
    ci95: dict[str, tuple[float, float]]


def unit(vectors: NDArray[np.floating]) -> Vectors:
    """Scales each row of (n, dim) to norm 1 as float32; a zero row stays zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, np.finfo(np.float32).tiny), dtype=np.float32)


def ranks(queries: Vectors, candidates: Vectors, relevant: Sequence[Sequence[int]]) -> Ranks:
    """Returns the rank of each query's best relevant candidate among all irrelevant ones.

    An irrelevant candidate with the same score ranks before the relevant one, so an encoder that maps everything to
    one vector finds nothing. A vector that is not finite finds nothing either.

    Args:
        queries: (q, dim) float32 unit vectors.
        candidates: (c, dim) float32 unit vectors.
        relevant: for each query the row numbers of its relevant candidates, at least one.

    Returns:
        (q,) int64 ranks, 1 is best.

    Raises:
        ValueError: `relevant` does not have one non-empty entry for each query.
    """
    if len(relevant) != len(queries) or not all(len(rows) for rows in relevant):
        raise ValueError(
            f"expected at least one relevant candidate for each of {len(queries)} queries, got {len(relevant)}"
        )
    result = np.empty(len(queries), dtype=np.int64)
    step = max(1, SCORES_PER_CHUNK // max(1, len(candidates)))
    for start in range(0, len(queries), step):
        chunk = relevant[start : start + step]
        scores = queries[start : start + step] @ candidates.T
        query_of = np.repeat(np.arange(len(chunk)), [len(rows) for rows in chunk])
        relevant_of = np.concatenate([np.asarray(rows, dtype=np.int64) for rows in chunk])
        best = np.full(len(chunk), -np.inf, dtype=scores.dtype)
        np.fmax.at(best, query_of, scores[query_of, relevant_of])
        scores[query_of, relevant_of] = -np.inf
        result[start : start + step] = 1 + (~(scores < best[:, None])).sum(axis=1)  # NaN is never less
    return result


def _per_query(rank: Ranks) -> dict[str, NDArray[np.float64]]:
    """Returns what each query contributes to each averaged metric: (q,) float64 per metric."""
    hits = [(rank <= k).astype(np.float64) for k in RECALL_AT]
    return dict(zip(METRIC_NAMES, [*hits, 1.0 / rank], strict=True))


def summarise(rank: Ranks, image_numbers: Sequence[int], *, bootstrap_samples: int = 0, seed: int = 0) -> Retrieval:
    """Averages ranks into metrics, with percentile intervals from a bootstrap over clusters.

    Queries about one image are not independent, so the bootstrap draws images, not queries.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.

    Args:
        rank: (q,) int64 from `ranks`.
        image_numbers: for each query the number of its image, from 0.
        bootstrap_samples: how many times to resample; 0 leaves the intervals out.
        seed: of the resampling.

    Raises:
        ValueError: there is no query.
    """
    if len(rank) == 0:
        raise ValueError("expected at least one query to measure, got none")
    values = _per_query(rank)
    means = {name: float(value.mean()) for name, value in values.items()}
    intervals: dict[str, tuple[float, float]] = {}
    if bootstrap_samples:
        drawn = bootstrap_means(values, image_numbers, bootstrap_samples=bootstrap_samples, seed=seed)
        intervals = {name: interval(means) for name, means in drawn.items()}
    return Retrieval(**means, median_rank=float(np.median(rank)), ci95=intervals)


def bootstrap_means(
    values: Mapping[str, NDArray[np.float64]], image_numbers: Sequence[int], *, bootstrap_samples: int, seed: int = 0
) -> dict[str, NDArray[np.float64]]:
    """Returns the mean of each metric in each sample of a bootstrap over images: (bootstrap_samples,) per metric.

    Only images that have a query are drawn: a sample of others would have no mean.

    Args:
        values: for each metric what each query contributes, (q,) float64.
        image_numbers: for each query the number of its image, from 0.
        bootstrap_samples: how many times to resample.
        seed: of the resampling.
    """
    numbers, clusters = np.unique(np.asarray(image_numbers, dtype=np.int64), return_inverse=True)
    count = len(numbers)
    sizes = np.bincount(clusters, minlength=count).astype(np.float64)
    sums = {name: np.bincount(clusters, weights=value, minlength=count) for name, value in values.items()}
    rng = np.random.default_rng(seed)
    drawn = {name: np.empty(bootstrap_samples) for name in values}
    for sample in range(bootstrap_samples):
        picked = rng.integers(0, count, size=count)
        total = sizes[picked].sum()
        for name in values:
            drawn[name][sample] = sums[name][picked].sum() / total
    return drawn


def interval(drawn: NDArray[np.float64]) -> tuple[float, float]:
    """Returns the ends of the 95 % percentile interval of a metric's values in bootstrap samples."""
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def ratio_interval(
    parts: NDArray[np.bool_],
    wholes: NDArray[np.bool_],
    image_numbers: Sequence[int],
    *,
    bootstrap_samples: int,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Returns the 95 % interval of sum(parts) / sum(wholes) from a bootstrap over images; None without samples.

    With wholes of fewer than ten images, of which resampling would know too little, it is the wider one between the
    ends of the Wilson intervals of the two means, as if these were independent.

    Args:
        parts: whether each query counts in the numerator, (q,).
        wholes: whether it counts in the denominator, (q,), one at least.
        image_numbers: for each query the number of its image.
        bootstrap_samples: how many times to resample.
        seed: of the resampling.
    """
    if not bootstrap_samples:
        return None
    clusters = np.asarray(image_numbers)
    if len(np.unique(clusters[wholes])) < FEWEST_RESAMPLED:
        part, whole = (wilson_interval(int(hits.sum()), len(hits)) for hits in (parts, wholes))
        return part[0] / whole[1], part[1] / whole[0]
    values = {"parts": parts.astype(np.float64), "wholes": wholes.astype(np.float64)}
    drawn = bootstrap_means(values, clusters.tolist(), bootstrap_samples=bootstrap_samples, seed=seed)
    there = drawn["wholes"] > 0
    return interval(drawn["parts"][there] / drawn["wholes"][there])


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """Returns the 95 % interval of a fraction, which has a width also where all or none are hits.

    Source: Wilson, Probable Inference, the Law of Succession, and Statistical Inference, Journal of the American
    Statistical Association 22, 1927.

    >>> low, high = wilson_interval(1, 1)
    >>> round(low, 3), round(high, 3)
    (0.207, 1.0)

    Args:
        hits: how many.
        count: of how many, one at least.
    """
    z = 1.959964
    middle = (hits + z * z / 2) / (count + z * z)
    half = z * math.sqrt(hits * (count - hits) / count + z * z / 4) / (count + z * z)
    return max(0.0, middle - half), min(1.0, middle + half)


def recall_by_chance(relevant: Sequence[Sequence[int]], candidates: int) -> dict[str, float]:
    """Returns recall@k of a random order: of a query with r right ones among n candidates 1 - C(n - r, k) / C(n, k).

    >>> recall_by_chance([[0], [1, 2]], 10)["recall_at_1"]
    0.15

    Args:
        relevant: for each query the numbers of its right candidates.
        candidates: how many there are.
    """
    result, sizes = {}, Counter(map(len, relevant))
    for name, k in zip(METRIC_NAMES, RECALL_AT):
        misses = sum(
            count * math.comb(candidates - right, k) / math.comb(candidates, k) if k <= candidates else 0.0
            for right, count in sizes.items()
        )
        result[name] = round(1 - misses / len(relevant), 12)
    return result


def hubness(queries: Vectors, candidates: Vectors, k: int = 10) -> float:
    """Returns the skewness of how often each candidate is among a query's k nearest: above 1, some are hubs.

    It is 0 where all candidates are retrieved equally often.

    Source: Radovanović et al., Hubs in Space, Journal of Machine Learning Research 11, 2010, section 2.

    Args:
        queries: (q, dim) float32 unit vectors, at least one.
        candidates: (c, dim) float32 unit vectors, at least one.
        k: neighbours of each query; at most the number of candidates is used.
    """
    from scipy.stats import skew  # half a second, which the other metrics do not need

    k = min(k, len(candidates))
    counts = np.zeros(len(candidates), dtype=np.int64)
    step = max(1, SCORES_PER_CHUNK // len(candidates))
    for start in range(0, len(queries), step):
        scores = queries[start : start + step] @ candidates.T
        nearest = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        counts += np.bincount(nearest.ravel(), minlength=len(candidates))
    return float(skew(counts)) if np.ptp(counts) else 0.0


def hub_scores(candidates: Vectors, references: Vectors, neighbours: int = HUB_NEIGHBOURS) -> Vectors:
    """Returns the mean of each candidate's largest cosines to reference queries, (c,) float32: high for hubs.

    Source: Chowdhury et al., Nearest Neighbor Normalization Improves Multimodal Retrieval, EMNLP 2024, section 3. With
    the measured queries themselves as the references, and half of it taken off, candidates are ordered as by CSLS
    (Conneau et al., Word Translation Without Parallel Data, ICLR 2018, section 2.3).

    Args:
        candidates: (c, dim) float32 unit vectors.
        references: (r, dim) float32 unit vectors, at least one.
        neighbours: how many cosines are averaged; at most the number of references.
    """
    neighbours = min(neighbours, len(references))
    result = np.empty(len(candidates), np.float32)
    step = max(1, SCORES_PER_CHUNK // len(references))
    for start in range(0, len(candidates), step):
        cosines = candidates[start : start + step] @ references.T
        largest = np.partition(cosines, len(references) - neighbours, axis=1)[:, -neighbours:]
        result[start : start + step] = largest.mean(axis=1)
    return result


def with_penalties(queries: Vectors, candidates: Vectors, penalties: Vectors) -> tuple[Vectors, Vectors]:
    """Appends a coordinate to each vector, so that a dot product is the cosine less the penalty of the candidate.

    `ranks` and `hubness` then measure the corrected scores.

    Args:
        queries: (q, dim) float32 unit vectors.
        candidates: (c, dim) float32 unit vectors.
        penalties: (c,) float32.
    """
    ones = np.ones((len(queries), 1), np.float32)
    return np.hstack([queries, ones]), np.hstack([candidates, -penalties[:, None]])


@dataclass(frozen=True)
class Relevance:
    """Which distinct texts are relevant to which distinct images.

    A text that captions several images is relevant to each of them; an image is found by any of its texts.

    Attributes:
        texts: the distinct texts, in order of first use.
        images_of: for each text the numbers of its images.
        texts_of: for each image the numbers of its texts.
    """

    texts: list[str]
    images_of: list[list[int]]
    texts_of: list[list[int]]

    @classmethod
    def from_captions(cls, captions: Sequence[Sequence[str]]) -> Relevance:
        """Builds the relation from the captions of each image.

        >>> Relevance.from_captions([["bir kuş", "mavi kuş"], ["bir kuş"]]).images_of
        [[0, 1], [0]]
        """
        number: dict[str, int] = {}
        images_of: list[list[int]] = []
        texts_of: list[list[int]] = []
        for image, texts in enumerate(captions):
            mine = []
            for text in dict.fromkeys(texts):
                if text not in number:
                    number[text] = len(number)
                    images_of.append([])
                images_of[number[text]].append(image)
                mine.append(number[text])
            texts_of.append(mine)
        return cls(list(number), images_of, texts_of)

    def text_to_image(self, texts: Vectors, images: Vectors, *, bootstrap_samples: int = 0, seed: int = 0) -> Retrieval:
        """Measures how well each text finds one of its images among all images.

        Args:
            texts: (t, dim) float32 unit vectors of `texts`, in order.
            images: (i, dim) float32 unit vectors of the images, in order.
            bootstrap_samples: as in `summarise`.
            seed: as in `summarise`.
        """
        rank = ranks(texts, images, self.images_of)
        image_numbers = [owners[0] for owners in self.images_of]
        return summarise(rank, image_numbers, bootstrap_samples=bootstrap_samples, seed=seed)

    def image_to_text(self, texts: Vectors, images: Vectors, *, bootstrap_samples: int = 0, seed: int = 0) -> Retrieval:
        """Measures how well each image finds any of its texts among all texts.

        Args:
            texts: (t, dim) float32 unit vectors of `texts`, in order.
            images: (i, dim) float32 unit vectors of the images, in order.
            bootstrap_samples: as in `summarise`.
            seed: as in `summarise`.
        """
        rank = ranks(images, texts, self.texts_of)
        return summarise(rank, range(len(rank)), bootstrap_samples=bootstrap_samples, seed=seed)
