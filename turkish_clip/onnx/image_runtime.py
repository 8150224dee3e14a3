"""Runs an image tower that `turkish-clip export` wrote; needs onnxruntime, Pillow and numpy, but not torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from turkish_clip.images import ImageLike, open_image
from turkish_clip.onnx.runtime import (
    OUTPUT,
    PIXELS,
    OnnxError,
    check_graph,
    check_precision,
    damaged,
    file_sha256,
    of_another,
    open_graph,
)
from turkish_clip.preprocessing import FastPreprocessing
from turkish_clip.records import ImageModel, read_record
from turkish_clip.text_files import read_whole
from turkish_clip.verify import MAX_DIM

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGE_GRAPH, PREPROCESSOR = "image_model.onnx", "preprocessor_config.json"
IMAGE_RECORD = "turkish_clip_onnx_image.json"


@dataclass(frozen=True, kw_only=True)
class OnnxImageRecord:
    """The content of turkish_clip_onnx_image.json.

    Attributes:
        image_model: what was exported; its hash of weights stands in the graph, too.
        precision: "float32" or "int8".
        weights_sha256: of the image tower, as `turkish-clip info` prints it.
        preprocessor_sha256: of preprocessor_config.json.
        dim: width of the vectors, which have norm 1.
    """

    FORMAT: ClassVar[int] = 1

    image_model: ImageModel
    precision: str
    weights_sha256: str
    preprocessor_sha256: str
    dim: int

    def __post_init__(self) -> None:
        """Checks the values, which may come from a file of anybody; raises a ValueError."""
        check_precision(self.precision)
        if not 1 <= self.dim <= MAX_DIM:
            raise ValueError(f"{self.dim} as 'dim', not 1 to {MAX_DIM}")


class OnnxImageEncoder:
    """An image tower that `turkish-clip export` wrote.

    Args:
        folder: the export: image_model.onnx, preprocessor_config.json and turkish_clip_onnx_image.json.
        threads: number of threads that compute, at least 1; None takes all cores of the machine.
        providers: execution providers of onnxruntime in order of preference; None takes the processor.

    Attributes:
        dim: width of the vectors.
        precision: "float32" or "int8".
        image_model: what was exported.

    Raises:
        OnnxError: onnxruntime is not installed, the folder does not exist, holds no image tower, is damaged or holds
            files of another export, `threads` is below 1, or this build of onnxruntime has not such a provider.
    """

    def __init__(
        self, folder: str | Path, *, threads: int | None = None, providers: Sequence[str] | None = None
    ) -> None:
        self.folder = Path(folder)
        if not (self.folder / IMAGE_RECORD).is_file():
            raise OnnxError(
                f"expected {IMAGE_RECORD} in {folder}, got none; write it: turkish-clip export MODEL --format onnx "
                "--side image"
            )
        record = read_record(OnnxImageRecord, self.folder / IMAGE_RECORD, "export again", OnnxError)
        self.dim = record.dim
        self.precision = record.precision
        self.image_model = record.image_model
        self._prepare = read_preprocessor(self.folder / PREPROCESSOR)
        if file_sha256(self.folder / PREPROCESSOR) != record.preprocessor_sha256:
            raise of_another(PREPROCESSOR, self.folder, IMAGE_RECORD)
        self._session = open_graph(self.folder / IMAGE_GRAPH, (PIXELS,), threads, providers)
        check_graph(self._session, self.folder, IMAGE_GRAPH, IMAGE_RECORD, record.weights_sha256, record.dim)

    def encode(self, images: Iterable[ImageLike], *, batch_size: int = 8) -> NDArray[np.float32]:
        """Returns the (n, dim) float32 unit vectors of images, in order; (0, dim) for none.

        In int8 the other images of a batch change a vector slightly, since all activations of a batch have one scale;
        with batch_size=1 the same image always gives the same vector.

        Args:
            images: paths, bytes of files, or PIL images; read as they are needed.
            batch_size: images that go through the graph together.

        Raises:
            ImageError: one does not open.
            OnnxError: one path instead of a list, or a batch size below 1.
        """
        if isinstance(images, (str, bytes, Path)):
            raise OnnxError("expected a list of images, got one; write encode([image])")
        if batch_size < 1:
            raise OnnxError(f"expected a batch size of at least 1, got {batch_size}; 8 is the default")
        stream, found = iter(images), [np.empty((0, self.dim), np.float32)]
        while batch := [open_image(image, min_side=self._prepare.size[1]) for image in islice(stream, batch_size)]:
            found += self._session.run([OUTPUT], {PIXELS: self._prepare.pixel_values(batch)})
        return np.concatenate(found)


def read_preprocessor(path: Path) -> FastPreprocessing:
    """Reads a preprocessor_config.json.

    Raises:
        OnnxError: it can't be read, or is none of a resize, a crop and a normalisation.
    """
    try:
        found = FastPreprocessing.from_config(json.loads(read_whole(path)))
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise damaged("a preprocessor", path, error) from error
    if found is None:
        raise OnnxError(f"expected a resize, a crop and a normalisation in {path}, got others; export again")
    return found
