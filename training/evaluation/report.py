"""report.html: a run's learning curve, its figures beside the teacher reference, and what it finds; one page."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from training.data.samples import Row
from training.evaluation.corruptions import CORRUPTION_LABELS
from training.run.config import EvaluateConfig
from turkish_clip.atomic import write_text

if TYPE_CHECKING:
    from training.evaluation.retrieval import Split


def fill_page(path: Path, template: str, **fields: Any) -> None:
    """Fills the template of that name, everything in it escaped; a fact that it misses is an error."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    write_text(path, templates.get_template(template).render(fields))


THUMBNAIL = 112  # pixels
FOUND = 5  # images shown for a query
MATRIX = 10  # images and captions in the similarity matrix
CHART = (640, 220)  # width and height of the learning curve
DIRECTIONS = (("text_to_image", "text → image"), ("image_to_text", "image → text"))
METRICS = (("recall_at_1", "recall@1"), ("recall_at_5", "recall@5"), ("recall_at_10", "recall@10"), ("mrr", "MRR"))


@dataclass(frozen=True)
class Bar:
    """One bar of the chart: a share of 1, its interval, and whose it is."""

    label: str
    who: str
    value: float
    interval: tuple[float, float] | None


def write_report(config: EvaluateConfig, results: dict[str, Any], rows: Sequence[Row], split: Split) -> Path:
    """Writes report.html into the run folder; returns its path."""
    thumbnails = Thumbnails(rows)
    thumbnails.make(_shown_images(split, config.report_queries))
    path = config.folder / "report.html"
    fill_page(
        path,
        "report.html.jinja",
        results=results,
        bars=bars(results),
        curve=curve(config.folder / "log.jsonl"),
        queries=queries(split, thumbnails, config.report_queries),
        matrix=matrix(split, thumbnails),
        size=CHART,
        corruptions={name: label for label, name in CORRUPTION_LABELS},
    )
    return path


class Thumbnails:
    """Small data: URIs of images, each made once."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.made: dict[int, str] = {}

    def make(self, numbers: Iterable[int]) -> None:
        """Makes those of some images in the source's order, in which a streamed one is read fastest."""
        for number in sorted(set(numbers)):
            self[number]

    def __getitem__(self, number: int) -> str:
        if number not in self.made:
            image = self.rows[number].open(min_side=THUMBNAIL)
            if max(image.size) < THUMBNAIL:
                factor = THUMBNAIL // max(image.size) + 1
                image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
            image.thumbnail((THUMBNAIL, THUMBNAIL))
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
            self.made[number] = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
        return self.made[number]


def bars(results: dict[str, Any]) -> dict[str, list[Bar]]:
    """Per direction the bars of the text encoder, each beside the image model's own text tower's if measured."""
    charts = {}
    for direction, title in DIRECTIONS:
        chart = []
        for metric, label in METRICS:
            for who, key in (("Turkish text encoder", direction), ("English text tower", f"teacher_{direction}")):
                if key in results:
                    measured = results[key]
                    chart.append(Bar(label, who, measured[metric], measured["ci95"].get(metric)))
        charts[title] = chart
    return charts


def curve(path: Path) -> dict[str, Any]:
    """The learning curve as SVG points: training loss, and validation MRR where it was measured."""
    if not path.is_file():
        return {}
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    loss = [(entry["step"], float(entry["loss"])) for entry in entries if "loss" in entry]
    score = [(entry["step"], entry["eval_validation_mrr"]) for entry in entries if "eval_validation_mrr" in entry]
    if not loss:
        return {}
    last_step = max(step for step, _ in loss + score)
    highest = max(value for _, value in loss)

    def points(series: list[tuple[int, float]], top: float) -> str:
        width, height = CHART
        return " ".join(f"{step / last_step * width:.1f},{(1 - value / top) * height:.1f}" for step, value in series)

    return {
        "loss": points(loss, highest),
        "score": points(score, 1.0),
        "steps": last_step,
        "first_loss": loss[0][1],
        "last_loss": loss[-1][1],
        "highest_loss": highest,
        "best_score": max((value for _, value in score), default=None),
    }


def _shown_images(split: Split, count: int) -> list[int]:
    """The images that the report shows, for its queries and in its matrix."""
    found = [_best(split, number) for number in _spread(len(split.relevance.texts), count)]
    return [image for best in found for image in best] + _spread(len(split.images), MATRIX)


def _best(split: Split, text: int) -> list[int]:
    """The five images that fit a text best, the best first."""
    order: list[int] = np.argsort(-(split.images @ split.texts[text]), kind="stable")[:FOUND].tolist()
    return order


def _spread(size: int, count: int) -> list[int]:
    """So many numbers below `size`, evenly spread."""
    numbers: list[int] = np.linspace(0, size - 1, min(count, size)).astype(int).tolist()
    return numbers


def queries(split: Split, thumbnails: Thumbnails, count: int) -> list[dict[str, Any]]:
    """Turkish queries spread over the split, each with the five images that fit best; the right ones are marked."""
    texts = split.relevance.texts
    shown = []
    for number in _spread(len(texts), count):
        scores = split.images @ split.texts[number]
        right = set(split.relevance.images_of[number])
        found = [{"image": thumbnails[p], "score": float(scores[p]), "right": p in right} for p in _best(split, number)]
        shown.append({"text": texts[number], "found": found})
    return shown


def matrix(split: Split, thumbnails: Thumbnails) -> dict[str, Any]:
    """Cosines of ten images and a caption of each, with their colours: the diagonal should stand out."""
    numbers = _spread(len(split.images), MATRIX)
    captions = [split.relevance.texts_of[number][0] for number in numbers]
    cosines = split.images[numbers] @ split.texts[captions].T
    low, high = float(cosines.min()), float(cosines.max())
    shades = (cosines - low) / max(high - low, 1e-9)
    lines = [
        {"image": thumbnails[number], "cells": list(zip(cosines[row].tolist(), shades[row].tolist()))}
        for row, number in enumerate(numbers)
    ]
    return {"captions": [split.relevance.texts[caption] for caption in captions], "rows": lines}
