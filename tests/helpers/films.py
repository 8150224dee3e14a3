"""Videos as cameras write them, made of still images with PyAV."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import av
import numpy as np
from PIL import Image

RATE = 10  # frames a second


def film(
    path: Path,
    images: Sequence[Image.Image],
    seconds: float = 2.0,
    *,
    codec: str = "mpeg4",
    size: tuple[int, int] = (96, 64),
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Writes a video that shows each image for so many seconds; its suffix tells the container."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"movflags": "use_metadata_tags"} if metadata else {}
    with av.open(str(path), "w", options=options) as container:
        container.metadata.update(metadata or {})
        stream = container.add_stream(codec, rate=RATE)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for image in images:
            frame = av.VideoFrame.from_image(image.convert("RGB").resize(size, Image.Resampling.NEAREST))
            for _ in range(round(seconds * RATE)):
                container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turned(path: Path, degrees: int) -> Path:
    """Writes into an MP4 that it is to be shown turned clockwise, as telephones do that are held upright."""
    a, b = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    data = bytearray(path.read_bytes())
    # 40 bytes behind the fields of a track's header of version 0 stands its matrix. Source: ISO/IEC 14496-12, 8.3.2
    place = data.index(b"tkhd") + 4 + 40
    one = 1 << 16
    struct.pack_into(">9i", data, place, a * one, b * one, 0, -b * one, a * one, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(data))
    return path


def sound(path: Path, cover: Image.Image | None = None) -> Path:
    """Writes a second of silence, with a picture of its cover if there is one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000)
        art = None
        if cover is not None:
            art = container.add_stream("png", rate=1)
            art.width, art.height, art.pix_fmt = *cover.size, "rgb24"
            art.disposition = av.stream.Disposition.attached_pic.value
        for number in range(16):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16_000, number * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if cover is not None and art is not None:
            buffer = io.BytesIO()
            cover.save(buffer, "PNG")
            packet = av.Packet(buffer.getvalue())
            packet.stream, packet.pts, packet.dts = art, 0, 0
            container.mux(packet)
    return path
