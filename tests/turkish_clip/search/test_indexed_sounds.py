"""Sounds in an index, where they are asked for: a row for each spectrogram, and one entry in every result."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from films import film
from photographs import patches
from tones import sweep, tones, write_wav
from typer.testing import CliRunner, Result

from turkish_clip.app.photos import Photos, played_type, viewable
from turkish_clip.cli import entry
from turkish_clip.dual_encoder import DualEncoder
from turkish_clip.few_shot import FewShotClassifier, examples_in
from turkish_clip.images import open_image
from turkish_clip.search.files import CollectionError
from turkish_clip.search.index import ImageIndex
from turkish_clip.search.storage import ImageIndexError
from turkish_clip.sounds import spectrogram_at, spectrograms

pytestmark = pytest.mark.usefixtures("small_model")


@pytest.fixture
def heard(photos: Path) -> Path:
    """Six images, a video, 12 seconds of sound, 3 seconds of another, and silence."""
    film(photos / "film.mp4", [patches(0)])
    write_wav(photos / "long.wav", sweep(300, 6000, 12))
    write_wav(photos / "sub" / "short.WAV", tones([500, 900], 3))
    write_wav(photos / "silent.wav", tones([], 3))
    for path in filter(Path.is_file, photos.rglob("*")):
        os.utime(path, (1e9, 1e9))  # what has just been changed is read again
    return photos


def run(command: str, *argv: object) -> Result:
    result = CliRunner().invoke(entry.app, [command, *map(str, argv)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_sounds_are_indexed_where_that_is_asked_for(heard: Path, encoder: DualEncoder) -> None:
    index = ImageIndex.open(heard / ".turkish-clip", encoder)
    added = index.add(heard)
    assert (added.images, added.left_out.not_read, added.left_out.other) == (7, {}, {".wav": 3})
    assert added.left_out.lines() == []  # in a folder of photographs, no line speaks of music
    added = index.add(heard, sounds=True)
    assert (added.images, added.added, added.left_out.other) == (9, 2, {})
    assert [(Path(file.path).name, file.reason) for file in added.skipped] == [("silent.wav", "nothing but silence")]
    paths, seconds, vectors = index.vectors_with_seconds()
    of_long = [place for place, path in enumerate(paths) if path == str(heard / "long.wav")]
    assert [seconds[place] for place in of_long] == [0, 5, 10]
    expected = next(encoder.embed_images([frame.image for frame in spectrograms(heard / "long.wav")])).vectors
    np.testing.assert_allclose(vectors[of_long], expected, atol=1e-5)
    hits = index.search(spectrogram_at(heard / "long.wav", 5), 20)
    assert (len(hits), hits[0].path, hits[0].second) == (9, str(heard / "long.wav"), 5)
    shutil.copy(heard / "long.wav", heard / "copy.wav")
    assert index.add(heard).duplicates == 1  # it is remembered
    added = index.add(heard, verify=True)
    assert (added.checked, added.mended) == (9, [])
    added = index.add(heard, sounds=False)
    assert (added.images, added.excluded) == (7, 4)


def test_without_the_library(heard: Path, encoder: DualEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("turkish_clip.search.index.has_library", lambda kind: False)
    with pytest.raises(ImageIndexError, match=r"expected PyAV, got none installed; .*\[sound\]"):
        ImageIndex.open(heard / ".turkish-clip", encoder).add(heard, sounds=True)


def test_commands_read_sounds(heard: Path, tmp_path: Path) -> None:
    indexed = run("index", heard, "--sounds")
    assert "9 images" in indexed.stdout
    assert "silent.wav: nothing but silence" in indexed.stderr
    found = run("search", heard, "--image", heard / "long.wav", "--sheet", tmp_path / "sheet.html", "--json")
    [first, *_] = json.loads(found.stdout)["hits"]
    assert (first["path"], first["second"]) == (str(heard / "long.wav"), 0)
    assert "0:00" in (tmp_path / "sheet.html").read_text(encoding="utf-8")
    assert "no image is there twice" in run("duplicates", heard).stdout + run("duplicates", heard).stderr
    alone = tmp_path / "alone"
    for name in ("a.wav", "b.wav"):
        write_wav(alone / name, sweep(300, 900 if name == "a.wav" else 4000, 6))
    classified = run("classify", *sorted(alone.iterdir()), "--labels", "ev,araba", "--json")
    assert [Path(one["path"]).name for one in json.loads(classified.stdout)["images"]] == ["a.wav", "b.wav"]
    flagged = run("filter", alone / "a.wav", "--prompt", "ev", "--json")
    assert flagged.exit_code in (0, 1), flagged.stderr
    with pytest.raises(CollectionError, match=r"got none but 2 files of other kinds: .wav 2; sounds are"):
        run("classify", alone, "--labels", "ev,araba")


def test_examples_of_labels_may_be_sounds(tmp_path: Path, encoder: DualEncoder) -> None:
    for number in range(3):
        write_wav(tmp_path / "tiz" / f"{number}.wav", tones([3000 + 100 * number], 4))
        write_wav(tmp_path / "pes" / f"{number}.wav", tones([200 + 10 * number], 4))
    examples = examples_in(tmp_path)
    assert {label: len(paths) for label, paths in examples.items()} == {"pes": 3, "tiz": 3}
    classifier = FewShotClassifier.fit(encoder, examples)
    new = [
        write_wav(tmp_path / "new" / "a.wav", tones([3050], 4)),
        write_wav(tmp_path / "new" / "b.wav", tones([215], 4)),
    ]
    assert [found.label for found in classifier.classify(new)] == ["tiz", "pes"]


def test_the_page_shows_and_plays_them(heard: Path) -> None:
    photos = Photos()
    name = photos.name(heard / "long.wav", 5.0)
    shown = open_image(photos.thumbnail(name, heard / "long.wav"))
    expected = spectrogram_at(heard / "long.wav", 5).resize(shown.size)
    assert np.abs(np.asarray(shown, np.int16) - np.asarray(expected)).mean() < 10
    assert open_image(viewable(heard / "long.wav", 5.0)).size == (250, 250)
    assert played_type(Path("a.MP3")) == "audio/mpeg"
