"""What exports for other programs share: their record, their files, and tokenizers that hold the prompt."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from turkish_clip.atomic import atomic_folder, write_json
from turkish_clip.encoder import query_prompt
from turkish_clip.onnx.export import (
    SHOWN_SIDES,
    image_model_of,
    max_tokens_of,
    shown,
    size_of,
    text_modules,
    write_tokenizer,
)
from turkish_clip.onnx.runtime import OnnxError
from turkish_clip.records import ImageModel, as_json, read_record
from turkish_clip.strict_json import json_text

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from turkish_clip.dual_encoder import DualEncoder
    from turkish_clip.metrics import Vectors
    from turkish_clip.onnx.parity import Parity

EXPORT_RECORD = "turkish_clip_export.json"
TOKENIZER_CONFIG, SPECIAL_TOKENS, CONFIG = "tokenizer_config.json", "special_tokens_map.json", "config.json"
UNLIMITED = 512  # tokens at which programs cut that want a limit, for a text encoder that has none


class ExportError(OnnxError):
    """An export for another program that can't be written."""


@dataclass(frozen=True, kw_only=True)
class ExportRecord:
    """The content of turkish_clip_export.json.

    Attributes:
        kind: the program that reads the folder.
        model: what was exported: a Hub id, or the name of a folder.
        revision: of the model on the Hub; empty means the newest.
        precision: "float32" or "int8".
        weights_sha256: of the text encoder; empty if the folder has none.
        image_model: the image model, in the folder or not.
        dim: width of the vectors.
        sides: "text", "image" or "both".
        name: under which the program looks for the folder; empty if it has any name.
        text: least cosine and largest difference of a component to the model's vectors of the golden sentences.
        image: likewise, of the golden images.
    """

    FORMAT: ClassVar[int] = 1

    kind: str
    model: str
    revision: str
    precision: str
    weights_sha256: str
    image_model: ImageModel
    dim: int
    sides: str
    name: str = ""
    text: dict[str, float] | None = None
    image: dict[str, float] | None = None


@dataclass(frozen=True)
class ExportedFolder:
    """A finished export for another program.

    Attributes:
        record: the content of its JSON record.
        bytes: size of all files together.
    """

    folder: Path
    record: ExportRecord
    bytes: int

    @property
    def as_json(self) -> dict[str, Any]:
        """The record, with the folder and its size."""
        return {"folder": str(self.folder), **as_json(self.record), "bytes": self.bytes}


def write_folder(
    record: ExportRecord,
    target: Path,
    files: re.Pattern[str],
    write: Callable[[Path], tuple[Parity | None, Parity | None]],
) -> ExportedFolder:
    """Writes an export atomically.

    Args:
        record: without how near its vectors are.
        target: the folder; an earlier export of the same kind, sides and precision is replaced.
        files: the paths of files that belong into such a folder, relative to it.
        write: writes them, and returns how near its vectors of texts and of images are.

    Raises:
        ExportError: the folder holds an export of another kind.
        ForeignFileError: it holds something else.
    """
    _check_same_kind(record, target)
    with atomic_folder(target, EXPORT_RECORD, files) as partial:
        text, image = write(partial)
        figures = {name: asdict(found) for name, found in (("text", text), ("image", image)) if found is not None}
        full = replace(record, **figures)  # type: ignore[arg-type]
        write_json(partial / EXPORT_RECORD, as_json(full))
        return ExportedFolder(target, full, size_of(partial))


def record_of(
    encoder: DualEncoder, kind: str, model: str, *, side: str = "both", int8: bool = False, name: str = ""
) -> ExportRecord:
    """Returns the record of an export of a loaded dual encoder, without how near its vectors are.

    Args:
        encoder: what is exported.
        kind: the program that reads it.
        model: as it was named.
        side: "text", "image" or "both".
        int8: its precision.
        name: as in the record.
    """
    return ExportRecord(
        kind=kind,
        model=shown(model),
        revision=encoder.spec.revision or "",
        precision="int8" if int8 else "float32",
        weights_sha256=encoder.text_weights_sha256 if side != "image" else "",
        image_model=image_model_of(encoder),
        dim=encoder.dim,
        sides=side,
        name=name,
    )


def text_side(encoder: DualEncoder) -> SentenceTransformer:
    """Returns the modules for texts as a model in float32 that ends with normalisation.

    Raises:
        OnnxError: the first one is no text model, or its pooling leaves out the prompt.
    """
    return text_modules(encoder.text, encoder.text_name, query_prompt(encoder.text) or "")


def own_text_vectors(encoder: DualEncoder, texts: tuple[str, ...]) -> Vectors:
    """Returns the model's own unit vectors of texts, each computed alone.

    Args:
        encoder: the model.
        texts: what is encoded.
    """
    import numpy as np

    return np.concatenate([encoder.encode_texts([text], warn=False) for text in texts])


def write_tokenizer_files(text: SentenceTransformer, prompt: str, folder: Path) -> dict[str, Any]:
    """Writes tokenizer.json, tokenizer_config.json and special_tokens_map.json, and returns the second's content.

    Other programs know no prompt: the tokenizer puts it before each text itself.

    Args:
        text: of `text_side`.
        prompt: what is put before each text.
        folder: where to write.

    Raises:
        OnnxError: it is not a fast tokenizer, or has no token to pad with.
    """
    from tokenizers import Tokenizer
    from tokenizers.normalizers import Prepend, Sequence

    path = folder / "tokenizer.json"
    write_tokenizer(text, path)
    tokenizer = Tokenizer.from_file(str(path))
    if prompt:
        inner = [] if tokenizer.normalizer is None else [tokenizer.normalizer]
        tokenizer.normalizer = Sequence([Prepend(prompt), *inner])
        tokenizer.save(str(path))
    pad = (tokenizer.padding or {}).get("pad_token")
    if pad is None or tokenizer.token_to_id(pad) is None:
        raise ExportError(f"expected a tokenizer with a token to pad with, got {pad!r}; add one, and train again")
    special = dict(getattr(text.tokenizer, "special_tokens_map", {})) or {"pad_token": pad}
    special = {name: value for name, value in special.items() if isinstance(value, str)}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_tokens_of(text) or UNLIMITED,
        "padding_side": (tokenizer.padding or {})["direction"],
        "truncation_side": (tokenizer.truncation or {}).get("direction", "right"),
        "model_input_names": ["input_ids", "attention_mask"],
        **special,
    }
    for name, content in ((TOKENIZER_CONFIG, config), (SPECIAL_TOKENS, special)):
        (folder / name).write_text(json_text(content, indent=2) + "\n", encoding="utf-8")
    return config


def _check_same_kind(record: ExportRecord, target: Path) -> None:
    """Checks that an export does not replace one of another kind, which programs may count on.

    Raises:
        ExportError: it would.
    """
    if not (target / EXPORT_RECORD).is_file():
        return
    try:
        found = read_record(ExportRecord, target / EXPORT_RECORD, "", ExportError)
    except ExportError:
        return  # damaged, or of an older format
    wanted, there = ((one.kind, one.sides, one.precision, one.name) for one in (record, found))
    if wanted != there:
        raise ExportError(
            f"expected a new folder or an earlier export for {_said(record)}, got {target}, which holds one for "
            f"{_said(found)}; name another with --output, or remove that one"
        )


def _said(record: ExportRecord) -> str:
    named = f" as {record.name}" if record.name else ""
    sides = SHOWN_SIDES[record.sides]
    return f"{record.kind}{named} ({sides}, {record.precision})"
