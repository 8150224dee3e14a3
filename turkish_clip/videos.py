"""Reads videos by single frames, with PyAV (FFmpeg's libraries, extra `video`): upright RGB images with their seconds.

One frame is in memory at a time. Where a file has an index of its key frames, what lies between two samples is skipped.
Only containers of one file are opened, and nothing but that file is read: FFmpeg's playlists could name others, or
addresses.
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from turkish_clip.errors import missing_library, one_line
from turkish_clip.images import (
    DAMAGED_SOUND,
    DAMAGED_VIDEO,
    KIND_OF_SUFFIX,
    LIBRARIES,
    MAX_PIXELS,
    NO_FILE,
    REDUCING_GAP,
    SOUND,
    UNREADABLE,
    VIDEO,
    ImageError,
    UnreadableImageError,
    has_library,
)
from turkish_clip.photo import FIRST_YEAR, LAST_YEAR, Photo, camera_of, date_of

log = logging.getLogger("turkish_clip")
EVERY = 2.0  # seconds from one frame to the next, by default
MOST = 20_000  # frames of one video; a longer one is sampled less often
SMALL = 16  # side in pixels of the copies by which frames are told apart
SAME = 4.0  # mean difference of two copies, of 255 levels, below which one of the frames is left out
SLACK = 1.5  # seconds that a video may end before the time that it says
RESTART = 1.0  # seconds back, from which on the time begins anew: recordings that were put together, or a clock's end
FORMATS = "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,live_flv,asf,ogg,mxf,dv,h264,hevc,gif,obu,ivf,r3d,wtv,rm"
SOUND_FORMATS = "wav,w64,aiff,au,caf,mp3,aac,ac3,eac3,amr,amrnb,amrwb,ape,flac,wv"  # of sound alone
FORMATS_OF = {VIDEO: FORMATS, SOUND: f"{FORMATS},{SOUND_FORMATS}"}
DAMAGED_OF = {VIDEO: DAMAGED_VIDEO, SOUND: DAMAGED_SOUND}
# Keys of a container's metadata: of QuickTime, in local time with its zone, then of all others, in UTC.
DATES = ("com.apple.quicktime.creationdate", "creation_time", "date")
PLACES = ("com.apple.quicktime.location.ISO6709", "location")
MAKES, MODELS = ("com.apple.quicktime.make", "make"), ("com.apple.quicktime.model", "model")
PLACE = re.compile(r"([+-]\d{2}(?:\.\d+)?)([+-]\d{3}(?:\.\d+)?)")  # degrees. Source: ISO 6709, annex H
NO_YEAR = 1970  # and before: the beginning of a container's or a system's time stands for none


class VideoError(ImageError):
    """A video that does not open, or of which no frame does."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.args = (f"expected a video at {name}, got {reason}; play it to see whether it is whole",)


@dataclass(frozen=True)
class Frame:
    """One frame of a video, or one spectrogram of a sound.

    Attributes:
        second: from the first frame or sample on.
        image: upright, of mode "RGB".
    """

    second: float
    image: Image.Image


def is_video(name: str | Path) -> bool:
    """Returns whether a file is a video by its suffix.

    >>> is_video("a.MOV"), is_video("a.gif")
    (True, False)
    """
    return KIND_OF_SUFFIX.get(Path(name).suffix.lower()) == VIDEO


def frames(
    path: str | Path, every: float = EVERY, *, distinct: bool = False, min_side: int | None = None
) -> Iterator[Frame]:
    """Yields frames of a video, the first one and then one for each span of time that has one.

    Of a video that is damaged or ends too early, what can be read is yielded, and a warning says so.

    Args:
        path: of the file.
        every: seconds of a span, above 0; a video of more than `MOST` spans has longer ones.
        distinct: leave out what hardly differs from the frame before that was not left out.
        min_side: as in `turkish_clip.images.open_image`: larger frames are reduced, with both sides at least
            REDUCING_GAP times this.

    Raises:
        VideoError: the file is empty, is no video, has sound alone, or no frame of it can be read.
        UnreadableImageError: it is missing or unreadable.
    """
    if not every > 0:
        raise VideoError(str(path), f"one frame every {every:g} seconds asked for, which must be above 0")
    with _opened(path) as (container, stream):
        length = _length(container, stream)
        step = max(every, (length if length <= MOST * every else min(length, _measured(path))) / MOST)
        kept: Any = None
        last = -1.0
        reader = _Reader(container, stream, str(path))
        for second, frame in _sampled(reader, step):
            last = second
            image = _upright(frame, min_side)
            if distinct:
                small = np.asarray(image.resize((SMALL, SMALL), Image.Resampling.BOX), np.int16)
                if kept is not None and np.abs(small - kept).mean() < SAME:
                    continue
                kept = small
            yield Frame(second, image)
        if last < 0:
            raise VideoError(str(path), DAMAGED_VIDEO)
        if reader.broken or length - last > step + SLACK:
            log.warning("%s: %s, read up to second %.0f of %.0f", path, DAMAGED_VIDEO, last, length)


def frame_at(path: str | Path, second: float, *, min_side: int | None = None) -> Image.Image:
    """Returns the frame of a video at a second, or the last one before its end.

    Where that is far before the second, since a file is cut or says that it is longer, a warning says so.

    Args:
        path: of the file.
        second: from the first frame on, as `frames` gives it.
        min_side: as in `frames`.

    Raises:
        VideoError: as in `frames`.
        UnreadableImageError: as in `frames`.
    """
    with _opened(path) as (container, stream):
        reader = _Reader(container, stream, str(path))
        found, last = None, 0.0
        for at, frame in reader.frames():
            found, last = frame, at
            if at >= second - 1e-3:
                break
            reader.skip_to(second)
        if found is None:
            raise VideoError(str(path), DAMAGED_VIDEO)
        if second - last > EVERY + SLACK:
            length = max(second, _length(container, stream))
            log.warning("%s: %s, read up to second %.0f of %.0f", path, DAMAGED_VIDEO, last, length)
        return _upright(found, min_side)


def video_seconds(path: str | Path) -> float:
    """Returns how many seconds a video has: as it says, or by reading it without decoding it; 0 for a single frame.

    One that says it has more than `MOST` frames every `EVERY` seconds is read.

    Raises:
        VideoError: as in `frames`.
        UnreadableImageError: as in `frames`.
    """
    with _opened(path) as (container, stream):
        length = _length(container, stream)
        return length if 0 < length <= MOST * EVERY else min(length or math.inf, _measured(path))


def video_photo(path: str | Path) -> Photo:
    """Returns when, where and with what a video was taken, by its metadata.

    Telephones of Apple write the local time, most others that of UTC alone, which is taken as it is.

    Raises:
        VideoError: as in `frames`.
        UnreadableImageError: as in `frames`.
    """
    with _opened(path) as (container, stream):
        about = {**stream.metadata, **container.metadata}

    def first(keys: tuple[str, ...]) -> str:
        return next((str(about[key]) for key in keys if about.get(key)), "")

    taken = date_of(first(DATES))
    if taken is not None and not max(FIRST_YEAR, NO_YEAR) < taken.year <= LAST_YEAR:
        taken = None
    lat = lon = None
    if place := PLACE.match(first(PLACES)):
        lat, lon = (float(part) for part in place.groups())
        if abs(lat) > 90 or abs(lon) > 180 or lat == lon == 0:
            lat = lon = None
    return Photo(taken, lat, lon, camera_of(first(MAKES), first(MODELS)))


@contextmanager
def opened_media(path: str | Path, kind: str, error_type: Callable[[str, str], ImageError]) -> Iterator[Any]:
    """Yields the container of a video or sound, of which nothing but its own file is read.

    Args:
        path: of the file.
        kind: one of `turkish_clip.images.CLIPS`.
        error_type: makes the error of a name and a reason.

    Raises:
        ImageError: an `error_type`: the file is empty, or does not open; or PyAV is not installed.
        UnreadableImageError: the file is missing or unreadable.
    """
    name = str(path)
    try:
        size = Path(path).stat().st_size
        with Path(path).open("rb"):
            pass
    except OSError as error:
        missing = NO_FILE if isinstance(error, FileNotFoundError) else f"{UNREADABLE} ({error.strerror})"
        raise UnreadableImageError(name, missing) from error
    if size == 0:
        raise error_type(name, "an empty file")
    if not has_library(kind):
        raise error_type(name, missing_library("PyAV", LIBRARIES[kind][1]))
    import av

    options = {"format_whitelist": FORMATS_OF[kind], "protocol_whitelist": "file"}
    try:
        container = av.open(str(Path(path).absolute()), container_options=options, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise error_type(name, DAMAGED_OF[kind]) from error
    with container:
        yield container


def pictures_of(container: Any) -> list[Any]:
    """Returns the streams of pictures of a container, without covers."""
    import av

    return [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[Any, Any]]:
    """Yields the container and the stream of pictures of a video."""
    name = str(path)
    with opened_media(path, VIDEO, VideoError) as container:
        pictures = pictures_of(container)
        if not pictures:
            raise VideoError(name, "sound without pictures" if container.streams.audio else DAMAGED_VIDEO)
        stream = pictures[0]
        if stream.codec_context is None:
            raise VideoError(name, "a video of a codec that is not read")
        if stream.width * stream.height > MAX_PIXELS:
            raise VideoError(name, f"more than {MAX_PIXELS} pixels")
        stream.thread_type = "AUTO"
        yield container, stream


class _Reader:
    """Decodes a stream in order, and jumps over what is not needed where the file says where its key frames are."""

    def __init__(self, container: Any, stream: Any, name: str) -> None:
        self._container, self._stream, self._name = container, stream, name
        self._start: float | None = None
        self._jump: int | None = None
        self._dts = 0  # of the packet that was read last
        self._landed = -1  # the key frame that was jumped to last
        self._before = 0.0  # seconds of recordings before the one that is read
        self.broken = False  # whether reading ended before the file

    def frames(self) -> Iterator[tuple[float, Any]]:
        """Yields the second of each frame with the frame; what can't be decoded is left out."""
        import av

        number, last = 0, 0.0
        rate = float(self._stream.average_rate or 25)
        packets = self.packets()
        while (packet := next(packets, None)) is not None:
            try:
                decoded = packet.decode()
            except (av.error.FFmpegError, ValueError) as error:
                log.debug("%s: %s", self._name, one_line(error))
                continue
            for frame in decoded:
                at = number / rate if frame.time is None else float(frame.time)
                number += 1
                if self._start is None:
                    self._start = at
                if last - at > RESTART and self._jump is None and self._landed < 0:
                    self._before += last + 1 / rate - at
                last = at
                yield max(0.0, at - self._start + self._before), frame
                if self._jump is not None:
                    break
            if self._jump is not None:
                place, self._jump = self._jump, None
                with contextlib.suppress(av.error.FFmpegError):
                    self._container.seek(place, stream=self._stream, backward=True)
                    packets = self.packets()

    def skip_to(self, second: float) -> None:
        """Lets the next frame be the key frame nearest before a second, if that lies ahead."""
        entries, base = self._stream.index_entries, self._stream.time_base
        if self._start is None or base is None or self._before or len(entries) < 2:
            return
        wanted = round((self._start + second) / base)
        place = entries.search_timestamp(wanted)
        if place >= 0 and entries[place].timestamp > max(self._dts, self._landed):
            self._jump, self._landed = wanted, entries[place].timestamp  # decoding times may lie before those shown

    def packets(self) -> Iterator[Any]:
        """Yields what is to be decoded, up to the end or to where the file is broken."""
        import av

        try:
            for packet in self._container.demux(self._stream):
                if packet.dts is not None:
                    self._dts = packet.dts
                yield packet
        except (av.error.FFmpegError, OSError, IndexError) as error:  # it ends too early, or another stream begins
            self.broken = True
            log.debug("%s: %s", self._name, one_line(error))


def _sampled(reader: _Reader, step: float) -> Iterator[tuple[float, Any]]:
    """Yields the first frame of each span of `step` seconds."""
    due = 0.0
    for second, frame in reader.frames():
        if second < due - 1e-6:
            continue
        due = (math.floor(second / step + 1e-6) + 1) * step
        reader.skip_to(due)
        yield second, frame


def _length(container: Any, stream: Any) -> float:
    """Returns how many seconds a video says it has; 0 if it does not."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    start = (stream.start_time or 0) * stream.time_base if stream.time_base else 0  # which Matroska counts in
    return max(0.0, (container.duration or 0) / 1e6 - max(0.0, float(start)))


def _measured(path: str | Path) -> float:
    """Returns how many seconds of a video there are, by reading it without decoding it."""
    with _opened(path) as (container, stream):
        first, last = math.inf, -math.inf
        for packet in _Reader(container, stream, str(path)).packets():
            if packet.pts is not None:
                first, last = min(first, packet.pts), max(last, packet.pts)
        return max(0.0, (last - first) * float(stream.time_base or 0))


def _upright(frame: Any, min_side: int | None) -> Image.Image:
    """Returns a frame as people see it: turned as its metadata says."""
    width, height = frame.width, frame.height
    factor = math.ceil(min_side * REDUCING_GAP) / min(width, height) if min_side else 1.0
    if factor < 1:
        size = {"width": max(1, round(width * factor)), "height": max(1, round(height * factor))}
        image: Image.Image = frame.to_image(**size, interpolation="AREA")
    else:
        image = frame.to_image()
    turns = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
    turn = turns.get(round(frame.rotation) % 360)
    return image if turn is None else image.transpose(turn)
