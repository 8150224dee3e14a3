"""Videos are read by frames: upright, at the seconds asked for, whatever their container; others give one error."""

from __future__ import annotations

import logging
import math
import struct
import sys
from collections.abc import Iterator
from datetime import datetime
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from films import film, sound, turned
from memory import peak_of
from numpy.typing import NDArray
from photographs import patches
from PIL import Image

from turkish_clip import videos
from turkish_clip.clips import spread_seconds
from turkish_clip.images import ImageError, UnreadableImageError
from turkish_clip.photo import Photo
from turkish_clip.videos import VideoError, frame_at, frames, video_photo

STILLS = [patches(number) for number in range(5)]
CONTAINERS = [("a.mp4", "mpeg4"), ("a.mov", "libx264"), ("a.mkv", "libx264"), ("a.webm", "libvpx"), ("a.avi", "mpeg4")]


def colours(image: Image.Image) -> NDArray[np.int16]:
    """The six patches of an image, whatever its size."""
    width, height = image.size
    spots = [((2 * x + 1) * width // 6, (2 * y + 1) * height // 4) for y in range(2) for x in range(3)]
    return np.array([image.getpixel(spot) for spot in spots], np.int16)


def shows(image: Image.Image, still: Image.Image) -> bool:
    return image.mode == "RGB" and bool(np.abs(colours(image) - colours(still)).mean() < 12)


@pytest.mark.parametrize(("name", "codec"), CONTAINERS)
def test_each_span_of_seconds_gives_its_first_frame(name: str, codec: str, tmp_path: Path) -> None:
    path = film(tmp_path / name, STILLS, codec=codec)
    found = list(frames(path, 2.0))
    assert [frame.second for frame in found] == pytest.approx([0, 2, 4, 6, 8])
    assert all(shows(frame.image, still) for frame, still in zip(found, STILLS))
    assert not shows(found[0].image, STILLS[1])
    assert [frame.second for frame in frames(path, 3.0)] == pytest.approx([0, 3, 6, 9])
    assert len(list(frames(path, 1.0))) == 10
    assert [frame.second for frame in frames(path, 1.0, distinct=True)] == pytest.approx([0, 2, 4, 6, 8])
    for second, still in ((0.0, 0), (5.0, 2), (8.0, 4), (99.0, 4)):
        assert shows(frame_at(path, second), STILLS[still])


def test_jumping_over_frames_finds_those_that_decoding_all_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = film(tmp_path / "a.mp4", [patches(number) for number in range(30)], seconds=1, codec="libx264")
    decoded = []
    read = videos._Reader.frames

    def counted(self: videos._Reader):  # type: ignore[no-untyped-def]
        for second, frame in read(self):
            decoded.append(second)
            yield second, frame

    monkeypatch.setattr(videos._Reader, "frames", counted)
    jumped = list(frames(path, 7.0))
    assert len(decoded) < 150  # of 300
    monkeypatch.setattr(videos._Reader, "skip_to", lambda self, second: None)
    decoded.clear()
    whole = list(frames(path, 7.0))
    assert len(decoded) == 300
    assert [frame.second for frame in jumped] == [frame.second for frame in whole] == [0, 7, 14, 21, 28]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(jumped, whole))


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_video_is_upright(degrees: int, tmp_path: Path) -> None:
    path = turned(film(tmp_path / "a.mp4", STILLS[:1]), degrees)
    image = next(frames(path)).image
    assert image.size == ((64, 96) if degrees != 180 else (96, 64))
    back = image.rotate(degrees, expand=True)  # Pillow turns the other way
    assert shows(back, STILLS[0])
    assert frame_at(path, 0).size == image.size


def test_large_frames_are_reduced_and_small_ones_are_not(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", STILLS[:1], size=(480, 320))
    assert next(frames(path)).image.size == (480, 320)
    reduced = next(frames(path, min_side=64)).image
    assert reduced.size == (144, 96)  # 64 × 1.5 at the shorter side
    assert shows(reduced, STILLS[0])
    assert next(frames(path, min_side=1000)).image.size == (480, 320)


def test_a_damaged_video_gives_what_can_be_read_and_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = film(tmp_path / "a.mkv", STILLS * 4)
    assert len(list(frames(path))) == 20
    assert not caplog.records
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with caplog.at_level(logging.WARNING, "turkish_clip"):
        found = list(frames(path))
    assert 5 < len(found) < 15
    assert all(shows(frame.image, STILLS[number % 5]) for number, frame in enumerate(found))
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"{path}: a truncated or damaged video, read up to second {found[-1].second:.0f} of 40")
    caplog.clear()
    last = frame_at(path, 36)  # where there is nothing: the last one, and a line
    assert (np.asarray(last) == np.asarray(frame_at(path, 39))).all()
    assert [record.getMessage().endswith(" of 40") for record in caplog.records] == [True, True]


def test_recordings_that_were_put_together_are_read_to_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parts = [
        film(tmp_path / f"{number}.ts", stills, codec="mpeg2video")
        for number, stills in enumerate((STILLS, STILLS[:2]))
    ]
    path = tmp_path / "a.ts"  # a stream whose time begins anew
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    found = list(frames(path))
    assert [round(frame.second) for frame in found] == [0, 2, 4, 6, 8, 10, 12]
    assert all(shows(frame.image, STILLS[number % 5]) for number, frame in enumerate(found))
    assert shows(frame_at(path, found[6].second), STILLS[1])
    assert not caplog.records


def test_a_length_that_a_video_does_not_have_leaves_out_no_frame(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = film(tmp_path / "a.mkv", STILLS)
    data = bytearray(path.read_bytes())
    place = data.index(bytes([0x44, 0x89, 0x88])) + 3  # of Duration, in milliseconds. Source: RFC 9559, 5.1.2.10
    for milliseconds, lines in ((1e12, 1), (math.nan, 0)):
        struct.pack_into(">d", data, place, milliseconds)
        path.write_bytes(bytes(data))
        caplog.clear()
        assert [round(frame.second) for frame in frames(path)] == [0, 2, 4, 6, 8]
        assert [record.getMessage().endswith("up to second 8 of 1000000000") for record in caplog.records] == [
            True
        ] * lines
        assert len(spread_seconds(path, 0)) == 5  # not the half of 1e9


def test_a_video_that_starts_late_is_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(40):
            frame = av.VideoFrame.from_image(STILLS[0].convert("RGB").resize((96, 64)))
            frame.pts, frame.time_base = 30_000 + number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert [frame.second for frame in frames(path)] == [0, 2]
    assert not caplog.records


def test_another_stream_in_the_middle_ends_what_is_read_and_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = film(tmp_path / "a.ts", STILLS, codec="mpeg2video")
    demux = videos._Reader.packets

    class Broken:  # as PyAV's container is where a stream comes that was not there at the beginning
        def __init__(self, container: Any) -> None:
            self._container = container

        def demux(self, stream: Any) -> Iterator[Any]:
            yield from islice(self._container.demux(stream), 45)
            raise IndexError("list index out of range")

    def packets(reader: Any) -> Iterator[Any]:
        reader._container = Broken(reader._container)
        return demux(reader)

    monkeypatch.setattr(videos._Reader, "packets", packets)
    assert [round(frame.second) for frame in frames(path)] == [0, 2, 4]
    assert "a truncated or damaged video, read up to second 4 of 10" in caplog.text


def test_what_is_no_video_says_what_it_is(tmp_path: Path) -> None:
    whole = film(tmp_path / "a.mp4", STILLS).read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])  # without the table at its end
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.avi").write_text("metin\n" * 99)
    sound(tmp_path / "sound.mp4")
    sound(tmp_path / "cover.mp4", STILLS[0])
    reasons = {
        "half.mp4": "a truncated or damaged video",
        "empty.mp4": "an empty file",
        "text.avi": "a truncated or damaged video",
        "sound.mp4": "sound without pictures",
        "cover.mp4": "sound without pictures",
    }
    for name, reason in reasons.items():
        with pytest.raises(VideoError, match=f"expected a video at .*{name}, got {reason}; play it") as raised:
            list(frames(tmp_path / name))
        assert raised.value.reason == reason
        assert isinstance(raised.value, ImageError)
    with pytest.raises(UnreadableImageError, match="got no file"):
        frame_at(tmp_path / "gone.mp4", 0)
    with pytest.raises(VideoError, match="above 0"):
        list(frames(tmp_path / "a.mp4", 0))


def test_a_playlist_is_not_followed(tmp_path: Path) -> None:
    film(tmp_path / "a.ts", STILLS, codec="mpeg2video")
    assert len(list(frames(tmp_path / "a.ts"))) == 5
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:10", "#EXTINF:10,", str(tmp_path / "a.ts"), "#EXT-X-ENDLIST", ""]
    (tmp_path / "list.mp4").write_text("\n".join(lines))
    (tmp_path / "parts.mp4").write_text(f"ffconcat version 1.0\nfile {tmp_path / 'a.ts'}\n")
    for name in ("list.mp4", "parts.mp4"):
        with pytest.raises(VideoError, match="a truncated or damaged video"):
            list(frames(tmp_path / name))


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videos, "has_library", lambda kind: False)
    with pytest.raises(VideoError, match=r"expected PyAV, got none installed; .*\[video\]"):
        list(frames(film(tmp_path / "a.mp4", STILLS[:1])))


@pytest.mark.slow
def test_the_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    program = "import sys; from turkish_clip.videos import frames; print(sum(1 for _ in frames(sys.argv[1], 0.1)))"

    def peak(name: str, stills: int) -> int:
        path = film(tmp_path / name, STILLS * stills, size=(640, 480))
        return peak_of([sys.executable, "-c", program, str(path)]).own

    assert peak("long.mp4", 12) < 1.2 * peak("short.mp4", 1)  # 1200 frames of 0.9 MB, and 100


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, Photo()),
        ({"creation_time": "2024-06-15T18:30:05.000000Z"}, Photo(datetime(2024, 6, 15, 18, 30, 5))),
        ({"creation_time": "1970-01-01T00:00:00.000000Z"}, Photo()),
        (
            {
                "creation_time": "2024-06-15T15:30:05.000000Z",
                "com.apple.quicktime.creationdate": "2024-06-15T18:30:05+0300",
                "com.apple.quicktime.location.ISO6709": "+41.0100-029.5000+012.3/",
                "com.apple.quicktime.make": "Apple",
                "com.apple.quicktime.model": "iPhone 12",
            },
            Photo(datetime(2024, 6, 15, 18, 30, 5), 41.01, -29.5, "Apple iPhone 12"),
        ),
        ({"location": "+00.0000+000.0000/"}, Photo()),
        ({"location": "+95.0000+010.0000/"}, Photo()),
    ],
)
def test_date_and_place(metadata: dict[str, str], expected: Photo, tmp_path: Path) -> None:
    assert video_photo(film(tmp_path / "a.mp4", STILLS[:1], metadata=metadata)) == expected
