"""Text encoders as ONNX graphs: written with torch (`export`), run without it (`OnnxTextEncoder`, `OnnxTextSide`)."""

from turkish_clip.onnx.runtime import OnnxError, OnnxTextEncoder
from turkish_clip.onnx.text_side import OnnxTextSide

__all__ = ["OnnxError", "OnnxTextEncoder", "OnnxTextSide"]
