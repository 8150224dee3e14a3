"""Reads sounds as images: log-mel spectrograms of five seconds each, which an image model can be trained on.

PyAV (extra `sound`, FFmpeg's libraries) decodes, transformers' audio_utils computes. The scale is the same for all
sounds and never changes, since an image model learns it:

- one channel, the mean of all, resampled to RATE;
- Hann windows of WINDOW samples (64 ms), one every HOP (20 ms): a column each, SECONDS to an image, time to the right;
- BANDS mel bands (Slaney's) from 0 Hz to 8 kHz, of BAND_ROWS rows each, the highest at the top;
- decibels below the loudest point of the image: white there, black from RANGE below it on.

So how loud a recording is does not show. What lies behind the end of a sound is black. Images of silence are left out.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from turkish_clip.errors import one_line
from turkish_clip.images import DAMAGED_SOUND, KIND_OF_SUFFIX, SOUND, ImageError, OpenedImage, hash_of_file
from turkish_clip.videos import Frame, opened_media, pictures_of

log = logging.getLogger("turkish_clip")
RATE = 16_000  # samples a second: speech and most of what people hear lies below its half
WINDOW, HOP = 1024, 320  # samples
BANDS, BAND_ROWS = 125, 2
COLUMNS = BANDS * BAND_ROWS  # an image is square, so that image models cut nothing off
SECONDS = COLUMNS * HOP / RATE  # of an image: 5
RANGE = 80.0  # decibels from white to black
SILENCE = 1e-3  # of full scale (-60 dB): an image without a larger sample is one of silence
SHORTEST = WINDOW / RATE  # seconds of a sound
TAIL = 0.5  # seconds behind the last whole image from which on they have one of their own
MOST = 20_000  # images of one sound, which last more than a day
MOST_RATE, MOST_CHANNELS = 1_000_000, 64  # samples a second; what FFmpeg's resampler takes
PREROLL = 2.0  # seconds before the wanted one that decoders are given to settle
SILENT = "nothing but silence"
_TOO_LONG = "%s: what comes after %.0f hours is left out"

Samples = NDArray[np.float32]


class SoundError(ImageError):
    """A sound that does not open, or is too short or silent."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.args = (f"expected a sound at {name}, got {reason}; play it to hear whether it is whole",)


def is_sound(name: str | Path) -> bool:
    """Returns whether a file is a sound by its suffix.

    >>> is_sound("a.MP3"), is_sound("a.mp4")
    (True, False)
    """
    return KIND_OF_SUFFIX.get(Path(name).suffix.lower()) == SOUND


def spectrogram(samples: Samples) -> Image.Image:
    """Returns the image of up to SECONDS of sound, of mode "RGB" and COLUMNS pixels wide and high.

    Args:
        samples: (n,) at RATE, of any amplitude; what is no number counts as 0.
    """
    from transformers import audio_utils

    filled = np.zeros(COLUMNS * HOP, np.float32)
    filled[: len(samples)] = np.nan_to_num(samples[: len(filled)], nan=0, posinf=0, neginf=0)
    peak = float(np.abs(filled).max())
    if peak == 0:
        return Image.new("RGB", (COLUMNS, COLUMNS))
    power = audio_utils.spectrogram(
        filled / np.float32(peak),  # of which no power is too large or small for float32
        audio_utils.window_function(WINDOW, "hann"),
        WINDOW,
        HOP,
        power=2.0,
        mel_filters=_mel_filters(),
        mel_floor=1e-20,
    )[:, :COLUMNS]
    decibels = audio_utils.power_to_db(power, reference=float(power.max()), min_value=1e-20, db_range=RANGE)
    levels = np.rint((decibels + RANGE) * (255 / RANGE)).clip(0, 255).astype(np.uint8)
    return Image.fromarray(np.repeat(levels[::-1], BAND_ROWS, axis=0)).convert("RGB")


def spectrograms(path: str | Path) -> Iterator[Frame]:
    """Yields the images of a sound with the second at which each begins, in order, without those of silence.

    They follow each other every SECONDS; what is left at the end has one of its own if it is longer than TAIL. Of a
    sound that is damaged or ends too early, what can be read is yielded, and a warning says so. One image is in memory
    at a time.

    Args:
        path: of a sound, or of a video, whose sound is read.

    Raises:
        SoundError: the file is empty, is no sound, has pictures alone, is shorter than SHORTEST, or is silent.
        UnreadableImageError: it is missing or unreadable.
    """
    with _opened(path) as (container, stream):
        reader = _Reader(container, stream, str(path))
        found = total = 0
        for number, samples in enumerate(reader.parts(0)):
            total += len(samples)
            if number == MOST:
                log.warning(_TOO_LONG, path, MOST * SECONDS / 3600)
                break
            if number and len(samples) < TAIL * reader.rate:
                break
            if _is_heard(samples):
                found += 1
                yield Frame(number * SECONDS, spectrogram(_resampled(samples, reader.rate)))
        _check_heard(str(path), total / reader.rate if total else 0.0, found)
        length = _length(container, stream)
        if reader.broken or length - total / reader.rate > SECONDS:
            log.warning("%s: %s, read up to second %.0f of %.0f", path, DAMAGED_SOUND, total / reader.rate, length)


def spectrogram_at(path: str | Path, second: float) -> Image.Image:
    """Returns the image of a sound that begins at a second, as `spectrograms` yields it, without decoding all before.

    Where the file's times are not exact to the sample, as in Matroska, it may begin some milliseconds beside it.

    Args:
        path: as in `spectrograms`.
        second: from the first sample on.

    Raises:
        SoundError: as in `spectrograms`, or the sound ends before, or is silent there.
        UnreadableImageError: as in `spectrograms`.
    """
    with _opened(path) as (container, stream):
        reader = _Reader(container, stream, str(path))
        samples = next(reader.parts(second), None)
        if samples is None:
            raise SoundError(str(path), f"an end before second {second:g}" if reader.rate else DAMAGED_SOUND)
        _check_heard(str(path), math.inf if second else len(samples) / reader.rate, int(_is_heard(samples)))
        return spectrogram(_resampled(samples, reader.rate))


def first_spectrogram(path: str | Path, *, hashed: bool = False) -> OpenedImage:
    """Returns the first image of a sound that is not one of silence: what stands for it where one image is asked for.

    Args:
        path: of the file.
        hashed: whether its file is hashed, too.

    Raises:
        SoundError: as in `spectrograms`.
        UnreadableImageError: as in `spectrograms`.
    """
    return OpenedImage(next(spectrograms(path)).image, hash_of_file(path) if hashed else b"")


def spectrogram_seconds(path: str | Path) -> list[float]:
    """Returns the seconds at which the images of a sound begin, by the length that its file says, without decoding it.

    Some of them may be of silence, or lie behind the end of a file that says more than it has.

    Raises:
        SoundError: as in `spectrograms`, but for what only decoding shows.
        UnreadableImageError: as in `spectrograms`.
    """
    with _opened(path) as (container, stream):
        length = _length(container, stream) or _measured(container, stream, str(path))
    count = max(1, math.ceil((length - TAIL) / SECONDS))
    if count > MOST:
        log.warning(_TOO_LONG, path, MOST * SECONDS / 3600)
    return [number * SECONDS for number in range(min(MOST, count))]


@functools.cache
def _mel_filters() -> NDArray[np.float64]:
    """Returns the filters of the mel bands: (WINDOW // 2 + 1, BANDS)."""
    from transformers.audio_utils import mel_filter_bank

    filters: NDArray[np.float64] = mel_filter_bank(
        WINDOW // 2 + 1, BANDS, 0.0, RATE / 2, RATE, norm="slaney", mel_scale="slaney"
    )
    return filters


def _is_heard(samples: Samples) -> bool:
    finite = samples[np.isfinite(samples)]
    return bool(len(finite)) and float(np.abs(finite).max()) >= SILENCE


def _check_heard(name: str, seconds: float, found: int) -> None:
    """Checks that something was heard.

    Raises:
        SoundError: nothing was.
    """
    if not seconds:
        raise SoundError(name, DAMAGED_SOUND)
    if seconds < SHORTEST:
        raise SoundError(name, f"less than {SHORTEST:.2f} seconds")
    if not found:
        raise SoundError(name, SILENT)


def _resampled(samples: Samples, rate: int) -> Samples:
    """Returns samples at RATE, without what lies above the half of either rate."""
    from scipy.signal import resample_poly

    common = math.gcd(rate, RATE)
    if rate == RATE:
        return samples
    clean = np.nan_to_num(samples, nan=0, posinf=0, neginf=0)
    resampled: Samples = resample_poly(clean, RATE // common, rate // common).astype(np.float32)
    return resampled


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[Any, Any]]:
    """Yields the container and the stream of sound of a file."""
    name = str(path)
    with opened_media(path, SOUND, SoundError) as container:
        if not container.streams.audio:
            raise SoundError(name, "pictures without sound" if pictures_of(container) else DAMAGED_SOUND)
        stream = container.streams.best("audio") or container.streams.audio[0]
        if stream.codec_context is None:
            raise SoundError(name, "a sound of a codec that is not read")
        yield container, stream


def _length(container: Any, stream: Any) -> float:
    """Returns how many seconds a sound says it has; 0 if it does not."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return max(0.0, (container.duration or 0) / 1e6)


def _measured(container: Any, stream: Any, name: str) -> float:
    """Returns how many seconds of a sound there are, by reading it without decoding it."""
    ticks = sum(packet.duration or 0 for packet in _Reader(container, stream, name).packets())
    return float(ticks * (stream.time_base or 0))


class _Reader:
    """Decodes a stream of sound to one channel, at the rate that its first samples have.

    Attributes:
        rate: samples a second; 0 before there are any.
        size: samples of SECONDS.
        broken: whether reading ended before the file.
    """

    def __init__(self, container: Any, stream: Any, name: str) -> None:
        self._container, self._stream, self._name = container, stream, name
        self.rate, self.broken = 0, False

    @property
    def size(self) -> int:
        return round(SECONDS * self.rate)

    def parts(self, second: float) -> Iterator[Samples]:
        """Yields what there is from a second on, SECONDS at a time, the last part shorter."""
        held: list[Samples] = []
        count = 0
        for samples in self._from(second):
            held.append(samples)
            count += len(samples)
            while count >= self.size:
                joined = np.concatenate(held)
                yield joined[: self.size]
                held = [joined[self.size :]]
                count -= self.size
        if count:
            yield np.concatenate(held)

    def _from(self, second: float) -> Iterator[Samples]:
        """Yields all samples from a second on."""
        place = 0  # of the next samples, in the whole sound
        for at, samples in self._decoded(second):
            place = place if at is None else at
            skipped = max(0, round(second * self.rate) - place)
            place += len(samples)
            if skipped < len(samples):
                yield samples[skipped:]

    def _decoded(self, second: float) -> Iterator[tuple[int | None, Samples]]:
        """Yields samples; those after a jump to shortly before a second with their place in the whole sound."""
        import av

        start: float | None = None
        jumped = second <= 2 * PREROLL
        after_jump = False
        resampler: Any = None
        layout: Any = None
        packets = self.packets()
        while (packet := next(packets, None)) is not None:
            try:
                frames = packet.decode()
            except (av.error.FFmpegError, ValueError) as error:
                log.debug("%s: %s", self._name, one_line(error))
                continue
            for frame in frames:
                if not frame.samples or not frame.sample_rate:
                    continue
                if not self.rate:
                    self.rate = self._checked_rate(frame)
                start = frame.time if start is None else start
                if not jumped and start is not None and self._stream.time_base:
                    break
                form = (frame.format.name, frame.layout.name, frame.sample_rate)
                if form != layout:
                    resampler, layout = av.AudioResampler("flt", rate=self.rate), form  # PyAV reads 8 planes at most
                place = None
                if after_jump and frame.time is not None and start is not None:
                    place, after_jump = round((frame.time - start) * self.rate), False
                try:
                    resampled = resampler.resample(frame)
                except (av.error.FFmpegError, ValueError) as error:  # more channels than in the beginning
                    self.broken = True
                    log.debug("%s: %s", self._name, one_line(error))
                    return
                for part in resampled:
                    yield place, part.to_ndarray().reshape(part.samples, -1).mean(axis=1)
                    place = None
            if not jumped and start is not None and self._stream.time_base:
                jumped = after_jump = True
                wanted = round((start + second - PREROLL) / self._stream.time_base)
                try:
                    self._container.seek(wanted, stream=self._stream, backward=True)
                except av.error.FFmpegError as error:
                    log.debug("%s: %s", self._name, one_line(error))
                self._stream.codec_context.flush_buffers()
                packets = self.packets()

    def _checked_rate(self, frame: Any) -> int:
        """Returns the samples a second of the first frame.

        Raises:
            SoundError: they, or its channels, are too many.
        """
        rate, channels = int(frame.sample_rate), len(frame.layout.channels)
        if rate > MOST_RATE or channels > MOST_CHANNELS:
            raise SoundError(
                self._name, f"{channels} channels of {rate} samples a second (up to {MOST_CHANNELS} of {MOST_RATE})"
            )
        return rate

    def packets(self) -> Iterator[Any]:
        """Yields what is to be decoded, up to the end or to where the file is broken."""
        import av

        try:
            yield from self._container.demux(self._stream)
        except (av.error.FFmpegError, OSError, IndexError) as error:  # it ends too early, or another stream begins
            self.broken = True
            log.debug("%s: %s", self._name, one_line(error))
