"""Text encoders as ONNX graphs: written with torch (`export`), run without it (`OnnxTextEncoder`)."""

from turkish_clip.onnx.runtime import OnnxError, OnnxTextEncoder

__all__ = ["OnnxError", "OnnxTextEncoder"]
