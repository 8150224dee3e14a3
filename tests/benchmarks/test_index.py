"""The index at 100,000 pictures against exact search in the same process: recall, time of a query, opening, adding."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ratios import report

from turkish_clip.collection import File
from turkish_clip.metrics import unit
from turkish_clip.picture_tables import PictureTables

PICTURES, DIM, CLUSTERS, QUERIES, K = 100_000, 512, 2_000, 200, 10
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def clustered(count: int, seed: int, centres: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((count, DIM), np.float32) * 0.04
    return unit(centres[rng.integers(0, len(centres), count)] + noise)


def write(tables: PictureTables, vectors: np.ndarray, first: int) -> None:
    for start in range(0, len(vectors), 10_000):
        part = vectors[start : start + 10_000]
        names = [f"/photos/{first + start + number:07}.jpg" for number in range(len(part))]
        rows: list[dict[str, Any]] = [
            {"content": name, "path": name, "also_at": [], "bytes": 1, "modified": NOW, "vector": vector}
            for name, vector in zip(names, part)
        ]
        tables.write(rows, [], [File(name, "/photos", 1, 1, name) for name in names])


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = call()
    return time.perf_counter() - began, result


@pytest.mark.bench
def test_the_index_at_100_000_pictures(tmp_path: Path) -> None:
    centres = np.random.default_rng(0).standard_normal((CLUSTERS, DIM), np.float32)
    centres = unit(centres)
    vectors = clustered(PICTURES, 1, centres)
    queries = clustered(QUERIES, 2, centres)
    tables = PictureTables.connect(str(tmp_path / "index"))
    tables.create({"format": 1}, DIM)
    writing, _ = timed(lambda: write(tables, vectors, 0))
    building, _ = timed(tables.tidy)

    opening, tables = timed(lambda: PictureTables.connect(str(tmp_path / "index")))
    opening += timed(tables.facts)[0]
    exact, approximate, found = [], [], 0
    for query in queries:
        seconds, best = timed(lambda query=query: np.argpartition(-(vectors @ query), K)[:K])
        exact.append(seconds)
        seconds, rows = timed(lambda query=query: tables.nearest(query, K, None, False))
        approximate.append(seconds)
        found += len({int(row["path"][8:15]) for row in rows} & set(best.tolist()))
    recall = found / (K * QUERIES)

    more = clustered(1_000, 3, centres)
    adding, _ = timed(lambda: write(tables, more, PICTURES))
    tidying, _ = timed(tables.tidy)
    fresh = [tables.nearest(vector, 1, None, False)[0]["path"] for vector in more[:50]]
    fast, slow = 1000 * float(np.median(approximate)), 1000 * float(np.median(exact))
    print(f"\nindex of {PICTURES} x {DIM}: written in {writing:.1f} s, partitions in {building:.1f} s")
    print(f"opened in {opening:.3f} s; recall@{K} {recall:.4f}")
    report(f"the median query of an index of {PICTURES:,}", "exact search in numpy", [fast], [slow], "ms")
    report("taking 1,000 more into the partitions", "building the partitions again", [tidying], [building])
    print(f"1,000 more written in {adding:.2f} s")
    assert recall >= 0.98
    assert opening <= 0.3
    assert fast < slow
    assert fresh == [f"/photos/{PICTURES + number:07}.jpg" for number in range(50)]
    assert tidying < building / 2
