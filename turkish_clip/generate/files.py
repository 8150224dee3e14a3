"""Drawings as files: a PNG that says what it shows, an animation of the way, a strip of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from turkish_clip.atomic import atomic_write
from turkish_clip.errors import InputError
from turkish_clip.ownership import MARK, check_replaceable, png_marks
from turkish_clip.strict_json import json_text

if TYPE_CHECKING:
    from turkish_clip.generate.optimise import Drawing

FRAME_MS, LAST_MS = 120, 2000  # how long an image of the way stays, and the last one


def check_targets(target: Path, gif: Path | None, strip: Path | None) -> None:
    """Checks the names of the files before the work begins.

    Args:
        target: of the image.
        gif: of the animation; None for none.
        strip: of the images side by side; None for none.

    Raises:
        InputError: the suffix of one is another, or two are the same.
        ForeignFileError: there is a file that this project did not write.
    """
    named = [(target, ".png"), *([(gif, ".gif")] if gif else []), *([(strip, ".png")] if strip else [])]
    for path, suffix in named:
        if path.suffix.lower() != suffix:
            raise InputError(f"expected a file named {suffix}, got {path.name}; name it {path.stem}{suffix}")
        check_replaceable(path)
    if len({path.absolute() for path, _ in named}) < len(named):
        raise InputError(f"expected files of different names, got {target} twice; name another")


def write_drawing(drawing: Drawing, target: Path) -> None:
    """Writes the image as PNG, with its words and scores in a text chunk.

    Args:
        drawing: what was drawn.
        target: the file; missing folders above it are made.
    """
    about = png_marks()
    about.add_itxt("Description", json_text(drawing.scores))
    with atomic_write(target) as partial:
        drawing.image.save(partial, "PNG", pnginfo=about)


def write_way(drawing: Drawing, gif: Path | None, strip: Path | None) -> None:
    """Writes the images of the way.

    Args:
        drawing: with its frames; without any, nothing is written.
        gif: the animation; None for none.
        strip: the images side by side; None for none.
    """
    if not drawing.frames:
        return
    if gif is not None:
        first, *rest = drawing.frames
        waits = [FRAME_MS] * len(rest) + [LAST_MS]
        with atomic_write(gif) as partial:
            first.save(partial, "GIF", save_all=True, append_images=rest, duration=waits, loop=0, comment=MARK.encode())
    if strip is not None:
        width, height = drawing.image.size
        whole = Image.new("RGB", (width * len(drawing.frames), height))
        for place, frame in enumerate(drawing.frames):
            whole.paste(frame, (place * width, 0))
        with atomic_write(strip) as partial:
            whole.save(partial, "PNG", pnginfo=png_marks())
