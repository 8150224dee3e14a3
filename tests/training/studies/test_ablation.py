"""The table of an ablation has the probes that its runs measured, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.run.config import AblateConfig
from training.studies.ablation import Cell, summary, write_page

CONFIG = AblateConfig(captions="x", run="x", objectives=("mse", "contrastive"), seeds=(0, 1))
FIGURES = {"recall_at_1": 0.5, "mrr": 0.6}


def results(**probes: float) -> dict[str, Any]:
    measured = {name: {"student": {"value": value}} for name, value in probes.items()}
    counts = {"image_model": "m", "split": "validation", "images": 9, "captions": 9}
    return counts | {"text_to_image": FIGURES, "image_to_text": FIGURES, "probes": measured}


def test_names_are_no_markup_on_the_page(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script>"
    result = summary({Cell("mse", 0, 0): results(binding=0.5)}, CONFIG)
    write_page(tmp_path / "ablation.html", result | {"dataset": bad, "image_model": f"'\">{bad}"})
    page = (tmp_path / "ablation.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 3  # in the title, too


def test_a_probe_that_no_run_has_is_no_column(tmp_path: Path) -> None:
    measured = {
        Cell("mse", 0, 0): results(binding=0.5, counting=0.9),
        Cell("mse", 0, 1): results(binding=0.7),
        Cell("contrastive", 0, 0): results(),
    }
    result = summary(measured, CONFIG)
    assert [row["binding"]["values"] for row in result["rows"]] == [[0.5, 0.7], []]
    assert result["rows"][0]["binding"]["mean"] == 0.6
    assert not [row for row in result["rows"] if "relation" in row or "counting" in row]
    write_page(tmp_path / "ablation.html", result)
    page = (tmp_path / "ablation.html").read_text(encoding="utf-8")
    assert "<th>binding</th>" in page
    assert "<th>relation</th>" not in page
    assert "<th>training seconds</th>" in page  # a dash, where it was not measured
