"""Text encoders and image towers as ONNX graphs: written with torch (`export`), run without it."""

from typing import TYPE_CHECKING, Any

from turkish_clip.onnx.runtime import OnnxError, OnnxTextEncoder
from turkish_clip.onnx.text_side import OnnxTextSide

if TYPE_CHECKING:
    from turkish_clip.onnx.image_runtime import OnnxImageEncoder

__all__ = ["OnnxError", "OnnxImageEncoder", "OnnxTextEncoder", "OnnxTextSide"]


def __getattr__(name: str) -> Any:
    if name == "OnnxImageEncoder":  # needs Pillow, which texts do not
        from turkish_clip.onnx.image_runtime import OnnxImageEncoder

        return OnnxImageEncoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
