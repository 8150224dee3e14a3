"""The scripts in examples/ run as they are, on a small folder and small models."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SEARCH, TRAIN = EXAMPLES / "search_your_folder.py", EXAMPLES / "train_on_your_folder.py"
SOUNDS = EXAMPLES / "sounds.py"


def run(script: Path, monkeypatch: pytest.MonkeyPatch, *argv: object) -> None:
    monkeypatch.setattr(sys, "argv", [str(script), *map(str, argv)])
    runpy.run_path(str(script), run_name="__main__")


@pytest.fixture
def folder(tmp_path: Path, captioned_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A captioned folder of one's own, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TURKISH_CLIP_MODEL", raising=False)
    return Path(shutil.copytree(captioned_folder, tmp_path / "my-images")).relative_to(tmp_path)


@pytest.mark.parametrize("script", [SEARCH, TRAIN], ids=lambda path: path.stem)
def test_a_script_is_short_and_has_help(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(script.read_text(encoding="utf-8").splitlines()) <= 60
    with pytest.raises(SystemExit) as end:
        run(script, monkeypatch, "--help")
    assert not end.value.code
    assert "--image_model" in capsys.readouterr().out


def test_search(
    folder: Path, pair_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "test" / "00000.png").write_text("merhaba", encoding="utf-8")
    argv = [folder, "mavi bir ev", "kırmızı ağaç", "--model", pair_folder, "-k", 3]
    silenced = list[bool]()
    monkeypatch.setattr("turkish_clip.verify.quiet", lambda: silenced.append(True))  # for the whole process
    run(SEARCH, monkeypatch, *argv, "--sheet", "found.html")
    printed = capsys.readouterr().out
    assert silenced == [True]
    assert "47 new, 0 as they were" in printed
    assert "00000.png: a file that is not an image" in printed
    assert printed.count(".png\n") == 6
    assert "kırmızı ağaç" in Path("found.html").read_text(encoding="utf-8")
    Path("found.html").unlink()
    run(SEARCH, monkeypatch, *argv)
    assert "0 new, 47 as they were" in capsys.readouterr().out
    assert not Path("found.html").exists()


def test_search_without_a_model(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"error: expected a model, got .*, which is no folder in .*; check the path"):
        run(SEARCH, monkeypatch, folder, "ev", "--model", tmp_path / "none" / "such")


def test_train_and_search_with_what_was_trained(
    folder: Path, tiny_clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(TRAIN, monkeypatch, folder, "--image_model", tiny_clip, "--epochs", 1, "--device", "cpu")
    printed = capsys.readouterr().out
    assert "Turkish text → image" in printed
    assert "runs/my-folder/model" in printed
    results = json.loads(Path("runs/my-folder/results.json").read_text(encoding="utf-8"))
    assert (results["images"], results["split"]) == (10, "test")
    run(SEARCH, monkeypatch, folder, "ev", "--model", "runs/my-folder")
    assert "48 new" in capsys.readouterr().out


def test_train_says_what_is_wrong(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "metadata.jsonl").unlink()
    with pytest.raises(SystemExit) as end:
        run(TRAIN, monkeypatch, folder)
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: expected ")


def test_the_sounds_of_the_example_differ_in_their_order_alone() -> None:
    tone = runpy.run_path(str(SOUNDS))["tone"]
    for beeps in (False, True):
        rising, falling = (tone(np.random.default_rng(3), falls, beeps) for falls in (False, True))
        np.testing.assert_array_equal(rising[::-1], falling)
        assert 1.5 * 16_000 <= len(rising) <= 4.5 * 16_000
        assert np.abs(rising).max() < 1.3


@pytest.mark.slow
def test_words_tell_sounds_apart_and_their_pitches_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(SOUNDS, monkeypatch)
    printed = capsys.readouterr().out
    figures = {line[:45].strip(): [float(one) for one in line[45:].split()] for line in printed.splitlines()[-3:]}
    assert figures["chance"] == [0.25, 0.5]
    kind, direction = figures["by Turkish words"]
    assert (kind, direction) > (0.8, 0.9)
    assert direction > 0.9
    assert figures["by their pitches alone"][1] < 0.65  # of 160 sounds: chance with three standard errors is 0.62
