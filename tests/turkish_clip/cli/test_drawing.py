"""The subcommand draw: its files, its JSON, its errors."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from turkish_clip.cli import entry
from turkish_clip.errors import InputError


@pytest.fixture(autouse=True)
def model(pair_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURKISH_CLIP_MODEL", str(pair_folder))
    monkeypatch.setattr("turkish_clip.verify.quiet", lambda: None)


def run(*argv: object) -> tuple[int, str]:
    result = CliRunner().invoke(entry.app, ["draw", *map(str, argv)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def test_an_image_an_animation_and_a_strip(tmp_path: Path) -> None:
    files = [tmp_path / "ev.png", "--gif", tmp_path / "ev.gif", "--strip", tmp_path / "way.png"]
    argv = ["kırmızı bir ev", "--steps", 4, "--crops", 2, "--size", "40x24", "--every", 2, "-o", *files]
    code, text = run(*argv, "--json")
    found = json.loads(text)
    assert (code, found["path"], found["steps"], found["stopped"]) == (0, str(tmp_path / "ev.png"), 4, "")
    with Image.open(tmp_path / "ev.png") as image:
        assert image.size == (40, 24)
        assert json.loads(image.info["Description"]) == found["scores"]
    with Image.open(tmp_path / "ev.gif") as image:
        assert (image.size, image.n_frames) == ((40, 24), 3)
    with Image.open(tmp_path / "way.png") as image:
        assert image.size == (120, 24)
    code, text = run(*argv)  # what is ours is replaced
    assert code == 0
    assert f"{found['scores']['kırmızı bir ev']:7.3f}  kırmızı bir ev" in text


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["ev"], "--output, got none; write: turkish-clip draw 'gece mavi bir balık' --output balik.png"),
        (["ev", "-o", "ev.jpg"], "expected a file named .png, got ev.jpg; name it ev.png"),
        (["ev", "-o", "ev.png", "--gif", "ev.png"], "expected a file named .gif, got ev.png"),
        (["ev", "-o", "ev.png", "--strip", "ev.png"], "expected files of different names"),
        (["ev", "-o", "ev.png", "--size", "büyük"], "expected a size such as 224 or 320x240, got 'büyük'"),
        (["ev", "-o", "ev.png", "--size", "4"], "expected sides of 16 to 2048 pixels, got 4x4"),
        (["ev", "-o", "ev.png", "--weight", "1", "--weight", "2"], "expected a weight for each of 1 prompts"),
        (["ev", "-o", "ev.png", "--start", "none.png"], "none.png"),
    ],
)
def test_bad_input(argv: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=re.escape(message)):
        run(*argv)
    assert not list(tmp_path.iterdir())


def test_a_file_of_others_stays(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "mine.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "mine.gif")
    before = (tmp_path / "mine.png").read_bytes()
    with pytest.raises(InputError, match=r"turkish-clip did not write; name another"):
        run("ev", "-o", tmp_path / "mine.png")
    with pytest.raises(InputError, match=r"turkish-clip did not write; name another"):
        run("ev", "-o", tmp_path / "new.png", "--gif", tmp_path / "mine.gif")
    assert (tmp_path / "mine.png").read_bytes() == before
