"""Fuzzes the readers of sources: `python tests/helpers/fuzz_sources.py --inputs 20000 [--seed 0]`, outside CI.

Each input is a source of random layout, with random captions, missing images and cells, and mostly a random change of
the bytes of one of its files. Reading it ends in rows or in an InputError of one line, never in a traceback, within
TOO_LONG seconds; where nothing was changed, each row is used or listed.
"""

from __future__ import annotations

import argparse
import logging
import random
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from source_layouts import LAYOUTS, RawRow, png

from training.data.sources import Captions, read_captions
from training.run.source import SourceConfig
from turkish_clip.errors import InputError
from turkish_clip.images import ImageError

WORDS = (
    "kedi", "İki", "ışık", "ağaç,", "'ev'", '"kuş"', "[", "]", "['a', 'b']", "\\", ";", "|", "\t", "{", "}", "é",
    "e\u0301", "😀",
    "\u200b", "\u00ad", "NaN", "None", "null", "0", "-1", "=1+1", "--", "#", "%", "data:", "http://x", "..",
    "/",
)  # fmt: skip
SPLITS = ("", "", "train", "train", "test", "val", "Test", "test1k", "validation")
SWAPS = (
    b",", b";", b"\t", b"\n", b"\r\n", b'"', b"'", b"[", b"]", b"{", b"}", b"\0", b"\xff", b"\xef\xbb\xbf", b"null",
    b"1e999", b"NaN", b"\\u0000", b"\\ud800", b"[" * 5000, b"9" * 5000, "ı".encode(), "şöyle".encode("cp1254"), b":",
    b"//", b"..\\", b"true",
)  # fmt: skip
TOO_LONG = 20.0  # seconds for one input


def rows_of(rng: random.Random, layout: str) -> list[RawRow]:
    """Draws a source's rows; each caption begins with a word of its own, but for the empty ones."""
    rows = []
    for number in range(rng.randint(1, 12)):
        words = " ".join(rng.choices(WORDS, k=rng.randint(0, 5)))
        caption = "" if rng.random() < 0.1 else f"n{number}n {words}"
        image = None if rng.random() < 0.1 else rng.randint(0, 5)
        split = "" if layout == "coco" else rng.choice(SPLITS)
        rows.append(RawRow(caption, image, split))
    return rows


def damage(rng: random.Random, folder: Path) -> None:
    """Changes one file: cuts it off, doubles or removes a part, swaps bytes, or gives it another name."""
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and (path.suffix != ".png" or rng.random() < 0.1)
    )
    if not files:
        return
    path = rng.choice(files)
    content = path.read_bytes()
    start, end = sorted(rng.randint(0, len(content)) for _ in range(2))
    kind = rng.randrange(7)
    if kind == 0:
        content = content[:start]
    elif kind == 1:
        content = content[:start] + content[end:]
    elif kind == 2:
        content = content[:end] + content[start:]
    elif kind == 3:
        content = content[:start] + rng.choice(SWAPS) + content[start:]
    elif kind == 4:
        content = content[:start] + rng.randbytes(min(end - start, 8)) + content[min(end, start + 8) :]
    elif kind == 5:
        old = rng.choice(SWAPS)
        content = content.replace(old, rng.choice(SWAPS)) if content.count(old) < 1000 else content
    else:
        names = (
            "metadata.csv",
            "metadata.jsonl",
            "x.json",
            "metadata.parquet",
            "a.tar",
            "x.tsv",
            "test-0.tar",
            "x.txt",
        )
        path = path.rename(path.with_name(rng.choice(names)))
    path.write_bytes(content)


def lost(rows: list[RawRow], captions: Captions, layout: str) -> list[str]:
    """Returns what is wrong with the rows read from an undamaged source."""
    used: set[str] = set()
    unopened = 0
    for row in captions.rows:
        try:
            row.open()
            used.update(caption.split(" ")[0] for caption in row.captions)
        except ImageError:
            unopened += len(row.captions)
    wanted = {row.caption.split(" ")[0] for row in rows if row.caption and row.image is not None}
    wrong = [f"lost {sorted(wanted - used)}, of nowhere {sorted(used - wanted)}"] if used != wanted else []
    listed = len(captions.skipped) + unopened
    if listed < len(rows) - len(wanted) and layout != "coco":
        wrong.append(f"{len(rows)} rows, {len(wanted)} used, {listed} listed")
    return wrong


def attempt(seed: int, folder: Path) -> tuple[str, str]:
    """Reads the source of one seed.

    Args:
        seed: draws it.
        folder: where it is written.

    Returns:
        How it ended, and what is wrong with that, which should be nothing.
    """
    rng = random.Random(seed)
    layout = rng.choice(LAYOUTS)
    rows = rows_of(rng, layout.__name__)
    source = layout(folder, rows)
    damaged = rng.random() < 0.75
    if damaged:
        for _ in range(rng.randint(1, 3)):
            damage(rng, folder)
        source = source if source.exists() else folder
    begun = time.monotonic()
    try:
        config = SourceConfig(captions=str(source), run=str(folder.parent), max_skipped_fraction=1.0)
        captions = read_captions(config, check_files=rng.random() < 0.8 or not damaged)
        for row in captions.rows:
            if damaged and rng.random() < 0.3:
                try:
                    row.open()
                except ImageError:
                    continue
        wrong = [] if damaged else lost(rows, captions, layout.__name__)
        ended = "read"
    except InputError as error:
        ended = "refused"
        wrong = ["an error of several lines"] if "\n" in str(error) or len(str(error)) > 3000 else []
        if not damaged and any(row.caption and row.image is not None for row in rows):
            wrong.append(str(error))
    except Exception:  # noqa: BLE001 - what this program looks for
        ended, wrong = "failed", [traceback.format_exc()]
    if time.monotonic() - begun > TOO_LONG:
        wrong.append(f"took {time.monotonic() - begun:.0f} s")
    return f"{layout.__name__} {ended}", "; ".join(wrong)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first input")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    png(0)
    ends: Counter[str] = Counter()
    failures = 0
    for seed in range(options.seed, options.seed + options.inputs):
        with tempfile.TemporaryDirectory() as place:
            ended, wrong = attempt(seed, Path(place) / "source")
        ends[ended] += 1
        if wrong:
            failures += 1
            print(f"seed {seed}, {ended}: {wrong}", flush=True)
    for ended, count in sorted(ends.items()):
        print(f"{count:6d} {ended}")
    print(f"{options.inputs} inputs, {failures} wrong")
    raise SystemExit(failures > 0)


if __name__ == "__main__":
    main()
