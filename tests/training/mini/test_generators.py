"""The generators and the judge that are committed: they load, fit the small CLIP, and show what they should."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from training.drawing.images import square
from training.drawing.judge import Judge, subjects
from training.mini.world import SMALL_CLIP
from turkish_clip.dual_encoder import weights_sha256
from turkish_clip.encoder import load_model
from turkish_clip.generate import load_autoencoder, load_decoder
from turkish_clip.generate.tower import as_image

MINI = SMALL_CLIP.parent
LARGEST = {"autoencoder": 3.0e6, "decoder": 3.1e6, "judge": 2.9e6}  # bytes of the weights
ASKED = subjects(12, 1)


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.load(str(MINI / "judge"), weights_sha256(load_model(SMALL_CLIP)), "cpu", 0)


def test_they_are_small() -> None:
    for name, most in LARGEST.items():
        (weights,) = (MINI / name).glob("*.safetensors")
        assert weights.stat().st_size <= most
        assert f"{weights.stat().st_size:,}" in (MINI / name / "README.md").read_text("utf-8") or name == "judge"


def test_the_decoder_shows_what_an_image_model_saw(judge: Judge) -> None:
    model = load_model(SMALL_CLIP, device="cpu")
    decoder = load_decoder(MINI / "decoder", image_weights_sha256=weights_sha256(model))
    real = [subject.drawn(random.Random(number)) for number, subject in enumerate(ASKED)]
    shown = decoder.images(np.asarray(model.encode(real, show_progress_bar=False)), seed=0)
    assert judge.right(shown, ASKED)["by words"]["both"] >= 0.75


def test_the_autoencoder_keeps_things_and_colours(judge: Judge) -> None:
    pytest.importorskip("diffusers")
    model = load_autoencoder(MINI / "autoencoder")
    real = [square(subject.drawn(random.Random(number)), 64) for number, subject in enumerate(ASKED)]
    pixels = torch.from_numpy(np.stack(real)).float() / 127.5 - 1
    with torch.inference_mode():
        decoded = (model(pixels).sample + 1) / 2
    assert float((decoded * 2 - 1 - pixels).abs().mean()) < 0.12
    assert judge.right([as_image(image[None]) for image in decoded], ASKED)["by words"]["both"] >= 0.75
