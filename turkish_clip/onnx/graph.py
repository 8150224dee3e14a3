"""A text encoder's ONNX graph: traced from its modules, and stored in 8 bits if wanted."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from turkish_clip.onnx.runtime import GRAPH, INPUTS, OUTPUT, OnnxError
from turkish_clip.verify import GOLDEN_TEXTS, first_line

if TYPE_CHECKING:
    import onnx
    from sentence_transformers import SentenceTransformer

OPSET = 20  # the first with Gelu as one operator; onnxruntime reads it from 1.17 on
LARGEST_FILE = 1_900_000_000  # bytes; a protobuf holds less than 2 GiB, so larger weights go into a file beside it
SMALLEST_TABLE = 100_000  # numbers in an embedding table that is worth storing in int8


class _Graph(torch.nn.Module):
    """A text encoder as a function of two arrays."""

    def __init__(self, text: SentenceTransformer) -> None:
        super().__init__()
        self.steps = torch.nn.ModuleList(list(text))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """(n, length) int64 token ids, and 1 where they are no padding → (n, dim) float32 unit vectors."""
        features: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        for step in self.steps:
            features = step(features)
        found: torch.Tensor = features["sentence_embedding"]
        return found


def write_graph(text: SentenceTransformer, path: Path, *, int8: bool) -> None:
    """Writes the graph, from (n, length) token ids and mask of any n and length to (n, dim) float32 unit vectors.

    Raises:
        OnnxError: torch, onnx or onnxruntime can't express the model.
    """
    import onnx

    try:
        with _quiet():
            graph = _traced(text)
            if int8:
                _store_tables_in_int8(graph)
                _store_layers_in_int8(graph, path)
            else:
                large = sum(weights.nbytes for weights in text.parameters()) > LARGEST_FILE
                onnx.save_model(graph, path, save_as_external_data=large, location=f"{GRAPH}.data")
    except OSError:
        raise
    except Exception as error:  # each of the three libraries raises its own
        raise OnnxError(
            f"expected a model that torch.onnx can write, got {first_line(error)}; what is known to work is a BERT, an "
            "ELECTRA or a DistilBERT under mean pooling"
        ) from error


def _traced(text: SentenceTransformer) -> onnx.ModelProto:
    features = text.preprocess(list(GOLDEN_TEXTS[:2]))
    axes = {0: "batch", 1: "length"}
    program: Any = torch.onnx.export(
        _Graph(text).eval(),
        tuple(features[name] for name in INPUTS),
        input_names=list(INPUTS),
        output_names=[OUTPUT],
        dynamic_shapes={name: axes for name in INPUTS},
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    graph: onnx.ModelProto = program.model_proto
    del graph.graph.value_info[:]  # onnxruntime's quantisation transposes weights, and stumbles over their old shapes
    for part in (graph, graph.graph, *graph.graph.node, *graph.graph.input, *graph.graph.output):
        del part.metadata_props[:]  # where each operator comes from: paths of this machine
    return graph


def _store_tables_in_int8(graph: onnx.ModelProto) -> None:
    """Replaces the large embedding tables: each row in 8 bits with a scale of its own.

    A scale for all, as onnxruntime has it, gives most rows fewer bits than the one with the largest number.
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
    """Writes the graph with its layers in int8: weights now, per output; activations as they come, per batch.

    Weights take 7 of the 8 bits: processors without VNNI add products in 16 bits, where those of 8 × 8 bits overflow.
    With 7, a file is right on old and new ones. Attention's own products, of two activations, stay in float32.
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
    """Keeps the three libraries' advice to their own developers away from users."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")  # that torchvision is missing
    root, level = logging.getLogger(), registration.level

    def no_advice(record: logging.LogRecord) -> bool:
        return "run pre-processing before quantization" not in str(record.msg)

    registration.setLevel(logging.ERROR)
    root.addFilter(no_advice)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of its own old names
            yield
    finally:
        registration.setLevel(level)
        root.removeFilter(no_advice)
