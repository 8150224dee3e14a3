"""Files by names that the page gives them."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image
from samples import paint

from turkish_clip.app.photos import Kept, Photos, viewable


def test_what_was_used_longest_ago_goes_first() -> None:
    kept: Kept[str] = Kept(10)
    kept.put("a", "A", 4)
    kept.put("b", "B", 4)
    assert kept.get("a") == "A"
    kept.put("c", "C", 4)  # 12 in all: b goes
    assert [kept.get(name) for name in "abc"] == ["A", None, "C"]
    kept.put("a", "A2", 6)  # in place of 4: just 10
    assert [kept.get(name) for name in "ac"] == ["A2", "C"]
    kept.put("d", "D", 99)  # the last one stays, whatever its size
    assert [kept.get(name) for name in "acd"] == [None, None, "D"]


def test_only_a_file_that_was_named_has_a_path(tmp_path: Path) -> None:
    photos, path = Photos(), paint(tmp_path / "a.png", 1)
    name = photos.name(path)
    assert photos.path(name) == path
    assert photos.path("0" * 32) is None
    assert photos.path(str(path)) is None
    assert Photos().path(name) is None  # of another process
    os.utime(path, (1, 1))
    assert photos.name(path) != name  # what a browser keeps under it is of the file as it was


def test_thumbnails_are_whole_and_copies_fit(tmp_path: Path) -> None:
    import io

    Image.new("RGB", (4000, 1000), "red").save(tmp_path / "wide.tif")
    photos = Photos()
    name = photos.name(tmp_path / "wide.tif")
    data = photos.thumbnail(name, tmp_path / "wide.tif")
    assert Image.open(io.BytesIO(data)).size == (480, 120)
    assert photos.thumbnail(name, tmp_path / "gone.tif") is data
    assert Image.open(io.BytesIO(viewable(tmp_path / "wide.tif"))).size == (2560, 640)


def test_uploads_are_kept_in_memory() -> None:
    photos = Photos()
    name = photos.keep_upload(b"x")
    assert photos.upload(name) == b"x"
    assert photos.keep_upload(b"x") == name
    assert photos.upload(name + "0") is None
