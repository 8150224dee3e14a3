"""The fitted temperature is the one that the scores were made with."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.calibration import (
    Candidates,
    caption_candidates,
    cosine_percentiles,
    fit_temperature,
    label_candidates,
    reliability,
    temperature_doubts,
)
from turkish_clip.metrics import Relevance, unit
from turkish_clip.reading import Caution


@pytest.mark.parametrize("noise", [0.5, 1.5])
def test_the_fitted_temperature_is_the_best_one_and_grows_with_noise(noise: float) -> None:
    rng = np.random.default_rng(0)
    images = unit(rng.standard_normal((200, 64)).astype(np.float32))
    texts = unit(images + noise * rng.standard_normal((200, 64)).astype(np.float32))
    relevance = Relevance.from_captions([[str(number)] for number in range(200)])
    best = fit_temperature(caption_candidates(relevance, texts, images))
    assert best == fit_temperature(caption_candidates(relevance, texts, images))

    def negative_log_likelihood(temperature: float) -> float:
        total = 0.0
        for start in range(0, 200, 10):
            logits = images[start : start + 10] @ texts[start : start + 10].T / temperature
            total += float((np.log(np.exp(logits).sum(axis=1)) - np.diag(logits)).mean())
        return total

    assert negative_log_likelihood(best) < negative_log_likelihood(best * 2)
    assert negative_log_likelihood(best) < negative_log_likelihood(best / 2)
    if noise > 1:
        clear = unit(images + 0.5 * rng.standard_normal((200, 64)).astype(np.float32))
        assert best > fit_temperature(caption_candidates(relevance, clear, images))


def test_a_caption_of_several_images_is_never_a_wrong_candidate() -> None:
    images = unit(np.eye(20, dtype=np.float32))
    relevance = Relevance.from_captions([["aynı"] for _ in range(20)])
    candidates = caption_candidates(relevance, images[:1], images)
    assert fit_temperature(candidates) > 0
    found = reliability(candidates, 1.0)
    assert found.pop("accuracy") == 1.0
    assert found == {"expected_calibration_error": 0.0, "bins": [{"confidence": 1.0, "accuracy": 1.0, "fraction": 1.0}]}


def test_calibration_error_by_hand() -> None:
    """Ten images have the same confidence; three captions are swapped, so seven choices are right."""
    images = np.eye(10, dtype=np.float32)
    swapped = [1, 2, 0, *range(3, 10)]
    relevance = Relevance.from_captions([[str(number)] for number in range(10)])
    temperature = 0.5
    confidence = np.exp(2) / (np.exp(2) + 9)
    found = reliability(caption_candidates(relevance, images[swapped], images), temperature)
    assert found["accuracy"] == pytest.approx(0.7)
    assert [found["bins"][0][name] for name in ("confidence", "accuracy", "fraction")] == pytest.approx(
        [confidence, 0.7, 1.0]
    )
    assert found["expected_calibration_error"] == pytest.approx(abs(confidence - 0.7))


def test_fitting_lowers_the_calibration_error() -> None:
    rng = np.random.default_rng(0)
    images = unit(rng.standard_normal((400, 32)))
    texts = unit(images + 1.2 * rng.standard_normal((400, 32)))
    relevance = Relevance.from_captions([[str(number)] for number in range(400)])
    best = fit_temperature(caption_candidates(relevance, texts, images))
    others = caption_candidates(relevance, texts, images, seed=1)
    after = reliability(others, best)["expected_calibration_error"]
    assert after < 0.05 < reliability(others, best / 5)["expected_calibration_error"]


def test_an_image_with_two_labels_chooses_each_without_the_other() -> None:
    labels = np.eye(3, dtype=np.float32)
    images = unit(np.array([[0.0, 0.0, 1.0], [3.0, 4.0, 0.0]], np.float32))
    candidates = label_candidates(labels, images, [[2], [0, 1]])
    expected = [[0, 0, 1], [0.6, -np.inf, 0], [-np.inf, 0.8, 0]]
    assert candidates.cosines == pytest.approx(np.array(expected))
    assert candidates.correct.tolist() == [2, 0, 1]
    confidence = [np.exp(2) / (np.exp(2) + 2), np.exp(1.2) / (np.exp(1.2) + 1), np.exp(1.6) / (np.exp(1.6) + 1)]
    assert reliability(candidates, 0.5)["accuracy"] == 1.0
    assert reliability(candidates, 0.5)["expected_calibration_error"] == pytest.approx(1 - np.mean(confidence))


def choices(right: int, wrong: int, spread: float) -> Candidates:
    """Choices among four candidates, of which the right one is nearer by `spread`, or farther."""
    cosines = np.zeros((right + wrong, 4))
    cosines[:, 0] = [spread] * right + [-spread] * wrong
    return Candidates(cosines, np.zeros(right + wrong, np.int64), "labels")


@pytest.mark.parametrize(
    ("candidates", "labels", "doubt"),
    [
        (choices(90, 10, 0.1), ["kedi", "at", "yeşil araba"], ""),
        (choices(100, 0, 0.1), ["kedi", "at"], "the best one is at a bound of those that are tried (0.001 to 1)"),
        (choices(25, 75, 0.1), ["kedi"], "the labels are right no more often than by chance (25.0%, chance 25.0%)"),
        (choices(32, 68, 0.1), ["kedi"], "the labels are right no more often than by chance (32.0%, chance 25.0%)"),
        (choices(90, 10, 0.1), ["cat", "at", "red car"], "the labels seem to be English (cat, red car)"),
    ],
)
def test_a_temperature_that_means_nothing_is_doubted(candidates: Candidates, labels: list[str], doubt: str) -> None:
    doubts = temperature_doubts(candidates, fit_temperature(candidates), labels)
    assert any(text.startswith(doubt) for text in doubts) if doubt else not doubts


@pytest.mark.parametrize(
    ("unread", "doubted"),
    [
        ([Caution("unknown", ("Blume", "Haus"), ("Blume", "Haus"))], True),
        ([Caution("unknown", ("Blume",), ("Blume",)), Caution("partly unknown", ("rotes Auto",), ("rotes",))], True),
        ([Caution("empty", ("—", "…"))], True),
        ([Caution("unknown", ("Blume",), ("Blume",))], False),  # one in six: a rare word
        ([Caution("cut", ("Blume", "Haus", "kedi"), (), 4)], False),
    ],
)
def test_labels_that_the_text_encoder_does_not_know_are_doubted_in_any_language(
    unread: list[Caution], doubted: bool
) -> None:
    candidates, labels = (
        choices(90, 10, 0.1),
        ["Blume", "Haus", "kedi", "rotes Auto", "—", "…"][: 5 + ("…" in str(unread))],
    )
    doubts = temperature_doubts(candidates, fit_temperature(candidates), labels, unread)
    assert len(doubts) == doubted
    if doubted:
        assert f"the text encoder does not know 2 of {len(labels)} labels" in doubts[0]


def test_percentiles_of_cosines() -> None:
    images = unit(np.eye(20, dtype=np.float32))
    relevance = Relevance.from_captions([[str(number)] for number in range(20)])
    found = cosine_percentiles(relevance, images, images)
    assert found["matching"] == pytest.approx([1.0] * 7)
    assert found["non_matching"] == pytest.approx([0.0] * 7)
