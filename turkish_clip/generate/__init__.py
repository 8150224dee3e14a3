"""Images from words: a generator's input is optimised until the frozen image model says that it shows the words, or a
decoder makes an image of the words' vector.
"""

from turkish_clip.generate.autoencoder import GeneratorError, VQCanvas, canvas_on, load_autoencoder
from turkish_clip.generate.canvas import Canvas, FourierCanvas
from turkish_clip.generate.decoder import (
    SmallDecoder,
    UnclipDecoder,
    VectorCanvas,
    VectorDecoder,
    draw_decoded,
    load_decoder,
)
from turkish_clip.generate.optimise import Drawing, DrawingError, DrawingOptions, draw
from turkish_clip.generate.prompts import Wish, wishes_of

__all__ = [
    "Canvas",
    "Drawing",
    "DrawingError",
    "DrawingOptions",
    "FourierCanvas",
    "GeneratorError",
    "SmallDecoder",
    "UnclipDecoder",
    "VQCanvas",
    "VectorCanvas",
    "VectorDecoder",
    "Wish",
    "canvas_on",
    "draw",
    "draw_decoded",
    "load_autoencoder",
    "load_decoder",
    "wishes_of",
]
