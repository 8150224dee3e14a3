"""Published benchmarks: our metrics beside those of the baselines, and benchmarks measured on local files."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from training.data.samples import Row
from training.data.sources import read_captions
from training.evaluation.report import TEMPLATES, fill_page
from training.run.config import BenchmarkConfig
from training.run.source import SourceConfig
from turkish_clip.dual_encoder import DualEncoder
from turkish_clip.errors import InputError, one_line
from turkish_clip.metrics import METRIC_NAMES, Relevance
from turkish_clip.text import nfc
from turkish_clip.text_files import read_whole

BASELINES = Path(__file__).with_name("baselines.yaml")
TASK = re.compile(r"(?P<test>.+)(?P<direction>T2I|I2T)Retrieval")
TESTS = {"XFlickr30kCo": "xFlickrCO"}  # MTEB's name → the paper's
DIRECTIONS = {"T2I": "text_to_image", "I2T": "image_to_text"}
RECALLS = METRIC_NAMES[:3]


BENCHMARK_FORMAT = 2  # of benchmark.json; files of format 1 have no number
ALL_CAPTIONS, ONE_CAPTION = "all captions", "one caption an image"  # protocols, which are never compared


class BenchmarkError(InputError):
    """A benchmark that can't be run."""


def read_baselines() -> list[dict[str, Any]]:
    """Reads what others have published.

    Returns:
        For each model and test its protocol, size, width and license (None: not known), recall@1, @5 and @10 per
        direction (None: not published), a note ("" for none) and the source.
    """
    listed = yaml.safe_load(BASELINES.read_text(encoding="utf-8"))["baselines"]
    return [{"note": "", **baseline} for baseline in listed]


def read_hub_ids() -> dict[str, dict[str, str]]:
    """Reads how baselines are loaded: model → `id` on the Hub and perhaps `image_model`, or `why` it can't be."""
    hub: dict[str, dict[str, str]] = yaml.safe_load(BASELINES.read_text(encoding="utf-8"))["hub"]
    return hub


def read_notes(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Reads what has to be said with figures on the tests of these rows."""
    notes = yaml.safe_load(BASELINES.read_text(encoding="utf-8"))["notes"]
    return [text for test, text in notes.items() if any(row["test"] == test for row in rows)]


def subset_of(metadata: Any, wanted: str) -> str:
    """Returns the name that a task of MTEB's has for a language; tasks write Turkish in several ways.

    Args:
        metadata: of the task.
        wanted: the name of the language, as most tasks have it.

    Raises:
        BenchmarkError: the task has no such language.
    """
    languages = metadata.eval_langs
    spoken = languages if isinstance(languages, dict) else {"default": languages}
    turkish = [name for name, ones in spoken.items() if any(one.startswith("tur-") for one in ones)]
    names = [wanted] if wanted in spoken else turkish if wanted == "tr" else []
    if not names:
        raise BenchmarkError(
            f"expected {wanted} among the languages of {metadata.name}, got {', '.join(spoken)[:200]}; name one with "
            "--subset, or leave that task out"
        )
    return names[0]


def rows_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the table's rows: for each measured test ours first, then its baselines of the same protocol.

    Args:
        result: the content of benchmark.json: `tasks` by MTEB's names, `data` by the names given with --data_name.

    Raises:
        BenchmarkError: a name in `data` is also a test of MTEB's.
    """
    ours: dict[str, dict[str, Any]] = {}

    def row(test: str, protocol: str, source: str) -> dict[str, Any]:
        nothing = dict.fromkeys(DIRECTIONS.values(), [None] * len(RECALLS))
        about = {"model": "this model", "test": test, "protocol": protocol, "width": result["dim"]}
        return ours.setdefault(test, {**about, "size": None, "license": None, **nothing, "note": "", "source": source})

    for name, found in result["tasks"].items():
        match = TASK.fullmatch(name)
        if match and RECALLS[0] in found:
            test = TESTS.get(match["test"], match["test"])
            recalls = [found[key] for key in RECALLS]
            mine = row(test, ALL_CAPTIONS, f"measured with MTEB {result['mteb']}")
            mine[DIRECTIONS[match["direction"]]] = recalls
    for name, found in result["data"].items():
        if name in ours:
            raise BenchmarkError(f"expected a name of its own for {found['source']}, got {name}; add --data_name NAME")
        protocol = ALL_CAPTIONS if found["captions"] > found["images"] else ONE_CAPTION
        mine = row(name, protocol, f"measured on {found['images']} images, {found['captions']} captions")
        for direction in DIRECTIONS.values():
            mine[direction] = [found[direction][key] for key in RECALLS]
    baselines = read_baselines()
    return [
        line
        for test, mine in ours.items()
        for line in (mine, *(one for one in baselines if (one["test"], one["protocol"]) == (test, mine["protocol"])))
    ]


def read_benchmark(path: Path) -> dict[str, Any]:
    """Reads benchmark.json after checking what its rows are made of; of another format, it is as it stands.

    Raises:
        BenchmarkError: it is damaged.
    """
    try:
        result = json.loads(read_whole(path))
        if not isinstance(result, dict):
            raise TypeError(f"a {type(result).__name__}")
        if result.get("format") != BENCHMARK_FORMAT:
            return result
        for name in ("weights_sha256", "image_weights_sha256", "revision", "mteb", "subset"):
            _check(isinstance(result[name], str), name, result[name])
        _check(type(result["dim"]) is int and result["dim"] > 0, "dim", result["dim"])
        for name, found in result["tasks"].items():
            for key in ("type", "subset", "metric"):
                _check(isinstance(found[key], str), f"{name}, {key}", found[key])
            for key in ("score", *((*RECALLS, "ndcg_at_10") if RECALLS[0] in found else ())):
                low = -1.0 if key == "score" else 0.0  # it may be a correlation
                _check(_is_fraction(found[key], low), f"{name}, {key}", found[key])
        for name, found in result["data"].items():
            _check(isinstance(found["source"], str), f"{name}, source", found["source"])
            for key in ("images", "captions"):
                _check(type(found[key]) is int and found[key] > 0, f"{name}, {key}", found[key])
            for direction in DIRECTIONS.values():
                for key in RECALLS:
                    _check(_is_fraction(found[direction][key]), f"{name}, {key}", found[direction][key])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BenchmarkError(
            f"expected what training.benchmark measured in {path}, got {one_line(error)}; delete it, and measure again"
        ) from error
    return dict(result)


def _is_fraction(value: Any, low: float = 0.0) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= 1


def _check(fits: bool, name: str, value: Any) -> None:
    if not fits:
        raise ValueError(f"{str(value)[:40]!r} as {name[:80]!r}")


def other_protocols(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the baselines of measured tests that were measured with another protocol, and can't be compared.

    Args:
        rows: from `rows_of`.
    """
    compared = {(row["test"], row["protocol"]) for row in rows}
    tests = {test for test, _ in compared}
    return [one for one in read_baselines() if one["test"] in tests and (one["test"], one["protocol"]) not in compared]


def text_rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns a row for each measured text task of MTEB's: test, type, subset, metric and score.

    Args:
        result: the content of benchmark.json.
    """
    keys = ("type", "subset", "metric", "score")
    tasks = result["tasks"].items()
    return [{"test": name, **{key: found[key] for key in keys}} for name, found in tasks if RECALLS[0] not in found]


def published_tests(result: dict[str, Any]) -> set[str]:
    """Returns the names of public tests: those that a result measured with MTEB, and those of the baselines."""
    tasks = (TASK.fullmatch(name) for name in result["tasks"])
    mteb = {TESTS.get(match["test"], match["test"]) for match in tasks if match}
    return mteb | {baseline["test"] for baseline in read_baselines()}


def write_page(path: Path, result: dict[str, Any]) -> None:
    """Writes benchmark.html atomically.

    Args:
        path: of the page.
        result: the content of benchmark.json.
    """
    tables = [result["table"], other_protocols(result["table"])]
    fill_page(
        path,
        TEMPLATES / "benchmark.html.jinja",
        result=result,
        tables=tables,
        notes=read_notes(tables[0]),
        directions=DIRECTIONS,
    )


def measure_data(encoder: DualEncoder, config: BenchmarkConfig) -> dict[str, Any]:
    """Measures both directions on the local benchmark `config.data`; returns its source and metrics under its name.

    Args:
        encoder: the dual encoder to measure.
        config: names the data, its columns, split and ids.

    Raises:
        BenchmarkError: a listed id is not in the source, an image does not open, or nothing is left to measure.
        SourceError: the source can't be read.
    """
    rows = _chosen(config)
    vectors = []
    for batch in encoder.embed_images((row.file for row in rows), batch_size=config.batch_size):
        if batch.errors:
            raise BenchmarkError(
                f"expected images that open in {config.data}, got {next(iter(batch.errors.values()))}; "
                "get that file again"
            )
        vectors.append(batch.vectors)
    relevance = Relevance.from_captions([row.captions for row in rows])
    texts = encoder.encode_texts(relevance.texts, batch_size=config.batch_size)
    images = np.concatenate(vectors)
    return {
        config.data_name or Path(config.data).resolve().name: {
            "source": config.data,
            "split": config.data_split or "all",
            "images": len(rows),
            "captions": len(relevance.texts),
            "text_to_image": dataclasses.asdict(relevance.text_to_image(texts, images)),
            "image_to_text": dataclasses.asdict(relevance.image_to_text(texts, images)),
        }
    }


def _chosen(config: BenchmarkConfig) -> Sequence[Row]:
    """Returns the rows to measure: all of the split, or those of the listed ids in the list's order."""
    source = SourceConfig(
        captions=config.data, caption_columns=config.data_captions, run=config.run, max_skipped_fraction=0.0
    )
    captions = read_captions(source)
    rows: Sequence[Row] = captions.split(config.data_split) if config.data_split else captions.rows
    if not config.data_ids:
        return rows
    path = Path(config.data_ids)
    if not path.is_file():
        raise BenchmarkError(f"expected a file of image_ids, one per line, got no file {path}; write one")
    try:
        lines = read_whole(path).splitlines()
    except UnicodeDecodeError as error:
        raise BenchmarkError(f"expected UTF-8, got other bytes in {path}; save it as UTF-8") from error
    listed = dict.fromkeys(nfc(line.strip()) for line in lines)
    listed.pop("", None)
    row_of = {row.image_id: row for row in rows}
    missing = [image_id for image_id in listed if image_id not in row_of]
    if missing or not listed:
        raise BenchmarkError(
            f"expected the image_ids of {path} in {config.data}, got {len(missing)} of {len(listed)} that are not there"
            f"{f', the first {missing[0]!r}' if missing else ''}; correct the list"
        )
    return [row_of[image_id] for image_id in listed]
