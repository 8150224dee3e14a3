"""Each command that takes a folder says what it leaves out of it, for people and as JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from samples import paint
from typer.testing import CliRunner, Result

from turkish_clip.cli import entry
from turkish_clip.errors import InputError
from turkish_clip.few_shot import ExampleError, examples_in

NOT_READ = (
    "3 files of kinds that are not read: HEIC 2, video 1; convert HEIC to JPEG or PNG, and save stills of videos; or "
    'have HEIC and video read: pip install -e ".[photos,video]"'
)
HIDDEN = "2 files hidden or of a system, left out: ._* 1, @eaDir 1"
COMMANDS = (["classify", "--labels", "ev,kuş"], ["compare", "-t", "ev"], ["filter", "-p", "ev"])


pytestmark = pytest.mark.usefixtures("small_model", "without_libraries")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(3):
        paint(tmp_path / "photos" / f"{number}.png", number)
    paint(tmp_path / "photos" / "@eaDir" / "0.png", 7)
    for name in ("IMG_1.HEIC", "IMG_2.heic", "IMG_2.MOV", "._0.png", "notes.txt"):
        (tmp_path / "photos" / name).write_bytes(b"x")
    return tmp_path / "photos"


def run(command: str, *argv: object) -> Result:
    result = CliRunner().invoke(entry.app, [command, *map(str, argv)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def as_json(command: str, *argv: object) -> Any:
    result = run(command, *argv, "--json")
    assert result.exit_code == 0
    return json.loads(result.stdout)


def left_out_of(**counts: object) -> dict[str, object]:
    left_out = {"not_read": {"HEIC": 2, "video": 1}, "hidden": {"._*": 1, "@eaDir": 1}, "excluded": {}}
    return {**left_out, "other": {".txt": 1}, "linked_folders": 0, **counts}


def test_index_and_search_say_what_is_left_out(photos: Path) -> None:
    added = run("index", photos)
    assert added.exit_code == 0
    assert {NOT_READ, HIDDEN} <= set(added.stderr.splitlines())
    again = as_json("index", photos)
    assert (again["images"], again["unchanged"], again["left_out"]) == (3, 3, left_out_of())
    assert f"not in the index: {NOT_READ}" in run("search", photos, "ev").stderr.splitlines()
    assert as_json("search", photos, "ev")["left_out"] == left_out_of()
    flagged = run("filter", photos, "-p", "ev")  # by the index
    assert NOT_READ in flagged.stderr.splitlines()
    assert as_json("filter", photos, "-p", "ev")["left_out"] == left_out_of()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_commands_without_an_index_say_it_too(photos: Path, command: list[str]) -> None:
    result = run(command[0], photos, *command[1:])
    assert result.exit_code == 0
    assert {NOT_READ, HIDDEN} <= set(result.stderr.splitlines())
    assert as_json(command[0], photos, *command[1:])["left_out"] == left_out_of()


def test_a_folder_without_any_image_is_no_empty_folder(tmp_path: Path) -> None:
    for name in ("1.HEIC", "2.HEIC", "3.nef", "4.txt"):
        (tmp_path / name).write_bytes(b"x")
    result = run("index", tmp_path)
    assert result.exit_code == 1
    assert "no images yet: 3 files of kinds that are not read: HEIC 2, RAW 1; 1 file of other kinds" in result.stderr
    advice = 'convert HEIC and RAW to JPEG or PNG; or have HEIC and RAW read: pip install -e ".[photos]"'
    assert f"{advice}; then run the same command again" in result.stderr
    for command in COMMANDS:
        (folder := tmp_path / command[0]).mkdir()
        (folder / "1.HEIC").write_bytes(b"x")
        with pytest.raises(InputError, match="got none but 1 file of a kind that is not read: HEIC 1; convert HEIC"):
            run(command[0], folder, *command[1:])


def test_patterns_are_remembered_replaced_and_forgotten(
    photos: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    paint(photos / "thumbs" / "t.png", 9)
    assert as_json("index", photos)["images"] == 4
    added = as_json("index", photos, "--exclude", "thumbs", "--exclude", "0.*")
    assert (added["images"], added["vanished"], added["excluded"]) == (2, 0, 2)
    assert added["left_out"]["excluded"] == {"0.*": 1, "thumbs": 1}
    added = run("index", photos)
    assert added.stdout.startswith("0 added, 2 unchanged")
    assert "1 file left out by --exclude 'thumbs', which the index remembers" in added.stderr.splitlines()
    assert as_json("index", photos, "--exclude", "nothing*")["left_out"]["excluded"] == {"nothing*": 0}
    assert re.search("no longer left out: 'thumbs', '0.[*]'", caplog.text)
    assert "no file is left out by --exclude 'nothing*', which the index remembers" in run("index", photos).stderr
    assert as_json("index", photos, "--exclude", "")["images"] == 4
    assert as_json("index", photos)["left_out"] == left_out_of()
    moved = photos.rename(tmp_path / "moved")
    assert as_json("index", moved, "--exclude", "thumbs")["images"] == 4  # kept: the old folder may be a disk
    assert "--exclude 'thumbs'" in run("index", moved).stderr


def test_leaving_everything_out_is_not_taken_for_a_missing_disk(photos: Path) -> None:
    run("index", photos)
    added = run("index", photos, "--exclude", "*.png")
    assert (added.exit_code, added.stdout.split(";")[1].split(" in ")[0]) == (1, " 0 images")
    assert "no images yet: 3 files of kinds that are not read" in added.stderr
    assert "3 files left out by --exclude: *.png 3" in added.stderr


def test_examples_leave_out_the_same_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("ev/0.png", "ev/deep/1.png", "kuş/2.png", "@eaDir/3.png", "ev/@eaDir/4.png"):
        paint(tmp_path / name, 1)
    for name in ("ev/._0.png", "kuş/a.heic"):
        (tmp_path / name).write_bytes(b"x")
    found = {label: [path.name for path in paths] for label, paths in examples_in(tmp_path).items()}
    assert found == {"ev": ["0.png", "1.png"], "kuş": ["2.png"]}
    assert "1 file of a kind that is not read: HEIC 1; convert HEIC to JPEG or PNG" in caplog.text
    assert "2 files hidden or of a system, left out: ._* 1, @eaDir 1" in caplog.text
    (tmp_path / "kuş" / "2.png").unlink()
    with pytest.raises(ExampleError, match="got none in 'kuş', but 1 file of a kind that is not read: HEIC 1"):
        examples_in(tmp_path)


def test_a_named_file_of_a_kind_that_is_not_read_is_called_by_its_kind(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", 1)
    (tmp_path / "b.heic").write_bytes(b"x")
    (tmp_path / "renamed.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (tmp_path / "clip.png").write_bytes(b"\0\0\0\x18ftypisom\0\0\0\0isommp42")
    files = [tmp_path / name for name in ("a.png", "b.heic", "renamed.jpg", "clip.png")]
    result = run("compare", *files, "-t", "ev", "--json")
    assert (result.exit_code, [record["reason"] for record in json.loads(result.stdout)["skipped"]]) == (
        1,
        [f"a file of a kind that is not read ({kind})" for kind in ("HEIC", "HEIC", "video")],
    )
