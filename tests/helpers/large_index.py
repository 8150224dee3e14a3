"""An index of any number of vectors for the benchmark, written block by block; no block needs another one.

As a program, each of these in a process of its own, whose memory and imports are its alone:

    python large_index.py build FOLDER ROWS        makes the index
    python large_index.py open FOLDER              opens it, and nothing else
    python large_index.py ask FOLDER ROWS          asks, without LanceDB's package
    python large_index.py grow FOLDER ROWS MORE    adds rows, and takes some out

Each writes what it measured to FOLDER.json.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

BEGAN = time.perf_counter()  # before the imports

import numpy as np  # noqa: E402

from turkish_clip.metrics import unit  # noqa: E402
from turkish_clip.search.files import File  # noqa: E402
from turkish_clip.search.tables import ImageTables, IndexMetadata  # noqa: E402

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

DIM, BLOCK, CLUSTERS, QUERIES, K = 512, 10_000, 2_000, 200, 10
OWN = 0.7  # of a vector, beside as much of its cluster
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
# Of latent numbers: falls as those of real embeddings do, so that near vectors differ in few directions.
SPECTRUM = unit(np.arange(1, DIM + 1, dtype=np.float32)[None] ** -0.5)[0]
KINDS = ("images", "texts")  # queries near an image, and near an image but on the cone of the texts
CONDITION = "path LIKE '%7.jpg' AND bytes > 0"  # of --where: a tenth of the rows


@lru_cache
def _cones() -> tuple[Vectors, Vectors]:
    """The means of images and texts, (2, dim), and the clusters' centres."""
    rng = np.random.default_rng(0)
    means = unit(rng.standard_normal((2, DIM), np.float32))
    return means, rng.standard_normal((CLUSTERS, DIM), np.float32) * SPECTRUM


def latent(number: int) -> Vectors:
    """The latent vectors of a block, always the same for its number."""
    rng = np.random.default_rng([1, number])
    own = rng.standard_normal((BLOCK, DIM), np.float32) * SPECTRUM
    return OWN * _cones()[1][rng.integers(0, CLUSTERS, BLOCK)] + OWN * own


def block(number: int) -> Vectors:
    """The (BLOCK, dim) unit vectors of a block of images."""
    return unit(_cones()[0][0] + unit(latent(number)))


def queries(rows: int, kind: str) -> Vectors:
    """The (QUERIES, dim) unit vectors that are asked for, each near an image of its own.

    Args:
        rows: of the index.
        kind: one of KINDS.
    """
    rng = np.random.default_rng([2, rows])
    chosen = rng.integers(0, rows, QUERIES)
    meant = np.empty((QUERIES, DIM), np.float32)
    for number in np.unique(chosen // BLOCK):
        there = chosen // BLOCK == number
        meant[there] = latent(number)[chosen[there] % BLOCK]
    noise = rng.standard_normal((QUERIES, DIM), np.float32) * SPECTRUM
    means = _cones()[0]
    if kind == "images":
        return unit(means[0] + unit(meant + 0.4 * noise))
    return unit(0.85 * means[1] + 0.5 * unit(meant + 0.6 * noise))


def exact(rows: int, asked: Vectors, *, part: int = 1) -> NDArray[np.int64]:
    """The (n, K) rows with the largest cosines, in float32, a block in memory at a time.

    Args:
        rows: of the index.
        asked: (n, dim) unit vectors.
        part: of ten rows, the seventh alone if 10; all if 1.
    """
    best = np.full((len(asked), K), -2, np.float32)
    found = np.zeros((len(asked), K), np.int64)
    for number in range(rows // BLOCK):
        kept = np.arange(BLOCK) if part == 1 else np.arange(7, BLOCK, part)
        cosines = asked @ block(number)[kept].T
        near = np.argpartition(-cosines, K, axis=1)[:, :K]
        best = np.concatenate([best, np.take_along_axis(cosines, near, 1)], axis=1)
        found = np.concatenate([found, kept[near] + number * BLOCK], axis=1)
        order = np.argsort(-best, axis=1)[:, :K]
        best, found = np.take_along_axis(best, order, 1), np.take_along_axis(found, order, 1)
    return found


def write(tables: ImageTables, number: int) -> None:
    """Writes a block of images with their files."""
    names = [path_of(number * BLOCK + row) for row in range(BLOCK)]
    rows: list[dict[str, Any]] = [
        {"content": name, "path": name, "also_at": [], "bytes": 1, "modified": NOW, "vector": vector}
        for name, vector in zip(names, block(number))
    ]
    tables.write(rows, [], [File(name, "/photos", 1, 1, name) for name in names])


def path_of(row: int) -> str:
    return f"/photos/{row:09}.jpg"


def row_of(path: str) -> int:
    return int(path[8:17])


def timed(action: Callable[[], Any]) -> tuple[float, float, Any]:
    """The seconds that passed, the seconds that were computed, and the result."""
    began, computed = time.perf_counter(), time.process_time()
    result = action()
    return time.perf_counter() - began, time.process_time() - computed, result


def build(folder: str, rows: int) -> dict[str, Any]:
    tables = ImageTables.connect(folder)
    tables.create(IndexMetadata(model="x", revision="", image_model="y", image_revision="", weights_sha256="", dim=DIM))
    writing = timed(lambda: [write(tables, number) for number in range(rows // BLOCK)])
    partitioning = timed(tables.optimize)
    return {"writing": writing[:2], "partitioning": partitioning[:2]}


def opened(folder: str) -> tuple[float, ImageTables]:
    """The seconds from nothing to the models and the number of images, and the index."""
    seconds, _, tables = timed(lambda: _counted(folder))
    return seconds, tables


def _counted(folder: str) -> ImageTables:
    tables = ImageTables.connect(folder)
    assert tables.metadata() is not None
    assert tables.count()
    return tables


def ask(folder: str, rows: int) -> dict[str, Any]:
    """Asks each query once to warm up, and then for the time; with a condition too, of a few."""
    tables, result = _counted(folder), dict[str, Any]()
    for kind in KINDS:
        asked = queries(rows, kind)
        best = exact(rows, asked)
        answered(tables, asked)
        result[kind] = figures(answered(tables, asked), best)
        few = asked[:20]
        result[f"{kind}, condition"] = figures(answered(tables, few, CONDITION), exact(rows, few, part=10))
    return result


Answer = tuple[float, float, list[dict[str, Any]]]


def answered(tables: ImageTables, asked: Vectors, where: str | None = None) -> list[Answer]:
    """The answer to each query, timed.

    Args:
        tables: of the index.
        asked: (n, dim) vectors.
        where: a condition in SQL.
    """
    return [timed(lambda query=query: tables.nearest(query, K, where, False)) for query in asked]


def figures(answers: list[Answer], best: NDArray[np.int64]) -> dict[str, float]:
    """recall@K, and the median milliseconds that passed and that were computed."""
    hits = sum(
        len({row_of(row["path"]) for row in found[2]} & set(rows)) for found, rows in zip(answers, best.tolist())
    )
    passed, computed = (1000 * float(np.median([answer[part] for answer in answers])) for part in (0, 1))
    return {"recall": hits / (K * len(answers)), "passed": passed, "computed": computed}


def grow(folder: str, rows: int, more: int) -> dict[str, Any]:
    """Adds blocks, asks for them at once and after they lie in partitions, and takes every hundredth row out."""
    tables = _counted(folder)
    first = rows // BLOCK
    adding = timed(lambda: [write(tables, first + number) for number in range(more // BLOCK)])
    own = block(first)[:50]
    at_once = [row_of(tables.nearest(vector, 1, None, False)[0]["path"]) - rows for vector in own]
    asked = queries(rows + more, "images")
    best = exact(rows + more, asked)
    waiting = figures(answered(tables, asked), best)
    tidying = timed(tables.optimize)
    tidied = figures(answered(tables, asked), best)
    gone = [path_of(row) for row in best[:, 0].tolist()]
    removing = timed(lambda: tables.remove(list(dict.fromkeys(gone))))
    left = {row["path"] for query in asked for row in tables.nearest(query, K, None, False)}
    return {
        "adding": adding[:2],
        "found_at_once": sum(place == number for number, place in enumerate(at_once)) / len(own),
        "waiting": waiting,
        "tidying": tidying[:2],
        "tidied": tidied,
        "removing": removing[:2],
        "removed": removing[2],
        "still_found": len(left & set(gone)),
    }


def main() -> None:
    command, *argv = sys.argv[1:]
    folder, numbers = argv[0], [int(number) for number in argv[1:]]
    if command == "open":
        imports = time.perf_counter() - BEGAN
        measured = {"imports": imports, "opening": opened(folder)[0], "package": "lancedb" in sys.modules}
    else:
        measured = {"build": build, "ask": ask, "grow": grow}[command](folder, *numbers)
    Path(f"{folder}.json").write_text(json.dumps(measured), encoding="utf-8")


if __name__ == "__main__":
    main()
