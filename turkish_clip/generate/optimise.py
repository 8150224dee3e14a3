"""The optimisation: crops of the canvas go through the frozen image model, and their gradients back to the canvas."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from turkish_clip.errors import InputError
from turkish_clip.generate.canvas import Canvas, FourierCanvas
from turkish_clip.generate.prompts import Wish
from turkish_clip.generate.tower import DifferentiableTower, as_image

if TYPE_CHECKING:
    from turkish_clip.dual_encoder import DualEncoder

SMALLEST, LARGEST = 16, 2048  # pixels of a side
SMOOTHING = 0.9  # of the loss by which the best step is told: crops differ from step to step
SINGLE_COLOUR = 0.3  # fraction of the change of contrast and brightness that red, green and blue have by themselves
MOST_DEGREES = 10.0  # by which a crop is turned
FIRST_BEST = 0.2  # fraction of the steps before which no image is kept as the best


class DrawingError(InputError):
    """An image that can't be drawn."""


@dataclass(frozen=True)
class DrawingOptions:
    """How an image is optimised.

    Attributes:
        steps: of Adam.
        learning_rate: of Adam, at its highest.
        crops: of the image in each step, each with other noise.
        smallest_crop: side of the smallest crop, as a fraction of the image's.
        smoothness: weight of the mean absolute difference of neighbouring pixels, so that areas are of one colour; None
            takes the canvas's own.
        noise: standard deviation of the noise on each pixel of a crop; images of noise alone please a tower otherwise.
        colour_jitter: the largest change of a crop's contrast, as a fraction, and twice that of its brightness; fine
            differences that please this image model alone do not outlast it.
        every: a frame is kept each so many steps; 0 keeps none.
        seed: of the canvas and the crops.
    """

    steps: int = 200
    learning_rate: float = 0.1
    crops: int = 16
    smallest_crop: float = 0.6
    smoothness: float | None = None
    noise: float = 0.1
    colour_jitter: float = 0.3
    every: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            DrawingError: one is out of its range.
        """
        ranges = (
            ("steps", self.steps, 1, 100_000),
            ("crops", self.crops, 1, 1024),
            ("learning rate", self.learning_rate, 1e-6, 10),
            ("smallest crop", self.smallest_crop, 0.05, 1),
            ("smoothness", self.smoothness or 0, 0, 1000),
            ("noise", self.noise, 0, 1),
            ("colour jitter", self.colour_jitter, 0, 1),
            ("every", self.every, 0, 100_000),
        )
        for name, value, least, most in ranges:
            if not least <= value <= most:  # false for NaN, too
                raise DrawingError(f"expected {name} from {least} to {most}, got {value}; give another number")


@dataclass(frozen=True)
class Drawing:
    """What was drawn.

    Attributes:
        image: of the best step, RGB.
        scores: the cosine of the image with each wish, by its words.
        steps: that were done.
        stopped: why there were fewer than asked for; empty: there were not.
        frames: images of the way, with the last step's as the last one.
        seconds: that it took.
    """

    image: Image.Image
    scores: dict[str, float]
    steps: int
    stopped: str = ""
    frames: list[Image.Image] = field(default_factory=list)
    seconds: float = 0.0


def draw(
    encoder: DualEncoder,
    wishes: Sequence[Wish],
    options: DrawingOptions | None = None,
    *,
    size: tuple[int, int] | None = None,
    start: Image.Image | None = None,
    canvas: Canvas | None = None,
    progress: Callable[[int, int], object] | None = None,
    frame: Callable[[Image.Image], object] | None = None,
) -> Drawing:
    """Draws an image that the image model takes for what the wishes say.

    In each step crops of the image, turned a little, in changed colours and with noise, go through the frozen image
    model, and the canvas moves so that their vectors come nearer to those of the wishes, by the squared great-circle
    distance. It is the way of VQGAN+CLIP (Crowson et al., 2022, arXiv:2204.08583), for any canvas. Crops are never
    mirrored: left and right have a meaning. The same seed gives the same image on the same machine.

    Args:
        encoder: whose image side sees the image.
        wishes: from `wishes_of`.
        options: of the optimisation.
        size: height and width in pixels; None takes those of the image model's input, or of the canvas.
        start: an image to begin with.
        canvas: what is optimised; None takes a `FourierCanvas`.
        progress: called after each step with the number of steps done and to do.
        frame: called with each image of the way that `options.every` keeps.

    Returns:
        The drawing. After Ctrl-C, or where the numbers are no longer finite, it is the best so far, and `stopped`.

    Raises:
        DrawingError: the sizes or widths don't fit.
        TowerError: gradients can't go through the image model's processor.
    """
    options = options or DrawingOptions()
    tower = DifferentiableTower(encoder.image)
    random = torch.Generator().manual_seed(options.seed)
    if canvas is None:
        height, width = checked_size(size or tower.side)
        canvas = FourierCanvas(height, width, random, device=tower.device, start=start)
    elif start is not None or size is not None:
        raise DrawingError("expected a canvas, or a size and a start image, got both; give these to the canvas")
    wanted = torch.stack([torch.from_numpy(wish.vector) for wish in wishes]).to(tower.device)
    weights = torch.tensor([wish.weight for wish in wishes], device=tower.device)
    with torch.no_grad():
        dim = tower(canvas.image()).shape[1]
    if wanted.shape[1] != dim:
        raise DrawingError(f"expected vectors of the image model's width {dim}, got {wanted.shape[1]}; name its own")
    texts = [wish.text for wish in wishes]
    return _optimise(tower, canvas, wanted, weights, texts, options, random, progress, frame)


def _optimise(
    tower: DifferentiableTower,
    canvas: Canvas,
    wanted: Tensor,
    weights: Tensor,
    texts: Sequence[str],
    options: DrawingOptions,
    random: torch.Generator,
    progress: Callable[[int, int], object] | None,
    frame: Callable[[Image.Image], object] | None,
) -> Drawing:
    begun = time.monotonic()
    smoothness = canvas.smoothness if options.smoothness is None else options.smoothness
    parameters = canvas.parameters()
    optimizer = torch.optim.Adam(parameters, lr=options.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps, options.learning_rate / 10)
    frames: list[Image.Image] = []
    best, least, smooth, done, stopped = canvas.image().detach(), math.inf, None, 0, ""
    try:
        for step in range(options.steps):
            image = canvas.image()
            vectors = tower(crops_of(image, options, tower.side, random))
            loss = (great_circle(vectors, wanted) * weights).sum(dim=1).mean()
            if smoothness:
                loss = loss + smoothness * variation(image)
            value = float(loss.detach())
            if not math.isfinite(value):
                stopped = f"the loss is {value} in step {step + 1}; a smaller learning rate may help"
                break
            smooth = value if smooth is None else SMOOTHING * smooth + (1 - SMOOTHING) * value
            if step >= FIRST_BEST * options.steps and smooth < least:
                least, best = smooth, image.detach().clone()
            if options.every and step % options.every == 0:
                frames.append(as_image(image))
                if frame is not None:
                    frame(frames[-1])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            done = step + 1
            if least is math.inf:
                best = image.detach().clone()
            if progress is not None:
                progress(done, options.steps)
    except KeyboardInterrupt:
        stopped = "interrupted"
    if not stopped:
        best = canvas.image().detach()
    with torch.no_grad():
        cosines = (tower(best) @ wanted.T)[0].tolist()
    shown = as_image(best)
    return Drawing(
        shown, dict(zip(texts, cosines)), done, stopped, [*frames, shown] if frames else [], time.monotonic() - begun
    )


def variation(image: Tensor) -> Tensor:
    """Returns the mean absolute difference of neighbouring pixels of a (1, 3, height, width) image.

    Source: Rudin, Osher and Fatemi, "Nonlinear total variation based noise removal algorithms", 1992.
    """
    down, right = image[:, :, 1:] - image[:, :, :-1], image[:, :, :, 1:] - image[:, :, :, :-1]
    return down.abs().mean() + right.abs().mean()


def great_circle(vectors: Tensor, wanted: Tensor) -> Tensor:
    """Returns the (n, m) squared great-circle distances, halved, of n unit vectors to m unit vectors.

    Args:
        vectors: (n, dim).
        wanted: (m, dim).
    """
    chord = (vectors[:, None] - wanted[None]).norm(dim=-1).clamp(max=2 - 1e-6)
    angle: Tensor = (chord / 2).arcsin()
    return angle**2 * 2


def crops_of(image: Tensor, options: DrawingOptions, side: tuple[int, int], random: torch.Generator) -> Tensor:
    """Returns crops of an image at the size of the model's input, the first of which is the whole image in its colours.

    Args:
        image: (1, 3, height, width) in 0 to 1.
        options: their number, size, colours and noise.
        side: height and width of the crops.
        random: a source of numbers on the CPU.
    """
    count = options.crops
    scale = 1 - (1 - options.smallest_crop) * torch.rand(count, generator=random)
    shift = (1 - scale)[:, None] * (2 * torch.rand(count, 2, generator=random) - 1)
    angle = (2 * torch.rand(count, generator=random) - 1) * (MOST_DEGREES * math.pi / 180)
    noise = torch.randn(count, 3, *side, generator=random) * options.noise
    scale[0], shift[0], angle[0] = 1.0, 0.0, 0.0
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    rows = (torch.stack([cosine, -sine, shift[:, 0]], 1), torch.stack([sine, cosine, shift[:, 1]], 1))
    grid = functional.affine_grid(torch.stack(rows, 1).to(image.device), [count, 3, *side], align_corners=False)
    factor = max(image.shape[2] / side[0], image.shape[3] / side[1])
    if factor > 1:  # sampling a large image at a few points would alias
        image = functional.interpolate(image, scale_factor=1 / factor, mode="bilinear", antialias=True)
    crops = functional.grid_sample(
        image.expand(count, -1, -1, -1), grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    if options.colour_jitter:
        crops = _in_other_colours(crops, options.colour_jitter, random)
    return crops + noise.to(image.device)


def _in_other_colours(crops: Tensor, jitter: float, random: torch.Generator) -> Tensor:
    """Returns crops with another contrast and brightness, all but the first."""
    common, single = (2 * torch.rand(2, len(crops), channels, 1, 1, generator=random) - 1 for channels in (1, 3))
    contrast, brightness = ((1 - SINGLE_COLOUR) * common + SINGLE_COLOUR * single) * jitter
    contrast[0], brightness[0] = 0.0, 0.0
    middle = crops.mean(dim=(1, 2, 3), keepdim=True)
    changed: Tensor = middle + (crops - middle) * (1 + contrast.to(crops.device)) + brightness.to(crops.device) / 2
    return changed


def checked_size(size: tuple[int, int]) -> tuple[int, int]:
    """Returns a size, height and width in pixels, that can be drawn at.

    Raises:
        DrawingError: a side is too small or too large.
    """
    for side in size:
        if not SMALLEST <= side <= LARGEST:
            raise DrawingError(
                f"expected sides of {SMALLEST} to {LARGEST} pixels, got {size[1]}x{size[0]}; give others"
            )
    return size
