"""The fast metrics equal naive ones, and degenerate encoders score nothing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from turkish_clip import metrics
from turkish_clip.metrics import (
    METRIC_NAMES,
    Relevance,
    bootstrap_means,
    hub_scores,
    hubness,
    interval,
    ranks,
    ratio_interval,
    recall_by_chance,
    summarise,
    unit,
    with_penalties,
)


def naive_rank(scores: list[float], right: list[int]) -> int:
    best = max(scores[i] for i in right)
    return 1 + sum(1 for i, score in enumerate(scores) if i not in right and score >= best)


def test_chance_is_what_random_orders_find() -> None:
    rng = np.random.default_rng(0)
    relevant = [[0], [1, 2, 3], [4, 5], list(range(30))]
    found = dict.fromkeys(METRIC_NAMES[:3], 0.0)
    for _ in range(4000):
        rank = [int(np.argsort(rng.permutation(30))[right].min()) for right in relevant]
        for name, k in zip(found, (1, 5, 10)):
            found[name] += sum(place < k for place in rank) / 4 / 4000
    assert recall_by_chance(relevant, 30) == pytest.approx(found, abs=0.02)
    assert recall_by_chance([[0], [1]], 2) == {"recall_at_1": 0.5, "recall_at_5": 1.0, "recall_at_10": 1.0}


def test_the_interval_of_a_ratio() -> None:
    ones, half = np.ones(200, bool), np.tile([False, True], 100)
    low, high = ratio_interval(half, ones, range(200), bootstrap_samples=500) or (0, 0)
    assert (low, high) == pytest.approx((0.43, 0.57), abs=0.02)  # 0.5 ± 1.96 · sqrt(0.25 / 200)
    assert ratio_interval(half, ones, range(200), bootstrap_samples=0) is None
    nine = np.arange(200) < 9  # of fewer than ten images: (z²/2 + 9 ∓ z·sqrt(9·191/200 + z²/4)) / (200 + z²)
    assert ratio_interval(nine, nine, range(200), bootstrap_samples=500) == pytest.approx(
        (0.0239 / 0.0833, 0.0833 / 0.0239), rel=0.01
    )
    alone = np.ones(1, bool)
    assert ratio_interval(alone, alone, [7], bootstrap_samples=1) == pytest.approx((0.2065, 1 / 0.2065), rel=0.001)
    low, high = ratio_interval(half, ones, np.arange(200) // 20, bootstrap_samples=500) or (0, 0)
    assert (low, high) == (0.5, 0.5)  # ten images, each with half of its queries


def test_ranks_equal_naive_ones_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    queries, candidates = unit(rng.normal(size=(40, 8))), unit(rng.normal(size=(25, 8)))
    right = [sorted(rng.choice(25, size=rng.integers(1, 4), replace=False).tolist()) for _ in range(40)]
    scores = queries @ candidates.T
    expected = [naive_rank(scores[i].tolist(), right[i]) for i in range(40)]
    assert ranks(queries, candidates, right).tolist() == expected
    monkeypatch.setattr(metrics, "SCORES_PER_CHUNK", 60)
    assert ranks(queries, candidates, right).tolist() == expected


def test_a_collapsed_encoder_finds_nothing() -> None:
    same = unit(np.ones((30, 4)))
    result = Relevance.from_captions([[f"text {i}"] for i in range(30)]).text_to_image(same, same)
    assert result.recall_at_1 == result.recall_at_5 == result.recall_at_10 == 0
    assert result.median_rank == 30


def test_an_encoder_that_gives_nan_finds_nothing() -> None:
    images = unit(np.eye(8))
    texts = np.full((8, 8), np.nan, dtype=np.float32)
    relevance = Relevance.from_captions([[f"text {i}"] for i in range(8)])
    assert relevance.text_to_image(texts, images).recall_at_5 == 0
    assert relevance.image_to_text(texts, images).recall_at_5 == 0


def test_an_encoder_that_matches_every_image_finds_everything() -> None:
    eye = unit(np.eye(12))
    relevance = Relevance.from_captions([[f"text {i}"] for i in range(12)])
    forth, back = relevance.text_to_image(eye, eye), relevance.image_to_text(eye, eye)
    assert forth.recall_at_1 == back.recall_at_1 == forth.mrr == 1.0
    assert forth.median_rank == 1.0


def test_known_ranks_give_known_metrics() -> None:
    result = summarise(np.array([1, 2, 6, 20]), [0, 1, 2, 3])
    assert (result.recall_at_1, result.recall_at_5, result.recall_at_10) == (0.25, 0.5, 0.75)
    assert result.mrr == pytest.approx((1 + 1 / 2 + 1 / 6 + 1 / 20) / 4)
    assert result.median_rank == 4.0


def test_metric_names_are_what_is_averaged_and_resampled() -> None:
    result = summarise(np.array([1, 2]), [0, 1], bootstrap_samples=2)
    assert METRIC_NAMES == tuple(result.ci95) == ("recall_at_1", "recall_at_5", "recall_at_10", "mrr")
    assert [field.name for field in dataclasses.fields(result)] == [*METRIC_NAMES, "median_rank", "ci95"]


def test_several_captions_are_ranked_against_distinct_images() -> None:
    relevance = Relevance.from_captions([["bir kuş", "kuş"], ["ev", "bir ev"], ["top"]])
    images = unit(np.eye(3))
    texts = images[[0, 0, 1, 1, 2]]
    assert relevance.text_to_image(texts, images).recall_at_1 == 1.0
    assert relevance.image_to_text(texts, images).recall_at_1 == 1.0


def test_a_text_of_two_images_is_relevant_to_both() -> None:
    relevance = Relevance.from_captions([["kalp", "kırmızı kalp"], ["kalp"], ["ev"]])
    assert relevance.texts == ["kalp", "kırmızı kalp", "ev"]
    assert relevance.texts_of == [[0, 1], [0], [2]]
    images = unit(np.eye(3))
    assert relevance.text_to_image(images[[1, 0, 2]], images).recall_at_1 == 1.0


def test_intervals_contain_the_mean_and_are_reproducible() -> None:
    rng = np.random.default_rng(1)
    rank = rng.integers(1, 12, size=200)
    first = summarise(rank, np.arange(200) // 2, bootstrap_samples=300)
    low, high = first.ci95["recall_at_1"]
    assert low < first.recall_at_1 < high
    assert first == summarise(rank, np.arange(200) // 2, bootstrap_samples=300)


def test_intervals_draw_images_not_captions() -> None:
    rank = np.repeat(np.random.default_rng(2).integers(1, 3, size=50), 10)
    clustered = summarise(rank, np.repeat(np.arange(50), 10), bootstrap_samples=400).ci95["recall_at_1"]
    independent = summarise(rank, np.arange(500), bootstrap_samples=400).ci95["recall_at_1"]
    assert clustered[1] - clustered[0] > 2 * (independent[1] - independent[0])


def test_the_bootstrap_takes_all_queries_of_an_image_or_none() -> None:
    """Image 0 has the values 1 and 1, image 1 the value 0: samples of two images have a mean of 1, 2/3 or 0."""
    drawn = bootstrap_means({"a": np.array([1.0, 0.0, 1.0])}, [0, 1, 0], bootstrap_samples=2000)["a"]
    fractions = [float(np.isclose(drawn, mean).mean()) for mean in (0, 2 / 3, 1)]
    assert sum(fractions) == 1
    assert fractions == pytest.approx([1 / 4, 1 / 2, 1 / 4], abs=0.04)
    assert interval(drawn) == (0.0, 1.0)
    assert interval(np.arange(101.0)) == (2.5, 97.5)


@pytest.mark.filterwarnings("error")
def test_images_without_a_query_are_not_drawn() -> None:
    """Three captions of forty images belong to images 0, 14 and 28; a sample of the others alone would be 0 / 0."""
    values = {"a": np.array([1.0, 0.0, 0.0])}
    drawn = bootstrap_means(values, [0, 14, 28], bootstrap_samples=2000)["a"]
    assert drawn.tolist() == bootstrap_means(values, [0, 1, 2], bootstrap_samples=2000)["a"].tolist()
    assert set(np.round(drawn * 3).tolist()) == {0, 1, 2, 3}
    captions = [[("bir kuş", "bir ev", "bir araba")[number // 14]] for number in range(40)]
    eye = unit(np.eye(40))
    found = Relevance.from_captions(captions).text_to_image(eye[:3], eye, bootstrap_samples=50)
    assert all(np.isfinite(ends).all() for ends in found.ci95.values())


def test_errors_name_the_numbers() -> None:
    eye = unit(np.eye(3))
    with pytest.raises(ValueError, match="each of 3 queries"):
        ranks(eye, eye, [[0], [1]])
    with pytest.raises(ValueError, match="at least one query"):
        summarise(np.array([], dtype=np.int64), [])


def test_unit_keeps_zero_rows_and_returns_float32() -> None:
    rows = unit(np.array([[3.0, 4.0], [0.0, 0.0]]))
    assert rows.dtype == np.float32
    assert rows.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0.0, 0.0]]


def naive_skewness(counts: np.ndarray) -> float:
    deviations = counts - counts.mean()
    return float(np.mean(deviations**3) / np.mean(deviations**2) ** 1.5)


def test_hubness_of_one_hub_and_of_none() -> None:
    even = np.eye(6, dtype=np.float32)
    assert hubness(even, even, k=1) == 0.0
    rng = np.random.default_rng(0)
    queries, candidates = unit(rng.standard_normal((40, 8))), unit(rng.standard_normal((12, 8)))
    nearest = np.argsort(-(queries @ candidates.T), axis=1)[:, :3]
    assert hubness(queries, candidates, k=3) == pytest.approx(
        naive_skewness(np.bincount(nearest.ravel(), minlength=12))
    )
    assert hubness(np.tile(candidates[:1], (9, 1)), candidates, k=1) == pytest.approx(
        naive_skewness(np.array([9] + [0] * 11))
    )


def test_the_hub_score_is_the_mean_of_the_largest_cosines(monkeypatch: pytest.MonkeyPatch) -> None:
    references = np.array([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]], np.float32)
    candidates = np.array([[1, 0], [0.8, 0.6]], np.float32)  # cosines 1, 0, 0.6, -1 and 0.8, 0.6, 0.96, -0.8
    assert hub_scores(candidates, references, 2) == pytest.approx([0.8, 0.88])
    assert hub_scores(candidates, references, 1) == pytest.approx([1, 0.96])
    assert hub_scores(candidates, references, 9) == pytest.approx([0.15, 0.39])  # all four
    monkeypatch.setattr("turkish_clip.metrics.SCORES_PER_CHUNK", 4)
    assert hub_scores(candidates, references, 2) == pytest.approx([0.8, 0.88])
    assert hub_scores(candidates[:0], references).shape == (0,)


def test_a_penalty_moves_a_hub_behind_the_answer() -> None:
    """The hub at 45° is nearest to both queries; less half its hub score, each finds its own candidate."""
    queries = unit(np.array([[1, 0.5], [0.5, 1]]))
    candidates = unit(np.array([[1, 0], [0, 1], [1, 1]]))
    relevant = [[0], [1]]
    assert ranks(queries, candidates, relevant).tolist() == [2, 2]
    penalties = 0.5 * hub_scores(candidates, queries, 2)  # CSLS: the references are the queries
    corrected = with_penalties(queries, candidates, penalties)
    cosine, own, hub = 2 / 5**0.5, (2 + 1) / 2 / 5**0.5, 3 / 10**0.5
    assert corrected[0] @ corrected[1].T == pytest.approx(
        np.array([[cosine, cosine / 2, hub], [cosine / 2, cosine, hub]]) - [own / 2, own / 2, hub / 2], abs=1e-6
    )
    assert ranks(*corrected, relevant).tolist() == [1, 1]
