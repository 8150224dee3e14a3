"""Small images and captioned folders for tests, and what a folder of image embeddings holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from training.run.lock import LOCK

if TYPE_CHECKING:
    from turkish_clip.metrics import Vectors


def write_rows(folder: Path, rows: list[dict[str, object]]) -> Path:
    """Writes metadata.jsonl; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def paint(path: Path, number: int) -> Path:
    """An image of noise, another for each number."""
    import numpy as np
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(number)
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    return path


def stored_ids(folder: Path) -> list[str]:
    """The image_ids in the shards, in order."""
    import pyarrow.parquet as pq

    shards = [pq.read_table(path) for path in sorted(folder.glob("shard-*.parquet"))]
    return [image_id for shard in shards for image_id in shard["image_id"].to_pylist()]


def stored_vectors(folder: Path) -> Vectors:
    """The (images, dim) vectors in the shards, in order."""
    from training.embeddings.store import read_embeddings

    return read_embeddings(folder).unit_rows(stored_ids(folder))


def embed_arguments(source: Path, clip: Path, run: Path, *more: str) -> list[str]:
    """The command line of embed_images for a small source: shards of ten images, batches of four."""
    base = f"--captions {source} --image_model {clip} --run {run} --image_batch_size 4 --shard_size 10 --device cpu"
    return [*base.split(), "--dtype", "float32", *more]


def file_contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder, by name, but for the lock that a killed command leaves."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != LOCK}
