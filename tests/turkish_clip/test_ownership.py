"""No output replaces a file or a folder of others, and a kill or a full disk leaves a whole one, old or new."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from samples import paint

from turkish_clip import atomic
from turkish_clip.atomic import atomic_folder, atomic_write, write_json, write_text
from turkish_clip.boxes import write_boxes
from turkish_clip.ownership import COMMENT, GENERATOR, ForeignFileError, is_ours
from turkish_clip.sheet import Tile, check_name, write_sheet


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


OTHERS = {
    "page.html": "<html><title>mine</title></html>",
    "results.json": '{"mine": 1}',
    "numbered.json": '{"format": 1, "notes": "mine"}',
    "photo.turkish-clip.png": "mine",
    "list.json": "[1]",
    "leaked.jsonl": '{"text": "mine"}\n',
    "recipe.yaml": "captions: mine\n",
    "notes.txt": "mine",
    "report.csv": "a,b\n",
    "damaged.json": "{",
    "deep.json": "[" * 100_000,
    "run.safetensors": "mine, and no tensors",
    "shard-00000.parquet": "PAR1",
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_of_others_stays(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(OTHERS[name], encoding="utf-8")
    with pytest.raises(ForeignFileError, match=f"expected a new name .*{name}, which turkish-clip did not write; name"):
        write_text(path, "ours")
    assert path.read_text(encoding="utf-8") == OTHERS[name]
    assert names_in(tmp_path) == [name]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("page.html", f"<html>{GENERATOR}</html>"),
        ("results.json", '{"format": 4, "text_to_image": {}, "image_to_text": {}}'),
        ("run.json", '{"format": 2, "config": {}, "inputs": {}}'),
        ("cell.json", '{"of": {}, "results": {}}'),
        ("skipped.jsonl", '{"image_id": "a", "path": "a.png", "reason": "a folder"}\n'),
        ("log.jsonl", '{"step": 1, "epoch": 0.1, "loss": 2}\n'),
        ("recipe.yaml", f"{COMMENT}of this ablation\na: 1\n"),
        ("empty.txt", ""),
    ],
)
def test_an_output_of_ours_is_replaced(name: str, text: str, tmp_path: Path) -> None:
    write_text(tmp_path / name, text)
    write_text(tmp_path / name, "new")
    assert (tmp_path / name).read_text(encoding="utf-8") == "new"


def test_the_templates_show_where_pages_come_from() -> None:
    templates = sorted((Path(atomic.__file__).parents[1] / "training").rglob("*.html.jinja"))
    assert len(templates) >= 4
    assert all(GENERATOR in path.read_text(encoding="utf-8")[:500] for path in templates)


@pytest.mark.parametrize("suffix", [".png", ".html"])
def test_a_sheet_replaces_a_sheet_but_no_photograph(suffix: str, tmp_path: Path) -> None:
    photo = paint(tmp_path / "photo.png", 1)
    tiles = [Tile(photo, "ev")]
    sheet = write_sheet(tmp_path / f"sheet{suffix}", tiles, "bir")
    assert is_ours(sheet)
    assert write_sheet(sheet, tiles, "iki") == sheet
    target = tmp_path / f"target{suffix}"
    target.write_bytes(photo.read_bytes())
    for write in (check_name, lambda path: write_sheet(path, tiles, "üç")):
        with pytest.raises(ForeignFileError, match="which turkish-clip did not write; name another, or move that"):
            write(target)
    assert target.read_bytes() == photo.read_bytes()


def test_a_link_to_a_photograph_is_followed_and_refused(tmp_path: Path) -> None:
    photo = paint(tmp_path / "photos" / "a.png", 1)
    (tmp_path / "sheet.png").symlink_to(photo)
    with pytest.raises(ForeignFileError, match="did not write"):
        write_sheet(tmp_path / "sheet.png", [Tile(photo, "ev")], "bir")
    (tmp_path / "free.png").symlink_to(tmp_path / "new.png")
    write_sheet(tmp_path / "free.png", [Tile(photo, "ev")], "bir")
    assert (tmp_path / "free.png").is_symlink()
    assert is_ours(tmp_path / "new.png")


def test_a_full_disk_leaves_the_good_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = [Tile(paint(tmp_path / "a.png", 1), "ev")]
    sheet = write_sheet(tmp_path / "sheet.png", tiles, "bir")
    whole = sheet.read_bytes()

    def half(self: Image.Image, file: Path, *_: object, **__: object) -> None:
        file.write_bytes(whole[: len(whole) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(OSError, match="No space"):
        write_sheet(sheet, tiles, "iki")
    assert sheet.read_bytes() == whole
    assert names_in(tmp_path) == ["a.png", "sheet.png"]


def fill(folder: Path, text: str, *names: str, marker: str | None = "of.json") -> None:
    with atomic_folder(folder, marker) as partial:
        write_json(partial / "of.json", {"format": 1, "seed": 0})
        for name in names:
            (partial / name).parent.mkdir(exist_ok=True)
            (partial / name).write_text(text, encoding="utf-8")


def test_folders_of_others_stay_also_those_with_a_temporary_name(tmp_path: Path) -> None:
    for name in ("x.partial", ".x.partial", "x.old", ".x.turkish-clip-partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("mine", encoding="utf-8")
    (tmp_path / "x").mkdir()
    fill(tmp_path / "x", "one")  # an empty folder is free
    fill(tmp_path / "x", "two", "a")
    assert (tmp_path / "x" / "a").read_text(encoding="utf-8") == "two"
    others = sorted(path.name for path in tmp_path.iterdir() if path.name != "x")
    assert others == sorted(["x.partial", ".x.partial", "x.old", ".x.turkish-clip-partial"])
    with pytest.raises(ForeignFileError, match="expected a new folder or an earlier output .*x.partial, which holds"):
        fill(tmp_path / "x.partial", "three")
    with pytest.raises(ForeignFileError, match="expected a name for a folder, got .*mine, a file"):
        fill(tmp_path / "x.partial" / "mine", "three")


def test_files_of_others_in_a_folder_of_ours_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path / "x", "one", "a", "sub/b")
    (tmp_path / "x" / "sub" / "mine").write_text("mine", encoding="utf-8")
    fill(tmp_path / "x", "two", "a", "sub/b")
    (kept,) = tmp_path.glob("x.kept-*")
    assert (kept / "sub" / "mine").read_text(encoding="utf-8") == "mine"
    assert (tmp_path / "x" / "a").read_text(encoding="utf-8") == "two"
    assert f"the folder before stays as {kept}: it holds sub/mine" in caplog.text
    (tmp_path / "x" / "mine").write_text("mine", encoding="utf-8")
    refused = pytest.raises(ForeignFileError, match="expected nothing but an earlier .*, got 'mine'; move it")
    with refused, atomic_folder(tmp_path / "x", "of.json", re.compile("a|sub/b")):
        pass


DYING = """
import json, os, pathlib, sys
from turkish_clip import atomic

path, moment, swaps = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "True"
if not swaps:
    atomic._exchange = lambda one, other: False

def dying(real):
    def call(*args, **kwargs):
        global moment
        if not moment:
            os._exit(9)
        moment -= 1
        return real(*args, **kwargs)
    return call

for owner, name in ((pathlib.Path, "replace"), (atomic, "_exchange"), (atomic.shutil, "rmtree")):
    setattr(owner, name, dying(getattr(owner, name)))
with atomic.atomic_folder(path, "of.json") as partial:
    (partial / "of.json").write_text(json.dumps({"format": 1, "seed": 0}))
    (partial / "a").write_text("two")
"""


@pytest.mark.parametrize("swaps", [True, False])
@pytest.mark.parametrize("moment", range(6))
def test_a_folder_is_whole_at_each_moment(moment: int, swaps: bool, tmp_path: Path) -> None:
    """The process dies before its nth renaming or removal: the next one finds the old folder or the new one."""
    fill(tmp_path / "x", "one", "a")
    ended = subprocess.run([sys.executable, "-c", DYING, str(tmp_path / "x"), str(moment), str(swaps)], check=False)
    assert ended.returncode in (0, 9)
    if swaps:
        assert (tmp_path / "x" / "a").read_text(encoding="utf-8") in ("one", "two")
    fill(tmp_path / "y", "other")  # of another name: leaves what is of x
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "x", "of.json"):
        raise ZeroDivisionError
    assert (tmp_path / "x" / "a").read_text(encoding="utf-8") in ("one", "two")
    assert names_in(tmp_path) == ["x", "y"]


def test_what_a_living_process_writes_is_left_alone(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a.json") as one:
        one.write_text('{"format": 1, "seed": 0}', encoding="utf-8")
        write_json(tmp_path / "a.json", {"format": 2, "seed": 0})
        assert one.is_file()
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{"format": 1, "seed": 0}'


@pytest.mark.parametrize("suffix", ["png", "html"])
def test_a_sheet_and_a_drawing_do_not_replace_each_other(suffix: str, tmp_path: Path) -> None:
    image = paint(tmp_path / "a.png", 1)
    sheet, drawing = tmp_path / f"sheet.{suffix}", tmp_path / f"drawing.{suffix}"
    for _ in range(2):  # each replaces one of its kind
        write_sheet(sheet, [Tile(image, "a")], "a")
        write_boxes(drawing, image, [((0, 0, 9, 9), "a")], "a")
    before = drawing.read_bytes()
    with pytest.raises(ForeignFileError, match="an earlier sheet, got .*, which is another output of turkish-clip"):
        write_sheet(drawing, [Tile(image, "a")], "a")
    with pytest.raises(ForeignFileError, match="an earlier drawing, got"):
        write_boxes(sheet, image, [], "a")
    assert drawing.read_bytes() == before
