"""Finds the images nearest to a vector in the table of images, with or without the correction of hubs."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from turkish_clip.metrics import unit
from turkish_clip.search.correction import widened_query
from turkish_clip.search.storage import storage_errors

if TYPE_CHECKING:
    from turkish_clip.cluster import SearchCluster
    from turkish_clip.metrics import Vectors

METRIC = "cosine"  # although the vectors have norm 1: lance-ray merges results by dot product wrongly
ROWS_IN_PARTITION = 4096
# Rows found by their codes are candidates, re-ranked by exact cosine: REFINE times k, and at least CANDIDATES.
CANDIDATES, REFINE = 20, 2
# Partitions that a query searches: one of PARTITIONS_PER_PROBE, and at least PROBES.
PROBES, PARTITIONS_PER_PROBE = 20, 4
ALL_PROBES = 1_000_000  # more than there are partitions
FOUND = ["path", "also_at"]  # the columns of a result


class NearestImages:
    """A handle on one table that sees the rows that other processes have written since.

    It runs LanceDB's coroutines in the calling thread: LanceDB's synchronous calls hand each query to another thread,
    which takes one of five milliseconds (training/LOG.md).
    """

    def __init__(self, uri: str, name: str) -> None:
        self._uri = uri
        self._name = name
        self._table: Any = None

    def find(
        self, vector: Vectors, k: int, where: str | None, exact: bool, weight: float = 0.0
    ) -> list[dict[str, Any]]:
        """Returns the rows of the k largest scores: path, also_at, cosine, and its hub score; [] without a table.

        Args:
            vector: (dim,) float32.
            k: number of rows, at least 1.
            where: a condition in SQL; None searches all rows.
            exact: compare with every vector, as is done under a condition too.
            weight: of an image's hub score, which is taken off its cosine.
        """
        return list(_result_of(self._find(vector, k, where, exact, weight)))

    async def _find(
        self, vector: Vectors, k: int, where: str | None, exact: bool, weight: float
    ) -> list[dict[str, Any]]:
        with storage_errors(self._uri, "read"):
            table = await self._latest()
        if table is None:
            return []
        query = table.query().nearest_to(widened_query(vector, weight)).column("vector").distance_type(METRIC)
        query = (query.where(where) if where else query).select([*FOUND, "vector", "_distance"])
        if exact or where:
            # Of the few rows that meet a condition, the probed partitions might hold too few.
            return _reranked(await query.bypass_vector_index().limit(k).to_arrow(), vector, k, weight)
        # LanceDB's own re-ranking reads the vectors first and the other columns afterwards, which takes longer.
        query = query.nprobes(_probes(await table.count_rows()))
        return _reranked(await query.limit(k * _refine_factor(k)).to_arrow(), vector, k, weight)

    async def _latest(self) -> Any:
        if self._table is not None:
            await self._table.checkout_latest()
            return self._table
        import lancedb

        connection = await lancedb.connect_async(self._uri)
        if self._name in (await connection.list_tables()).tables:
            self._table = await connection.open_table(self._name)
        return self._table


def nearest_on(
    cluster: SearchCluster, table: Any, vector: Vectors, k: int, where: str | None, weight: float = 0.0
) -> list[dict[str, Any]]:
    """Returns the rows that `NearestImages.find` returns, searched by a cluster.

    Args:
        cluster: whose workers search.
        table: a LanceDB table.
        vector: (dim,) float32.
        k: number of rows, at least 1.
        where: a condition in SQL; None searches all rows.
        weight: of an image's hub score, which is taken off its cosine.
    """
    query: dict[str, Any] = {"column": "vector", "q": widened_query(vector, weight), "k": k, "metric": METRIC}
    query |= {"refine_factor": _refine_factor(k), "nprobes": ALL_PROBES if where else _probes(table.count_rows())}
    return _reranked(cluster.nearest(table.to_lance(), query, [*FOUND, "vector"], where), vector, k, weight)


def vectors_of(rows: Any) -> Vectors:
    """Returns the (n, width) float32 stored vectors of a pyarrow table of at least one row."""
    flat = np.concatenate([chunk.flatten().to_numpy() for chunk in rows["vector"].chunks])
    return np.asarray(flat.reshape(len(rows), -1))


def _reranked(rows: Any, vector: Vectors, k: int, weight: float) -> list[dict[str, Any]]:
    """Returns the k candidates of the largest exact scores, the largest first."""
    if not len(rows):
        return []
    stored, dim = vectors_of(rows), len(vector)
    cosines, hub_scores = stored[:, :dim] @ unit(vector[None])[0], stored[:, dim]
    columns = [rows[name].to_pylist() for name in FOUND]
    best = np.argsort(weight * hub_scores - cosines, kind="stable")[:k].tolist()
    return [
        {
            **{name: column[place] for name, column in zip(FOUND, columns)},
            "cosine": float(cosines[place]),
            "hub_score": float(hub_scores[place]),
        }
        for place in best
    ]


def _probes(rows: int) -> int:
    """Returns the number of partitions that a query of a table of so many rows searches."""
    return max(PROBES, rows // ROWS_IN_PARTITION // PARTITIONS_PER_PROBE)


def _refine_factor(k: int) -> int:
    """Returns how many candidates there are for each of the k results."""
    return max(REFINE, -(-CANDIDATES // k))


def _result_of(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Runs a coroutine and returns its result."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        runs_here = False
    else:
        runs_here = True
    if not runs_here:
        return _run(coroutine)
    thread = ThreadPoolExecutor(1)  # a notebook's thread already runs a loop
    try:
        return thread.submit(_run, coroutine).result()
    finally:
        thread.shutdown(wait=False)


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Runs a coroutine in a new loop; asyncio.run takes twice as long and unsets the thread's own loop."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(coroutine)
    try:
        return loop.run_until_complete(task)
    finally:
        if not task.done():  # interrupted
            task.cancel()
            loop.run_until_complete(asyncio.wait([task]))
        loop.close()
