"""python -m training.compare_models --models A,B --captions SOURCE: quality, size, memory and times, side by side."""

from __future__ import annotations

from typing import Any

from training.run.command import print_result, run_command
from training.run.config import CompareConfig, read
from training.run.lock import hold
from training.run.record import check_outputs
from training.studies.model_table import COMPARISON, PAGE, compare, table
from turkish_clip.records import as_json


def main(argv: list[str]) -> dict[str, Any]:
    """Measures the models that are not yet measured; writes compare.json and compare.html."""
    config = read(CompareConfig, argv)
    hold(config.folder)
    check_outputs(config.folder, COMPARISON, PAGE)
    config.folder.mkdir(parents=True, exist_ok=True)
    result = compare(config)
    values = as_json(result)
    if config.json:
        print_result(values, as_json=True)
    else:
        print(*table(result), "", config.folder / COMPARISON, config.folder / PAGE, sep="\n")
    return values


if __name__ == "__main__":
    run_command(main)
