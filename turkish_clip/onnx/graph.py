"""The ONNX graphs of a text encoder and of an image tower: traced by torch.onnx, with weights in float32 or int8."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

from turkish_clip.onnx.runtime import INPUTS, OUTPUT, PIXELS, WEIGHTS, OnnxError
from turkish_clip.verify import GOLDEN_TEXTS, first_line

if TYPE_CHECKING:
    import onnx
    from sentence_transformers import SentenceTransformer

OPSET = 20  # the first with Gelu as one operator; onnxruntime reads it from 1.17 on
LARGEST_FILE = 1_900_000_000  # bytes; a protobuf holds less than 2 GiB, so larger weights go into a file beside it
SMALLEST_TABLE = 100_000  # entries from which on an embedding table is stored in int8
Adapt = Callable[["onnx.GraphProto"], None]


class _MeanOfTokens(torch.nn.Module):
    """The StaticEmbedding of a text encoder as a function of padded token ids and their mask."""

    def __init__(self, vectors: torch.nn.Parameter) -> None:
        super().__init__()
        self.vectors = vectors

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        mask = features["attention_mask"].unsqueeze(-1).to(self.vectors.dtype)
        total = (torch.nn.functional.embedding(features["input_ids"], self.vectors) * mask).sum(dim=1)
        return {**features, "sentence_embedding": total / mask.sum(dim=1).clamp(min=1)}


class _Graph(torch.nn.Module):
    """The modules of a text encoder, in sequence, as a function of token ids and mask."""

    def __init__(self, text: SentenceTransformer) -> None:
        super().__init__()
        first, *others = list(text)
        static = isinstance(first, StaticEmbedding)
        self.steps = torch.nn.ModuleList([_MeanOfTokens(first.embedding.weight) if static else first, *others])

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Returns the (n, dim) float32 unit vectors of (n, length) int64 token ids, whose mask is 0 at padding."""
        features: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        for step in self.steps:
            features = step(features)
        vectors: torch.Tensor = features["sentence_embedding"]
        return vectors


class _ImageGraph(torch.nn.Module):
    """The modules of an image tower, in sequence, and normalisation, as a function of pixels."""

    def __init__(self, modules: Iterable[torch.nn.Module]) -> None:
        super().__init__()
        self.steps = torch.nn.ModuleList(modules)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Returns the (n, dim) float32 unit vectors of (n, 3, height, width) float32 prepared pixels."""
        features: dict[str, Any] = {PIXELS: pixel_values, "modality": "image"}
        for step in self.steps:
            features = step(features)
        vectors: torch.Tensor = torch.nn.functional.normalize(features["sentence_embedding"], dim=-1)
        return vectors


def write_graph(
    text: SentenceTransformer,
    path: Path,
    *,
    weights_sha256: str,
    int8: bool,
    mapped: bool = False,
    adapt: Adapt | None = None,
) -> None:
    """Writes a graph from int64 token ids and mask, (n, length) of any size, to (n, dim) float32 unit vectors.

    Args:
        text: a text encoder that ends with normalisation, in float32.
        path: the file; weights of more than `LARGEST_FILE` bytes go into a second one beside it.
        weights_sha256: of the text encoder, kept in the graph.
        int8: store layers and large embedding tables in 8 bits.
        mapped: put weights in float32 into a second file whatever their size: onnxruntime maps it into memory, where it
            would copy what is in the graph.
        adapt: changes the traced graph in place, for programs that give it other inputs.

    Raises:
        OnnxError: torch, onnx or onnxruntime can't express the model.
        OSError: the file can't be written.
    """
    advice = "use a BERT, ELECTRA or DistilBERT with mean pooling, which are known to work"
    with _as_onnx_error(advice):
        _write(_traced(text), path, weights_sha256=weights_sha256, int8=int8, mapped=mapped, adapt=adapt)


def write_image_graph(
    modules: Iterable[torch.nn.Module],
    pixels: torch.Tensor,
    path: Path,
    *,
    weights_sha256: str,
    int8: bool,
    adapt: Adapt | None = None,
) -> None:
    """Writes a graph from (n, 3, height, width) float32 prepared pixels to (n, dim) float32 unit vectors.

    Args:
        modules: of the image tower, in sequence, in float32 on the CPU.
        pixels: prepared pixels of two images or more, which the graph is traced with.
        path: as in `write_graph`.
        weights_sha256: of the image tower, kept in the graph.
        int8: store layers in 8 bits.
        adapt: as in `write_graph`.

    Raises:
        OnnxError: torch, onnx or onnxruntime can't express the model.
        OSError: the file can't be written.
    """
    with _as_onnx_error("use a CLIP or a SigLIP, which are known to work"):
        graph = _exported(_ImageGraph(modules), {PIXELS: pixels}, {0: "batch"})
        _write(graph, path, weights_sha256=weights_sha256, int8=int8, adapt=adapt)


@contextmanager
def _as_onnx_error(advice: str) -> Iterator[None]:
    """Runs a block without what the libraries log, and raises what they raise as an OnnxError that ends with advice."""
    try:
        with _quiet():
            yield
    except OSError:
        raise
    except Exception as error:  # each of the three libraries raises its own types
        raise OnnxError(f"expected a model that torch.onnx can write, got {first_line(error)}; {advice}") from error


def _write(
    graph: onnx.ModelProto,
    path: Path,
    *,
    weights_sha256: str,
    int8: bool,
    mapped: bool = False,
    adapt: Adapt | None = None,
) -> None:
    """Adapts a traced graph, and writes it in float32 or int8."""
    import onnx

    if adapt is not None:
        adapt(graph.graph)
    graph.metadata_props.add(key=WEIGHTS, value=weights_sha256)
    if int8:
        _store_tables_in_int8(graph)
        _store_layers_in_int8(graph, path)
        return
    apart = mapped or sum(len(tensor.raw_data) for tensor in graph.graph.initializer) > LARGEST_FILE
    onnx.save_model(graph, path, save_as_external_data=apart, location=f"{path.name}.data")


def _traced(text: SentenceTransformer) -> onnx.ModelProto:
    """Traces the graph of a text encoder in float32, for any batch size and length."""
    if isinstance(text[0], StaticEmbedding):
        features = {name: torch.ones(2, 3, dtype=torch.int64) for name in INPUTS}
    else:
        features = text.preprocess(list(GOLDEN_TEXTS[:2]))
    return _exported(_Graph(text), {name: features[name] for name in INPUTS}, {0: "batch", 1: "length"})


def _exported(module: torch.nn.Module, inputs: dict[str, torch.Tensor], axes: dict[int, str]) -> onnx.ModelProto:
    """Traces a module in float32, without paths of this machine.

    Args:
        module: a function of the inputs.
        inputs: by name, in the order in which the module takes them.
        axes: the axes of every input that may have any size, and their names.
    """
    program: Any = torch.onnx.export(
        module.eval(),
        tuple(inputs.values()),
        input_names=list(inputs),
        output_names=[OUTPUT],
        dynamic_shapes={name: axes for name in inputs},
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    graph: onnx.ModelProto = program.model_proto
    del graph.graph.value_info[:]  # onnxruntime's quantisation transposes weights, and fails on their old shapes
    for part in (graph, graph.graph, *graph.graph.node, *graph.graph.input, *graph.graph.output):
        del part.metadata_props[:]  # the source line of each operator, with paths of this machine
    return graph


def _store_tables_in_int8(graph: onnx.ModelProto) -> None:
    """Replaces the large float32 embedding tables of a graph by int8 ones with a float32 scale for each row.

    onnxruntime has one scale for a whole table, which leaves rows of small numbers only a few of the 8 bits.
    """
    from onnx import helper, numpy_helper

    stored = {tensor.name: tensor for tensor in graph.graph.initializer}
    nodes = []
    for node in graph.graph.node:
        tensor = stored.get(node.input[0]) if node.op_type == "Gather" else None
        table = numpy_helper.to_array(tensor) if tensor is not None else None
        if tensor is None or table is None or table.dtype != np.float32 or table.size < SMALLEST_TABLE:
            nodes.append(node)
            continue
        name, row, out = tensor.name, node.input[1], node.output[0]
        scales = np.maximum(np.abs(table).max(axis=1, keepdims=True), np.finfo(np.float32).tiny) / np.float32(127)
        graph.graph.initializer.append(numpy_helper.from_array(np.rint(table / scales).astype(np.int8), f"{name}_int8"))
        graph.graph.initializer.append(numpy_helper.from_array(scales, f"{name}_scale"))
        nodes += [
            helper.make_node("Gather", [f"{name}_int8", row], [f"{out}_int8"]),
            helper.make_node("Gather", [f"{name}_scale", row], [f"{out}_scale"]),
            helper.make_node("Cast", [f"{out}_int8"], [f"{out}_float"], to=1),
            helper.make_node("Mul", [f"{out}_float", f"{out}_scale"], [out]),
        ]
        graph.graph.initializer.remove(tensor)
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)


def _store_layers_in_int8(graph: onnx.ModelProto, path: Path) -> None:
    """Writes a graph with its linear layers in int8: weights with a scale per output, activations with one per batch.

    Weights use 7 of the 8 bits: processors without VNNI add products in 16 bits, where those of 8 × 8 bits overflow, so
    that the file is right on all processors. The products of two activations in attention stay in float32.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        graph,
        path,
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences what torch, onnx and onnxruntime log for developers."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")  # logs that torchvision is missing
    root, level = logging.getLogger(), registration.level

    def no_advice(record: logging.LogRecord) -> bool:
        return "run pre-processing before quantization" not in str(record.msg)

    registration.setLevel(logging.ERROR)
    root.addFilter(no_advice)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of deprecated names that it uses itself
            yield
    finally:
        registration.setLevel(level)
        root.removeFilter(no_advice)
