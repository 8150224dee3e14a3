"""What of a folder is read as images; hidden files, kinds that are not read and excluded files are counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from turkish_clip import images
from turkish_clip.folders import Exclusions, FolderWalk, LeftOut, is_hidden


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def walked(folder: Path, *exclude: str) -> tuple[list[str], LeftOut]:
    walk = FolderWalk(folder, exclude)
    found = sorted(path.relative_to(folder).as_posix() for path in walk.files())
    return found, walk.left_out


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (("IMG_0001.HEIC", "b.heif", "c.hif"), "HEIC"),
        (("DSC1.NEF", "2.cr2", "a/3.ARW", "4.dng"), "RAW"),
        (("a.mp4", "LIVE.MOV", "b/c.webm"), "video"),
        (("logo.svg", "logo.svgz"), "SVG"),
        (("a.psd", "b.PSB"), "PSD"),
        (("a.jxl",), "JPEG XL"),
        (("scan.pdf",), "PDF"),
    ],
)
def test_kinds_that_are_not_read_are_counted_by_kind(
    tmp_path: Path, names: tuple[str, ...], kind: str, without_libraries: None
) -> None:
    found, left_out = walked(fill(tmp_path, "a.png", "notes.txt", "noend", *names))
    assert found == ["a.png"]
    assert left_out == LeftOut(not_read={kind: len(names)}, other={".txt": 1, "no suffix": 1})
    of_kinds = "file of a kind" if len(names) == 1 else "files of kinds"
    assert left_out.lines()[0].startswith(f"{len(names)} {of_kinds} that")
    assert f"{kind} {len(names)}" in left_out.lines()[0]


def test_a_format_that_pillow_lacks_is_a_kind_that_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a.avif", "b.AVIF", "c.jp2", "d.png")
    assert len(walked(tmp_path)[0]) == 4
    monkeypatch.setattr(images, "_readable_formats", lambda: ("JPEG", "PNG"))
    found, left_out = walked(tmp_path)
    assert (found, left_out.not_read) == (["d.png"], {"AVIF": 2, "JPEG 2000": 1})


@pytest.mark.parametrize(
    ("name", "counted"),
    [
        ("@eaDir/p.png/SYNOPHOTO_THUMB_M.jpg", "@eaDir"),
        ("2020/@eaDir/p.png/SYNOPHOTO_THUMB_M.jpg", "@eaDir"),
        ("._p.png", "._*"),
        ("2020/._p.png", "._*"),
        (".thumbnails/1.jpg", ".thumbnails"),
        (".DS_Store", ".DS_Store"),
        ("a/Thumbs.db", "Thumbs.db"),
        (".hidden.png", ".*"),
        (".git/objects/ab/cd.png", ".git"),
        (".Trash-1000/files/a.jpg", ".Trash-1000"),
        ("#recycle/a.jpg", "#recycle"),
        ("$RECYCLE.BIN/S-1-5/a.jpg", "$RECYCLE.BIN"),
        ("System Volume Information/a.png", "System Volume Information"),
    ],
)
def test_hidden_files_and_those_of_systems_are_left_out(tmp_path: Path, name: str, counted: str) -> None:
    found, left_out = walked(fill(tmp_path, "p.png", "a/#1.png", name))
    assert (found, left_out) == (["a/#1.png", "p.png"], LeftOut(hidden={counted: 1}))
    assert is_hidden(name)
    assert left_out.lines() == [f"1 file hidden or of a system, left out: {counted} 1"]


def test_a_folder_that_is_named_is_read_even_if_it_is_hidden(tmp_path: Path) -> None:
    fill(tmp_path / ".photos" / "@eaDir", "a.png")
    assert walked(tmp_path / ".photos" / "@eaDir") == (["a.png"], LeftOut())


def test_an_index_in_the_folder_is_not_counted(tmp_path: Path) -> None:
    of_an_index = ("writing.lock", "images.lance/data/1.lance", "text-encoder.json", "text-encoder-0123456789ab/a.onnx")
    fill(tmp_path, "a.png", *(f".turkish-clip/{name}" for name in of_an_index))
    assert walked(tmp_path) == (["a.png"], LeftOut())
    fill(tmp_path, *(f"index/{name}" for name in of_an_index[1:2] + of_an_index[3:]))
    assert walked(tmp_path) == (["a.png"], LeftOut())
    fill(tmp_path, ".a/text-encoder-0123456789ab/1.png", "b/text-encoder-0123456789ab/2.png")  # beside no table
    assert walked(tmp_path) == (["a.png", "b/text-encoder-0123456789ab/2.png"], LeftOut(hidden={".a": 1}))


def test_a_folder_of_images_may_be_named_like_a_table(tmp_path: Path) -> None:
    fill(tmp_path, "gezi.lance/1.png", "images.lance/data/2.png", "old.lance/data/3.lance", ".b/c.lance/4.png")
    assert walked(tmp_path) == (["gezi.lance/1.png", "images.lance/data/2.png"], LeftOut(hidden={".b": 1}))


@pytest.mark.parametrize(
    ("patterns", "kept", "counts"),
    [
        (["thumbs"], ["a.png", "b/c.gif", "old/d.png"], {"thumbs": 2}),
        (["thumbs/"], ["a.png", "b/c.gif", "old/d.png"], {"thumbs/": 2}),
        (["./b/thumbs"], ["a.png", "b/c.gif", "old/d.png", "thumbs/e.png"], {"./b/thumbs": 1}),
        (["*.gif", "old*"], ["a.png", "b/thumbs/f.png", "thumbs/e.png"], {"*.gif": 1, "old*": 1}),
        (["b/*"], ["a.png", "old/d.png", "thumbs/e.png"], {"b/*": 2}),
        (["[ab].png"], ["b/c.gif", "b/thumbs/f.png", "old/d.png", "thumbs/e.png"], {"[ab].png": 1}),
        (["none"], ["a.png", "b/c.gif", "b/thumbs/f.png", "old/d.png", "thumbs/e.png"], {"none": 0}),
    ],
)
def test_patterns_leave_out_files_and_whole_folders(
    tmp_path: Path, patterns: list[str], kept: list[str], counts: dict[str, int]
) -> None:
    fill(tmp_path, "a.png", "b/c.gif", "b/thumbs/f.png", "old/d.png", "thumbs/e.png")
    assert walked(tmp_path, *patterns) == (kept, LeftOut(excluded=counts))


def test_a_pattern_fits_a_decomposed_name() -> None:
    assert Exclusions(["çiçek*"]).match("a/c\u0327ic\u0327ek1.png") == "çiçek*"
    assert Exclusions(["tatil/*"]).match("Tatil/1.png") is None


def test_linked_folders_are_counted(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", "a.png")
    fill(tmp_path / "photos", "b.png")
    (tmp_path / "photos" / "link").symlink_to(tmp_path / "elsewhere")
    found, left_out = walked(tmp_path / "photos")
    assert (found, left_out) == (["b.png"], LeftOut(linked_folders=1))
    assert left_out.lines() == ["a linked folder is not entered; name what is behind a link as a folder of its own"]


def test_what_folders_leave_out_is_added_up() -> None:
    one = LeftOut({"PSD": 2}, {"._*": 1}, {"a": 0}, {".txt": 1}, 1)
    other = LeftOut({"PSD": 1, "SVG": 4}, {}, {"a": 3}, {}, 1)
    both = LeftOut.sum([one, other])
    assert both == LeftOut({"PSD": 3, "SVG": 4}, {"._*": 1}, {"a": 3}, {".txt": 1}, 2)
    assert both.lines() == [
        "7 files of kinds that are not read: SVG 4, PSD 3; convert PSD and SVG to JPEG or PNG",
        "1 file hidden or of a system, left out: ._* 1",
        "3 files left out by --exclude 'a', which the index remembers",
        "2 linked folders are not entered; name what is behind a link as a folder of its own",
    ]
    assert LeftOut().instead_of_images() == ""


def test_names_of_any_number_are_few_in_the_count(tmp_path: Path) -> None:
    fill(tmp_path, *(f"log.{number}" for number in range(60)), *(f".cache{number}/x.png" for number in range(70)))
    left_out = walked(tmp_path)[1]
    assert (len(left_out.other), left_out.other["…"], sum(left_out.other.values())) == (51, 10, 60)
    assert (len(left_out.hidden), left_out.hidden["…"], sum(left_out.hidden.values())) == (51, 20, 70)
