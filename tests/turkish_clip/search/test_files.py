"""An index follows a folder whose files are touched, moved, unmounted or oddly named."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from samples import paint

from turkish_clip import decoding, images
from turkish_clip.dual_encoder import DualEncoder
from turkish_clip.encoder import image_side, load_model
from turkish_clip.images import OpenedImage
from turkish_clip.search import update
from turkish_clip.search.files import COARSEST_NS, CollectionError, scan
from turkish_clip.search.index import ImageIndex


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(4):
        paint(tmp_path / "photos" / f"{'sub/' if number % 2 else ''}{number}.png", number)
    return tmp_path / "photos"


@pytest.fixture
def index(tmp_path: Path, encoder: DualEncoder, photos: Path) -> ImageIndex:
    made = ImageIndex.open(tmp_path / "index", encoder)
    made.add(photos)
    return made


def paths_in(index: ImageIndex) -> set[str]:
    return {Path(path).name for path in index.vectors()[0]}


def test_files_with_a_new_time_or_name_and_old_bytes_are_not_embedded_again(
    index: ImageIndex, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in photos.rglob("*.png"):
        os.utime(path, ns=(1, 1))
    (photos / "sub").rename(photos / "renamed")

    asked: list[object] = []

    def counting(_: DualEncoder, images: list[Path], **__: object) -> Iterator[object]:
        asked.extend(images)
        return iter([])

    with monkeypatch.context() as patched:
        patched.setattr(DualEncoder, "embed_images", counting)
        added = index.add(photos)
        assert (added.added, added.unchanged, added.duplicates, added.vanished, added.images) == (0, 2, 0, 0, 4)
        assert added.moved == 2
    assert asked == []
    assert scan(photos, index._tables.files()).pending == []


def test_bytes_that_move_from_file_to_file(index: ImageIndex, photos: Path) -> None:
    """A file gets new bytes while a new file gets its old ones: both are found."""
    old = (photos / "0.png").read_bytes()
    (photos / "new.png").write_bytes(old)
    paint(photos / "0.png", 50)
    os.utime(photos / "0.png", ns=(5, 5))
    added = index.add(photos)
    assert added.images == 5
    for name in ("0.png", "new.png"):
        best = index.search(photos / name, k=1)[0]
        assert (Path(best.path).name, best.also_at) == (name, [])
        assert best.score > 0.999


def test_an_image_that_has_become_unreadable_is_removed(index: ImageIndex, photos: Path) -> None:
    (photos / "0.png").write_bytes(b"broken")
    added = index.add(photos)
    assert [Path(sample.path).name for sample in added.skipped] == ["0.png"]
    assert (added.images, "0.png" in paths_in(index)) == (3, False)
    paint(photos / "0.png", 0)
    stat = (photos / "0.png").stat()
    (photos / "0.png").write_bytes(b"broken again")
    index.add(photos)
    paint(photos / "0.png", 0)
    os.utime(photos / "0.png", ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    assert index.add(photos).images == 4


def test_an_unreadable_file_is_read_again_at_the_next_update(
    index: ImageIndex, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = paint(photos / "new.png", 9)
    real = Path.open

    def refused(self: Path, *args: object, **kwargs: object) -> object:
        if self == new:
            raise PermissionError(13, "Permission denied")
        return real(self, *args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", refused)
        assert index.add(photos).skipped[0].reason == "an unreadable file (Permission denied)"
    added = index.add(photos)
    assert (added.added, added.skipped, added.images) == (1, [], 5)


def test_a_folder_that_can_not_be_entered_loses_nothing(
    index: ImageIndex, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.scandir

    def refused(path: object) -> object:
        if str(path) == str(photos / "sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", refused)
    added = index.add(photos)
    assert (added.vanished, added.images) == (0, 4)
    assert added.skipped[0].reason == "a folder that can't be entered (Permission denied)"


def test_a_folder_that_has_become_empty_is_refused(index: ImageIndex, photos: Path) -> None:
    shutil.rmtree(photos)
    photos.mkdir()
    with pytest.raises(CollectionError, match=r"expected the 4 indexed images in .*, got none: is a disk not mounted"):
        index.add(photos)
    assert len(index) == 4


def test_a_folder_may_be_given_by_several_paths(
    index: ImageIndex, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    again = index.add("../photos")
    assert (again.unchanged, again.duplicates) == (4, 0)
    index.add(photos / "sub")
    (photos / "sub" / "1.png").unlink()
    assert index.add(photos).vanished == 1
    assert paths_in(index) == {"0.png", "2.png", "3.png"}


def test_hits_of_a_moved_folder_have_its_new_path(index: ImageIndex, photos: Path, tmp_path: Path) -> None:
    photos.rename(tmp_path / "archive")
    added = index.add(tmp_path / "archive")
    assert (added.moved, added.duplicates, added.vanished, added.missing) == (4, 0, 0, {})
    best = index.search(tmp_path / "archive" / "0.png", k=1)[0]
    assert (best.path, best.also_at, best.is_there) == (str(tmp_path / "archive" / "0.png"), [], True)
    assert index.inside(best) == tmp_path / "archive" / "0.png"
    assert index.folders() == [str(tmp_path / "archive")]


def test_files_that_a_moved_folder_has_lost_stay_until_pruned(index: ImageIndex, photos: Path, tmp_path: Path) -> None:
    """Their disk may be mounted again; an image is removed only if none of its files is left."""
    archive = photos.rename(tmp_path / "archive")
    (archive / "0.png").unlink()
    paint(archive / "new.png", 9)
    added = index.add(archive)
    assert (added.added, added.moved, added.missing, added.images) == (1, 3, {str(photos): 1}, 5)
    gone = next(hit for hit in index.search("ev", k=5) if not hit.is_there)
    assert gone.path == str(photos / "0.png")
    assert index.add(archive).missing == {str(photos): 1}
    pruned = index.add(archive, prune=True)
    assert (pruned.unchanged, pruned.vanished, pruned.missing, pruned.images) == (4, 1, {}, 4)
    assert index.folders() == [str(archive)]


def test_an_unmounted_backup_is_kept(index: ImageIndex, photos: Path, tmp_path: Path) -> None:
    """Its images exist elsewhere too, but it was not moved."""
    shutil.copytree(photos, tmp_path / "backup")
    index.add(tmp_path / "backup")
    (tmp_path / "backup").rename(tmp_path / "drawer")
    added = index.add(photos)
    assert (added.unchanged, added.moved, added.vanished) == (4, 0, 0)
    assert added.missing == {str(tmp_path / "backup"): 4}


def test_a_missing_copy_keeps_the_image_of_a_deleted_file(index: ImageIndex, photos: Path, tmp_path: Path) -> None:
    """Of the last two files of an image, one is deleted and one is in a folder that is missing."""
    away = tmp_path / "away"
    away.mkdir()
    shutil.copy(photos / "0.png", away / "copy.png")
    index.add(away)
    away.rename(tmp_path / "unplugged")
    (photos / "0.png").unlink()
    added = index.add(photos)
    assert (added.vanished, added.missing, added.images) == (1, {str(away): 1}, 4)
    (tmp_path / "unplugged").rename(away)
    assert index.add(away).unchanged == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has file names of any bytes")
def test_a_file_name_that_is_not_utf8_is_skipped(index: ImageIndex, photos: Path) -> None:
    odd = photos / os.fsdecode("çiçek.png".encode("iso-8859-9"))
    shutil.copy(photos / "0.png", odd)
    added = index.add(photos)
    assert [(Path(sample.path).name, sample.reason) for sample in added.skipped] == [
        ("\\xe7i\\xe7ek.png", "a name that is not UTF-8")
    ]
    assert added.images == 4


def test_a_hit_that_links_out_of_its_folder_has_no_path_inside(index: ImageIndex, photos: Path, tmp_path: Path) -> None:
    best = index.search(photos / "0.png", k=1)[0]
    assert index.inside(best) == photos / "0.png"
    (photos / "0.png").unlink()
    (photos / "0.png").symlink_to(paint(tmp_path / "secret.png", 1))
    assert index.inside(best) is None


def test_a_pair_decodes_images_at_the_size_of_its_image_model(pair_folder: Path, tiny_clip: Path) -> None:
    sides = {image_side(load_model(folder, device="cpu")) for folder in (pair_folder, tiny_clip)}
    assert sides == {32}


def test_thumbnails_that_were_indexed_leave_the_index(index: ImageIndex, photos: Path) -> None:
    """As in an index that an older version made: what is hidden now was an image then."""
    paint(photos / "visible" / "t.jpg", 40)
    paint(photos / "seen.png", 41)
    assert index.add(photos).images == 6
    (photos / "visible").rename(photos / "@eaDir")
    (photos / "seen.png").rename(photos / "._seen.png")
    added = index.add(photos)
    assert (added.vanished, added.images, added.left_out.hidden) == (2, 4, {"@eaDir": 1, "._*": 1})
    hidden = [photos / "@eaDir" / "t.jpg"]
    assert index.add(hidden).images == 5  # files that are named are read
    assert index.add(photos).images == 5  # and stay: they were not found in this folder


@pytest.mark.parametrize("left", ["nothing", "an empty folder", "a hidden file"])
def test_a_folder_that_goes_away_while_it_is_read_loses_nothing(
    index: ImageIndex, photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, left: str
) -> None:
    monkeypatch.setattr(update, "ROWS_PER_WRITE", 2)
    for path in photos.rglob("*.png"):
        os.utime(path, (1, 1))
    index.add(photos)
    for number in range(10, 14):
        paint(photos / f"{number}.png", number)

    def unmount(done: int, _: int) -> None:
        if done == 6 and photos.exists():  # four known ones and a batch of two
            photos.rename(tmp_path / "away")
            if left != "nothing":
                photos.mkdir()
            if left == "a hidden file":
                (photos / ".DS_Store").write_bytes(b"x")

    with pytest.raises(CollectionError, match="expected .*photos to stay while it is read, got it gone or empty"):
        index.add(photos, progress=unmount)
    assert len(index) == 6
    shutil.rmtree(photos, ignore_errors=True)
    (tmp_path / "away").rename(photos)
    added = index.add(photos)
    assert (added.added, added.unchanged, added.skipped, added.images) == (2, 6, [], 8)
    with pytest.raises(CollectionError, match="to stay while it is read"):
        index.add(photos, verify=True, progress=lambda done, total: unmount(6, total))
    assert len(index) == 8


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
def test_a_known_file_that_can_not_be_read_now_stays(
    index: ImageIndex, photos: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    real = Path.open
    paint(photos / "0.png", 30)

    def refused(self: Path, *args: object, **kwargs: object) -> object:
        if self == photos / "0.png":
            raise error
        return real(self, *args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", refused)
        added = index.add(photos)
        assert [file.reason for file in added.skipped] == [f"an unreadable file ({error.strerror})"]
        assert (added.images, "0.png" in paths_in(index)) == (4, True)
    assert (index.add(photos).added, len(index)) == (1, 4)


@pytest.mark.parametrize(
    "nanoseconds", [0, 1, -1, -(10**18), 2**33 * 10**9, int((time.time() + 10**7) * 1e9)], ids=lambda ns: f"{ns:.0e}"
)
def test_files_of_any_time_are_indexed_and_passed_over(tmp_path: Path, encoder: DualEncoder, nanoseconds: int) -> None:
    path = paint(tmp_path / "photos" / "a.png", 1)
    os.utime(path, ns=(nanoseconds, nanoseconds))
    index = ImageIndex.open(tmp_path / "index", encoder)
    index.add(path.parent)
    assert (index.add(path.parent).unchanged, scan(path.parent, index._tables.files()).pending) == (1, [])
    os.utime(path, ns=(nanoseconds + 10**9, nanoseconds + 10**9))  # the clock was set back, or forward
    assert [file.path for file in scan(path.parent, index._tables.files()).pending] == [str(path)]
    assert index.add(path.parent).unchanged == 1


def test_a_change_within_the_coarsest_time_of_a_disk_is_found(tmp_path: Path, encoder: DualEncoder) -> None:
    """Size and time stay, since the disk's times are even seconds: what was read at once is read again."""
    path = tmp_path / "photos" / "a.bmp"
    path.parent.mkdir()

    def write(colour: tuple[int, int, int], at: int) -> None:
        Image.new("RGB", (40, 40), colour).save(path)
        os.utime(path, ns=(at, at))

    now = (time.time_ns() // COARSEST_NS + 1) * COARSEST_NS  # the end of this span: a slow machine reads it in the next
    write((200, 0, 0), now)
    index = ImageIndex.open(tmp_path / "index", encoder)
    index.add(path.parent)
    write((0, 200, 0), now)
    assert (index.add(path.parent).added, len(index)) == (1, 1)
    write((0, 0, 200), 5 * COARSEST_NS)
    index.add(path.parent)
    write((9, 9, 9), 5 * COARSEST_NS)  # long after: only a check sees that
    assert index.add(path.parent).added == 0
    assert index.add(path.parent, verify=True).added == 1


@pytest.mark.parametrize(
    "error", [RuntimeError("a defect"), MemoryError(), SystemExit(3)], ids=lambda e: type(e).__name__
)
def test_a_thread_that_dies_ends_the_command_and_loses_nothing(
    tmp_path: Path, encoder: DualEncoder, photos: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(update, "ROWS_PER_WRITE", 2)
    real, opened = decoding.open_hashed, []

    def dying(source: Path, **options: Any) -> OpenedImage:
        opened.append(source)
        if len(opened) == 3:
            raise error
        return real(source, **options)

    index = ImageIndex.open(tmp_path / "other", encoder)
    with monkeypatch.context() as patched:
        patched.setattr(decoding, "open_hashed", dying)
        with pytest.raises(type(error)):
            index.add(photos, workers=2)
    assert len(index) == 2
    assert (index.add(photos).added, len(index)) == (2, 4)


def test_an_image_for_which_the_memory_is_too_small_is_tried_again(
    index: ImageIndex, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(photos / "large.png", 20)

    def too_large(*_: object) -> Image.Image:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(images, "_upright", too_large)
        added = index.add(photos)
        assert [file.reason for file in added.skipped] == [images.NO_MEMORY]
    assert (index.add(photos).added, len(index)) == (1, 5)


def test_fifty_copies_of_an_image_in_many_batches(
    tmp_path: Path, encoder: DualEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update, "ROWS_PER_WRITE", 7)
    first = paint(tmp_path / "photos" / "00.png", 1)
    for number in range(1, 50):
        shutil.copy2(first, first.with_name(f"{number:02}.png"))
    index = ImageIndex.open(tmp_path / "index", encoder)
    added = index.add(first.parent)
    assert (added.added, added.duplicates, added.images) == (1, 49, 1)
    assert len(set(index.vectors()[0])) == 50


def test_another_image_processor_is_told_of_once(
    index: ImageIndex, photos: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert index.metadata is not None
    assert index.metadata.image_processor == "CLIPImageProcessorPil"
    index.add(photos)
    index.search(photos / "0.png")
    assert "prepared" not in caplog.text
    monkeypatch.setattr(DualEncoder, "image_processor", "CLIPImageProcessor")
    index.search("ev")  # words need none
    assert "prepared" not in caplog.text
    index.search(photos / "0.png")
    index.add(photos)
    assert caplog.text.count("images were prepared by CLIPImageProcessorPil, and are now by CLIPImageProcessor: ") == 1
    assert "install or remove torchvision" in caplog.text


def test_the_times_of_images_follow_their_files(index: ImageIndex, photos: Path) -> None:
    def of_year(year: int) -> list[str]:
        where = f"modified >= timestamp '{year}-01-01' AND modified < timestamp '{year + 1}-01-01'"
        return [hit.path for hit in index.search("ev", where=where)]

    def to_year(path: Path, year: int) -> None:
        os.utime(path, (time := datetime(year, 6, 1, tzinfo=timezone.utc).timestamp(), time))

    file, copy, moved = photos / "0.png", photos / "copy.png", photos / "moved.png"
    to_year(file, 2001)
    assert index.add(photos).unchanged == 4
    assert of_year(2001) == [str(file)]
    copy.write_bytes(file.read_bytes())
    to_year(copy, 2002)
    index.add(photos)
    assert (of_year(2001), of_year(2002)) == ([str(file)], [])  # the first path's time counts
    file.unlink()
    index.add(photos)
    assert (of_year(2001), of_year(2002)) == ([], [str(copy)])
    moved.write_bytes(copy.read_bytes())
    copy.unlink()
    to_year(moved, 2003)
    assert index.add(photos).moved == 1
    assert (of_year(2002), of_year(2003)) == ([], [str(moved)])
    to_year(moved, 2004)
    index.add(photos)
    assert of_year(2004) == [str(moved)]
    assert len(index) == 4
