"""The fitted temperature is the one that the scores were made with."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.calibration import (
    choices_among_captions,
    choices_among_labels,
    cosine_percentiles,
    fit_temperature,
    reliability,
)
from turkish_clip.metrics import Relevance, unit


@pytest.mark.parametrize("noise", [0.5, 1.5])
def test_noisier_vectors_want_a_higher_temperature_and_it_is_the_best_one(noise: float) -> None:
    rng = np.random.default_rng(0)
    pictures = unit(rng.standard_normal((200, 64)).astype(np.float32))
    texts = unit(pictures + noise * rng.standard_normal((200, 64)).astype(np.float32))
    relevance = Relevance.of([[str(number)] for number in range(200)])
    best = fit_temperature(choices_among_captions(relevance, texts, pictures))
    assert best == fit_temperature(choices_among_captions(relevance, texts, pictures))

    def surprise(temperature: float) -> float:
        total = 0.0
        for start in range(0, 200, 10):
            logits = pictures[start : start + 10] @ texts[start : start + 10].T / temperature
            total += float((np.log(np.exp(logits).sum(axis=1)) - np.diag(logits)).mean())
        return total

    assert surprise(best) < surprise(best * 2)
    assert surprise(best) < surprise(best / 2)
    if noise > 1:
        clear = unit(pictures + 0.5 * rng.standard_normal((200, 64)).astype(np.float32))
        assert best > fit_temperature(choices_among_captions(relevance, clear, pictures))


def test_a_caption_of_two_pictures_is_no_wrong_answer() -> None:
    pictures = unit(np.eye(20, dtype=np.float32))
    relevance = Relevance.of([["aynı"] for _ in range(20)])
    choices = choices_among_captions(relevance, pictures[:1], pictures)
    assert fit_temperature(choices) > 0
    found = reliability(choices, 1.0)
    assert found.pop("accuracy") == 1.0
    assert found == {"expected_calibration_error": 0.0, "bins": [{"confidence": 1.0, "accuracy": 1.0, "share": 1.0}]}


def test_calibration_error_by_hand() -> None:
    """Ten pictures that are equally sure of their own caption; three captions are swapped round, so seven are right."""
    pictures = np.eye(10, dtype=np.float32)
    swapped = [1, 2, 0, *range(3, 10)]
    relevance = Relevance.of([[str(number)] for number in range(10)])
    temperature = 0.5
    sure = np.exp(2) / (np.exp(2) + 9)
    found = reliability(choices_among_captions(relevance, pictures[swapped], pictures), temperature)
    assert found["accuracy"] == pytest.approx(0.7)
    assert [found["bins"][0][name] for name in ("confidence", "accuracy", "share")] == pytest.approx([sure, 0.7, 1.0])
    assert found["expected_calibration_error"] == pytest.approx(abs(sure - 0.7))


def test_fitting_makes_probabilities_believable() -> None:
    rng = np.random.default_rng(0)
    pictures = unit(rng.standard_normal((400, 32)))
    texts = unit(pictures + 1.2 * rng.standard_normal((400, 32)))
    relevance = Relevance.of([[str(number)] for number in range(400)])
    best = fit_temperature(choices_among_captions(relevance, texts, pictures))
    others = choices_among_captions(relevance, texts, pictures, seed=1)
    after = reliability(others, best)["expected_calibration_error"]
    assert after < 0.05 < reliability(others, best / 5)["expected_calibration_error"]


def test_a_picture_of_two_things_chooses_each_without_the_other() -> None:
    labels = np.eye(3, dtype=np.float32)
    pictures = unit(np.array([[0.0, 0.0, 1.0], [3.0, 4.0, 0.0]], np.float32))
    choices = choices_among_labels(labels, pictures, [[2], [0, 1]])
    expected = [[0, 0, 1], [0.6, -np.inf, 0], [-np.inf, 0.8, 0]]
    assert choices.cosines == pytest.approx(np.array(expected))
    assert choices.right.tolist() == [2, 0, 1]
    sure = [np.exp(2) / (np.exp(2) + 2), np.exp(1.2) / (np.exp(1.2) + 1), np.exp(1.6) / (np.exp(1.6) + 1)]
    assert reliability(choices, 0.5)["accuracy"] == 1.0
    assert reliability(choices, 0.5)["expected_calibration_error"] == pytest.approx(1 - np.mean(sure))


def test_percentiles_of_cosines() -> None:
    pictures = unit(np.eye(20, dtype=np.float32))
    relevance = Relevance.of([[str(number)] for number in range(20)])
    found = cosine_percentiles(relevance, pictures, pictures)
    assert found["right"] == pytest.approx([1.0] * 7)
    assert found["wrong"] == pytest.approx([0.0] * 7)
