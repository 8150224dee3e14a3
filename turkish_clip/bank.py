"""The text bank: vectors of typical texts beside a text encoder, by which a search tells images that answer everything.

An index takes from it one number per image (`turkish_clip.metrics.hub_scores`). It holds vectors and no texts.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from turkish_clip.errors import InputError, one_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from turkish_clip.metrics import Vectors

BANK = "bank.safetensors"  # beside a text encoder's record, which names it
TENSOR, WEIGHTS = "vectors", "weights_sha256"  # its one tensor, and the key of its metadata
MAX_BYTES = 2_000_000
MIN_TEXTS = 100  # with fewer the correction helps little or harms (training/README.md)


class BankError(InputError):
    """A text bank that is damaged, of another text encoder, or too small."""


@dataclass(frozen=True)
class TextBank:
    """The vectors of typical texts.

    Attributes:
        vectors: (n, dim) float16; of norm 1 but for the rounding.
        weights_sha256: of the text encoder that made them.
    """

    vectors: NDArray[np.float16]
    weights_sha256: str

    @classmethod
    def of(
        cls, texts: Iterable[str], encode: Callable[[list[str]], Vectors], dim: int, weights_sha256: str
    ) -> TextBank:
        """Returns the bank of some texts; of very many a part, drawn by hash.

        Args:
            texts: at least `MIN_TEXTS` different ones, read once; empty ones are left out.
            encode: texts → (n, dim) float32 unit vectors.
            dim: their width.
            weights_sha256: of the text encoder.

        Raises:
            BankError: there are too few.
        """
        import numpy as np

        drawn = draw_texts((text for text in texts if text.strip()), MAX_BYTES // (2 * dim))
        check_enough(len(drawn))
        return cls(np.ascontiguousarray(encode(drawn), np.float16), weights_sha256)

    @cached_property
    def sha256(self) -> str:
        """The hash of the vectors, in order."""
        return hashlib.sha256(self.vectors.tobytes()).hexdigest()

    @cached_property
    def unit_vectors(self) -> Vectors:
        """The (n, dim) float32 unit vectors."""
        import numpy as np

        from turkish_clip.metrics import unit

        return unit(self.vectors.astype(np.float32))

    def describe(self) -> dict[str, Any]:
        """Returns what a model's record says of its bank."""
        return {"texts": len(self.vectors), "sha256": self.sha256}


def check_enough(different: int) -> None:
    """Checks that there are enough different texts for a bank.

    Raises:
        BankError: there are not.
    """
    if different < MIN_TEXTS:
        raise BankError(
            f"expected at least {MIN_TEXTS} different texts to tell which images answer everything, got {different}; "
            "add texts, or leave the correction out"
        )


def draw_texts(texts: Iterable[str], count: int) -> list[str]:
    """Draws distinct texts by their hash: the same ones whatever their order, and those kept when others are added.

    Memory does not grow with the number of texts.

    Args:
        texts: read once.
        count: how many at most.
    """
    drawn: list[tuple[int, str]] = []  # a heap, the largest hash first
    known: set[str] = set()
    for text in texts:
        key = -int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
        if text in known or (len(drawn) == count and key < drawn[0][0]):
            continue
        known.add(text)
        if len(drawn) < count:
            heapq.heappush(drawn, (key, text))
        else:
            known.discard(heapq.heappushpop(drawn, (key, text))[1])
    return [text for _, text in sorted(drawn, reverse=True)]


def write_bank(folder: Path, bank: TextBank) -> None:
    """Writes a bank into a model's folder.

    Args:
        folder: that `atomic_folder` gave, or another new one.
        bank: of the model in it.
    """
    from safetensors.numpy import save_file

    save_file({TENSOR: bank.vectors}, folder / BANK, metadata={WEIGHTS: bank.weights_sha256})


def read_bank(model: str, revision: str | None, named: dict[str, Any]) -> TextBank:
    """Reads the bank beside a model.

    Args:
        model: Hub id or folder.
        revision: branch, tag or commit on the Hub.
        named: what the model's record says of it.

    Raises:
        BankError: it is not there, damaged, or another than the record names.
    """
    import numpy as np
    from safetensors import safe_open

    try:
        path = _find(model, revision)
        with safe_open(path, framework="numpy") as file:
            bank = TextBank(file.get_tensor(TENSOR), (file.metadata() or {}).get(WEIGHTS, ""))
    except Exception as error:  # the Hub's client, the file system and safetensors each raise their own
        raise BankError(
            f"expected {BANK} beside {model}, got {one_line(error)}; download or publish it again"
        ) from error
    if bank.vectors.dtype != np.float16 or bank.vectors.ndim != 2 or bank.describe() != named:
        raise BankError(
            f"expected the {BANK} that the record of {model} names, got another one; download or publish it again"
        )
    return bank


def _find(model: str, revision: str | None) -> Path:
    """Returns the path of the bank beside a model, which is downloaded if the model is not a folder."""
    if Path(model).is_dir():
        return Path(model) / BANK
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(model, BANK, revision=revision or None))
