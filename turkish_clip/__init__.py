"""Turkish words and images in one space: a Turkish text encoder that pairs with a frozen CLIP image model."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from turkish_clip.encoder import build_text_encoder, pair, save_text_encoder
    from turkish_clip.errors import InputError
    from turkish_clip.evaluator import RetrievalEvaluator
    from turkish_clip.images import ImageError, open_image

__all__ = [
    "ImageError",
    "InputError",
    "RetrievalEvaluator",
    "build_text_encoder",
    "open_image",
    "pair",
    "save_text_encoder",
]
__version__ = "0.1.0"

# Loaded on first use: torch and sentence-transformers take seconds, and `import turkish_clip` should not.
_ROOMS = {
    "ImageError": "images",
    "InputError": "errors",
    "RetrievalEvaluator": "evaluator",
    "build_text_encoder": "encoder",
    "open_image": "images",
    "pair": "encoder",
    "save_text_encoder": "encoder",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
