"""README's figures are those that were measured, and the commands it names are there."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from training import readme
from training.run.record import RunError

ROOT = Path(__file__).parents[2]


def test_the_block_is_what_the_measured_file_says() -> None:
    results = json.loads(readme.MEASURED.read_text(encoding="utf-8"))
    assert readme.block(results) in readme.README.read_text(encoding="utf-8")


def test_the_block_is_rewritten_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = json.loads(readme.MEASURED.read_text(encoding="utf-8"))
    results["text_to_image"]["recall_at_1"] = 0.123
    (tmp_path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    shutil.copy(readme.README, tmp_path / "README.md")
    monkeypatch.setattr(readme, "README", tmp_path / "README.md")
    monkeypatch.setattr(readme, "MEASURED", tmp_path / "measured.json")
    written = readme.main([str(tmp_path)])
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| 0.123 (" in written
    assert written in text
    original = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.partition(readme.BEGIN)[0] == original.partition(readme.BEGIN)[0]
    assert text.partition(readme.END)[2] == original.partition(readme.END)[2]


def test_without_a_demo(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="run make demo first"):
        readme.main([str(tmp_path)])


def test_what_readme_names_is_there() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in set(re.findall(r"python -m training\.(\w+)", text)):
        assert (ROOT / "training" / f"{command}.py").is_file()
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"make ([a-z-]+)", text)):
        assert f"\n{target}:" in makefile
    for image in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text):
        assert (ROOT / image).is_file()
