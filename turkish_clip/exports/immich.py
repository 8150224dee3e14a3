"""Writes the layout of a CLIP model that the machine-learning service of immich reads from its cache folder.

Source: github.com/immich-app/immich, machine-learning/immich_ml/models (base.py, clip/textual.py, clip/visual.py,
constants.py) and server/src/constants.ts, version 2.5.6 (commit 6e9a4255). The service knows a model by its name:
whether texts are given as `text` alone (OpenCLIP) or as `input_ids` and `attention_mask` (M-CLIP), all int32, cut and
padded to `context_length`. The server knows the width of each name, and refuses others.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from turkish_clip.encoder import query_prompt
from turkish_clip.exports.folder import (
    CONFIG,
    EXPORT_RECORD,
    SPECIAL_TOKENS,
    TOKENIZER_CONFIG,
    ExportedFolder,
    ExportError,
    own_text_vectors,
    record_of,
    text_side,
    write_folder,
    write_tokenizer_files,
)
from turkish_clip.onnx.export import LEAST_COSINE
from turkish_clip.onnx.graph import write_graph
from turkish_clip.onnx.image_export import check_images, own_image_vectors, preprocessing_of, write_tower
from turkish_clip.onnx.parity import Parity
from turkish_clip.onnx.runtime import GRAPH, INPUTS, PIXELS, TOKENIZER
from turkish_clip.strict_json import json_text
from turkish_clip.verify import GOLDEN_TEXTS, TEXT_TOLERANCE, golden_images

if TYPE_CHECKING:
    import onnx

    from turkish_clip.dual_encoder import DualEncoder

TEXTUAL, VISUAL, PREPROCESS = "textual", "visual", "preprocess_cfg.json"
FILES = re.compile(
    rf"{EXPORT_RECORD}|{CONFIG}|{TEXTUAL}/({TOKENIZER}|{TOKENIZER_CONFIG}|{SPECIAL_TOKENS})|{VISUAL}/{PREPROCESS}|"
    rf"({TEXTUAL}|{VISUAL})/{GRAPH}(\.data)?"
)
TEXT, IMAGE = "text", "image"  # names of inputs
# Names of immich's models and the widths of their vectors: those of OpenCLIP take the tokens alone.
OPENCLIP = {
    "ViT-B-32__openai": 512,
    "ViT-B-16__openai": 512,
    "ViT-L-14__openai": 768,
    "ViT-L-14-336__openai": 768,
    "ViT-B-16-SigLIP2__webli": 768,
    "ViT-B-32-SigLIP2-256__webli": 768,
    "ViT-L-16-SigLIP2-256__webli": 1024,
    "XLM-Roberta-Large-ViT-H-14__frozen_laion5b_s13b_b90k": 1024,
    "ViT-SO400M-14-SigLIP2__webli": 1152,
    "ViT-gopt-16-SigLIP2-256__webli": 1536,
}
MCLIP = {
    "XLM-Roberta-Large-Vit-B-32": 512,
    "XLM-Roberta-Large-Vit-B-16Plus": 640,
    "XLM-Roberta-Large-Vit-L-14": 768,
    "LABSE-Vit-L-14": 768,
}
WIDTHS = {**MCLIP, **OPENCLIP}
# Image models that immich has itself: with their names, what it has indexed stays valid.
SAME_IMAGES = {
    "clip-ViT-B-32": "ViT-B-32__openai",
    "clip-vit-base-patch32": "ViT-B-32__openai",
    "clip-ViT-B-16": "ViT-B-16__openai",
    "clip-vit-base-patch16": "ViT-B-16__openai",
    "clip-ViT-L-14": "ViT-L-14__openai",
    "clip-vit-large-patch14": "ViT-L-14__openai",
    "clip-vit-large-patch14-336": "ViT-L-14-336__openai",
}


def export_immich(
    encoder: DualEncoder, model: str, folder: Path, *, side: str = "both", int8: bool = False, name: str = ""
) -> ExportedFolder:
    """Writes a dual encoder as immich reads a CLIP model, atomically.

    Args:
        encoder: what is exported.
        model: as it was named.
        folder: where to write: the content of immich's cache folder clip/NAME.
        side: "text", "image" or "both".
        int8: store layers and embedding tables in 8 bits.
        name: of the model of immich that it takes the place of; "" takes `name_for`.

    Raises:
        ExportError: immich has no such name, or no model of this width.
        OnnxError: the model can't be exported, or its graphs give other vectors.
        ForeignFileError: the folder holds something else.
    """
    name = name_for(encoder, name)

    def write(partial: Path) -> tuple[Parity | None, Parity | None]:
        config: dict[str, Any] = {"embed_dim": encoder.dim, "text_cfg": {}, "vision_cfg": {}}
        text = _write_textual(encoder, partial / TEXTUAL, config, int8=int8, name=name) if side != "image" else None
        image = _write_visual(encoder, partial / VISUAL, config, int8=int8) if side != "text" else None
        _write_json(partial / CONFIG, config)
        return text, image

    return write_folder(record_of(encoder, "immich", model, side=side, int8=int8, name=name), folder, FILES, write)


def name_for(encoder: DualEncoder, name: str = "") -> str:
    """Returns the name by which immich reads an export.

    Without one given, it is that of the same image model if immich has it, else of a multilingual model of the width.

    Args:
        encoder: what is exported.
        name: one that was chosen.

    Raises:
        ExportError: immich has no such name, or no model of this width.
    """
    fitting = [known for known, width in WIDTHS.items() if width == encoder.dim]
    if not fitting:
        widths = ", ".join(map(str, sorted(set(WIDTHS.values()))))
        raise ExportError(
            f"expected vectors of a width that immich has ({widths}), got {encoder.dim}; train for another image model"
        )
    if name and name not in fitting:
        raise ExportError(
            f"expected the name of a model of immich with vectors of {encoder.dim} numbers, got {name!r}; it has "
            f"{', '.join(fitting)}"
        )
    same = SAME_IMAGES.get(encoder.image_name.replace("\\", "/").rstrip("/").rpartition("/")[2], "")
    return name or (same if same in fitting else fitting[0])


def _write_textual(encoder: DualEncoder, folder: Path, config: dict[str, Any], *, int8: bool, name: str) -> Parity:
    """Writes the text side, adds to the configuration, and compares the vectors."""
    folder.mkdir()
    text = text_side(encoder)
    tokens = write_tokenizer_files(text, query_prompt(encoder.text) or "", folder)
    if tokens["padding_side"] != "right" or tokens["truncation_side"] != "right":
        raise ExportError(
            "expected a tokenizer that pads and cuts on the right, as immich does, got one that does not; export for "
            "another program"
        )
    length, pad = tokens["model_max_length"], tokens["pad_token"]
    tokenizer = _tokenizer(folder, length, pad)
    pad_id = tokenizer.token_to_id(pad)
    config["text_cfg"] = {"context_length": length, "vocab_size": tokenizer.get_vocab_size()}

    def adapt(graph: onnx.GraphProto) -> None:
        take_tokens(graph, None if name in MCLIP else pad_id)

    write_graph(text, folder / GRAPH, weights_sha256=encoder.text_weights_sha256, int8=int8, adapt=adapt)
    session = _session(folder)
    found = []
    for golden in GOLDEN_TEXTS:
        encoding = tokenizer.encode(" ".join(golden.split()))
        ids, mask = (np.array([values], np.int32) for values in (encoding.ids, encoding.attention_mask))
        found.append(session.run(None, dict(zip(INPUTS, (ids, mask))) if name in MCLIP else {TEXT: ids})[0])
    parity = Parity.of(own_text_vectors(encoder, GOLDEN_TEXTS), np.concatenate(found))
    parity.check("sentences", int8=int8, cosine=LEAST_COSINE, tolerance=TEXT_TOLERANCE)
    return parity


def _write_visual(encoder: DualEncoder, folder: Path, config: dict[str, Any], *, int8: bool) -> Parity:
    """Writes the image side, adds to the configuration, and compares the vectors."""
    folder.mkdir()
    prepare, processor = preprocessing_of(encoder)
    (width, height), shortest = prepare.size, prepare.shortest
    if width != height or shortest not in (None, width) or abs(processor["rescale_factor"] * 255 - 1) > 1e-6:
        raise ExportError(
            f"expected an image model of square images that are cut out of their whole height or width, as immich has "
            f"them, got {encoder.image_name} of {width} × {height}; export for another program"
        )
    config["vision_cfg"] = {"image_size": width}
    _write_json(
        folder / PREPROCESS,
        {
            "size": [height, width],
            "mode": "RGB",
            "mean": processor["image_mean"],
            "std": processor["image_std"],
            "interpolation": Image.Resampling(prepare.resample).name.lower(),
            "resize_mode": "squash" if shortest is None else "shortest",
            "fill_color": 0,
        },
    )
    write_tower(encoder, folder / GRAPH, int8=int8, adapt=lambda graph: rename_input(graph, PIXELS, IMAGE))
    session = _session(folder)
    found = [session.run(None, {IMAGE: prepare.pixel_values([image])})[0] for image in golden_images()]
    parity = Parity.of(own_image_vectors(encoder, prepare), np.concatenate(found))
    check_images(parity, int8=int8)
    return parity


def take_tokens(graph: onnx.GraphProto, pad_id: int | None) -> None:
    """Makes the graph of a text encoder take int32 inputs, in place.

    Args:
        graph: with int64 `input_ids` and `attention_mask`.
        pad_id: if it is given, the one input is `text`, and the mask is where it is another number than this.
    """
    from onnx import TensorProto, helper, numpy_helper

    ids, mask = INPUTS
    axes = ["batch", "length"]
    given = [ids, mask] if pad_id is None else [TEXT]
    before = [helper.make_node("Cast", [given[0]], [f"{ids}_64"], to=TensorProto.INT64)]
    if pad_id is None:
        before.append(helper.make_node("Cast", [mask], [f"{mask}_64"], to=TensorProto.INT64))
    else:
        graph.initializer.append(numpy_helper.from_array(np.array(pad_id, np.int64), "pad_id"))
        before += [
            helper.make_node("Equal", [f"{ids}_64", "pad_id"], ["is_pad"]),
            helper.make_node("Not", ["is_pad"], ["is_text"]),
            helper.make_node("Cast", ["is_text"], [f"{mask}_64"], to=TensorProto.INT64),
        ]
    for node in graph.node:
        for place, value in enumerate(node.input):
            if value in INPUTS:
                node.input[place] = f"{value}_64"
    nodes = [*before, *graph.node]
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.extend(helper.make_tensor_value_info(name, TensorProto.INT32, axes) for name in given)


def rename_input(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Gives an input of a graph another name, in place.

    Args:
        graph: which has it.
        old: its name.
        new: the name that it gets.
    """
    for value in graph.input:
        value.name = new if value.name == old else value.name
    for node in graph.node:
        for place, value in enumerate(node.input):
            if value == old:
                node.input[place] = new


def _tokenizer(folder: Path, length: int, pad: str) -> Any:
    """Returns the tokenizer as immich sets it up: cut and padded to one length."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    tokenizer.enable_padding(length=length, pad_token=pad, pad_id=tokenizer.token_to_id(pad))
    tokenizer.enable_truncation(max_length=length)
    return tokenizer


def _session(folder: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(folder / GRAPH), providers=["CPUExecutionProvider"])


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json_text(value, indent=2) + "\n", encoding="utf-8")
