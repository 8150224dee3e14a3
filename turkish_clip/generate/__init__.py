"""Images from words: a generator's input is optimised until the frozen image model says that it shows the words."""

from turkish_clip.generate.canvas import Canvas, FourierCanvas
from turkish_clip.generate.optimise import Drawing, DrawingError, DrawingOptions, draw
from turkish_clip.generate.prompts import Wish, wishes_of

__all__ = ["Canvas", "Drawing", "DrawingError", "DrawingOptions", "FourierCanvas", "Wish", "draw", "wishes_of"]
