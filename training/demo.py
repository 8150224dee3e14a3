"""python -m training.demo: embeds, distils and measures on the miniature world, then uses the result."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from training import distill, embed_images, evaluate
from training.evaluation.results import Results
from training.mini.world import SMALL_CLIP
from training.release.isolated import run_isolated
from training.run.command import OneLineParser, run_command
from training.run.provenance import machine
from training.run.record import RunError

USE = """\
from PIL import Image
from sentence_transformers import SentenceTransformer
text = SentenceTransformer({text!r})
image = SentenceTransformer({image!r})
photos = [Image.open(path) for path in {photos!r}]
print(text.similarity(image.encode(photos), text.encode({queries!r})))"""


def main(argv: list[str]) -> dict[str, Any]:
    """Runs all steps, or those that an interrupted demo left; returns what results.json holds."""
    folder = _read_folder(argv)
    resume = ["--resume"] if (folder / "run.json").is_file() else []
    options = ["demo", "--run", str(folder), "--image_model", image_model()]

    before = _earlier_seconds(folder)
    seconds = {}
    seconds["embed_images"] = _timed("1 of 3: embedding every image once", embed_images.main, options)
    seconds["distill"] = _timed("2 of 3: distilling the Turkish text encoder", distill.main, options + resume)
    seconds["evaluate"] = _timed("3 of 3: measuring on images and wordings it never saw", evaluate.main, options)
    longest = {name: round(max(value, before.get(name, 0)), 1) for name, value in seconds.items()}
    results = replace(Results.read(folder), wall_seconds=longest, machine=machine())
    results.write(folder)

    script = _six_lines(folder)
    print(f"\n{evaluate.table(results.as_json())}")
    print(f"\nReport: {folder / 'report.html'}\n\nSix lines that use it, and what they print:\n\n{script}\n")
    print(_use(script))
    return results.as_json()


def _read_folder(argv: list[str]) -> Path:
    """Returns the run folder that the command line names."""
    parser = OneLineParser(prog="python -m training.demo", description=__doc__)
    parser.add_argument("--run", default="runs/demo", help="where everything goes [runs/demo]")
    return Path(parser.parse_args(argv).run)


def _earlier_seconds(folder: Path) -> dict[str, float]:
    """Returns the recorded seconds of each step, which a repeated demo needs: it finds the steps finished."""
    try:
        return Results.read(folder).wall_seconds
    except RunError:
        return {}


def image_model() -> str:
    """Returns the small CLIP's path relative to the working folder."""
    return os.path.relpath(SMALL_CLIP)


def _timed(title: str, command: Callable[[list[str]], Any], options: list[str]) -> float:
    """Runs a command without showing its result; returns the seconds that it took."""
    print(f"\n{title}", file=sys.stderr, flush=True)
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        command(options)
    return time.perf_counter() - began


def _six_lines(folder: Path) -> str:
    """Returns a script that uses the model on two test images and a query for each."""
    lines = (folder / "data" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    test = [row for row in map(json.loads, lines) if row["split"] == "test"][:2]
    return USE.format(
        text=str(folder / "model"),
        image=image_model(),
        photos=[str(folder / "data" / row["file_name"]) for row in test],
        queries=[row["captions"][0] for row in test],
    )


def _use(script: str) -> str:
    """Runs the six lines in an isolated process; returns what they printed.

    Raises:
        RunError: the script failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "use.py"
        path.write_text(script, encoding="utf-8")
        done = run_isolated(path)
    if done.returncode:
        raise RunError(f"expected the saved model to load in an isolated process, got: {done.stderr.strip()[-300:]}")
    return done.stdout


if __name__ == "__main__":
    run_command(main)
