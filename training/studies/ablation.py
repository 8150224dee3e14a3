"""ablation.html: a table of objectives, and plots of recall against the number of training images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.evaluation.report import fill_page
from training.run.config import POOLINGS, STATIC, WORDS, AblateConfig

FIGURES = {
    "text→image recall@1": ("text_to_image", "recall_at_1"),
    "image→text recall@1": ("image_to_text", "recall_at_1"),
    "text→image MRR": ("text_to_image", "mrr"),
    "image→text MRR": ("image_to_text", "mrr"),
    "text→image hubness": ("hubness", "text_to_image"),
    "image→text hubness": ("hubness", "image_to_text"),
    "retention, no Turkish letters": ("robustness", "ascii", "retention", "value"),
    "retention, one typo": ("robustness", "typo", "retention", "value"),
    "accuracy among candidates": ("temperature", "accuracy"),  # of labels or captions
    "binding": ("probes", "binding", "student", "value"),
    "relation": ("probes", "relation", "student", "value"),
    "training seconds": ("train_seconds",),
}


@dataclass(frozen=True)
class Cell:
    """One run of the ablation; `size` is the number of training images, 0 for all."""

    objective: str
    size: int
    seed: int
    pooling: str = "mean"

    @property
    def name(self) -> str:
        pooled = "" if self.pooling == "mean" else f"-{self.pooling}"
        return f"{self.objective}{pooled}-{self.size or 'all'}-{self.seed}"


def poolings_of(objective: str, config: AblateConfig) -> tuple[str, ...]:
    """Returns the poolings of a row's runs: of a static row, whose texts have no [CLS], the mean alone.

    Args:
        objective: of the row.
        config: of the ablation.
    """
    if objective in (STATIC, WORDS) or config.backbone == STATIC:
        return ("mean",)
    return config.poolings or (config.pooling,)


def name_of(row: dict[str, Any]) -> str:
    """Returns what a row of the summary is called: its objective, with its pooling unless that is the mean."""
    return f"{row['objective']}, [CLS]" if row["pooling"] == "cls" else str(row["objective"])


def figures(results: dict[str, Any]) -> Iterator[tuple[str, float | None]]:
    """Yields each column's name and its value in one run's results; None where it was not measured."""
    for label, path in FIGURES.items():
        value: Any = results
        for key in path:  # there is no temperature of few images
            value = value.get(key) if isinstance(value, dict) else None
        yield label, value


def summary(measured: dict[Cell, dict[str, Any]], config: AblateConfig) -> dict[str, Any]:
    """Returns each figure's mean and standard deviation over seeds by objective and size, and the teacher reference.

    Probes that no run has are left out.

    Args:
        measured: the results of the finished runs, at least one.
        config: gives the rows' order and the data set's name.
    """
    found = {cell: dict(figures(results)) for cell, results in measured.items()}
    labels = [
        label
        for label, (first, *_) in FIGURES.items()
        if first != "probes" or any(one[label] is not None for one in found.values())
    ]
    rows = []
    for objective, pooling, size in itertools.product(config.objectives, POOLINGS, config.sizes):
        key = objective, pooling, size
        runs = [one for cell, one in found.items() if (cell.objective, cell.pooling, cell.size) == key]
        if not runs:
            continue
        row: dict[str, Any] = {"objective": objective, "pooling": pooling, "train_images": size, "seeds": len(runs)}
        for label in labels:
            values = [value for one in runs if (value := one[label]) is not None]
            spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
            row[label] = {"mean": float(np.mean(values)) if values else None, "spread": spread, "values": values}
        rows.append(row)
    first = next(iter(measured.values()))
    about = {key: first[key] for key in ("image_model", "split", "images", "captions")}
    teacher = {name: first[name] for way in ("text_to_image", "image_to_text") if (name := f"teacher_{way}") in first}
    return {"dataset": config.source_names, **about, "rows": rows, **teacher}


TEMPLATES = Path(__file__).with_name("templates")
PLOT = (560, 300)  # width and height
COLOURS = ("#0b7285", "#e8590c", "#5f3dc4", "#2b8a3e", "#c2255c", "#1864ab", "#868e96", "#f59f00", "#66a80f", "#862e9c")
PLOTTED = ("text→image recall@1", "image→text recall@1")


def write_page(path: Path, result: dict[str, Any]) -> None:
    """Writes ablation.html atomically, with plots if there are several sizes.

    Args:
        path: of the page.
        result: what `summary` returns.
    """
    sizes = {row["train_images"] for row in result["rows"]}
    fill_page(
        path,
        TEMPLATES / "ablation.html.jinja",
        result=result,
        labels=[label for label in FIGURES if label in result["rows"][0]],
        plots=[plot(result["rows"], label) for label in PLOTTED] if len(sizes) > 1 else [],
        colours=dict(zip(dict.fromkeys(map(name_of, result["rows"])), COLOURS * 9)),
        name_of=name_of,
        size=PLOT,
    )


def plot(rows: list[dict[str, Any]], label: str) -> dict[str, Any]:
    """Returns a plot in SVG coordinates: a line per objective, a point per size with a bar for its spread, and ticks.

    The number of training images is on a logarithmic axis; all of them (0) are drawn one doubling right of the largest.

    Args:
        rows: the rows of the summary.
        label: the figure to plot.
    """
    numbers = sorted({row["train_images"] for row in rows if row["train_images"]})
    places = {number: math.log2(number / numbers[0]) if numbers else 0.0 for number in numbers}
    if any(not row["train_images"] for row in rows):
        places[0] = max(places.values(), default=-1.0) + 1
    right = max(places.values()) or 1.0
    values = [row[label]["mean"] for row in rows]
    low, high = max(0.0, min(values) - 0.05), min(1.0, max(values) + 0.05)

    def x(row: dict[str, Any]) -> float:
        return float(PLOT[0] * places[row["train_images"]] / right)

    def y(value: float) -> float:
        return float(PLOT[1] * (high - value) / (high - low))

    lines = {}
    for name in dict.fromkeys(map(name_of, rows)):
        own = sorted((row for row in rows if name_of(row) == name), key=x)
        lines[name] = [
            (
                x(row),
                y(row[label]["mean"]),
                [y(row[label]["mean"] + side * (row[label]["spread"] or 0)) for side in (-1, 1)],
            )
            for row in own
        ]
    ticks = [(PLOT[0] * place / right, str(number or "all")) for number, place in places.items()]
    marks = [(y(value), value) for value in (low + fraction * (high - low) for fraction in (0, 0.25, 0.5, 0.75, 1))]
    return {"label": label, "lines": lines, "ticks": ticks, "marks": marks}
