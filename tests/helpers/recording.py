"""Runs distillation and writes down which rows this process trains on.

    python recording.py FOLDER ARGV…

Each process appends to FOLDER/rows-NUMBER.jsonl a line a micro-batch: [epoch, [rows]].
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from training import distill
from training.distillation.callbacks import TrackStepState
from training.pairs.augment import Augmentation
from training.run.command import run_command


def main() -> None:
    folder, *argv = sys.argv[1:]
    path = Path(folder) / f"rows-{os.environ.get('RANK', 0)}.jsonl"
    begin, read = TrackStepState.on_train_begin, Augmentation.apply
    begun = False

    def begins(*args: Any, **kwargs: Any) -> None:
        nonlocal begun
        begun = True  # before, the host looks at some rows for its model card
        begin(*args, **kwargs)

    def reads(self: Augmentation, texts: Any, rows: Any) -> list[str]:
        if begun:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([self.epoch, list(rows)]) + "\n")
        return read(self, texts, rows)

    TrackStepState.on_train_begin, Augmentation.apply = begins, reads  # type: ignore[method-assign]
    run_command(distill.main, argv, several_processes=True)


if __name__ == "__main__":
    main()
