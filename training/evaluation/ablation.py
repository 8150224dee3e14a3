"""ablation.html: objectives side by side as a table, and recall against the number of training images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.evaluation.report import fill_page
from training.run.config import AblateConfig

FIGURES = {
    "text→image @1": ("text_to_image", "recall_at_1"),
    "image→text @1": ("image_to_text", "recall_at_1"),
    "text→image MRR": ("text_to_image", "mrr"),
    "image→text MRR": ("image_to_text", "mrr"),
    "hubness t→i": ("hubness", "text_to_image"),
    "hubness i→t": ("hubness", "image_to_text"),
    "retention without Turkish letters": ("robustness", "ascii", "retention"),
    "retention with a typo": ("robustness", "typo", "retention"),
    "labels or captions chosen right": ("temperature", "accuracy"),
    "training seconds": ("train_seconds",),
}


@dataclass(frozen=True)
class Cell:
    """One run of the ablation."""

    objective: str
    size: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.objective}-{self.size or 'all'}-{self.seed}"


def figures(results: dict[str, Any]) -> Iterator[tuple[str, float | None]]:
    """The table's figures out of one run's results."""
    for label, path in FIGURES.items():
        value: Any = results
        for key in path:  # few images have no temperature
            value = value.get(key) if isinstance(value, dict) else None
        yield label, value


def summary(measured: dict[Cell, dict[str, Any]], config: AblateConfig) -> dict[str, Any]:
    """Mean and spread (standard deviation over seeds) of each figure, by objective and size, and the teacher_reference."""
    rows = []
    for objective in config.objectives:
        for size in config.sizes:
            runs = [
                dict(figures(found))
                for cell, found in measured.items()
                if (cell.objective, cell.size) == (objective, size)
            ]
            if not runs:
                continue
            row: dict[str, Any] = {"objective": objective, "images": size, "seeds": len(runs)}
            for label in FIGURES:
                values = [value for found in runs if (value := found[label]) is not None]
                spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
                row[label] = {"mean": float(np.mean(values)) if values else None, "spread": spread, "values": values}
            rows.append(row)
    first = next(iter(measured.values()))
    teacher_reference = {key: first[key] for key in ("teacher_text_to_image", "teacher_image_to_text") if key in first}
    about = {key: first[key] for key in ("image_model", "split", "images", "captions")}
    result: dict[str, Any] = {"dataset": config.source_names, **about, "rows": rows}
    return result | teacher_reference


PLOT = (560, 300)  # width and height
COLOURS = ("#0b7285", "#e8590c", "#5f3dc4", "#2b8a3e", "#c2255c", "#1864ab", "#868e96", "#f59f00", "#66a80f", "#862e9c")
PLOTTED = ("text→image @1", "image→text @1")
NO_FIGURES = ("objective", "images", "seeds")


def write_page(path: Path, result: dict[str, Any]) -> None:
    """Writes the page whole."""
    sizes = {row["images"] for row in result["rows"]}
    fill_page(
        path,
        "ablation.html.jinja",
        result=result,
        labels=[label for label in result["rows"][0] if label not in NO_FIGURES],
        plots=[plot(result["rows"], label) for label in PLOTTED] if len(sizes) > 1 else [],
        colours=dict(zip(dict.fromkeys(row["objective"] for row in result["rows"]), COLOURS * 9)),
        size=PLOT,
    )


def plot(rows: list[dict[str, Any]], label: str) -> dict[str, Any]:
    """One plot's lines in its own coordinates: a line per objective, a point per size, its spread as a bar.

    The images' number is on a logarithmic axis; all of them (0) stand one step right of the largest number.
    """
    numbers = sorted({row["images"] for row in rows if row["images"]})
    places = {number: math.log2(number / numbers[0]) if numbers else 0.0 for number in numbers}
    if any(not row["images"] for row in rows):
        places[0] = max(places.values(), default=-1.0) + 1
    right = max(places.values()) or 1.0
    values = [row[label]["mean"] for row in rows]
    low, high = max(0.0, min(values) - 0.05), min(1.0, max(values) + 0.05)

    def x(row: dict[str, Any]) -> float:
        return float(PLOT[0] * places[row["images"]] / right)

    def y(value: float) -> float:
        return float(PLOT[1] * (high - value) / (high - low))

    lines = {}
    for objective in dict.fromkeys(row["objective"] for row in rows):
        own = sorted((row for row in rows if row["objective"] == objective), key=x)
        lines[objective] = [
            (
                x(row),
                y(row[label]["mean"]),
                [y(row[label]["mean"] + side * (row[label]["spread"] or 0)) for side in (-1, 1)],
            )
            for row in own
        ]
    ticks = [(PLOT[0] * place / right, str(number or "all")) for number, place in places.items()]
    marks = [(y(low + share * (high - low)), low + share * (high - low)) for share in (0, 0.25, 0.5, 0.75, 1)]
    return {"label": label, "lines": lines, "ticks": ticks, "marks": marks}
