"""A folder is watched: changes of images count, all others do not, and none is missed; the bar knows its total."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from samples import paint
from typer.testing import CliRunner

from turkish_clip.cli import entry
from turkish_clip.dual_encoder import DualEncoder
from turkish_clip.errors import InputError
from turkish_clip.search import watch
from turkish_clip.search.index import ImageIndex


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    """Ends the watching after the test, or after a minute."""
    pytest.importorskip("watchfiles")
    event = threading.Event()
    timer = threading.Timer(60, event.set)
    timer.start()
    yield event
    timer.cancel()
    event.set()


def test_changes_of_images_count(tmp_path: Path, stop: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "QUIET_MS", 300)
    folder = tmp_path / "photos"
    paint(folder / "0.png", 0)
    paint(folder / "sub" / "2.png", 1)
    (index := folder / ".turkish-clip").mkdir()
    seen = watch.changes(folder, index, stop)
    assert next(seen) == 0
    for name in ("notes.txt", ".hidden.png", ".turkish-clip/images.lance", "._1.png"):
        (folder / name).write_bytes(b"x")
    paint(folder / "1.png", 1)  # while nobody asks
    assert next(seen) == 1
    (folder / "0.png").unlink()
    assert next(seen) == 1
    (folder / "sub").rename(folder / "moved")
    assert next(seen) >= 1
    stop.set()
    assert list(seen) == []


def test_without_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(watch, "find_spec", lambda name: None)
    with pytest.raises(watch.WatchError, match="expected watchfiles, got none installed; .*watch"):
        CliRunner().invoke(entry.app, ["index", str(tmp_path), "--watch"], catch_exceptions=False)


def test_the_command_indexes_again(
    tmp_path: Path, pair_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("turkish_clip.verify.quiet", lambda: None)
    monkeypatch.setattr("turkish_clip.search.text_encoder.WRITING", ("none",))
    monkeypatch.setattr("turkish_clip.search.watch.check_watch", lambda: None)
    folder = tmp_path / "photos"
    paint(folder / "0.png", 0)

    def changes(watched: Path, index: Path) -> Iterator[int]:
        assert (watched, index) == (folder, folder / ".turkish-clip")
        yield 0
        paint(folder / "1.png", 1)
        yield 1
        for path in folder.glob("*.png"):
            path.unlink()
        yield 2
        paint(folder / "2.png", 2)
        yield 1

    monkeypatch.setattr("turkish_clip.search.watch.changes", changes)
    result = CliRunner().invoke(entry.app, ["index", str(folder), "--watch", "--model", str(pair_folder)])
    assert result.exit_code == 0, result.exception
    added = [line for line in result.stdout.splitlines() if "added" in line]
    assert [line.split(",")[0] for line in added] == ["1 added"] * 3
    assert f"watching {folder}; Ctrl-C ends it" in result.stderr
    assert "error: expected the 2 indexed images in" in result.stderr


def test_ctrl_c_ends_the_waiting_and_interrupts_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from turkish_clip.cli import images

    def interrupted() -> None:
        raise KeyboardInterrupt

    def changes(folder: Path, index: Path | None) -> Iterator[int]:
        yield 0
        interrupted()

    monkeypatch.setattr("turkish_clip.search.watch.changes", changes)
    images._watch(tmp_path, str(tmp_path), lambda: None, lambda: None)
    said = capsys.readouterr().err.splitlines()
    assert said == [f"watching {tmp_path}; Ctrl-C ends it", f"no longer watching {tmp_path}; its index is up to date"]
    with pytest.raises(KeyboardInterrupt):
        images._watch(tmp_path, str(tmp_path), interrupted, lambda: None)


def test_what_was_said_is_not_said_again(tmp_path: Path, pair_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("turkish_clip.verify.quiet", lambda: None)
    monkeypatch.setattr("turkish_clip.search.text_encoder.WRITING", ("none",))
    monkeypatch.setattr("turkish_clip.search.watch.check_watch", lambda: None)
    folder = tmp_path / "photos"
    paint(folder / "0.png", 0)
    (folder / "bad.png").write_bytes(b"x")
    (folder / "a.psd").write_bytes(b"x")

    def changes(watched: Path, index: Path) -> Iterator[int]:
        yield 0
        paint(folder / "1.png", 1)
        yield 1
        (folder / "worse.png").write_bytes(b"x")
        (folder / "b.psd").write_bytes(b"x")
        yield 2

    monkeypatch.setattr("turkish_clip.search.watch.changes", changes)
    said = CliRunner().invoke(entry.app, ["index", str(folder), "--watch", "--model", str(pair_folder)]).stderr
    assert said.count("bad.png") == 1
    assert said.count("worse.png") == 1
    assert said.count("no correction of hubs") == 1
    assert (said.count("PSD 1"), said.count("PSD 2")) == (1, 1)


def test_a_folder_that_is_gone_ends_the_watching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from turkish_clip.cli import images

    def again() -> None:
        raise InputError("gone")

    monkeypatch.setattr("turkish_clip.search.watch.changes", lambda folder, index: iter((0, 1)))
    with pytest.raises(InputError, match="gone"):
        images._watch(tmp_path / "none", str(tmp_path), lambda: None, again)


def test_the_progress_knows_its_total_from_the_start(photos: Path, tmp_path: Path, encoder: DualEncoder) -> None:
    index, told = ImageIndex.open(tmp_path / "index", encoder), list[tuple[int, int]]()
    index.add(photos, batch_size=2, progress=lambda *counts: told.append(counts))
    assert told[0] == (0, 6)
    assert told[-1] == (6, 6)
    assert {(2, 6), (4, 6)} <= set(told)
    assert told == sorted(told)
    paint(photos / "new.png", 9)
    told.clear()
    index.add(photos, progress=lambda *counts: told.append(counts))
    assert (told[0][1], told[-1]) == (7, (7, 7))
