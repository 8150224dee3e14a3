"""python -m training.leakage recipe.yaml --benchmark ids.txt: finds training images that a benchmark tests on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.data.sources import read_captions
from training.evaluation.leakage import id_texts, ids_of
from training.run.command import print_result, run_command
from training.run.config import LeakageConfig, read
from training.run.lock import hold
from training.run.record import check_outputs
from training.run.source import SourceError
from turkish_clip.atomic import write_text
from turkish_clip.errors import printable
from turkish_clip.strict_json import json_text
from turkish_clip.text_files import read_whole

SHOWN = 10  # leaked images that are printed


def main(argv: list[str]) -> dict[str, Any]:
    """Compares images by Flickr and COCO id, writes leaked.jsonl and returns the counts."""
    config = read(LeakageConfig, argv)
    hold(config.folder)
    check_outputs(config.folder, "leaked.jsonl")
    path = Path(config.benchmark)
    if not path.is_file():
        there = "the folder" if path.is_dir() else "no file"
        raise SourceError(f"expected a file of image names or ids, one per line, got {there} {path}; write one")
    try:
        tested = ids_of(read_whole(path).split(), bare=True)
    except UnicodeDecodeError as error:
        raise SourceError(f"expected UTF-8 in {path}, got other bytes; save it as UTF-8") from error
    if not tested:
        raise SourceError(
            f"expected Flickr or COCO ids in {path}, such as 1009434119_febe49276a.jpg, got none; check the file"
        )
    captions = read_captions(config, check_files=False)
    leaked = [
        (row, found) for row in captions.rows if row.split == config.split and (found := ids_of(id_texts(row)) & tested)
    ]
    lines = [{"image_id": row.image_id, "benchmark_ids": sorted(found)} for row, found in leaked]
    write_text(config.folder / "leaked.jsonl", "".join(json_text(line) + "\n" for line in lines))
    result = {
        "dataset": captions.name,
        "split": config.split,
        "images": sum(row.split == config.split for row in captions.rows),
        "with_an_id": sum(bool(ids_of(id_texts(row))) for row in captions.rows if row.split == config.split),
        "benchmark": str(path),
        "benchmark_ids": len(tested),
        "leaked": len(leaked),
    }
    print_result(result, config.json)
    if not config.json:
        print(
            "".join(f"{printable(row.image_id)}\n" for row, _ in leaked[:SHOWN])
            + f"all of them: {config.folder / 'leaked.jsonl'}"
        )
    return result


if __name__ == "__main__":
    run_command(main)
