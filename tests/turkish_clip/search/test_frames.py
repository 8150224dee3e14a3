"""Videos in an index: a row for each frame, and in every result one entry with the second of its best frame."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from films import film
from photographs import patches
from samples import paint
from typer.testing import CliRunner, Result

from turkish_clip.cli import entry
from turkish_clip.dual_encoder import DualEncoder
from turkish_clip.encoder import image_side
from turkish_clip.search import update
from turkish_clip.search.index import ImageIndex
from turkish_clip.videos import frame_at, frames

SHOWN = [patches(number) for number in range(10, 16)]


pytestmark = pytest.mark.usefixtures("small_model")


@pytest.fixture
def mixed(photos: Path) -> Path:
    """Six images, a video of six things, a shorter one, and one that is damaged."""
    film(photos / "film.mp4", SHOWN)
    film(photos / "sub" / "short.MOV", [patches(20)], seconds=0.3)
    (photos / "damaged.mkv").write_bytes(b"x" * 99)
    for path in filter(Path.is_file, photos.rglob("*")):
        os.utime(path, (1e9, 1e9))  # what has just been changed is read again
    return photos


@pytest.fixture
def filmed(mixed: Path, encoder: DualEncoder) -> ImageIndex:
    index = ImageIndex.open(mixed / ".turkish-clip", encoder)
    added = index.add(mixed)
    assert (added.added, added.images, len(index)) == (8, 8, 8)
    assert [(Path(file.path).name, file.reason) for file in added.skipped] == [
        ("damaged.mkv", "a truncated or damaged video")
    ]
    assert added.left_out.not_read == {}
    return index


def run(command: str, *argv: object) -> Result:
    result = CliRunner().invoke(entry.app, [command, *map(str, argv)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_each_frame_has_a_row(filmed: ImageIndex, mixed: Path, encoder: DualEncoder) -> None:
    paths, seconds, vectors = filmed.vectors_with_seconds()
    of_film = [place for place, path in enumerate(paths) if path == str(mixed / "film.mp4")]
    assert [seconds[place] for place in of_film] == pytest.approx([0, 2, 4, 6, 8, 10])
    stills = [frame.image for frame in frames(mixed / "film.mp4", min_side=image_side(encoder.image))]
    expected = next(encoder.embed_images(stills)).vectors
    np.testing.assert_allclose(vectors[of_film], expected, atol=1e-5)
    assert filmed.vectors()[0] == paths
    assert len(paths) == 6 + 6 + 1
    [rows] = [part for part in filmed._tables.videos() if len(part) == 6]
    assert [row["key"] for row in rows] == [f"{rows[0]['content']}:{number}" for number in range(6)]
    assert {Path(path).name for path, second in zip(paths, seconds) if second is not None} == {"film.mp4", "short.MOV"}
    assert filmed.vectors_of([mixed / "0.png"]) is not None
    assert filmed.vectors_of([mixed / "0.png", mixed / "film.mp4"]) is None


def test_a_search_finds_a_video_once_by_its_best_frame(filmed: ImageIndex, mixed: Path) -> None:
    for exact in (False, True):
        hits = filmed.search(frame_at(mixed / "film.mp4", 6), 20, exact=exact)
        assert len(hits) == 8
        assert len({hit.path for hit in hits}) == 8
        assert (hits[0].path, hits[0].second) == (str(mixed / "film.mp4"), pytest.approx(6))
        assert hits[0].score == pytest.approx(1, abs=1e-3)
    assert all(hit.second is None for hit in hits if hit.path.endswith(".png"))
    first, second = filmed.search("ev", 1), filmed.search("ev", 1, offset=1)
    assert [hit.path for hit in filmed.search("ev", 2)] == [first[0].path, second[0].path]
    late = filmed.search("ev", 5, where="second > 7")
    assert [(hit.path, (hit.second or 0) > 7) for hit in late] == [(str(mixed / "film.mp4"), True)]


def test_many_frames_do_not_crowd_others_out(tmp_path: Path, encoder: DualEncoder) -> None:
    """The frames of a long video are nearer to a query than all else, and more than are looked at first."""
    film(tmp_path / "photos" / "long.mp4", [patches(number // 2) for number in range(120)], seconds=1)
    for number in range(3):
        paint(tmp_path / "photos" / f"{number}.png", number)
    index = ImageIndex.open(tmp_path / "index", encoder)
    assert index.add(tmp_path / "photos", video_every=1).images == 4
    assert len(index.vectors()[0]) == 3 + 60  # the other half hardly differs
    query = frame_at(tmp_path / "photos" / "long.mp4", 60)
    for exact in (False, True):
        assert len({hit.path for hit in index.search(query, 4, exact=exact)}) == 4
        assert len(index.search(query, 9, exact=exact)) == 4
        assert index.search(query, 1, exact=exact)[0].second == pytest.approx(60)


def test_an_update_keeps_moves_and_removes_videos(
    filmed: ImageIndex, mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert filmed.add(mixed).unchanged == 8
    shutil.copy(mixed / "film.mp4", mixed / "copy.mp4")
    (mixed / "sub" / "short.MOV").rename(mixed / "renamed.mov")
    added = filmed.add(mixed)
    assert (added.duplicates, added.moved, added.added, added.images) == (1, 1, 0, 8)
    hit = filmed.search(frame_at(mixed / "film.mp4", 4), 1)[0]
    assert sorted([hit.path, *hit.also_at]) == [str(mixed / "copy.mp4"), str(mixed / "film.mp4")]
    (mixed / "film.mp4").unlink()
    filmed.add(mixed)
    hit = filmed.search(frame_at(mixed / "copy.mp4", 4), 1)[0]
    assert (hit.path, hit.also_at) == (str(mixed / "copy.mp4"), [])
    (mixed / "copy.mp4").unlink()
    assert filmed.add(mixed).vanished == 1
    assert len(filmed.vectors()[0]) == 7
    film(mixed / "renamed.mov", SHOWN[:2])  # other bytes under the same name
    assert filmed.add(mixed).added == 1
    assert len(filmed.vectors()[0]) == 8
    assert filmed.remove([mixed / "renamed.mov"]) == 1
    assert len(filmed.vectors()[0]) == 6
    film(mixed / "renamed.mov", SHOWN[:2])
    (mixed / "renamed.mov").touch()
    read = update.examined
    sizes = count(1)
    monkeypatch.setattr(update, "examined", lambda path, folder: replace(read(path, folder), size=next(sizes)))
    assert [file.reason for file in filmed.add(mixed).skipped if file.path.endswith("mov")] == [update.CHANGING]


def test_other_seconds_hold_for_new_videos_and_verify_mends(
    filmed: ImageIndex, mixed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert filmed.add(mixed, verify=True).mended == []
    film(mixed / "new.mp4", SHOWN, seconds=1)
    filmed.add(mixed, video_every=1)
    assert "videos that are indexed keep their frames, one every 2 seconds" in caplog.text
    assert len(filmed.vectors()[0]) == 13 + 6
    film(mixed / "newer.mp4", SHOWN[::-1], seconds=1)
    filmed.add(mixed)  # it remembers
    assert len(filmed.vectors()[0]) == 13 + 12
    [rows] = [part for part in filmed._tables.videos() if part[0]["path"].endswith("newer.mp4")]
    filmed._tables.replace_frames(rows[0]["content"], rows[:2])
    assert len(filmed.vectors()[0]) == 13 + 8
    added = filmed.add(mixed, verify=True)
    assert (added.checked, [Path(path).name for path in added.mended]) == (10, ["newer.mp4"])
    assert len(filmed.vectors()[0]) == 13 + 12
    added = filmed.add(mixed, video_every=0)
    assert (added.images, added.left_out.not_read) == (6, {"video": 5})
    assert len(filmed.vectors()[0]) == 6


def test_a_correction_is_that_of_each_frame(filmed: ImageIndex, mixed: Path) -> None:
    filmed.add(mixed, queries=[f"metin {number}" for number in range(120)])
    hit = next(hit for hit in filmed.search("ev", 9) if hit.path.endswith("film.mp4"))
    rows = filmed._tables.nearest(filmed.vector_of("ev"), 9, None, True, 0.5)
    [row] = [row for row in rows if row["path"].endswith("film.mp4")]
    assert hit.second == row["second"]
    assert hit.corrected == pytest.approx(row["cosine"] - 0.5 * row["hub_score"])


def test_commands_show_one_entry_with_its_second(filmed: ImageIndex, mixed: Path, tmp_path: Path) -> None:
    paths = sorted(str(path) for path in mixed.rglob("*") if path.suffix in (".png", ".mp4", ".MOV"))
    flags = json.loads(run("filter", mixed, "-p", "ev", "--threshold", "-1", "--json").stdout)
    assert flags["images"] == 8
    assert sorted(row["path"] for row in flags["flagged"]) == paths
    [row] = [row for row in flags["flagged"] if row["path"].endswith("film.mp4")]
    best = next(hit for hit in filmed.search("ev", 9, corrected=False) if hit.path.endswith("film.mp4"))
    assert (row["second"], row["score"]) == (best.second, pytest.approx(best.score, abs=1e-5))
    found = run("search", mixed, "ev", "-k", "9", "--sheet", tmp_path / "sheet.html", "--copy-to", tmp_path / "copies")
    minutes, seconds = divmod(int(best.second or 0), 60)
    assert f"film.mp4  at {minutes}:{seconds:02}" in found.stdout
    assert "#dddddd" not in (tmp_path / "sheet.html").read_text(encoding="utf-8")
    assert f"film.mp4  at {minutes}:{seconds:02}" in (tmp_path / "sheet.html").read_text(encoding="utf-8")
    assert len(list((tmp_path / "copies").iterdir())) == 8
    rows = list(csv.DictReader(io.StringIO(run("search", mixed, "ev", "-k", "9", "--csv").stdout)))
    assert [row["second"] for row in rows if row["path"].endswith("film.mp4")] == [str(best.second)]
    assert {row["second"] for row in rows if row["path"].endswith("png")} == {""}


def test_regions_are_those_of_the_best_frame(filmed: ImageIndex, mixed: Path, tmp_path: Path) -> None:
    where = ["--where", "path LIKE '%film.mp4'"]
    found = run("search", mixed, "ev", *where, "--regions", "--sheet", tmp_path / "sheet.png", "--json")
    [hit] = json.loads(found.stdout)["hits"]
    left, top, right, bottom = hit["regions"][0]["box"]
    assert 0 <= left < right <= 96
    assert 0 <= top < bottom <= 64


def test_a_video_that_was_encoded_again_is_a_duplicate(filmed: ImageIndex, mixed: Path) -> None:
    film(mixed / "again.webm", SHOWN, codec="libvpx", size=(144, 96))
    film(mixed / "half.mp4", [*SHOWN[:3], *map(patches, range(30, 33))])  # the first half alone is the same
    SHOWN[2].save(mixed / "still.png")
    filmed.add(mixed)
    [group] = filmed.duplicates().groups
    assert {Path(file.path).name for file in group} == {"film.mp4", "again.webm"}
    assert [file.same for file in group] == ["", "image"]
    assert all(file.second is not None for file in group)
    shutil.copy(mixed / "film.mp4", mixed / "copy.mp4")
    filmed.add(mixed)
    [exact] = filmed.duplicates(exact=True).groups
    assert {Path(file.path).name for file in exact} == {"film.mp4", "copy.mp4"}


def test_without_the_library_videos_are_counted(mixed: Path, encoder: DualEncoder, without_libraries: None) -> None:
    index = ImageIndex.open(mixed / "index", encoder)
    added = index.add(mixed)
    assert (added.images, added.left_out.not_read) == (6, {"video": 3})
    assert '[video]"' in added.left_out.not_read_line()


def test_commands_without_an_index_say_where_videos_are_found(mixed: Path) -> None:
    flagged = run("filter", mixed, "-p", "ev")
    assert flagged.exit_code == 0
    assert "3 files of kinds that are not read: video 3; videos are searched in an index alone" in flagged.stderr
