"""Files of which one is several images: videos by their frames, sounds by their spectrograms."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from turkish_clip.images import CLIPS, KIND_OF_SUFFIX, UNREAD_KINDS, has_library, open_image
from turkish_clip.photo import Photo
from turkish_clip.sounds import is_sound, spectrogram_at, spectrogram_seconds, spectrograms
from turkish_clip.videos import EVERY, Frame, frame_at, frames, video_photo, video_seconds
from turkish_clip.videos import MOST as MOST_FRAMES

CLIP_SUFFIXES = frozenset(suffix for kind in CLIPS for suffix in UNREAD_KINDS[kind].split())
PART = re.compile(r"#t=[\d.]+$")  # of a name. Source: W3C, Media Fragments URI 1.0, 4.2.1


def is_clip(name: str | Path) -> bool:
    """Returns whether a file is a video or a sound by its suffix.

    >>> is_clip("a.MOV"), is_clip("a.mp3"), is_clip("a.gif")
    (True, True, False)
    """
    return Path(name).suffix.lower() in CLIP_SUFFIXES


def is_read(name: str | Path) -> bool:
    """Returns whether a file is a video or a sound for which the library is installed."""
    return is_clip(name) and has_library(KIND_OF_SUFFIX[Path(name).suffix.lower()])


def part_name(name: str, second: float) -> str:
    """Returns the name of an image of a clip.

    Args:
        name: of the clip.
        second: at which the image begins.

    >>> part_name("a.mp4", 2.0), part_name("a.wav", 1234567.5)
    ('a.mp4#t=2', 'a.wav#t=1234567.5')
    """
    return f"{name}#t={f'{second:.3f}'.rstrip('0').rstrip('.')}"


def whole_name(name: str) -> str:
    """Returns the name of the clip that an image is of; any other name as it is.

    >>> whole_name("a.mp4#t=2.5"), whole_name("a#t.png")
    ('a.mp4', 'a#t.png')
    """
    return PART.sub("", name)


def parts(path: str | Path, every: float = EVERY, *, min_side: int | None = None) -> Iterator[Frame]:
    """Yields the images of a clip with their seconds: distinct frames of a video, spectrograms of a sound.

    Args:
        path: of the file.
        every: seconds from one frame of a video to the next.
        min_side: as in `turkish_clip.videos.frames`.

    Raises:
        ImageError: as in `turkish_clip.videos.frames` and `turkish_clip.sounds.spectrograms`.
    """
    return spectrograms(path) if is_sound(path) else frames(path, every, distinct=True, min_side=min_side)


def image_at(path: str | Path, second: float, *, min_side: int | None = None) -> Image.Image:
    """Returns the frame of a video at a second, or the spectrogram of a sound that begins there.

    Args:
        path: of the file.
        second: as `parts` gives it.
        min_side: as in `turkish_clip.videos.frames`.

    Raises:
        ImageError: as in `parts`.
    """
    return spectrogram_at(path, second) if is_sound(path) else frame_at(path, second, min_side=min_side)


def still(path: str | Path, second: float | None) -> str | Path | Image.Image:
    """Returns what opens as an image: of a clip the image at a second, of anything else the path itself.

    Args:
        path: of the file.
        second: in the clip; None for no clip.

    Raises:
        ImageError: as in `parts`.
    """
    return path if second is None else image_at(path, second)


def open_still(path: str | Path, second: float | None, *, min_side: int) -> Image.Image:
    """Opens an image, or of a clip the image at a second.

    Args:
        path: of the file.
        second: in the clip; None for no clip.
        min_side: as in `turkish_clip.images.open_image`.

    Raises:
        ImageError: it does not open.
    """
    return open_image(path, min_side=min_side) if second is None else image_at(path, second, min_side=min_side)


def clip_photo(path: str | Path) -> Photo:
    """Returns when, where and with what a video was taken; of a sound nothing.

    Raises:
        ImageError: as in `parts`.
    """
    return Photo() if is_sound(path) else video_photo(path)


def spread_seconds(path: str | Path, count: int) -> list[float]:
    """Returns the seconds of images that stand for a clip, spread evenly over it, by what its file says of its length.

    A video has at most one for each two seconds, from the middle of equal spans; a sound has whole spectrograms.

    Args:
        path: of the file.
        count: of images, at most; 0: all, a frame for each two seconds or every spectrogram.

    Raises:
        ImageError: the file does not open.
    """
    if is_sound(path):
        seconds = spectrogram_seconds(path)
        return seconds if not 0 < count < len(seconds) else [seconds[place] for place in middles(len(seconds), count)]
    length = video_seconds(path)
    spans = max(1, round(length / EVERY))
    spans = min(spans, count or MOST_FRAMES, MOST_FRAMES)
    return [round((number + 0.5) * length / spans, 3) for number in range(spans)]


def middles(total: int, count: int) -> list[int]:
    """Returns the middle place of each of `count` equal parts of `total` places.

    Args:
        total: number of places.
        count: of parts, not more than places.

    >>> middles(7, 1), middles(10, 3)
    ([3], [1, 5, 8])
    """
    return [(2 * number + 1) * total // (2 * count) for number in range(count)]
