"""python -m training.leakage recipe.yaml --benchmark ids.txt: training pictures that a benchmark tests on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from training.captions import read_captions
from training.command import print_result, run_command
from training.config import LeakageConfig, read
from training.rows import CaptionsError, Row
from turkish_clip.atomic import write_text

COCO = re.compile(r"(?:COCO_(?:train|val|test)\d{4}_)?(\d{12})")
NUMBER = re.compile(r"[1-9]\d{0,5}")  # as COCO's annotations have them; too short for Flickr
FLICKR = re.compile(r"([1-9]\d{5,10})(?:_[0-9a-f]{8,12}(?:_[a-z])?)?")
SHOWN = 10


def main(argv: list[str]) -> dict[str, Any]:
    """Compares by Flickr and COCO id, writes leaked.jsonl; returns the counts."""
    config = read(LeakageConfig, argv)
    path = Path(config.benchmark)
    if not path.is_file():
        raise CaptionsError(
            f"expected a file of picture names or ids, one a line, got {path}, which is none; write one"
        )
    tested = ids_of(path.read_text(encoding="utf-8-sig").split(), bare=True)
    if not tested:
        raise CaptionsError(f"expected Flickr or COCO ids in {path}, such as 1009434119_febe49276a.jpg, got none")
    captions = read_captions(config)
    leaked = [
        (row, found) for row in captions.rows if row.split == config.split and (found := ids_of(names(row)) & tested)
    ]
    lines = [{"image_id": row.image_id, "benchmark_ids": sorted(found)} for row, found in leaked]
    write_text(config.folder / "leaked.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    result = {
        "dataset": captions.name,
        "split": config.split,
        "pictures": sum(row.split == config.split for row in captions.rows),
        "with_an_id": sum(bool(ids_of(names(row))) for row in captions.rows if row.split == config.split),
        "benchmark": str(path),
        "benchmark_ids": len(tested),
        "leaked": len(leaked),
    }
    print_result(result, config.json)
    if not config.json:
        print(
            "".join(f"{row.image_id}\n" for row, _ in leaked[:SHOWN]) + f"all of them: {config.folder / 'leaked.jsonl'}"
        )
    return result


def names(row: Row) -> list[str]:
    """What a row may carry an id in: its own id, and its file's name."""
    return [row.image_id, row.image.name] if isinstance(row.image, Path) else [row.image_id]


def ids_of(texts: Iterable[str], *, bare: bool = False) -> set[str]:
    """The Flickr and COCO ids in names of files, with or without folders and endings.

    A bare number of six digits may be either's, a shorter one COCO's; shorter ones count where `bare` says that the
    texts are ids, not names: a data set's rows are numbered, too.

    >>> sorted(ids_of(["train/COCO_train2014_000000000139.jpg", "1009434119_febe49276a.jpg", "elma"]))
    ['coco 139', 'flickr 1009434119']
    """
    found = set()
    for text in texts:
        stem = text.replace("\\", "/").rpartition("/")[2].partition(".")[0]
        if match := COCO.fullmatch(stem):
            found.add(f"coco {int(match[1])}")
        elif bare and NUMBER.fullmatch(stem):
            found |= {f"coco {stem}"} | ({f"flickr {stem}"} if len(stem) > 5 else set())
        elif match := FLICKR.fullmatch(stem):
            found.add(f"flickr {int(match[1])}")
    return found


if __name__ == "__main__":
    run_command(main)
