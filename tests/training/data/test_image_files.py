"""Names in a table and names on disk: composed or not, with backslashes, in other encodings; or the cause is said."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from samples import paint

from training.data.image_files import resolve_image_path


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


@pytest.mark.parametrize(
    ("on_disk", "in_table"),
    [
        (nfd("çiçek şöför.png"), "çiçek şöför.png"),
        ("çiçek.png", nfd("çiçek.png")),
        (f"{nfd('çok')}/şey.png", "çok/şey.png"),
        (f"çok/{nfd('şey')}.png", f"{nfd('çok')}/şey.png"),
        ("resim/1.png", "resim\\1.png"),
        (f"{nfd('ağaç')}/1.png", "ağaç\\1.png"),
        ("1.png", " 1.png "),
        ("1.png", ".\\1.png"),
        ("1.png", "\ufeff1.png"),
        ("çiçek 1.png", "çiçek\u00a01\u200b.png"),
        ("çiçek\u00a01\u200b.png", "çiçek 1.png"),
        ("çi 1.png", "%C3%A7i%201.png"),
        (f"{nfd('çi')}.png", "%C3%A7i.png"),
        ("1.png", "1.png#3"),
        *(
            ("çiçek ğüş.png".encode().decode(code), "çiçek ğüş.png")
            for code in ("cp437", "cp850", "latin-1", "mac_turkish")
        ),
        ("çöp.png".encode().decode("cp1252"), "çöp.png"),
        ("çöp.png", "çöp.png".encode().decode("cp1252")),
        ("çöğ.png".encode("cp857").decode("cp437"), "çöğ.png"),
    ],
)
@pytest.mark.parametrize("confined", [True, False])
def test_a_name_that_is_written_otherwise_is_found(tmp_path: Path, on_disk: str, in_table: str, confined: bool) -> None:
    paint(tmp_path / on_disk, 1)
    found = resolve_image_path(tmp_path, in_table, confined=confined)
    assert isinstance(found, Path)
    assert found.samefile(tmp_path / on_disk)


@pytest.mark.parametrize("encoding", ["cp1254", "cp857", "iso8859-9"])
def test_a_name_on_disk_that_is_no_utf8_is_found(tmp_path: Path, encoding: str) -> None:
    name = os.path.join(os.fsencode(tmp_path), "çiçek ğüş.png".encode(encoding))  # noqa: PTH118 - bytes
    Path(os.fsdecode(name)).write_bytes(b"x")
    assert resolve_image_path(tmp_path, "çiçek ğüş.png", confined=True) == Path(os.fsdecode(name))


@pytest.mark.parametrize(
    ("name", "confined", "reason"),
    [
        ("a.png", True, "no file, but one in another case: A.PNG"),
        ("IŞIK.png", True, "no file, but one in another case: ışık.png"),
        ("C:\\Resimler\\a.png", False, "no file: a path of a Windows machine; write paths relative to the table"),
        ("/yok/a.png", False, "no file: an absolute path that is not on this machine"),
        ("..\\b.png", True, "a path that leaves the folder"),
        ("yok/b.png", True, "no file"),
        ("https://x/a.png", True, "a URL, not a file"),
        ("s3://x/a.png", True, "a URL, not a file"),
        ("gs://x/a.png", True, "a URL, not a file"),
        ("file:///yok/a.png", False, "no file: an absolute path that is not on this machine"),
        ("%2E%2E/b.png", True, "a path that leaves the folder"),
        ("  ", True, "no image named"),
        (None, True, "no image named"),
        (7, True, "no image named, but another type of cell"),
        ("a\0.png", True, "no file"),
    ],
)
def test_the_cause_is_named(tmp_path: Path, name: object, confined: bool, reason: str) -> None:
    paint(tmp_path / "in" / "A.PNG", 1)
    paint(tmp_path / "in" / "ışık.png", 1)
    paint(tmp_path / "b.png", 1)
    assert resolve_image_path(tmp_path / "in", name, confined=confined) == reason


def test_no_other_spelling_leaves_the_folder(tmp_path: Path) -> None:
    paint(tmp_path / nfd("dış.png"), 1)
    (tmp_path / "in").mkdir()
    assert resolve_image_path(tmp_path / "in", "../dış.png", confined=True) == "a path that leaves the folder"
    (tmp_path / "in" / nfd("bağ.png")).symlink_to(tmp_path / nfd("dış.png"))
    assert resolve_image_path(tmp_path / "in", "bağ.png", confined=True) == "a path that leaves the folder"


def test_a_linked_folder_does_not_leave_the_folder_either(tmp_path: Path) -> None:
    paint(tmp_path / "out" / "a.png", 1)
    paint(tmp_path / "in" / "below" / "a.png", 1)
    (tmp_path / "in" / "link").symlink_to(tmp_path / "out")
    (tmp_path / "in" / "own").symlink_to(tmp_path / "in" / "below")
    for name in ("link/a.png", "link/../out/a.png", str(tmp_path / "out" / "a.png")):
        assert resolve_image_path(tmp_path / "in", name, confined=True) == "a path that leaves the folder"
        assert resolve_image_path(tmp_path / "in", name, confined=False) == tmp_path / "in" / name
    for name in ("own/a.png", "below/a.png", "below/../below/a.png", "./below/a.png"):
        assert resolve_image_path(tmp_path / "in", name, confined=True) == tmp_path / "in" / name
    assert resolve_image_path(tmp_path / "in", ".", confined=True) == "no file"


def test_a_file_that_comes_later_is_found(tmp_path: Path) -> None:
    assert resolve_image_path(tmp_path, "şey.png", confined=True) == "no file"
    paint(tmp_path / nfd("şey.png"), 1)
    os.utime(tmp_path, ns=(1, 1))
    assert isinstance(resolve_image_path(tmp_path, "şey.png", confined=True), Path)


def test_a_file_address_is_a_path(tmp_path: Path) -> None:
    path = paint(tmp_path / "çi 1.png", 1)
    for address in (path.as_uri(), path.as_uri().replace("file://", "file://localhost")):
        assert resolve_image_path(tmp_path, address, confined=True) == path
