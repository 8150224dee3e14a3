"""The evaluator gives the trainer the metrics of both directions under its name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from turkish_clip import InputError, RetrievalEvaluator, build_text_encoder

CAPTIONS = [["kırmızı ev", "ev"], ["mavi kuş"], ["iki köpek", "köpek var"]]


def test_image_embeddings_equal_to_the_texts_give_a_perfect_score(tiny_bert: Path) -> None:
    torch.manual_seed(0)
    encoder = build_text_encoder(tiny_bert, dim=16, max_tokens=24, device="cpu")
    vectors = 3 * encoder.encode([captions[0] for captions in CAPTIONS])
    evaluator = RetrievalEvaluator([captions[:1] for captions in CAPTIONS], vectors)
    metrics = evaluator(encoder)
    assert metrics["validation_mrr"] == metrics["validation_text_to_image_recall_at_1"] == 1.0
    assert evaluator.primary_metric == "validation_mrr"
    assert evaluator.greater_is_better
    assert all(isinstance(value, float) for value in metrics.values())


def test_the_name_prefixes_every_metric(tiny_bert: Path) -> None:
    encoder = build_text_encoder(tiny_bert, dim=16, max_tokens=24, device="cpu")
    evaluator = RetrievalEvaluator(CAPTIONS, np.eye(3, 16), name="deneme")
    assert set(evaluator(encoder)) >= {"deneme_mrr", "deneme_image_to_text_recall_at_10"}
    assert evaluator.primary_metric == "deneme_mrr"


def test_a_diverged_encoder_stops_the_run(tiny_bert: Path) -> None:
    encoder = build_text_encoder(tiny_bert, dim=16, max_tokens=24, device="cpu")
    with torch.no_grad():
        encoder[2].linear.bias.fill_(float("nan"))
    with pytest.raises(InputError, match="got NaN or infinity at step 7: the training has diverged"):
        RetrievalEvaluator(CAPTIONS, np.eye(3, 16))(encoder, steps=7)


def test_captions_and_vectors_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="each of 2 images, got 3"):
        RetrievalEvaluator(CAPTIONS, np.eye(2, 16))
