"""The text side of a dual encoder by an ONNX export, without torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from turkish_clip.onnx.runtime import OnnxTextEncoder
from turkish_clip.text_side import DEFAULT_TEMPERATURE, examine

if TYPE_CHECKING:
    from turkish_clip.metrics import Vectors
    from turkish_clip.reading import Caution


@dataclass(frozen=True)
class OnnxTextSide:
    """A `TextSide` for the images of one image model.

    Attributes:
        encoder: the export.
        text_name: Hub id or folder of the text encoder that it stands for, or of the export.
        image_name: Hub id or folder of the image model.
        text_weights_sha256: hash of the text encoder's weights.
        image_weights_sha256: hash of the image model's weights.
        fitted_temperature: of zero-shot probabilities; None if none was fitted.
    """

    encoder: OnnxTextEncoder
    text_name: str
    image_name: str
    text_weights_sha256: str
    image_weights_sha256: str
    fitted_temperature: float | None = None

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self.encoder.dim

    @property
    def temperature(self) -> float:
        """The temperature of zero-shot probabilities: the fitted one, or CLIP's."""
        return self.fitted_temperature or DEFAULT_TEMPERATURE

    @property
    def temperature_info(self) -> dict[str, float | bool]:
        """The temperature and whether it is fitted, as the commands print them."""
        return {"temperature": self.temperature, "temperature_is_fitted": bool(self.fitted_temperature)}

    def cautions(self, texts: Iterable[str]) -> list[Caution]:
        """Returns what the text encoder does not read of texts."""
        return self.encoder.cautions(texts)

    def encode_texts(self, texts: Sequence[str], *, batch_size: int = 64, warn: bool = True) -> Vectors:
        """Returns the (n, dim) float32 unit vectors of texts that images are searched with.

        Args:
            texts: to encode.
            batch_size: texts encoded at a time.
            warn: log the `cautions` of the texts as warnings.

        Raises:
            TextError: one is not UTF-8.
        """
        examine(self, texts, warn=warn)
        return self.encoder.encode(texts, batch_size=batch_size, warn=False)
