"""Drawing: the image comes nearer to the words, the seed decides, and what was drawn is never lost."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from turkish_clip.dual_encoder import DualEncoder
from turkish_clip.encoder import load_model
from turkish_clip.generate import DrawingError, DrawingOptions, FourierCanvas, Wish, draw, wishes_of
from turkish_clip.generate.optimise import crops_of, great_circle, variation
from turkish_clip.generate.prompts import PromptError
from turkish_clip.generate.tower import DifferentiableTower, TowerError


def test_the_tower_gives_the_vectors_of_encode(encoder: DualEncoder) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    tower = DifferentiableTower(encoder.image)
    assert tower.side == (32, 32)
    found = tower(torch.from_numpy(levels).permute(0, 3, 1, 2).float() / 255)
    expected = next(encoder.embed_images([Image.fromarray(image) for image in levels])).vectors
    assert np.abs(found.numpy() - expected).max() < 1e-5


def test_a_model_of_texts_alone_is_no_tower(text_folder: Path) -> None:
    with pytest.raises(TowerError, match="expected an image model, got one that takes texts alone; name another one"):
        DifferentiableTower(load_model(text_folder, device="cpu"))


def test_an_image_comes_nearer_to_the_words_and_away_from_others(encoder: DualEncoder) -> None:
    wishes = wishes_of(encoder, ["kırmızı bir ev"], avoid=["mavi iki güneş"])
    before, after = (draw(encoder, wishes, DrawingOptions(steps, crops=4, smoothness=0)) for steps in (1, 40))
    gained = {text: after.scores[text] - before.scores[text] for text in after.scores}
    assert gained["kırmızı bir ev"] - gained["mavi iki güneş"] > 0.1
    assert after.steps == 40
    assert after.stopped == ""
    assert after.image.size == (32, 32)


def test_the_same_seed_draws_the_same_image(encoder: DualEncoder) -> None:
    wishes = wishes_of(encoder, ["kırmızı bir ev"])
    images = [draw(encoder, wishes, DrawingOptions(steps=5, crops=3, seed=seed)).image for seed in (1, 1, 2)]
    assert images[0].tobytes() == images[1].tobytes() != images[2].tobytes()


def test_size_start_and_frames(encoder: DualEncoder) -> None:
    start = Image.new("RGB", (100, 50), (200, 30, 30))
    drawing = draw(
        encoder,
        wishes_of(encoder, ["ev"]),
        DrawingOptions(steps=7, crops=2, every=3, learning_rate=1e-6),
        size=(48, 80),
        start=start,
    )
    assert drawing.image.size == (80, 48)
    assert len(drawing.frames) == 4  # before steps 0, 3 and 6, and the last
    assert np.abs(np.asarray(drawing.image, np.int16) - (200, 30, 30)).max() <= 2


@pytest.mark.parametrize(
    ("weights", "avoid", "expected"),
    [([], [], [0.5, 0.5]), ([3, 1], [], [0.75, 0.25]), ([1, 1], ["x"], [0.5, 0.5, -0.5])],
)
def test_weights_of_prompts(
    encoder: DualEncoder, weights: list[float], avoid: list[str], expected: list[float]
) -> None:
    assert [wish.weight for wish in wishes_of(encoder, ["ev", "kuş"], weights, avoid)] == expected


@pytest.mark.parametrize(
    ("prompts", "weights", "message"),
    [
        ([], [], "expected words to draw, got none"),
        (["ev", " "], [], "expected words to draw, got an empty text"),
        (["ev"], [1, 2], "expected a weight for each of 1 prompts, got 2"),
        (["ev"], [math.nan], "expected weights above 0, got nan"),
        (["ev"], [-1], "expected weights above 0, got -1"),
    ],
)
def test_words_and_weights_that_can_not_be_drawn(
    encoder: DualEncoder, prompts: list[str], weights: list[float], message: str
) -> None:
    with pytest.raises(PromptError, match=re.escape(message)):
        wishes_of(encoder, prompts, weights)


@pytest.mark.parametrize(
    "options", [{"steps": 0}, {"noise": math.nan}, {"learning_rate": 0}, {"smallest_crop": 2}, {"colour_jitter": 1.5}]
)
def test_options_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(DrawingError, match="expected .* from .* to .*, got"):
        DrawingOptions(**options)  # type: ignore[arg-type]


def test_sizes_and_widths_that_do_not_fit(encoder: DualEncoder) -> None:
    wishes = wishes_of(encoder, ["ev"])
    with pytest.raises(DrawingError, match="expected sides of 16 to 2048 pixels, got 32x8"):
        draw(encoder, wishes, size=(8, 32))
    with pytest.raises(DrawingError, match="expected vectors of the image model's width 16, got 5"):
        draw(encoder, [Wish("ev", np.ones(5, np.float32), 1)], DrawingOptions(steps=1))
    with pytest.raises(DrawingError, match="expected a canvas, or a size and a start image, got both"):
        draw(encoder, wishes, size=(32, 32), canvas=FourierCanvas(32, 32, torch.Generator()))


def test_ctrl_c_keeps_the_best_so_far(encoder: DualEncoder) -> None:
    def interrupt(done: int, _: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    drawing = draw(encoder, wishes_of(encoder, ["ev"]), DrawingOptions(steps=10, crops=2), progress=interrupt)
    assert (drawing.steps, drawing.stopped) == (6, "interrupted")
    assert len(set(np.asarray(drawing.image).ravel().tolist())) > 10


def test_numbers_that_are_none_end_the_drawing_with_what_there_is(encoder: DualEncoder) -> None:
    canvas = FourierCanvas(32, 32, torch.Generator())

    def spoil(done: int, _: int) -> None:
        if done == 4:
            with torch.no_grad():
                canvas.parameters()[0].fill_(math.nan)

    drawing = draw(
        encoder, wishes_of(encoder, ["ev"]), DrawingOptions(steps=10, crops=2), canvas=canvas, progress=spoil
    )
    assert drawing.steps == 4
    assert drawing.stopped.startswith("the loss is nan in step 5")
    assert all(math.isfinite(score) for score in drawing.scores.values())


def test_great_circle_distances_by_hand() -> None:
    x, y = torch.eye(2)
    found = great_circle(torch.stack([x, -x]), torch.stack([x, y]))
    # half the squared angle: 0 and (π/2)²/2 for x; π²/2 and (π/2)²/2 for its opposite
    expected = torch.tensor([[0, math.pi**2 / 8], [math.pi**2 / 2, math.pi**2 / 8]])
    assert torch.allclose(found, expected, atol=1e-2)


def test_the_first_crop_is_the_whole_image() -> None:
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    crops = crops_of(image, DrawingOptions(crops=5, noise=0), (32, 32), torch.Generator().manual_seed(1))
    assert crops.shape == (5, 3, 32, 32)
    assert torch.allclose(crops[0], image[0], atol=1e-5)
    assert not torch.allclose(crops[1], image[0], atol=1e-2)


def test_crops_are_never_mirrored() -> None:
    ramp = torch.linspace(0, 1, 32)[None, None, None, :].expand(1, 3, 32, 32)
    options = DrawingOptions(crops=32, noise=0, colour_jitter=0)
    crops = crops_of(ramp, options, (32, 32), torch.Generator().manual_seed(1))
    assert bool((crops[..., 20:].mean((1, 2, 3)) > crops[..., :12].mean((1, 2, 3))).all())


def test_the_colours_of_crops_vary_within_the_jitter() -> None:
    """The plain image's brightness changes by half of 0.4; a tenth by each colour alone is 0.3 of that."""
    image = torch.full((1, 3, 32, 32), 0.5)
    options = DrawingOptions(crops=300, noise=0, colour_jitter=0.4)
    colours = crops_of(image, options, (32, 32), torch.Generator().manual_seed(1)).mean((2, 3))
    assert torch.allclose(colours[0], torch.full((3,), 0.5))
    assert 0.3 <= float(colours.min()) < 0.35
    assert 0.65 < float(colours.max()) <= 0.7
    assert 0.08 < float((colours.max(dim=1).values - colours.min(dim=1).values).max()) <= 0.12


def test_contrast_changes_around_the_middle_of_a_crop() -> None:
    image = torch.tensor([0.2, 0.6]).repeat_interleave(16).expand(1, 3, 32, 32)
    options = DrawingOptions(crops=300, noise=0, colour_jitter=0.5, smallest_crop=1)
    crops = crops_of(image, options, (32, 32), torch.Generator().manual_seed(1))
    spread = crops.std(dim=(2, 3)) / image.std()
    assert 0.5 <= float(spread.min()) < 0.65
    assert 1.35 < float(spread.max()) < 1.55


def test_the_variation_of_an_image() -> None:
    """Of 2 × 2 pixels 0, 1, 0, 0: differences 0 and 1 downwards, 1 and 0 to the right."""
    image = torch.tensor([[0.0, 1.0], [0.0, 0.0]]).expand(1, 3, 2, 2)
    assert float(variation(image)) == pytest.approx(0.5 + 0.5)


def test_a_smooth_image_varies_less(encoder: DualEncoder) -> None:
    wishes = wishes_of(encoder, ["kırmızı bir ev"])
    rough, smooth = (
        draw(encoder, wishes, DrawingOptions(steps=20, crops=2, smoothness=weight)).image for weight in (0, 10)
    )
    varied = [np.abs(np.diff(np.asarray(image, np.float32), axis=0)).mean() for image in (rough, smooth)]
    assert varied[1] < varied[0] / 2
