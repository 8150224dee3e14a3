"""Turkish texts and images in one embedding space: a Turkish text encoder for a frozen CLIP image model."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from turkish_clip.dual_encoder import DualEncoder, load_dual_encoder
    from turkish_clip.encoder import build_text_encoder, pair, save_text_encoder
    from turkish_clip.errors import InputError
    from turkish_clip.evaluator import RetrievalEvaluator
    from turkish_clip.few_shot import FewShotClassifier
    from turkish_clip.filtering import ImageFilter
    from turkish_clip.images import ImageError, open_image
    from turkish_clip.onnx import OnnxTextEncoder
    from turkish_clip.search import ImageIndex
    from turkish_clip.zero_shot import ZeroShotClassifier

__all__ = [
    "DualEncoder",
    "FewShotClassifier",
    "ImageError",
    "ImageFilter",
    "ImageIndex",
    "InputError",
    "OnnxTextEncoder",
    "RetrievalEvaluator",
    "ZeroShotClassifier",
    "build_text_encoder",
    "load_dual_encoder",
    "open_image",
    "pair",
    "save_text_encoder",
]
__version__ = "0.1.0"

# The module of each name, imported on first use: torch and sentence-transformers take seconds to import. The function
# `verify` is not among them, since importing its module sets `turkish_clip.verify` to the module.
_MODULES = {
    "DualEncoder": "dual_encoder",
    "FewShotClassifier": "few_shot",
    "ImageError": "images",
    "ImageFilter": "filtering",
    "ImageIndex": "search",
    "InputError": "errors",
    "OnnxTextEncoder": "onnx",
    "RetrievalEvaluator": "evaluator",
    "ZeroShotClassifier": "zero_shot",
    "build_text_encoder": "encoder",
    "load_dual_encoder": "dual_encoder",
    "open_image": "images",
    "pair": "encoder",
    "save_text_encoder": "encoder",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
