"""Videos and sounds as images of a source: some frames or spectrograms of each, which share its captions and split."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from training.data.lazy_images import LazyImage, MissingImage
from training.data.samples import Row, SkippedSample
from turkish_clip.clips import image_at, is_clip, part_name, spread_seconds
from turkish_clip.images import ImageError

FRAME_SIDE = 448  # pixels that an image tower may need of a frame: larger frames are reduced, as `frames` says


@dataclass(frozen=True)
class ClipImage(LazyImage):
    """The frame of a video at a second, or the spectrogram of a sound that begins there.

    The bytes that are read are its pixels as PPM, quickly written and the same with every version of Pillow: equal
    frames of two files have equal hashes.
    """

    path: Path
    second: float

    @property
    def place(self) -> str:
        return part_name(str(self.path), self.second)

    @property
    def size(self) -> int:
        """Bytes of the clip's file; 0 if it is gone."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def read(self) -> bytes:
        buffer = io.BytesIO()
        image_at(self.path, self.second, min_side=FRAME_SIDE).save(buffer, "PPM")
        return buffer.getvalue()


def rows_of(row: Row, count: int, *, check_files: bool) -> Iterator[Row | SkippedSample]:
    """Yields the rows of the images of a video or sound; any other row as it is.

    Its image_ids are that of the clip with the second, as in clip.mp4#t=4.

    Args:
        row: whose image may be the path of a clip.
        count: of images, at most, as in `turkish_clip.clips.spread_seconds`.
        check_files: whether a clip that does not open becomes a skipped sample; otherwise its row has a `MissingImage`.
    """
    path: Any = row.image
    if not isinstance(path, Path) or not is_clip(path):
        yield row
        return
    try:
        seconds = spread_seconds(path, count)
    except ImageError as error:
        missing = replace(row, image=MissingImage(error.name, error.reason))
        yield SkippedSample(row.image_id, error.name, error.reason) if check_files else missing
        return
    for second in seconds:
        yield replace(row, image_id=part_name(row.image_id, second), image=ClipImage(path, second))
