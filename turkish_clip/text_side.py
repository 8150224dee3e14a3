"""The text side of a dual encoder: what words need where the vectors of the images are known."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from turkish_clip.reading import Caution, check_texts
from turkish_clip.reading import TextError as TextError

if TYPE_CHECKING:
    from turkish_clip.metrics import Vectors

log = logging.getLogger("turkish_clip")
DEFAULT_TEMPERATURE = 0.01  # CLIP's at the end of its training: 1 / 100 (Source: Radford et al. 2021, section 2.5)


class TextSide(Protocol):
    """Encodes texts, and says for which images; a `DualEncoder` is one, and so is `turkish_clip.onnx.OnnxTextSide`.

    Attributes:
        text_name: Hub id or folder of the text encoder or pair.
        image_name: of the image model or pair whose images its vectors are compared with.
        text_weights_sha256: hash of the text side's weights.
        image_weights_sha256: hash of the image side's weights.
        dim: width of the vectors.
        temperature: of zero-shot probabilities.
        temperature_info: the temperature and whether it is fitted, as the commands print them.
    """

    @property
    def text_name(self) -> str: ...
    @property
    def image_name(self) -> str: ...
    @property
    def text_weights_sha256(self) -> str: ...
    @property
    def image_weights_sha256(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def temperature(self) -> float: ...
    @property
    def temperature_info(self) -> dict[str, float | bool]: ...

    def cautions(self, texts: Iterable[str]) -> list[Caution]:
        """Returns what the text encoder does not read of texts."""

    def encode_texts(self, texts: Sequence[str], *, batch_size: int = 64, warn: bool = True) -> Vectors:
        """Returns the (n, dim) float32 unit vectors of texts that images are searched with.

        Args:
            texts: to encode.
            batch_size: texts encoded at a time.
            warn: log the `cautions` of the texts as warnings.
        """


def examine(side: TextSide, texts: Sequence[str], *, warn: bool) -> None:
    """Checks texts that are to be encoded, and logs the cautions.

    Args:
        side: that will encode them.
        texts: to encode.
        warn: log the cautions of the texts as warnings.

    Raises:
        TextError: one is not UTF-8.
    """
    check_texts(texts)
    if warn:
        log_cautions(side.cautions(texts))


def log_cautions(cautions: Iterable[Caution]) -> None:
    """Logs cautions as warnings."""
    for caution in cautions:
        log.warning("%s", caution)
