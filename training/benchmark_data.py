"""A benchmark out of files: any source of captions, all its pictures or those of a list of ids, measured both ways."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.benchmark_table import BenchmarkError
from training.captions import read_captions
from training.config import BenchmarkConfig
from training.rows import Row
from training.source import SourceConfig
from turkish_clip.metrics import Relevance
from turkish_clip.text import nfc
from turkish_clip.towers import Towers


def measure_data(towers: Towers, config: BenchmarkConfig) -> dict[str, Any]:
    """The figures of the configuration's `data`, by its name.

    Raises:
        BenchmarkError: an id of the list is not in the source, a picture does not open, or nothing is left: a part of
            a benchmark is another benchmark.
        CaptionsError: the source can't be read.
    """
    rows = chosen(config)
    vectors = []
    for batch in towers.embed_pictures((row.file for row in rows), batch_size=config.batch_size):
        if batch.errors:
            raise BenchmarkError(
                f"expected pictures that open in {config.data}, got {next(iter(batch.errors.values()))}; "
                "get that file again"
            )
        vectors.append(batch.vectors)
    relevance = Relevance.of([row.captions for row in rows])
    texts = towers.encode_texts(relevance.texts, batch_size=config.batch_size)
    pictures = np.concatenate(vectors)
    return {
        config.data_name or Path(config.data).resolve().name: {
            "source": config.data,
            "split": config.data_split or "all",
            "images": len(rows),
            "captions": len(relevance.texts),
            "text_to_image": dataclasses.asdict(relevance.text_to_image(texts, pictures)),
            "image_to_text": dataclasses.asdict(relevance.image_to_text(texts, pictures)),
        }
    }


def chosen(config: BenchmarkConfig) -> Sequence[Row]:
    """The rows to measure."""
    source = SourceConfig(
        captions=config.data, caption_columns=config.data_captions, run=config.run, max_reject_share=0.0
    )
    captions = read_captions(source)
    rows: Sequence[Row] = captions.split(config.data_split) if config.data_split else captions.rows
    if not config.data_ids:
        return rows
    path = Path(config.data_ids)
    if not path.is_file():
        raise BenchmarkError(f"expected a file of image_ids, one a line, got {path}, which is none; write one")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise BenchmarkError(f"expected UTF-8, got other bytes in {path}; save it as UTF-8") from error
    wanted = dict.fromkeys(nfc(line.strip()) for line in lines)
    wanted.pop("", None)
    row_of = {row.image_id: row for row in rows}
    missing = [image_id for image_id in wanted if image_id not in row_of]
    if missing or not wanted:
        raise BenchmarkError(
            f"expected the image_ids of {path} in {config.data}, got {len(missing)} of {len(wanted)} that are not there"
            f"{f', the first {missing[0]!r}' if missing else ''}; correct the list"
        )
    return [row_of[image_id] for image_id in wanted]
