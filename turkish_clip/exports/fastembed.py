"""Writes a text encoder as fastembed takes it for `TextEmbedding.add_custom_model`.

Source: fastembed 0.9.1, text/custom_text_embedding.py and common/preprocessor_utils.py: the graph gets int64 input_ids
and attention_mask; the tokenizer's limit and padding come from tokenizer_config.json. Older versions want config.json
and special_tokens_map.json as well.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from turkish_clip.encoder import query_prompt
from turkish_clip.exports.folder import (
    CONFIG,
    EXPORT_RECORD,
    SPECIAL_TOKENS,
    TOKENIZER_CONFIG,
    ExportedFolder,
    own_text_vectors,
    record_of,
    text_side,
    write_folder,
    write_tokenizer_files,
)
from turkish_clip.onnx.export import LEAST_COSINE
from turkish_clip.onnx.graph import write_graph
from turkish_clip.onnx.parity import Parity
from turkish_clip.onnx.runtime import GRAPH, INPUTS, OUTPUT, TOKENIZER, open_graph
from turkish_clip.strict_json import json_text
from turkish_clip.verify import GOLDEN_TEXTS, TEXT_TOLERANCE

if TYPE_CHECKING:
    from turkish_clip.dual_encoder import DualEncoder

NAMES = (EXPORT_RECORD, CONFIG, TOKENIZER, TOKENIZER_CONFIG, SPECIAL_TOKENS, GRAPH, f"{GRAPH}.data")
FILES = re.compile("|".join(map(re.escape, NAMES)))


def export_fastembed(encoder: DualEncoder, model: str, folder: Path, *, int8: bool = False) -> ExportedFolder:
    """Writes the text side of a dual encoder as fastembed reads a model, atomically.

    Args:
        encoder: what is exported.
        model: as it was named.
        folder: where to write.
        int8: store layers and embedding tables in 8 bits.

    Raises:
        OnnxError: the model can't be exported, or its graph gives other vectors.
        ForeignFileError: the folder holds something else.
    """

    def write(partial: Path) -> tuple[Parity | None, Parity | None]:
        from tokenizers import Tokenizer

        text = text_side(encoder)
        write_tokenizer_files(text, query_prompt(encoder.text) or "", partial)
        tokenizer = Tokenizer.from_file(str(partial / TOKENIZER))
        pad = {"model_type": "turkish-clip", "pad_token_id": (tokenizer.padding or {}).get("pad_id", 0)}
        (partial / CONFIG).write_text(json_text(pad, indent=2) + "\n", encoding="utf-8")
        write_graph(text, partial / GRAPH, weights_sha256=encoder.text_weights_sha256, int8=int8)
        session = open_graph(partial / GRAPH, INPUTS, None, None)
        found = []
        for encoding in map(tokenizer.encode, GOLDEN_TEXTS):
            ids, mask = (np.array([values], np.int64) for values in (encoding.ids, encoding.attention_mask))
            found.append(session.run([OUTPUT], dict(zip(INPUTS, (ids, mask))))[0])
        parity = Parity.of(own_text_vectors(encoder, GOLDEN_TEXTS), np.concatenate(found))
        parity.check("sentences", int8=int8, cosine=LEAST_COSINE, tolerance=TEXT_TOLERANCE)
        return parity, None

    return write_folder(record_of(encoder, "fastembed", model, side="text", int8=int8), folder, FILES, write)
