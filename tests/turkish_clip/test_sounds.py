"""Sounds are read as log-mel spectrograms of one scale, whatever their file; what is no sound gives one error."""

from __future__ import annotations

import hashlib
import logging
import pickle
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from films import film
from memory import peak_of
from numpy.typing import NDArray
from photographs import patches
from PIL import Image
from tones import encode, sweep, tones, write_wav

from turkish_clip import clips, sounds
from turkish_clip.decoding import ImageInput
from turkish_clip.images import ImageError, UnreadableImageError
from turkish_clip.sounds import (
    BANDS,
    SoundError,
    first_spectrogram,
    spectrogram,
    spectrogram_at,
    spectrogram_seconds,
    spectrograms,
)
from turkish_clip.thumbnails import thumbnail


def levels(image: Image.Image) -> NDArray[np.int16]:
    """The grey levels of the bands, (BANDS, columns), the lowest band first."""
    return np.asarray(image.convert("L"), np.int16)[::-2]


def test_a_tone_is_where_slaneys_scale_has_it() -> None:
    # 440 Hz are 3 / 200 × 440 = 6.6 mel, 4000 Hz are 15 + 27 ln 4 / ln 6.4 = 35.164, and 8000 Hz 45.245, so that band
    # k is around (k + 1) × 45.245 / 126 mel: that of 440 Hz is the one of 17.4, that of 4000 Hz the one of 96.9.
    for pitch, band in ((440, 17), (4000, 97)):
        image = spectrogram(tones([pitch], 5))
        assert (image.mode, image.size) == ("RGB", (250, 250))
        found = levels(image)
        assert set(found[:, 10:240].argmax(axis=0)) == {band}
        pixels = np.asarray(image)
        assert (pixels == pixels[..., :1]).all()  # grey
        assert (pixels[249 - 2 * band, 100] == 255).all()  # the loudest is white, and higher ones are above
    assert len(levels(image)) == BANDS


def test_decibels_below_the_loudest_are_levels() -> None:
    # Below 1 kHz the bands are alike: 40 dB less are half of the 80 dB, 60 dB less a quarter of the levels.
    found = levels(spectrogram(tones([300, 800], 5, amplitudes=[0.5, 0.005])))
    bands = [round(3 * pitch / 200 * 126 / 45.245 - 1) for pitch in (300, 800)]
    assert found[bands[0], 100] == pytest.approx(255, abs=3)
    assert found[bands[1], 100] == pytest.approx(127.5, abs=6)
    quiet = levels(spectrogram(tones([300, 800], 5, amplitudes=[0.05, 0.0005])))
    assert np.abs(quiet - found).max() <= 1  # how loud a recording is does not show
    third = levels(spectrogram(tones([300, 800], 5, amplitudes=[0.5, 0.0005])))
    assert third[bands[1], 100] == pytest.approx(63.75, abs=6)


def test_time_runs_to_the_right_and_what_is_behind_the_end_is_black(tmp_path: Path) -> None:
    found = levels(spectrogram(sweep(300, 6000, 2)))
    assert found[:, 5].argmax() < found[:, 50].argmax() < found[:, 95].argmax()
    assert found[:, 104:].max() == 0  # 2 s are 100 columns; a window reaches 32 ms beyond
    assert not np.asarray(spectrogram(np.zeros(100, np.float32))).any()


@pytest.mark.parametrize("rate", [8_000, 11_127, 22_050, 44_100, 48_000, 96_000])
def test_rates_and_channels_give_one_image(rate: int, tmp_path: Path) -> None:
    samples = sweep(300, 3000, 5, rate)
    mono, stereo = write_wav(tmp_path / "mono.wav", samples, rate), tmp_path / "stereo.wav"
    write_wav(stereo, np.stack([samples, samples]), rate)
    [one], [other] = spectrograms(mono), spectrograms(stereo)
    assert one.second == 0
    assert (np.asarray(one.image) == np.asarray(other.image)).all()
    difference = np.abs(levels(one.image) - levels(spectrogram(sweep(300, 3000, 5))))
    assert difference[:90, :245].mean() < 3  # below 3.4 kHz, which all these rates hold


def test_any_number_of_channels_is_read_or_refused(tmp_path: Path) -> None:
    samples = sweep(300, 3000, 5)
    [expected] = spectrograms(write_wav(tmp_path / "1.wav", samples))
    for channels in (6, 9, 40):
        [found] = spectrograms(write_wav(tmp_path / "many.wav", np.stack([samples] * channels)))
        assert np.abs(levels(found.image) - levels(expected.image)).max() <= 1
    path = write_wav(tmp_path / "66.wav", np.stack([samples] * 66))
    with pytest.raises(SoundError, match=r"got 66 channels of 16000 samples a second \(up to 64 of 1000000\); play"):
        next(spectrograms(path))
    path = write_wav(tmp_path / "fast.wav", samples, 2_000_000_000)  # whose filter would be of billions of numbers
    with pytest.raises(SoundError, match="got 1 channels of 2000000000 samples a second"):
        spectrogram_at(path, 0)


def test_images_follow_each_other_without_those_of_silence(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", np.concatenate([sweep(300, 600, 5), np.zeros(160_000), sweep(500, 900, 7)]))
    found = list(spectrograms(path))
    assert [image.second for image in found] == [0, 15, 20]
    assert spectrogram_seconds(path) == [0, 5, 10, 15, 20]  # by the length alone
    assert (np.asarray(found[1].image) == np.asarray(spectrogram(sweep(500, 900, 7)[:80_000]))).mean() > 0.98
    for seconds, expected in ((5.4, [0]), (5.6, [0, 5]), (10, [0, 5]), (0.1, [0])):
        path = write_wav(tmp_path / "b.wav", sweep(300, 600, seconds))
        assert [image.second for image in spectrograms(path)] == spectrogram_seconds(path) == expected


CODECS = [("a.mp3", "libmp3lame"), ("a.m4a", "aac"), ("a.aac", "aac"), ("a.flac", "flac"), ("a.mka", "flac")]


@pytest.mark.parametrize(("name", "codec"), [*CODECS, ("a.opus", "libopus"), ("a.webm", "libopus")])
def test_every_container_gives_the_same_sound(name: str, codec: str, tmp_path: Path) -> None:
    rate = 48_000 if codec == "libopus" else 44_100
    samples = sweep(300, 6000, 23, rate)
    path = encode(tmp_path / name, samples, codec, rate)
    wav = write_wav(tmp_path / "b.wav", samples, rate)
    assert spectrogram_seconds(path) == [0, 5, 10, 15, 20]
    for found, expected in zip(spectrograms(path), spectrograms(wav), strict=True):
        assert found.second == expected.second
        middle = slice(20, 140)
        there, heard = levels(found.image)[:, middle], levels(expected.image)[:, middle]
        assert np.abs(there.argmax(axis=0) - heard.argmax(axis=0)).max() <= 1
        sought = levels(spectrogram_at(path, found.second))
        tolerance = 1.5 if name.endswith(("mka", "webm", "aac")) else 0.05  # times in milliseconds, or estimated
        assert np.abs(sought - levels(found.image)).mean() < tolerance


def test_a_cover_is_no_picture_and_the_sound_of_a_video_is_heard(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp3", sweep(300, 6000, 6, 44_100), "libmp3lame", cover=patches(0).convert("RGB"))
    assert [image.second for image in spectrograms(path)] == [0, 5]
    with pytest.raises(SoundError, match=r"expected a sound at .*b.mp4, got pictures without sound; play it"):
        next(spectrograms(film(tmp_path / "b.mp4", [patches(1)])))


def test_what_is_no_sound_says_what_it_is(tmp_path: Path) -> None:
    whole = encode(tmp_path / "a.m4a", sweep(300, 600, 9, 44_100), "aac").read_bytes()
    (tmp_path / "half.m4a").write_bytes(whole[: len(whole) // 2])  # without the table at its end
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.mp3").write_text("metin\n" * 3000)
    (tmp_path / "noise.aac").write_bytes(np.random.default_rng(0).bytes(50_000))
    (tmp_path / "list.mp3").write_text(f"#EXTM3U\n#EXTINF:10,\n{tmp_path / 'a.m4a'}\n")
    patches(0).convert("RGB").save(tmp_path / "image.png")
    (tmp_path / "image.png").rename(tmp_path / "image.mp3")
    write_wav(tmp_path / "silent.wav", tones([300], 7, amplitudes=[0.0005]))
    write_wav(tmp_path / "short.wav", tones([300], 0.05))
    write_wav(tmp_path / "nothing.wav", tones([300], 0))
    damaged = "a truncated or damaged sound"
    reasons = {
        **dict.fromkeys(["half.m4a", "text.mp3", "noise.aac", "list.mp3", "image.mp3", "nothing.wav"], damaged),
        "empty.wav": "an empty file",
        "silent.wav": "nothing but silence",
        "short.wav": "less than 0.06 seconds",
    }
    for name, reason in reasons.items():
        with pytest.raises(SoundError, match=f"expected a sound at .*{name}, got {reason}; play it to hear") as raised:
            list(spectrograms(tmp_path / name))
        assert (raised.value.reason, isinstance(raised.value, ImageError)) == (reason, True)
        with pytest.raises(SoundError, match=reason):
            spectrogram_at(tmp_path / name, 0)
    assert pickle.loads(pickle.dumps(raised.value)).reason == raised.value.reason
    with pytest.raises(UnreadableImageError, match="got no file"):
        spectrogram_at(tmp_path / "gone.wav", 0)
    for second in (10, 1000):
        with pytest.raises(SoundError, match=f"got an end before second {second};"):
            spectrogram_at(tmp_path / "a.m4a", second)


@pytest.mark.parametrize(("name", "codec"), [("a.mp3", "libmp3lame"), ("a.flac", "flac")])
def test_a_damaged_sound_gives_what_can_be_read_and_a_line(
    name: str, codec: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = encode(tmp_path / name, sweep(300, 6000, 40, 44_100), codec)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with caplog.at_level(logging.WARNING, "turkish_clip"):
        found = [image.second for image in spectrograms(path)]
    assert found[:4] == [0, 5, 10, 15]
    assert len(found) < 7
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"{path}: a truncated or damaged sound, read up to second ")
    assert line.endswith(" of 40")
    path.write_bytes(data[:9000] + bytes(5000) + data[14_000:])  # a hole is no end
    assert len(list(spectrograms(path))) >= 7


def test_samples_that_are_no_numbers_count_as_none(tmp_path: Path) -> None:
    samples = tones([440], 3) * 1e30
    samples[100], samples[2000] = np.nan, np.inf

    def write(path: Path, values: NDArray[np.float32]) -> Path:
        data = values.astype("<f4").tobytes()
        form = struct.pack("<IHHIIHH", 16, 3, 1, 44_100, 4 * 44_100, 4, 32)  # 3: floats
        path.write_bytes(b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt " + form + b"data")
        with path.open("ab") as file:
            file.write(struct.pack("<I", len(data)) + data)
        return path

    [found] = spectrograms(write(tmp_path / "a.wav", samples))
    assert levels(found.image)[:, 20].max() > 0
    with pytest.raises(SoundError, match="nothing but silence"):
        list(spectrograms(write(tmp_path / "b.wav", samples * np.nan)))


def test_a_named_sound_opens_as_its_first_image_that_is_heard(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", np.concatenate([np.zeros(80_000, np.float32), sweep(300, 600, 5)]))
    expected = np.asarray(spectrogram(sweep(300, 600, 5)))
    opened = ImageInput(path, hashed=True).load(min_side=32)
    assert np.abs(np.asarray(opened.image, np.int16) - expected).mean() < 0.1
    assert opened.content.hex() == hashlib.sha256(path.read_bytes()).hexdigest()
    assert first_spectrogram(path).content == b""
    assert thumbnail(path, 100, 5.0).size == (100, 100)


def test_clips_are_read_alike(tmp_path: Path) -> None:
    sound = write_wav(tmp_path / "a.wav", sweep(300, 600, 32))
    assert [frame.second for frame in clips.parts(sound)] == [0, 5, 10, 15, 20, 25, 30]
    assert clips.spread_seconds(sound, 0) == [0, 5, 10, 15, 20, 25, 30]
    assert clips.spread_seconds(sound, 3) == [5, 15, 25]  # of seven the second, the fourth and the sixth
    assert clips.spread_seconds(sound, 1) == [15]
    video = film(tmp_path / "a.mp4", [patches(number) for number in range(6)])
    assert clips.spread_seconds(video, 3) == pytest.approx([2, 6, 10])  # the middles of three times four seconds
    assert clips.spread_seconds(video, 1) == pytest.approx([6])
    assert clips.spread_seconds(video, 0) == clips.spread_seconds(video, 99) == pytest.approx([1, 3, 5, 7, 9, 11])
    assert clips.spread_seconds(film(tmp_path / "b.mp4", [patches(0)], seconds=0.1), 3) == pytest.approx([0.05])
    assert clips.still(video, None) == video
    assert clips.image_at(video, 4).size == (96, 64)
    assert clips.image_at(sound, 5).size == (250, 250)


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_wav(tmp_path / "a.wav", sweep(300, 600, 5))
    monkeypatch.setattr("turkish_clip.videos.has_library", lambda kind: False)
    with pytest.raises(SoundError, match=r"expected PyAV, got none installed; .*\[sound\]"):
        list(spectrograms(path))
    monkeypatch.setattr("turkish_clip.decoding.has_library", lambda kind: False)
    with pytest.raises(ImageError, match=r"got a file of a kind that is not read \(sound\)"):
        ImageInput(path).load()


def test_a_sound_of_days_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sounds, "MOST", 2)
    path = write_wav(tmp_path / "a.wav", sweep(300, 600, 20))
    assert [image.second for image in spectrograms(path)] == spectrogram_seconds(path) == [0, 5]
    assert caplog.text.count("a.wav: what comes after 0 hours is left out") == 2


@pytest.mark.slow
def test_the_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    program = (
        "import sys; from turkish_clip.sounds import spectrograms; print(sum(1 for _ in spectrograms(sys.argv[1])))"
    )

    def peak(name: str, seconds: int) -> int:
        path = write_wav(tmp_path / name, tones([440], seconds))
        return peak_of([sys.executable, "-c", program, str(path)]).own

    assert peak("long.wav", 900) < 1.2 * peak("short.wav", 20)  # 58 MB as floats, and 1.3 MB
