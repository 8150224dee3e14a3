"""A step of a drawing at full size, ViT-B/32 from its configuration: against the tower's bare forward and backward.

Bare is the image model's own forward pass on as many images at its input size and the backward pass to their pixels.
Both take turns in one process, with two threads; `make bench` prints the ratios.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from ratios import report, seconds_of
from sentence_transformers import SentenceTransformer

from turkish_clip.generate import DrawingOptions, FourierCanvas, Wish, draw
from turkish_clip.generate.optimise import great_circle

pytestmark = pytest.mark.bench

THREADS, CROPS, STEPS, ROUNDS = 2, 16, 2, 5
GOAL = 1.3  # times the bare passes, at the most


@pytest.mark.parametrize("side", [224, 448])
def test_a_step_costs_little_more_than_the_tower(image_model: SentenceTransformer, side: int) -> None:
    torch.set_num_threads(THREADS)
    encoder: Any = SimpleNamespace(image=image_model)
    vector = np.random.default_rng(0).standard_normal(512).astype(np.float32)
    wish = Wish("any", vector / np.linalg.norm(vector), 1.0)
    wanted = torch.from_numpy(wish.vector)[None]
    pixels = torch.rand(CROPS, 3, 224, 224, requires_grad=True)
    features: dict[str, Any] = {
        **image_model.preprocess([Image.new("RGB", (224, 224))] * CROPS),
        "pixel_values": pixels,
    }

    def drawn(steps: int) -> None:
        canvas = FourierCanvas(side, side, torch.Generator().manual_seed(0))
        draw(encoder, [wish], DrawingOptions(steps=steps, crops=CROPS), canvas=canvas)

    def bare() -> None:
        for _ in range(STEPS):
            vectors = image_model(dict(features))["sentence_embedding"]
            torch.autograd.backward(great_circle(torch.nn.functional.normalize(vectors, dim=-1), wanted).mean())
            pixels.grad = None

    drawn(1)
    bare()
    ours, others = [], []
    for _ in range(ROUNDS):
        once = seconds_of(lambda: drawn(1))  # with what a drawing takes beside its steps
        ours.append((seconds_of(lambda: drawn(1 + STEPS)) - once) / STEPS)
        others.append(seconds_of(bare) / STEPS)
    ratio = report(
        f"a step of a drawing, {side} pixels, {CROPS} crops", "forward and backward of ViT-B/32", ours, others
    )
    print(f"{1 / ratio:.2f} times the bare passes (goal {GOAL})")
