"""The fitted temperature is the one that the scores were made with."""

from __future__ import annotations

import numpy as np
import pytest

from training.temperature import fit_temperature
from turkish_clip.metrics import Relevance, unit


@pytest.mark.parametrize("noise", [0.5, 1.5])
def test_noisier_vectors_want_a_higher_temperature_and_it_is_the_best_one(noise: float) -> None:
    rng = np.random.default_rng(0)
    pictures = unit(rng.standard_normal((200, 64)).astype(np.float32))
    texts = unit(pictures + noise * rng.standard_normal((200, 64)).astype(np.float32))
    relevance = Relevance.of([[str(number)] for number in range(200)])
    best = fit_temperature(relevance, texts, pictures)
    assert best == fit_temperature(relevance, texts, pictures)

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
        assert best > fit_temperature(relevance, clear, pictures)


def test_a_caption_of_two_pictures_is_no_wrong_answer() -> None:
    pictures = unit(np.eye(20, dtype=np.float32))
    relevance = Relevance.of([["aynı"] for _ in range(20)])
    assert fit_temperature(relevance, pictures[:1], pictures) > 0
