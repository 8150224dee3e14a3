"""Images that were found are copied whole or not at all, replace nothing, and are opened in one call."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from turkish_clip import found
from turkish_clip.found import CopyError, check_copy_folder, copy_images, open_with_viewer


def files(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(path), encoding="utf-8")
    return paths


def test_equal_names_are_numbered(tmp_path: Path) -> None:
    paths = files(tmp_path, "a/ev.png", "b/ev.png", "c/EV.PNG", "d/ev-2.png", "e/kuş.png")
    names = copy_images(paths, tmp_path / "new" / "copies")
    assert names == ["ev.png", "ev-2.png", "EV-3.PNG", "ev-2-2.png", "kuş.png"]
    for path, name in zip(paths, names):
        assert (tmp_path / "new" / "copies" / name).read_text(encoding="utf-8") == str(path)


def test_all_or_none_are_copied(tmp_path: Path) -> None:
    paths = files(tmp_path, "a/ev.png")
    with pytest.raises(OSError, match="gone"):
        copy_images([*paths, tmp_path / "gone.png"], tmp_path / "copies")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def test_nothing_is_replaced(tmp_path: Path) -> None:
    (held,) = files(tmp_path, "full/mine.txt")
    with pytest.raises(CopyError, match="expected a new or empty folder .* holds 'mine.txt'; name another: nothing is"):
        copy_images(files(tmp_path, "a/ev.png"), tmp_path / "full")
    with pytest.raises(CopyError, match="expected a folder to copy to, got .*mine.txt, a file; name a new folder"):
        check_copy_folder(held)
    assert held.read_text(encoding="utf-8") == str(held)
    (tmp_path / "link").symlink_to(tmp_path / "a", target_is_directory=True)
    with pytest.raises(CopyError, match="outside .*, which is indexed"):
        check_copy_folder(tmp_path / "link" / "new", [str(tmp_path / "a")])
    check_copy_folder(tmp_path / "new", [str(tmp_path / "a")])


def test_the_viewer_is_called_once_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    codes = [0, 3]  # xdg-open's own: of a viewer, of none

    class Opening:
        def __init__(self, command: list[str], **options: Any) -> None:
            calls.append(command)

        def wait(self, seconds: float) -> int:
            if not codes:
                raise subprocess.TimeoutExpired("xdg-open", seconds)
            return codes.pop(0)

    monkeypatch.setattr(found.sys, "platform", "linux")
    monkeypatch.setattr(subprocess, "Popen", Opening)
    monkeypatch.setattr(found.shutil, "which", lambda name: f"/bin/{name}")
    assert open_with_viewer(tmp_path / "ev.png")
    assert not open_with_viewer(tmp_path / "ev.png")
    assert open_with_viewer(tmp_path / "ev.png")  # which is still open
    monkeypatch.setattr(found.shutil, "which", lambda name: None)
    assert not open_with_viewer(tmp_path / "ev.png")
    assert calls == [["/bin/xdg-open", str(tmp_path / "ev.png")]] * 3
