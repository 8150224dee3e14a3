"""Exports an image tower as a folder that `OnnxImageEncoder` runs: an ONNX graph, its preprocessing and a record."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from turkish_clip.atomic import write_text
from turkish_clip.dual_encoder import DualEncoder, image_side_of
from turkish_clip.encoder import image_processor
from turkish_clip.metrics import unit
from turkish_clip.onnx.graph import Adapt, write_image_graph
from turkish_clip.onnx.image_runtime import (
    IMAGE_GRAPH,
    IMAGE_RECORD,
    PREPROCESSOR,
    OnnxImageEncoder,
    OnnxImageRecord,
    read_preprocessor,
)
from turkish_clip.onnx.parity import Parity
from turkish_clip.onnx.runtime import PIXELS, OnnxError, file_sha256
from turkish_clip.preprocessing import FastPreprocessing
from turkish_clip.records import ImageModel, write_record
from turkish_clip.strict_json import json_text
from turkish_clip.verify import golden_images

if TYPE_CHECKING:
    from turkish_clip.metrics import Vectors

CLOSE = 1e-5  # between prepared pixels by the processor and by its configuration: rounding in float32
IMAGE_TOLERANCE = 1e-4  # of a component of a golden vector in float32; kernels differ by about 1e-6
LEAST_IMAGE_COSINE = 0.95  # between golden vectors of an int8 graph and of its model


def write_images(encoder: DualEncoder, folder: Path, image_model: ImageModel, *, int8: bool) -> Parity:
    """Writes the files of an image tower into a folder, and compares it with its model.

    Args:
        encoder: whose image side is written.
        folder: where to write.
        image_model: for the record.
        int8: store layers in 8 bits.

    Raises:
        OnnxError: the image side can't be exported, or its graph gives other vectors.
    """
    write_tower(encoder, folder / IMAGE_GRAPH, int8=int8)
    write_preprocessor(encoder, folder / PREPROCESSOR)
    record = OnnxImageRecord(
        image_model=image_model,
        precision="int8" if int8 else "float32",
        weights_sha256=encoder.image_weights_sha256,
        preprocessor_sha256=file_sha256(folder / PREPROCESSOR),
        dim=encoder.dim,
    )
    write_record(folder / IMAGE_RECORD, record)
    own = own_image_vectors(encoder, read_preprocessor(folder / PREPROCESSOR))
    parity = Parity.of(own, OnnxImageEncoder(folder).encode(golden_images(), batch_size=1))
    check_images(parity, int8=int8)
    return parity


def check_images(parity: Parity, *, int8: bool) -> None:
    """Checks that an image graph gives the vectors of its model.

    Args:
        parity: on the golden images.
        int8: its precision.

    Raises:
        OnnxError: it does not.
    """
    parity.check("images", int8=int8, cosine=LEAST_IMAGE_COSINE, tolerance=IMAGE_TOLERANCE)


def own_image_vectors(encoder: DualEncoder, prepare: FastPreprocessing) -> Vectors:
    """Returns the model's own unit vectors of the golden images.

    They are prepared as the runtime prepares them: with torchvision, the model's processor resizes in another way.

    Args:
        encoder: the model.
        prepare: of `preprocessing_of`.
    """
    images = golden_images()
    features = dict(encoder.image.preprocess(images))
    features[PIXELS] = torch.from_numpy(prepare.pixel_values(images)).to(encoder.image.device)
    with torch.inference_mode():
        return unit(encoder.image(features)["sentence_embedding"].float().cpu().numpy())


def write_tower(encoder: DualEncoder, path: Path, *, int8: bool, adapt: Adapt | None = None) -> None:
    """Writes the graph of an image side.

    Args:
        encoder: whose image side is written.
        path: the file.
        int8: store layers in 8 bits.
        adapt: as in `write_graph`.

    Raises:
        OnnxError: it takes more than pixels, or torch.onnx can't express it.
    """
    features = dict(encoder.image.preprocess(golden_images()[:2]))
    pixels = features.pop(PIXELS, None)
    others = sorted(name for name, value in features.items() if isinstance(value, torch.Tensor))
    if pixels is None or pixels.ndim != 4 or others:
        got = " and ".join([PIXELS, *others]) if pixels is not None else "none of it"
        raise OnnxError(
            f"expected an image model that takes one array of pixels for each image, got {encoder.image_name}, which "
            f"takes {got}; use a CLIP or a SigLIP of one size"
        )
    modules = list(image_side_of(encoder.image).children())
    if any(weights.device.type != "cpu" or weights.dtype != torch.float32 for weights in encoder.image.parameters()):
        modules = [copy.deepcopy(module).cpu().float() for module in modules]  # the model itself stays as it is
    write_image_graph(
        modules, pixels.cpu().float(), path, weights_sha256=encoder.image_weights_sha256, int8=int8, adapt=adapt
    )


def preprocessing_of(encoder: DualEncoder) -> tuple[FastPreprocessing, dict[str, Any]]:
    """Returns what prepares images by the configuration of a model's processor alone, and that configuration.

    Raises:
        OnnxError: the processor does something else than a resize, a crop and a normalisation.
    """
    processor = image_processor(encoder.image)
    config = json.loads(processor.to_json_string()) if hasattr(processor, "to_json_string") else {}
    told, real = FastPreprocessing.from_config(config), FastPreprocessing.of(encoder.image)
    if told is None or real is None or not _is_same(told, real):
        raise OnnxError(
            f"expected an image processor that resizes, crops and normalises, got {type(processor).__name__}, which "
            "does something else; use a CLIP or a SigLIP of one size"
        )
    return told, config


def _is_same(one: FastPreprocessing, other: FastPreprocessing) -> bool:
    """Returns whether two ways of preparing images give the same pixels, but for rounding."""
    geometry = [(prepare.shortest, prepare.size, prepare.resample) for prepare in (one, other)]
    return geometry[0] == geometry[1] and np.allclose(one.levels, other.levels, rtol=0, atol=CLOSE)


def write_preprocessor(encoder: DualEncoder, path: Path) -> None:
    """Writes the preprocessor_config.json of a model's images.

    Args:
        encoder: whose image side it is.
        path: the file.

    Raises:
        OnnxError: it can't be told by such a file.
    """
    _, config = preprocessing_of(encoder)
    write_text(path, json_text(dict(sorted(config.items())), indent=2) + "\n")
    read_preprocessor(path)
