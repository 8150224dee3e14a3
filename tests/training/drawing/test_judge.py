"""Who judges drawings: another small CLIP, over all things and colours; what is drawn already is not drawn again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.drawing import judge
from training.drawing.judge import Judge, JudgeError, Subject, subjects
from training.mini.words import COLOURS, OBJECTS
from training.run.config import PretrainConfig


@pytest.fixture(scope="module")
def other_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP of other weights than `tiny_clip`."""
    from training.small_models.models import build_clip, build_processor, save_clip

    config = PretrainConfig(
        captions="x", run="x", image_size=32, vision_layers=1, vision_hidden=32, text_layers=1, text_hidden=32,
        vocabulary=514, caption_tokens=16, dim=16, seed=5,
    )  # fmt: skip
    processor = build_processor(["a red house above a blue bird", "two yellow suns"], config)
    folder = tmp_path_factory.mktemp("judge") / "model"
    save_clip(build_clip(processor, config), processor, folder)
    return folder


def test_subjects_are_different_and_the_seed_decides() -> None:
    asked = subjects(100, 0)
    assert len({(subject.thing, subject.colour) for subject in asked}) == 100
    assert asked == subjects(100, 0) != subjects(100, 1)
    assert len(subjects(162, 0)) == len(OBJECTS) * len(COLOURS) == 162


def test_what_is_right() -> None:
    pairs = [(thing, colour) for thing in OBJECTS for colour in COLOURS]
    words = np.eye(len(pairs), dtype=np.float32)
    asked = [Subject("fish", "blue", "day"), Subject("fish", "red", "day"), Subject("cat", "red", "day")]
    seen = [("fish", "blue"), ("fish", "blue"), ("cup", "red")]
    vectors = words[[pairs.index(pair) for pair in seen]]
    found = Judge(lambda images: vectors, words, words[::-1]).right([], asked)
    assert found["by words"] == {"thing": 2 / 3, "colour": 2 / 3, "both": 1 / 3}
    assert found["by examples"]["both"] == 0  # the other order names others


def test_the_command(pair_folder: Path, other_clip: Path, tmp_path: Path) -> None:
    argv = ["--run", str(tmp_path / "run"), "--model", str(pair_folder), "--judge", str(other_clip), "--device", "cpu"]
    argv += ["--prompts", "2", "--steps", "2", "--crops", "2"]
    found = judge.main(argv)
    assert set(found["right"]) == {
        "Fourier canvas, turkish", "Fourier canvas, english", "Fourier canvas, image", "the miniature world's own",
    }  # fmt: skip
    assert found["chance"]["both"] == pytest.approx(1 / 162)
    assert json.loads((tmp_path / "run" / "judged.json").read_text(encoding="utf-8"))["results"] == found
    with Image.open(tmp_path / "run" / "sheet.png") as sheet:
        assert sheet.size == (2 * 128, 4 * 128)
    drawn = tmp_path / "run" / "drawings" / "Fourier-canvas-turkish"
    first, second = (drawn / f"00{number}.png" for number in (0, 1))
    before, kept = first.stat().st_mtime_ns, second.read_bytes()
    second.unlink()
    assert judge.main(argv) == found
    assert first.stat().st_mtime_ns == before
    assert second.read_bytes() == kept
    with pytest.raises(JudgeError, match="got steps 3 instead of 2; name another --run"):
        judge.main([*argv, "--steps", "3"])


def test_the_image_model_can_not_judge_itself(pair_folder: Path, tiny_clip: Path, tmp_path: Path) -> None:
    argv = ["--run", str(tmp_path), "--model", str(pair_folder), "--judge", str(tiny_clip), "--device", "cpu"]
    with pytest.raises(JudgeError, match="got the image model itself"):
        judge.main([*argv, "--prompts", "1", "--steps", "1", "--vectors", "turkish"])
    assert not (tmp_path / "drawings").exists()  # it says so before the work


def test_the_table() -> None:
    right = {
        "by words": {"thing": 1.0, "colour": 0.5, "both": 0.5},
        "by examples": dict.fromkeys(("a", "b", "c"), 0.25),
    }
    chance = {"thing": 1 / 18, "colour": 1 / 9, "both": 1 / 162}
    assert judge.table({"prompts": 4, "chance": chance, "right": {"Fourier canvas, turkish": right}}) == [
        "                                       by words             by examples",
        "of 4 drawings             thing  colour    both   thing  colour    both",
        "Fourier canvas, turkish    1.00    0.50    0.50    0.25    0.25    0.25",
        "chance                    0.056   0.111   0.006   0.056   0.111   0.006",
    ]
