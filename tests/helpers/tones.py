"""Sounds as recorders write them, made of tones with the standard library and PyAV."""

from __future__ import annotations

import wave
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Samples = NDArray[np.float32]


def tones(
    pitches: Sequence[float], seconds: float, rate: int = 16_000, amplitudes: Sequence[float] | None = None
) -> Samples:
    """Steady tones together, of amplitude 0.3 each unless others are given."""
    time = np.arange(round(seconds * rate)) / rate
    levels = amplitudes or [0.3] * len(pitches)
    waves = [level * np.sin(2 * np.pi * pitch * time) for pitch, level in zip(pitches, levels)]
    return np.sum(waves, axis=0).astype(np.float32) if waves else np.zeros(len(time), np.float32)


def sweep(low: float, high: float, seconds: float, rate: int = 16_000) -> Samples:
    """A tone whose pitch goes from one to another."""
    time = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * (low + (high - low) * time / seconds / 2) * time)).astype(np.float32)


def write_wav(path: Path, channels: Samples, rate: int = 16_000) -> Path:
    """Writes 16-bit samples, (n,) or (channels, n)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.atleast_2d(channels)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(rows))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((rows.T * 32767).round().astype("<i2").tobytes())
    return path


def encode(path: Path, samples: Samples, codec: str, rate: int = 44_100, cover: Image.Image | None = None) -> Path:
    """Writes samples, (n,), and a cover beside them, by a codec of FFmpeg; the suffix tells the container."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        if cover is not None:
            art = container.add_stream("mjpeg", rate=1)
            art.width, art.height, art.pix_fmt = *cover.size, "yuvj420p"
            art.disposition = av.stream.Disposition.attached_pic.value
            picture = av.VideoFrame.from_image(cover)
            picture.pts = 0
            for packet in [*art.encode(picture), *art.encode(None)]:
                container.mux(packet)
        resampler = av.AudioResampler(stream.format.name, "mono", rate)
        for start in range(0, len(samples), 1024):
            part = np.ascontiguousarray(samples[None, start : start + 1024], np.float32)
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = rate, start
            for resampled in resampler.resample(frame):
                container.mux(stream.encode(resampled))
        container.mux(stream.encode(None))
    return path
