"""An index where files swap names, disks fail, processes write at once, and models change."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
from samples import paint

from turkish_clip.dual_encoder import DualEncoder
from turkish_clip.images import ImageError
from turkish_clip.search import update
from turkish_clip.search.files import scan
from turkish_clip.search.index import Hit, ImageIndex
from turkish_clip.search.storage import ImageIndexError, check_place
from turkish_clip.search.tables import FILES, IMAGES, ImageTables


def every_image_finds_itself(index: ImageIndex, photos: Path) -> bool:
    return all(index.search(path, k=1)[0].path == str(path) for path in sorted(photos.rglob("*.png")))


def test_files_may_swap_names(index: ImageIndex, photos: Path) -> None:
    files = sorted(photos.rglob("*.png"))
    for old, new in [*zip(files, [*files[1:], photos / "last.png"])][::-1]:
        old.rename(new)
    paint(files[0], 10)
    moved = index.add(photos)
    assert (moved.images, moved.added, moved.vanished) == (7, 1, 0)
    assert every_image_finds_itself(index, photos)
    files[1].rename(photos / "x")
    files[2].rename(files[1])
    (photos / "x").rename(files[2])
    assert index.add(photos).images == 7
    assert every_image_finds_itself(index, photos)
    assert index.add(photos).unchanged == 7


def test_an_image_that_opens_at_the_second_attempt_is_added(
    index: ImageIndex, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(photos / "new.png", 10)
    embed = update.embedded

    def failing(files: list[update.File], *more: object) -> object:
        return [], [], [file.skipped("an input/output error") for file in files]

    monkeypatch.setattr(update, "embedded", failing)
    assert [sample.reason for sample in index.add(photos).skipped] == ["an input/output error"]
    monkeypatch.setattr(update, "embedded", embed)
    again = index.add(photos)
    assert (again.images, again.added, again.skipped) == (7, 1, [])
    assert every_image_finds_itself(index, photos)


def test_a_file_without_its_image_is_read_again(index: ImageIndex, photos: Path) -> None:
    index._tables._table(IMAGES).delete("path LIKE '%/3.png'")
    assert len(index) == 5
    assert index.add(photos).images == 6
    assert every_image_finds_itself(index, photos)


WRITER = """
import sys
from turkish_clip.search.storage import exclusive_write
with exclusive_write(sys.argv[1]):
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_one_process_writes_at_a_time(index: ImageIndex, photos: Path) -> None:
    argv = [sys.executable, "-c", WRITER, index.uri]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "writing\n"
        with pytest.raises(ImageIndexError, match="expected to write alone, got another process that writes to"):
            index.add(photos)
        with pytest.raises(ImageIndexError, match="try again when it is done"):
            index.remove([photos / "0.png"])
        assert index.search(photos / "0.png", k=1)[0].path == str(photos / "0.png")
        other.kill()
    assert index.add(photos).unchanged == 6


def test_an_index_made_anew_with_another_model_is_refused(
    index: ImageIndex, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = index.metadata
    assert metadata is not None
    monkeypatch.setattr(ImageTables, "metadata", lambda tables: replace(metadata, weights_sha256="of another"))
    with pytest.raises(ImageIndexError, match="expected the image model that .* was made with"):
        index.search("kar")
    with pytest.raises(ImageIndexError, match="got other weights in"):
        index.add(photos)


def test_odd_files_are_skipped_one_by_one(index: ImageIndex, photos: Path) -> None:
    (photos / "loop.png").symlink_to(photos / "loop.png")
    os.utime(paint(photos / "far.png", 11), (1e11, 1e11))
    skipped = {Path(sample.path).name: sample.reason for sample in index.add(photos).skipped}
    assert skipped in ({"loop.png": "a link to itself"}, {"loop.png": "not a regular file"})
    assert len(index) == 7
    assert index.add(photos).unchanged == 7
    assert index.search(photos / "far.png", k=1, where="modified > TIMESTAMP '2200-01-01'")


def test_files_are_removed_by_composed_or_decomposed_names(index: ImageIndex, photos: Path) -> None:
    stored = photos / unicodedata.normalize("NFD", "çiçek.png")
    paint(stored, 12)
    dotted, plain = paint(photos / "i̇stanbul.png", 13), paint(photos / "istanbul.png", 14)
    index.add(photos)
    assert index.remove([photos / "sub" / ".." / "çiçek.png"]) == 1
    assert index.remove([plain]) == 1
    assert [hit.path for hit in index.search("ev", where="path LIKE '%/i̇stanbul.png'")] == [str(dotted)]
    assert len(index) == 7
    assert stored.name not in {Path(path).name for path in index._tables.files()}


def test_a_disk_without_locks_is_warned_of(
    index: ImageIndex, photos: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(lock: filelock.FileLock, *more: object, **options: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", refused)
    assert index.add(photos).unchanged == 6
    assert "has no file locks: make sure that only one process writes to it" in caplog.text


def test_a_full_disk_loses_nothing(index: ImageIndex, photos: Path) -> None:
    paint(photos / "new.png", 10)
    resource = pytest.importorskip("resource")  # not on Windows
    free, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, most))  # no file may grow beyond 100 bytes
    try:
        with pytest.raises(
            ImageIndexError, match="expected an index to write in .*File too large.*check rights and disk"
        ):
            index.add(photos)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (free, most))
    assert index.add(photos).added == 1
    assert every_image_finds_itself(index, photos)


@pytest.mark.parametrize("where", [None, "bytes > 0"])
def test_a_damaged_index_is_not_taken_for_a_bad_condition(index: ImageIndex, where: str | None) -> None:
    for file in Path(index.uri).glob("images.lance/data/*.lance"):
        file.write_bytes(b"")
    with pytest.raises(ImageIndexError, match=r"expected an index to read in .*, got .*check rights and disk"):
        ImageIndex.open(index.uri).search_vector(np.ones(16), where=where)
    with pytest.raises(ImageIndexError, match="expected a vector of 16 numbers, as in .*, got 3"):
        index.search_vector(np.ones(3), where=where)


def test_a_table_that_can_not_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images.lance" / "_versions").mkdir(parents=True)
    (tmp_path / "images.lance" / "_versions" / "1.manifest").write_bytes(b"none")
    with pytest.raises(ImageIndexError, match="expected an index to read in"):
        len(ImageIndex.open(tmp_path))


def test_search_runs_in_a_notebook_and_in_several_threads(index: ImageIndex, photos: Path) -> None:
    async def cell() -> list[Hit]:
        return index.search(photos / "0.png", k=6)

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    expected = index.search(photos / "0.png", k=6)
    assert asyncio.get_event_loop() is loop  # a script keeps its own loop
    loop.close()
    asyncio.set_event_loop(None)
    assert len(expected) == 6
    assert asyncio.run(cell()) == expected
    with ThreadPoolExecutor(4) as threads:
        assert all(hits == expected for hits in threads.map(lambda _: index.search(photos / "0.png", k=6), range(16)))


def test_an_index_that_was_made_anew_is_searched_as_it_is_now(
    index: ImageIndex, photos: Path, encoder: DualEncoder
) -> None:
    assert len(index.search("kar")) == 6
    shutil.rmtree(index.uri)
    for path in sorted(photos.rglob("*.png"))[:2]:
        path.unlink()
    ImageIndex.open(index.uri, encoder).add(photos)
    assert {hit.path for hit in index.search("kar")} == {str(path) for path in photos.rglob("*.png")}
    assert every_image_finds_itself(index, photos)


@pytest.mark.parametrize("where", [None, "bytes > 0"])
def test_an_index_that_was_deleted_is_refused(index: ImageIndex, photos: Path, where: str | None) -> None:
    assert len(index.search(photos / "0.png", where=where)) == 6
    shutil.rmtree(index.uri)
    with pytest.raises(ImageIndexError, match="expected an index to read in"):
        index.search(photos / "0.png", where=where)
    with pytest.raises(ImageIndexError, match="expected an index to read in"):
        index._tables.nearest(np.ones(16, np.float32), 1, where, False)


def test_the_lock_is_in_the_folder_of_the_index(
    tmp_path: Path, encoder: DualEncoder, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for uri in ("~/mine", f"file://{tmp_path}/theirs"):
        ImageIndex.open(uri, encoder).add(photos)
        folder = tmp_path / uri.rpartition("/")[2]
        assert {"images.lance", "writing.lock"} <= {path.name for path in folder.iterdir()}


def test_copies_are_found_by_their_paths(index: ImageIndex, photos: Path) -> None:
    (photos / "zz.png").write_bytes((photos / "2.png").read_bytes())
    index.add(photos)
    hits = index.search("ev", where="array_to_string(also_at, ' ') LIKE '%/zz.png'")
    assert [hit.path for hit in hits] == [str(photos / "2.png")]


def test_a_new_index_is_empty(tmp_path: Path, encoder: DualEncoder) -> None:
    index = ImageIndex.open(tmp_path / "none", encoder)
    assert index.remove(["a.png"]) == 0
    assert index.folders() == []
    with pytest.raises(ImageIndexError, match="got foo://x"):
        ImageIndex.open("foo://x")


def test_a_skipped_file_keeps_its_reason(index: ImageIndex, photos: Path) -> None:
    (photos / "bad.png").write_bytes(b"no image")
    for path in photos.rglob("*.png"):
        os.utime(path, (1, 1))
    index.add(photos)
    index.add(photos)
    assert [(Path(sample.path).name, bool(sample.reason)) for sample in index.skipped()] == [("bad.png", True)]
    assert index._tables._table(FILES).count_rows() == 7
    assert len(scan(photos, index._tables.files()).pending) == 1
    with pytest.raises(ImageError):
        index.search(photos / "bad.png")


def test_what_is_embedded_is_what_was_hashed(
    photos: Path, encoder: DualEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two images change hands after they were hashed and before they are embedded."""
    one, other = photos / "0.png", photos / "2.png"
    real = update.hashed

    def swapping(*args: Any) -> Any:
        found = real(*args)
        first, second = one.read_bytes(), other.read_bytes()
        one.write_bytes(second)
        other.write_bytes(first)
        monkeypatch.setattr(update, "hashed", real)
        return found

    monkeypatch.setattr(update, "hashed", swapping)
    index = ImageIndex.open(tmp_path / "new", encoder)
    assert index.add(photos).skipped == []
    for path in (one, other):
        assert index.search(path, k=1)[0].path == str(path)
    monkeypatch.setattr(
        update, "hashed", lambda files, workers: ([replace(file, content="0" * 64) for file in files], [])
    )
    changing = ImageIndex.open(tmp_path / "changing", encoder).add(photos)
    assert {skipped.reason for skipped in changing.skipped} == {update.CHANGING}
    assert (changing.images, changing.added, len(changing.skipped)) == (0, 0, 6)


def test_a_check_finds_and_mends_exchanged_and_damaged_vectors(index: ImageIndex, photos: Path) -> None:
    paths = sorted(map(str, photos.rglob("*.png")))
    rows = {row["path"]: row for part in index._tables.images(10) for row in part}
    exchanged = [
        {**rows[paths[0]], "vector": rows[paths[1]]["vector"]},
        {**rows[paths[1]], "vector": rows[paths[0]]["vector"]},
        {**rows[paths[3]], "vector": np.eye(16, dtype=np.float32)[3]},
    ]
    index._tables.write(exchanged, [], [])
    times = (photos / "4.png").stat()
    (photos / "4.png").write_bytes((photos / "2.png").read_bytes().ljust(times.st_size, b"\0")[: times.st_size])
    os.utime(photos / "4.png", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert index.add(photos).mended == []
    assert index.search(paths[1] and Path(paths[1]), k=1)[0].path == paths[0]  # found under the other's name
    found = index.add(photos, verify=True)
    mended = [paths[0], paths[1], paths[3]]
    assert sorted(found.mended) == mended
    assert found.checked == found.images
    for path in mended:
        assert path in {hit.path for hit in index.search(Path(path), k=2) if hit.score > 0.9999}
    assert index.add(photos, verify=True).mended == []
    Path(paths[0]).unlink()
    assert index.add([Path(paths[1])], verify=True).checked == found.images - 1


@pytest.mark.parametrize("damage", ["nothing in it", "no images", "no files", "no version"])
def test_a_half_made_index_is_told_of_and_made_again(
    damage: str, index: ImageIndex, encoder: DualEncoder, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(index.uri)
    if damage == "nothing in it":
        shutil.rmtree(folder)
        folder.mkdir()
    elif damage == "no version":
        for table in folder.glob("*.lance"):
            shutil.rmtree(table / "_versions")
    else:
        shutil.rmtree(folder / f"{damage.split()[1]}.lance")
    again = ImageIndex.open(folder, encoder)
    assert (again.metadata is None) == (damage != "no files")
    added = again.add(photos)
    assert (added.images, added.skipped) == (6, [])
    assert every_image_finds_itself(again, photos)
    assert ("was never finished, and is made again" in caplog.text) == (damage == "no version")


def test_a_folder_that_can_not_be_written_to_is_told_of_at(
    photos: Path, encoder: DualEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ImageIndexError, match=r"expected a place to write .*, got .*; check rights, .* --at FOLDER"):
        ImageIndex.open(tmp_path / "index", encoder).add(photos)
    monkeypatch.undo()
    with pytest.raises(ImageIndexError, match=r"got .*0.png/index .Not a directory.; .* --at FOLDER"):
        check_place(str(photos / "0.png" / "index"))
