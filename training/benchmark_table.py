"""Our figures on the published tests beside those that others have published there: rows of one form, and a page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from training.pages import fill_page
from turkish_clip.errors import InputError

PEERS = Path(__file__).with_name("peers.yaml")
TASK = re.compile(r"(?P<test>.+)(?P<direction>T2I|I2T)Retrieval")
TESTS = {"XFlickr30kCo": "xFlickrCO"}  # MTEB's name → the paper's
DIRECTIONS = {"T2I": "text_to_image", "I2T": "image_to_text"}
RECALLS = ("recall_at_1", "recall_at_5", "recall_at_10")


class BenchmarkError(InputError):
    """A benchmark that can't be run."""


def read_peers() -> list[dict[str, Any]]:
    """What others have published: model, test, both directions' recall@1, @5 and @10 (None: not told), source."""
    return list(yaml.safe_load(PEERS.read_text(encoding="utf-8")))


def rows_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of all tests that were measured, ours first in each, then the peers' of the same test.

    Args:
        result: what benchmark.json holds: `tasks` by MTEB's names, `data` by the names that the maker gave.
    """
    ours: dict[str, dict[str, Any]] = {}

    def row(test: str, source: str) -> dict[str, Any]:
        nothing = dict.fromkeys(DIRECTIONS.values(), [None] * len(RECALLS))
        return ours.setdefault(test, {"model": "this model", "test": test, **nothing, "source": source})

    for name, found in result["tasks"].items():
        match = TASK.fullmatch(name)
        if match:
            test = TESTS.get(match["test"], match["test"])
            figures = [found[key] for key in RECALLS]
            row(test, f"measured with MTEB {result['mteb']}")[DIRECTIONS[match["direction"]]] = figures
    for name, found in result["data"].items():
        if name in ours:
            raise BenchmarkError(f"expected a name of its own for {found['source']}, got {name}; add --data_name NAME")
        mine = row(name, f"measured on {found['images']} pictures, {found['captions']} captions")
        for direction in DIRECTIONS.values():
            mine[direction] = [found[direction][key] for key in RECALLS]
    peers = read_peers()
    return [line for test, mine in ours.items() for line in (mine, *(peer for peer in peers if peer["test"] == test))]


def published_tests(result: dict[str, Any]) -> set[str]:
    """The tests of a result that others publish figures of: MTEB's, and those of the peers."""
    tasks = (TASK.fullmatch(name) for name in result["tasks"])
    mteb = {TESTS.get(match["test"], match["test"]) for match in tasks if match}
    return mteb | {peer["test"] for peer in read_peers()}


def write_page(path: Path, result: dict[str, Any]) -> None:
    """Writes benchmark.html whole."""
    fill_page(path, "benchmark.html.jinja", result=result, directions=DIRECTIONS)
