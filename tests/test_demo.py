"""The demo, whole: it reaches what it should, within its time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training import demo


@pytest.mark.slow
def test_the_demo_reaches_its_goals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = demo.main(["--run", str(tmp_path / "demo")])
    assert results["images"] >= 500
    for direction in ("text_to_image", "image_to_text"):
        assert results[direction]["recall_at_1"] >= 0.75
        assert results[direction]["recall_at_5"] >= 0.97
        assert results[direction]["recall_at_1"] >= results[f"teacher_{direction}"]["recall_at_1"] - 0.02
    kept = {name: found["kept"] for name, found in results["robustness"].items()}
    assert kept["ascii"] >= 0.95
    assert kept["upper"] >= 0.98
    assert kept["nfd"] == 1.0
    printed = capsys.readouterr().out
    assert "tensor([[" in printed
    assert "report.html" in printed
    for name in ("data", "targets", "model", "results.json", "report.html", "run.json"):
        assert (tmp_path / "demo" / name).exists()
    assert json.loads((tmp_path / "demo" / "results.json").read_text(encoding="utf-8")) == json.loads(
        json.dumps(results)
    )
    again = demo.main(["--run", str(tmp_path / "demo")])
    assert again["weights_sha256"] == results["weights_sha256"]
