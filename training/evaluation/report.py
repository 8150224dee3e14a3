"""report.html: a run's metrics beside the teacher reference, its learning curve and example queries, on one page."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from training.data.samples import Row
from training.evaluation.corruptions import CORRUPTION_TITLES
from training.evaluation.results import FEW_FOUND, few_images
from training.run.config import EvaluateConfig
from turkish_clip.atomic import write_text
from turkish_clip.images import ImageError
from turkish_clip.language import Phrases, turkish_numbers
from turkish_clip.metrics import METRIC_LABELS
from turkish_clip.thumbnails import GREY, data_uri, link_to, thumbnail

if TYPE_CHECKING:
    from training.evaluation.retrieval import Split


TEMPLATES = Path(__file__).with_name("templates")
TURKISH = "report.tr.html"
TO_TURKISH = f'<a href="{TURKISH}" hreflang="tr" lang="tr">Türkçe</a>'
TO_ENGLISH = '<a href="report.html" hreflang="en" lang="en">English</a>'
VOID = ("img", "meta", "br", "line", "rect", "circle", "polyline")


def fill_page(path: Path, template: Path, **fields: Any) -> None:
    """Renders a template with every field escaped and writes the page atomically; a missing field is an error.

    It may include what lies in its own folder, or in that of the reports.

    Args:
        path: of the page.
        template: its file.
        fields: what the template uses.
    """
    templates = Environment(
        loader=FileSystemLoader([template.parent, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    write_text(path, templates.get_template(template.name).render(fields))


def read_phrases() -> dict[str, str]:
    """Returns what the report says in English → in Turkish."""
    phrases: dict[str, str] = yaml.safe_load((TEMPLATES / "report.tr.yaml").read_text(encoding="utf-8"))
    return phrases


class TurkishPage(HTMLParser):
    """The report in Turkish: the texts between the tags of the English page are replaced, and nothing else.

    What stands in an element with lang="tr" is Turkish already. A text that is no phrase of the report is data, or a
    number.
    """

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=False)
        self.phrases = Phrases(read_phrases(), frozenset(["nested", "of"]), shown=_number)
        self.parts: list[str] = []
        self._text, self._inside = "", ""  # the text read so far; an element in which nothing is translated
        self.feed(page.replace(TO_TURKISH, TO_ENGLISH))
        self._end_text()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Takes a tag with what of its attributes is shown.

        Args:
            tag: its name.
            attrs: names and values of its attributes.
        """
        self._end_text()
        if not self._inside and (tag in ("style", "script") or (dict(attrs).get("lang") == "tr" and tag not in VOID)):
            self._inside = tag
        written = self.get_starttag_text() or ""
        for name, value in attrs:
            if name in ("title", "aria-label", "alt") and value:
                written = written.replace(f'{name}="{escape(value)}"', f'{name}="{escape(self._said(value))}"')
        self.parts.append(written.replace('<html lang="en">', '<html lang="tr">'))

    handle_startendtag = handle_starttag

    def handle_endtag(self, tag: str) -> None:
        """Takes a closing tag."""
        self._end_text()
        self._inside = "" if self._inside == tag else self._inside
        self.parts.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        """Takes a part of a text."""
        self._text += data

    def handle_entityref(self, name: str) -> None:
        """Takes a character of a text that is written by its name."""
        self._text += f"&{name};"

    def handle_charref(self, name: str) -> None:
        """Takes a character of a text that is written by its number."""
        self._text += f"&#{name};"

    def handle_decl(self, decl: str) -> None:
        """Takes the line that says what the file is."""
        self.parts.append(f"<!{decl}>")

    def _end_text(self) -> None:
        raw, self._text = self._text, ""
        text = " ".join(unescape(raw).split())
        said = text if self._inside or not text else self._said(text)
        if said != text:
            before, after = raw[: len(raw) - len(raw.lstrip())], raw[len(raw.rstrip()) :]
            raw = f"{before}{escape(said, quote=False)}{after}"
        self.parts.append(raw)

    def _said(self, text: str) -> str:
        return self.phrases.of(text, part=True) or _number(text)


def _number(text: str) -> str:
    """Returns numbers as Turkish writes them; a text with a word in it as it is."""
    return text if re.search(r"[^\W\d]", re.sub(r"recall@|\bto\b", "", text)) else turkish_numbers(text)


THUMBNAIL = 112  # pixels
FOUND = 5  # images shown per query
MATRIX = 10  # images and captions in the similarity matrix
CHART = (640, 220)  # width and height of the learning curve
DIRECTIONS = (("text_to_image", "text → image"), ("image_to_text", "image → text"))


@dataclass(frozen=True)
class Bar:
    """One bar of a chart: a metric as a fraction with its confidence interval, and which text encoder it is of.

    Attributes:
        chance: the value of a random order; None where it was not reckoned, as of the teacher reference.
    """

    label: str
    who: str
    value: float
    interval: tuple[float, float] | None
    chance: float | None = None


def write_report(config: EvaluateConfig, results: dict[str, Any], rows: Sequence[Row], split: Split) -> Path:
    """Writes report.html and, the same in Turkish, report.tr.html into the run folder; returns the path of the former.

    Args:
        config: gives the run folder and the number of queries to show.
        results: the content of results.json.
        rows: the images of the split, in its order.
        split: their vectors and those of their captions.
    """
    thumbnails = Thumbnails(rows, config.folder)
    thumbnails.make(_shown_images(split, config.report_queries))
    path = config.folder / "report.html"
    fill_page(
        path,
        TEMPLATES / "report.html.jinja",
        results=results,
        few=few_images(results["images"]),
        recalls=dict(list(METRIC_LABELS.items())[:3]),
        bars=bars(results),
        corrections=corrections(results),
        curve=curve(config.folder / "log.jsonl"),
        queries=queries(split, thumbnails, config.report_queries),
        matrix=matrix(split, thumbnails),
        size=CHART,
        corruptions={name: label for label, name in CORRUPTION_TITLES},
        directions=DIRECTIONS,
        few_found=FEW_FOUND,
        exp=math.exp,
    )
    write_text(path.with_name(TURKISH), "".join(TurkishPage(path.read_text(encoding="utf-8")).parts))
    return path


class Thumbnails:
    """The thumbnails of a split's images as data URIs, each made once.

    Args:
        rows: the images.
        folder: of the page that shows them.
    """

    def __init__(self, rows: Sequence[Row], folder: Path) -> None:
        self.rows, self.folder = rows, folder
        self.made: dict[int, str] = {}

    def make(self, numbers: Iterable[int]) -> None:
        """Makes the thumbnails of rows in the order of the source, in which a streamed one is read fastest."""
        for number in sorted(set(numbers)):
            self[number]

    def __getitem__(self, number: int) -> str:
        if number not in self.made:
            self.made[number] = data_uri(self._thumbnail(self.rows[number]), "PNG")
        return self.made[number]

    def link(self, number: int) -> str:
        """Returns the address of an image's file; empty for an image that is no file."""
        image = self.rows[number].image
        return link_to(image, self.folder) if isinstance(image, (str, Path)) else ""

    def _thumbnail(self, row: Row) -> Image.Image:
        """Returns a grey square for an image that is not there, whose embedding was imported."""
        try:
            return thumbnail(row.file, THUMBNAIL)
        except ImageError:
            return Image.new("RGB", (THUMBNAIL, THUMBNAIL), GREY)


def bars(results: dict[str, Any]) -> dict[str, list[Bar]]:
    """Returns per direction the bars of the text encoder, each beside that of the teacher reference if measured."""
    charts = {}
    for direction, title in DIRECTIONS:
        chart = []
        for metric, label in METRIC_LABELS.items():
            for who, key in (("Turkish text encoder", direction), ("teacher reference", f"teacher_{direction}")):
                if key in results:
                    measured, chance = results[key], results.get("chance", {}).get(key, {})
                    chart.append(Bar(label, who, measured[metric], measured["ci95"].get(metric), chance.get(metric)))
        charts[title] = chart
    return charts


def corrections(results: dict[str, Any]) -> list[tuple[str, dict[str, Any], float]]:
    """Returns name, text → image metrics and hubness of each order of the images that was measured."""
    rows = [("by cosine", results["text_to_image"], results["hubness"]["text_to_image"])]
    if "hub_corrected" in results:
        corrected = results["hub_corrected"]
        name = f"corrected by {corrected['texts']} training captions, as in an index"
        rows.append((name, corrected["text_to_image"], corrected["hubness"]))
    if "csls" in results:
        rows.append(("CSLS", results["csls"]["text_to_image"], results["csls"]["hubness"]["text_to_image"]))
    return rows


def curve(path: Path) -> dict[str, Any]:
    """Returns the learning curve as SVG points: training loss, and validation MRR where measured; {} without a log."""
    if not path.is_file():
        return {}
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    loss = [(entry["step"], float(entry["loss"])) for entry in entries if entry.get("loss") is not None]
    key = "eval_validation_mrr"
    score = [(entry["step"], entry[key]) for entry in entries if entry.get(key) is not None]
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
    """Returns the numbers of the images that the report shows, for its queries and in its matrix."""
    found = [_best(split, number) for number in _spread(len(split.relevance.texts), count)]
    return [image for best in found for image in best] + _spread(len(split.images), MATRIX)


def _best(split: Split, text: int) -> list[int]:
    """Returns the numbers of the five images of highest cosine to a text, the best first."""
    order: list[int] = np.argsort(-(split.images @ split.texts[text]), kind="stable")[:FOUND].tolist()
    return order


def _spread(size: int, count: int) -> list[int]:
    """Returns `count` numbers below `size`, evenly spaced; all of them where there are fewer."""
    numbers: list[int] = np.linspace(0, size - 1, min(count, size)).astype(int).tolist()
    return numbers


def queries(split: Split, thumbnails: Thumbnails, count: int) -> list[dict[str, Any]]:
    """Returns Turkish queries spread over the split, each with its five top-ranked images, the right ones marked.

    Args:
        split: whose captions are the queries.
        thumbnails: of its images.
        count: of queries, at most.
    """
    texts = split.relevance.texts
    shown = []
    for number in _spread(len(texts), count):
        scores = split.images @ split.texts[number]
        right = set(split.relevance.images_of[number])
        found = [
            {"image": thumbnails[p], "link": thumbnails.link(p), "score": float(scores[p]), "right": p in right}
            for p in _best(split, number)
        ]
        shown.append({"text": texts[number], "found": found})
    return shown


def matrix(split: Split, thumbnails: Thumbnails) -> dict[str, Any]:
    """Returns the cosines of ten images and a caption of each, with shades in [0, 1]: the diagonal should stand out.

    Args:
        split: whose images and captions are shown.
        thumbnails: of its images.
    """
    numbers = _spread(len(split.images), MATRIX)
    captions = [split.relevance.texts_of[number][0] for number in numbers]
    cosines = split.images[numbers] @ split.texts[captions].T
    low, high = float(cosines.min()), float(cosines.max())
    shades = (cosines - low) / max(high - low, 1e-9)
    lines = [
        {
            "image": thumbnails[number],
            "link": thumbnails.link(number),
            "cells": list(zip(cosines[row].tolist(), shades[row].tolist())),
        }
        for row, number in enumerate(numbers)
    ]
    return {"captions": [split.relevance.texts[caption] for caption in captions], "rows": lines}
