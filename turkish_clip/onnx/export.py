"""A text encoder as a folder that `OnnxTextEncoder` runs: one ONNX graph, its tokenizer, and what pairs with it."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer

from turkish_clip.atomic import atomic_folder, write_json
from turkish_clip.dual_encoder import image_side_of, weights_sha256
from turkish_clip.encoder import load_model
from turkish_clip.metrics import unit
from turkish_clip.onnx.graph import write_graph
from turkish_clip.onnx.runtime import (
    FORMAT,
    GRAPH,
    RECORD,
    TOKENIZER,
    ImageModel,
    OnnxError,
    OnnxTextEncoder,
    is_export,
    missing,
)
from turkish_clip.resolve import IMAGE_MODEL_VARIABLE, ModelSpec, resolve_models
from turkish_clip.verify import GOLDEN_TEXTS, TEXT_TOLERANCE, encode_each

LEAST_COSINE = 0.95  # of an int8 graph's golden vectors with the model's own; small BERTs have 0.999 and more


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        record: what turkish_clip_onnx.json says.
        bytes: of all files.
        golden_cosine: the least one between the graph's vectors and the model's own, over the golden sentences.
        golden_difference: the largest of a component.
    """

    folder: Path
    record: dict[str, Any]
    bytes: int
    golden_cosine: float
    golden_difference: float


def export_onnx(
    model: str | Path | None = None,
    folder: str | Path | None = None,
    *,
    int8: bool = False,
    image_model: str | Path | None = None,
    revision: str | None = None,
) -> Exported:
    """Writes a text encoder, or the text side of a pair, as an ONNX folder; whole or not at all.

    Args:
        model: Hub id or folder of either, or the folder of a training run; None takes TURKISH_CLIP_MODEL.
        folder: where to; an older export there is replaced. None takes `_default_folder`.
        int8: weights of the layers and the embedding tables in 8 bits: a quarter of the size, and faster on processors.
        image_model: Hub id or folder, where the model does not name it.
        revision: of the model on the Hub.

    Raises:
        OnnxError: a library is missing, the folder holds something else, the model has no text side that can be
            exported, or its graph gives other vectors.
        ModelError: the model can't be loaded.
        NoModelError: none is named.
    """
    for library in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(library) is None:
            raise missing(library)
    spec = resolve_models(model, image_model, revision)
    target = Path(folder) if folder else _default_folder(str(model or spec.text), int8=int8)
    _check_free(target)

    whole = load_model(spec.text, revision=spec.revision, device="cpu")
    text = _text_side(whole, spec.text)
    explicit = bool(image_model or os.environ.get(IMAGE_MODEL_VARIABLE))
    record = {
        "format": FORMAT,
        "model": _shown(str(model or spec.text)),
        "revision": spec.revision,
        "precision": "int8" if int8 else "float32",
        **about(text),
        "image_model": _image_model_of(whole, spec, explicit=explicit),
    }
    if "temperature" in spec.metadata:
        record["temperature"] = spec.metadata["temperature"]

    with atomic_folder(target) as partial:
        write_graph(text, partial / GRAPH, int8=int8)
        write_tokenizer(text, partial / TOKENIZER)
        write_json(partial / RECORD, record)
        cosine, difference = compare(whole, partial)
        _check_same(cosine, difference, int8=int8)
        size = sum(path.stat().st_size for path in partial.iterdir())
    return Exported(target, record, size, cosine, difference)


def _default_folder(model: str, *, int8: bool) -> Path:
    """NAME-onnx or NAME-onnx-int8: beside a folder, in the working directory for a Hub id."""
    ending = "-onnx-int8" if int8 else "-onnx"
    path = Path(model)
    if not path.is_dir():
        return Path(path.name + ending)
    path = path if path.name not in ("", "..") else path.resolve()
    return path.with_name(path.name + ending)


def _check_free(folder: Path) -> None:
    """Sees that nothing but an older export would be replaced.

    Raises:
        OnnxError: it would.
    """
    if folder.exists() and not (folder.is_dir() and (is_export(folder) or not any(folder.iterdir()))):
        raise OnnxError(
            f"expected a new folder or an older export, got {folder}, which holds something else; name another with "
            "--output"
        )


def _text_side(model: SentenceTransformer, name: str) -> SentenceTransformer:
    """The modules through which texts go, in float32, with normalisation at the end.

    Raises:
        OnnxError: they do not begin with a text model, or the model puts words of its own before each text.
    """
    routes = getattr(model[0], "sub_modules", None)
    modules = list(routes["text"]) if routes is not None and "text" in routes else list(model)
    first = modules[0]
    if not isinstance(first, Transformer) or first.modalities != ["text"]:
        raise OnnxError(
            f"expected a text encoder such as a BERT, or a pair with one, got {name}, which begins with "
            f"{type(first).__name__} for {' and '.join(map(str, model.modalities))}; export the text encoder"
        )
    if model.default_prompt_name:
        raise OnnxError(
            f"expected a text encoder without a prompt, got {name} with the prompt {model.default_prompt_name!r}; take "
            "default_prompt_name out of its config_sentence_transformers.json, and write the prompt before each text"
        )
    if not isinstance(modules[-1], Normalize):
        modules.append(Normalize())
    return SentenceTransformer(modules=modules, device="cpu").float().eval()


def about(text: SentenceTransformer) -> dict[str, Any]:
    """What a program that runs the graph has to know of it."""
    return {
        "weights_sha256": weights_sha256(text),
        "dim": int(text.encode("a").shape[-1]),
        "max_tokens": _max_tokens_of(text),
        "normalised": True,
    }


def _max_tokens_of(text: SentenceTransformer) -> int:
    """Where texts are cut: the model's limit, or its number of positions."""
    return int(text[0].max_seq_length or text[0].config.max_position_embeddings)


def _image_model_of(model: SentenceTransformer, spec: ModelSpec, *, explicit: bool) -> dict[str, str] | None:
    """The id, revision and weights of the image model that fits, so far as known: recorded, in the pair, or given."""
    named = spec.metadata.get("image_model") or {}
    if model.supports("image"):
        weights = weights_sha256(image_side_of(model))
        return _image_model(named.get("id") or spec.text, named.get("revision"), weights)
    if named and spec.image == named["id"]:
        return _image_model(named["id"], named.get("revision"), named.get("weights_sha256"))
    return _image_model(spec.image, spec.image_revision, None) if explicit else None


def _image_model(name: str, revision: str | None, weights: str | None) -> dict[str, str]:
    return asdict(ImageModel(_shown(name), revision or "", weights or ""))


def _shown(name: str) -> str:
    """A Hub id as it is; of a folder its name alone, for its path means nothing elsewhere: mine/model for a run's."""
    if not Path(name).is_dir():
        return name
    path = Path(name).resolve()
    return path.name if path.name != "model" else f"{path.parent.name}/model"


def write_tokenizer(text: SentenceTransformer, path: Path) -> None:
    """Writes tokenizer.json, which then cuts long texts and pads each batch by itself.

    Raises:
        OnnxError: the model's tokenizer has no tokenizer.json.
    """
    from tokenizers import Tokenizer

    host = text.tokenizer
    inner = getattr(host, "backend_tokenizer", None)
    if inner is None:
        raise OnnxError(f"expected a fast tokenizer, got {type(host).__name__}; convert it to tokenizer.json")
    tokenizer = Tokenizer.from_str(inner.to_str())
    tokenizer.enable_truncation(_max_tokens_of(text), direction=host.truncation_side)
    tokenizer.enable_padding(
        direction=host.padding_side, pad_id=host.pad_token_id, pad_type_id=0, pad_token=host.pad_token
    )
    tokenizer.save(str(path))


def compare(model: SentenceTransformer, folder: Path) -> tuple[float, float]:
    """The least cosine and the largest difference between an export's golden vectors and the model's own."""
    own = unit(encode_each(model, GOLDEN_TEXTS))
    exported = OnnxTextEncoder(folder).encode(GOLDEN_TEXTS)
    return float((own * exported).sum(axis=1).min()), float(np.abs(own - exported).max())


def _check_same(cosine: float, difference: float, *, int8: bool) -> None:
    """Sees that a graph does what its model does.

    Raises:
        OnnxError: it does not.
    """
    if int8 and not cosine >= LEAST_COSINE:
        raise OnnxError(
            f"expected int8 vectors with a cosine of at least {LEAST_COSINE} to the model's own, got {cosine:.3f} on "
            "the golden sentences; nothing was written: export it without --int8"
        )
    if not int8 and not difference <= TEXT_TOLERANCE:
        raise OnnxError(
            f"expected the model's own vectors from its graph, got components that differ by {difference:.1e} on the "
            "golden sentences; nothing was written: this architecture can't be exported"
        )
