"""Exports a text encoder as a folder that `OnnxTextEncoder` runs: an ONNX graph, its tokenizer and a JSON record."""

from __future__ import annotations

import copy
import json
import os
import re
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

from turkish_clip.atomic import atomic_folder, write_json
from turkish_clip.dual_encoder import DualEncoder, image_side_of, load_dual_encoder, weights_sha256
from turkish_clip.encoder import bare_tokenizer, load_model, prompt_of, query_prompt
from turkish_clip.errors import missing_library
from turkish_clip.metrics import Vectors, unit
from turkish_clip.onnx.graph import write_graph
from turkish_clip.onnx.image_export import write_images
from turkish_clip.onnx.image_runtime import IMAGE_GRAPH, IMAGE_RECORD, PREPROCESSOR, OnnxImageRecord
from turkish_clip.onnx.parity import Parity
from turkish_clip.onnx.runtime import (
    FORMAT,
    GRAPH,
    RECORD,
    TOKENIZER,
    OnnxError,
    OnnxRecord,
    OnnxTextEncoder,
    file_sha256,
)
from turkish_clip.ownership import check_replaceable_folder
from turkish_clip.records import ImageModel, read_record
from turkish_clip.resolve import IMAGE_MODEL_VARIABLE, ModelSpec, resolve_models
from turkish_clip.verify import GOLDEN_TEXTS, TEXT_TOLERANCE, encode_each

LIBRARIES = ("onnx", "onnxscript", "onnxruntime")  # that writing needs
NAMES = (GRAPH, f"{GRAPH}.data", TOKENIZER, RECORD, IMAGE_GRAPH, f"{IMAGE_GRAPH}.data", PREPROCESSOR, IMAGE_RECORD)
FILES = re.compile("|".join(map(re.escape, NAMES)))  # of an export
LEAST_COSINE = 0.95  # between golden vectors of an int8 graph and of its model; small BERTs reach 0.999 and more


SHOWN_SIDES = {"text": "texts", "image": "images", "both": "both sides"}


@dataclass(frozen=True)
class Exported:
    """A finished export, compared with its model on the golden sentences and images.

    Attributes:
        record: the content of its JSON record; of both sides that of the text side.
        bytes: size of all files together.
        text: how near its vectors of texts are to the model's; None if it has none.
        image: likewise for images.
    """

    folder: Path
    record: dict[str, Any]
    bytes: int
    text: Parity | None = None
    image: Parity | None = None


def export_onnx(
    model: str | Path | None = None,
    folder: str | Path | None = None,
    *,
    side: str = "text",
    int8: bool = False,
    image_model: str | Path | None = None,
    revision: str | None = None,
) -> Exported:
    """Exports a text encoder, its image model or both, or those of an image-text pair, atomically.

    Args:
        model: Hub id or folder of either, or the folder of a training run; None takes TURKISH_CLIP_MODEL.
        folder: where to write; an older export of the same sides and precision there is replaced. None takes
            `default_folder`.
        side: "text", "image" or "both".
        int8: store layers and embedding tables in 8 bits: a quarter of the size, and faster on processors.
        image_model: Hub id or folder of the image model, where the model does not name it.
        revision: branch, tag or commit of the model on the Hub.

    Raises:
        OnnxError: a library is missing, the model has no such side that can be exported, or its graph gives other
            vectors, or the folder holds an export of other sides or another precision.
        ForeignFileError: the folder holds something else.
        ModelError: the model can't be loaded.
        NoModelError: no model is named.
        UnreachableError: the model is no folder, and the Hub does not answer.
    """
    check_libraries()
    spec = resolve_models(model, image_model, revision)
    name = str(model or spec.text)
    target = Path(folder) if folder else default_folder(name, "onnx-int8" if int8 else "onnx")
    marker = IMAGE_RECORD if side == "image" else RECORD
    check_replaceable_folder(target, marker, FILES)
    _check_same_kind(target, side, "int8" if int8 else "float32")
    if side == "text":
        whole, encoder = load_model(spec.text, revision=spec.revision, device="cpu"), None
    else:
        encoder = load_dual_encoder(model, image_model, revision=revision, device="cpu")
        whole = encoder.text

    image = None
    with atomic_folder(target, marker, FILES) as partial:
        if encoder is not None:
            image = write_images(encoder, partial, image_model_of(encoder), int8=int8)
        if side == "image":
            record: dict[str, Any] = json.loads((partial / IMAGE_RECORD).read_text(encoding="utf-8"))
            return Exported(target, record, size_of(partial), image=image)
        text = text_modules(whole, spec.text, prompt_of(whole))
        explicit = bool(image_model or os.environ.get(IMAGE_MODEL_VARIABLE))
        record = {
            "format": FORMAT,
            "model": shown(name),
            "revision": spec.revision,
            "precision": "int8" if int8 else "float32",
            **about(text),
            "prompt": prompt_of(whole),
            "image_model": _image_model_of(whole, spec, explicit=explicit)
            if encoder is None
            else asdict(image_model_of(encoder)),
        }
        if spec.record is not None and spec.record.temperature is not None:
            record["temperature"] = spec.record.temperature
        written = _write(text, partial, record, unit(encode_each(whole, GOLDEN_TEXTS)))
    return replace(written, folder=target, image=image)


def check_libraries() -> None:
    """Checks that the libraries are there that writing needs.

    Raises:
        OnnxError: one is missing.
    """
    for library in LIBRARIES:
        if find_spec(library) is None:
            raise OnnxError(missing_library(library, "onnx"))


def image_model_of(encoder: DualEncoder) -> ImageModel:
    """Returns what the records of an export say of the image model of a loaded dual encoder."""
    named = encoder.spec.record.image_model if encoder.spec.record is not None else {}
    name = (
        encoder.image_name
        if encoder.image is not encoder.text
        else encoder.spec.image or named.get("id") or encoder.image_name
    )
    revision = encoder.spec.image_revision or named.get("revision") or ""
    if not encoder.image.supports("image"):  # a text encoder alone
        is_named = name == named.get("id")
        return ImageModel(shown(name), revision, (named.get("weights_sha256") or "") if is_named else "")
    return ImageModel(shown(name), revision, encoder.image_weights_sha256)


def export_loaded(encoder: DualEncoder, folder: Path, *, int8: bool = False) -> Exported:
    """Exports the text side of a loaded dual encoder, atomically, to give the vectors of its `encode_texts`.

    Args:
        encoder: which stays as it is.
        folder: where to write; an older export there is replaced.
        int8: as in `export_onnx`.

    Raises:
        OnnxError: as in `export_onnx`.
        ForeignFileError: the folder holds something else.
    """
    prompt = query_prompt(encoder.text) or ""
    text = text_modules(encoder.text, encoder.text_name, prompt)
    record = {
        "format": FORMAT,
        "model": shown(encoder.text_name),
        "revision": encoder.spec.revision,
        "precision": "int8" if int8 else "float32",
        **about(text),
        "weights_sha256": encoder.text_weights_sha256,
        "prompt": prompt,
        "image_model": _image_model(encoder.image_name, encoder.spec.image_revision, encoder.image_weights_sha256),
    }
    if encoder.temperature_is_fitted:
        record["temperature"] = encoder.temperature
    own = np.concatenate([encoder.encode_texts([golden], warn=False) for golden in GOLDEN_TEXTS])
    with atomic_folder(folder, RECORD, FILES) as partial:
        written = _write(text, partial, record, own, mapped=True)
    return replace(written, folder=folder)


def _write(
    text: SentenceTransformer, folder: Path, record: dict[str, Any], own: Vectors, *, mapped: bool = False
) -> Exported:
    """Writes the files of an export, and compares it with its model.

    Args:
        text: of `_text_side`.
        folder: where to write.
        record: the content of the record.
        own: the model's unit vectors of the golden sentences.
        mapped: as in `write_graph`.
    """
    int8 = record["precision"] == "int8"
    write_graph(text, folder / GRAPH, weights_sha256=record["weights_sha256"], int8=int8, mapped=mapped)
    write_tokenizer(text, folder / TOKENIZER)
    record = {**record, "tokenizer_sha256": file_sha256(folder / TOKENIZER)}
    write_json(folder / RECORD, record)
    parity = compare(own, folder)
    parity.check("sentences", int8=int8, cosine=LEAST_COSINE, tolerance=TEXT_TOLERANCE)
    return Exported(folder, record, size_of(folder), text=parity)


def size_of(folder: Path) -> int:
    """Returns the bytes of all files in a folder together."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _check_same_kind(target: Path, side: str, precision: str) -> None:
    """Checks that an export does not replace one of other sides or another precision, which programs may count on.

    Raises:
        OnnxError: it would.
    """
    kinds: dict[str, tuple[Any, str]] = {"text": (OnnxRecord, RECORD), "image": (OnnxImageRecord, IMAGE_RECORD)}
    there = {name: record for name, record in kinds.items() if (target / record[1]).is_file()}
    if not there:
        return
    found_side = "both" if len(there) == len(kinds) else next(iter(there))
    if found_side != side:
        raise OnnxError(
            f"expected a new folder or an earlier export of {SHOWN_SIDES[side]}, got {target}, which holds one of "
            f"{SHOWN_SIDES[found_side]}; name another with --output, or remove that one"
        )
    for kind, record in there.values():
        try:
            found = str(read_record(kind, target / record, "", OnnxError).precision)
        except OnnxError:
            continue  # damaged, or of an older format
        if found != precision:
            raise OnnxError(
                f"expected a new folder or an earlier export in {precision}, got {target}, which holds one in {found}; "
                "name another with --output, or remove that one"
            )


def default_folder(model: str, ending: str) -> Path:
    """Returns NAME-ENDING, beside the folder NAME; of a Hub id in the working directory.

    Args:
        model: Hub id or folder.
        ending: of the name, such as onnx.
    """
    path = Path(model)
    if not path.is_dir():
        return Path(f"{path.name}-{ending}")
    path = path if path.name not in ("", "..") else path.resolve()
    return path.with_name(f"{path.name}-{ending}")


def text_modules(model: SentenceTransformer, name: str, prompt: str) -> SentenceTransformer:
    """Returns the modules for texts as a model in float32 that ends with normalisation.

    Args:
        model: a text encoder or a pair.
        name: its Hub id or folder, for the message.
        prompt: what is put before each text.

    Raises:
        OnnxError: the first one is no text model, or its pooling leaves out the prompt.
    """
    routes = getattr(model[0], "sub_modules", None)
    modules = list(routes["text"]) if routes is not None and "text" in routes else list(model)
    first = modules[0]
    if not isinstance(first, (Transformer, StaticEmbedding)) or first.modalities != ["text"]:
        raise OnnxError(
            f"expected a text encoder such as a BERT, or a pair with one, got {name}, which begins with "
            f"{type(first).__name__} for {' and '.join(map(str, model.modalities))}; export the text encoder"
        )
    if prompt and not all(getattr(module, "include_prompt", True) for module in modules):
        raise OnnxError(
            f"expected pooling that includes the prompt, got {name}, which leaves {prompt!r} out; export a "
            'text encoder with "include_prompt": true in the config.json of its pooling'
        )
    if not isinstance(modules[-1], Normalize):
        modules.append(Normalize())
    if any(weights.device.type != "cpu" or weights.dtype != torch.float32 for weights in model.parameters()):
        modules = copy.deepcopy(modules)  # the model itself stays where it is, and as it is
    return SentenceTransformer(modules=modules, device="cpu").float().eval()


def about(text: SentenceTransformer) -> dict[str, Any]:
    """Returns the fields of the record that describe a text encoder."""
    return {
        "weights_sha256": weights_sha256(text),
        "dim": int(text.encode("a").shape[-1]),
        "max_tokens": max_tokens_of(text),
        "normalised": True,
    }


def max_tokens_of(text: SentenceTransformer) -> int:
    """Returns the number of tokens at which texts are cut: the limit of the model, or else its number of positions.

    A static model, which has neither, cuts none: 0.
    """
    if isinstance(text[0], StaticEmbedding):
        return 0
    return int(text[0].max_seq_length or text[0].config.max_position_embeddings)


def _image_model_of(model: SentenceTransformer, spec: ModelSpec, *, explicit: bool) -> dict[str, str] | None:
    """Returns the image model of a text encoder for the record, or None if it is not known.

    It is the image side of a pair, the one that the model names, or one that was given explicitly.
    """
    named = spec.record.image_model if spec.record is not None else {}
    if model.supports("image"):
        weights = weights_sha256(image_side_of(model))
        return _image_model(named.get("id") or spec.text, named.get("revision"), weights)
    if named and spec.image == named["id"]:
        return _image_model(named["id"], named.get("revision"), named.get("weights_sha256"))
    return _image_model(spec.image, spec.image_revision, None) if explicit else None


def _image_model(name: str, revision: str | None, weights: str | None) -> dict[str, str]:
    """Returns the record of an image model, with empty texts for what is not known."""
    return asdict(ImageModel(shown(name), revision or "", weights or ""))


def shown(name: str) -> str:
    """Returns a Hub id as it is, and of a folder only its name (RUN/model in a training run), without its path."""
    if not Path(name).is_dir():
        return name
    path = Path(name).resolve()
    return path.name if path.name != "model" else f"{path.parent.name}/model"


def write_tokenizer(text: SentenceTransformer, path: Path) -> None:
    """Writes the tokenizer of a text encoder so that it cuts long texts, unless all is read, and pads each batch.

    Args:
        text: the text encoder.
        path: the file, tokenizer.json.

    Raises:
        OnnxError: it is not a fast tokenizer, which can be written so.
    """
    from tokenizers import Tokenizer

    fast = text.tokenizer
    if isinstance(fast, Tokenizer):  # of a static model, which reads no special tokens, and whose padding is masked
        bare = bare_tokenizer(fast)
        bare.enable_padding()
        bare.save(str(path))
        return
    inner = getattr(fast, "backend_tokenizer", None)
    if inner is None:
        raise OnnxError(f"expected a fast tokenizer, got {type(fast).__name__}; convert it to tokenizer.json")
    tokenizer = Tokenizer.from_str(inner.to_str())
    tokenizer.enable_truncation(max_tokens_of(text), direction=fast.truncation_side)
    tokenizer.enable_padding(
        direction=fast.padding_side, pad_id=fast.pad_token_id, pad_type_id=0, pad_token=fast.pad_token
    )
    tokenizer.save(str(path))


def compare(own: Vectors, folder: Path) -> Parity:
    """Compares the golden vectors of a model with those of its export.

    Args:
        own: the model's unit vectors of the golden sentences.
        folder: the export.
    """
    return Parity.of(own, OnnxTextEncoder(folder).encode(GOLDEN_TEXTS, warn=False))
