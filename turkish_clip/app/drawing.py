"""Drawing from words on the page: by optimisation, through a VQ-autoencoder, or by a decoder that the command names."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

from turkish_clip.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

    from turkish_clip.dual_encoder import DualEncoder

STEPS, FRAMES = 200, 20  # of the optimisation, and the images of its way that are shown


@dataclass(frozen=True)
class DrawnBy:
    """What images are drawn by; neither means a canvas in Fourier space.

    Attributes:
        generator: folder or Hub id of a VQ-autoencoder.
        decoder: folder or Hub id of a decoder of image vectors.
    """

    generator: str | None = None
    decoder: str | None = None

    def __post_init__(self) -> None:
        """Checks that there is one at the most.

        Raises:
            InputError: there are both.
        """
        if self.decoder is not None:
            check_alone({"--generator": self.generator})


def check_alone(others: Mapping[str, object]) -> None:
    """Checks that a decoder is not named beside what has no use for one.

    Args:
        others: option → its value, or None.

    Raises:
        InputError: one was given.
    """
    for name, value in others.items():
        if value is not None:
            raise InputError(
                f"expected --decoder without {name}, got both; a decoder begins with its own image: leave one out"
            )


class Drawer:
    """Draws; what it draws by is loaded when it is first needed.

    Args:
        encoder: from `load_dual_encoder`.
        by: what images are drawn by.
    """

    def __init__(self, encoder: DualEncoder, by: DrawnBy) -> None:
        self._encoder, self._by = encoder, by
        self._loaded: Any = None
        self._lock = Lock()

    def draw(
        self,
        words: str,
        avoid: Sequence[str],
        seed: int,
        *,
        progress: Callable[[int, int], object],
        frame: Callable[[Image.Image], object],
    ) -> tuple[Image.Image, float]:
        """Returns an image, and its cosine with the words.

        Args:
            words: what it is to show.
            avoid: what it is not to show.
            seed: another one gives another image.
            progress: called with the number of steps done and to do.
            frame: called with images of the way.

        Raises:
            InputError: what it is drawn by can't be loaded, or does not fit the model.
        """
        from turkish_clip.generate import DrawingOptions, canvas_on, draw, draw_decoded, wishes_of

        wishes = wishes_of(self._encoder, [words], avoid=avoid)
        by = self._load()
        if self._by.decoder:
            drawing = draw_decoded(self._encoder, wishes, by, seed=seed, every=5, progress=progress, frame=frame)
        else:
            options = DrawingOptions(steps=STEPS, every=STEPS // FRAMES, seed=seed)
            canvas = None if by is None else canvas_on(by, seed)
            drawing = draw(self._encoder, wishes, options, canvas=canvas, progress=progress, frame=frame)
        return drawing.image, drawing.scores[words]

    def _load(self) -> Any:
        from turkish_clip.generate import load_autoencoder, load_decoder

        with self._lock:
            if self._loaded is None and self._by.decoder:
                weights = self._encoder.image_weights_sha256
                self._loaded = load_decoder(self._by.decoder, image_weights_sha256=weights)
            elif self._loaded is None and self._by.generator:
                self._loaded = load_autoencoder(self._by.generator)
            return self._loaded


def as_png(image: Image.Image) -> bytes:
    """Returns an image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
