"""Asks the images' table for those nearest to a vector."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from turkish_clip.errors import InputError
from turkish_clip.metrics import unit
from turkish_clip.search.storage import ImageIndexError, _said, _unusable, storage_errors

if TYPE_CHECKING:
    from turkish_clip.cluster import SearchCluster
    from turkish_clip.metrics import Vectors

METRIC = "cosine"  # the vectors are of norm 1; by dot products lance-ray merges wrongly
ROWS_IN_PARTITION = 4096
CANDIDATES = 20  # at least, and
REFINE = 2  # times k, whose exact distances are computed
PROBES = 20  # partitions looked into, at least; and
SHARE_PROBED = 4  # a quarter of all
ALL_PROBES = 1_000_000
FOUND = ["path", "also_at"]  # the columns of an answer


class NearestImages:
    """A handle of its own on one table, which sees what other processes have written since.

    Through LanceDB's coroutines, in a loop in the thread that asks: its plain calls hand each query to another thread
    and back, which is a millisecond of five (LOG.md).
    """

    def __init__(self, uri: str, name: str) -> None:
        self._uri = uri
        self._name = name
        self._table: Any = None

    def find(self, vector: Vectors, k: int, where: str | None, exact: bool) -> list[dict[str, Any]]:
        """The rows of the k largest cosines to a (dim,) vector, with _distance = 1 - cosine; [] without a table."""
        return list(_waited(self._found(vector, k, where, exact)))

    async def _found(self, vector: Vectors, k: int, where: str | None, exact: bool) -> list[dict[str, Any]]:
        with storage_errors(self._uri, "read"):
            table = await self._latest()
        if table is None:
            return []
        query = table.query().nearest_to(vector).column("vector").distance_type(METRIC)
        query = query.where(where) if where else query
        if exact or where:
            # A condition that keeps few rows would find too few of them through the partitions.
            query = query.bypass_vector_index().select([*FOUND, "_distance"]).limit(k)
            return list((await query.to_arrow()).to_pylist())
        # LanceDB's own refining would read the vectors first and the other columns then, which takes longer.
        query = query.nprobes(_probes(await table.count_rows())).select([*FOUND, "vector", "_distance"])
        return _refined(await query.limit(k * refined(k)).to_arrow(), vector, k)

    async def _latest(self) -> Any:
        if self._table is not None:
            await self._table.checkout_latest()
            return self._table
        import lancedb

        connection = await lancedb.connect_async(self._uri)
        if self._name in (await connection.list_tables()).tables:
            self._table = await connection.open_table(self._name)
        return self._table


def nearest_on(cluster: SearchCluster, table: Any, vector: Vectors, k: int, where: str | None) -> list[dict[str, Any]]:
    """The same rows, looked for by a cluster in a LanceDB table."""
    asked = {"column": "vector", "q": vector, "k": k, "metric": METRIC, "refine_factor": refined(k)}
    asked["nprobes"] = ALL_PROBES if where else _probes(table.count_rows())
    return list(cluster.nearest(table.to_lance(), asked, FOUND, where).to_pylist())


def vectors_of(rows: Any) -> Vectors:
    """The (n, dim) float32 vectors of a pyarrow table with at least one row."""
    flat = np.concatenate([chunk.flatten().to_numpy() for chunk in rows["vector"].chunks])
    return np.asarray(flat.reshape(len(rows), -1))


def _refined(rows: Any, vector: Vectors, k: int) -> list[dict[str, Any]]:
    """The k rows of the largest cosines among candidates, by their vectors in place of their codes."""
    if not len(rows):
        return []
    cosines = unit(vectors_of(rows)) @ unit(vector[None])[0]
    columns = [rows[name].to_pylist() for name in FOUND]
    best = np.argsort(-cosines, kind="stable")[:k].tolist()
    return [
        {**{name: column[place] for name, column in zip(FOUND, columns)}, "_distance": 1 - float(cosines[place])}
        for place in best
    ]


def _probes(rows: int) -> int:
    """How many partitions to look into."""
    return max(PROBES, rows // ROWS_IN_PARTITION // SHARE_PROBED)


def refined(k: int) -> int:
    """How many times k rows have their exact distances computed."""
    return max(REFINE, -(-CANDIDATES // k))


@contextmanager
def query_errors(uri: str, where: str | None) -> Iterator[None]:
    """The same for a query, in which LanceDB's SQL parser and the cluster have types of their own, too.

    Raises:
        ImageIndexError: the index can't be read, or the condition is not understood.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if where is None or isinstance(error, OSError) or "LanceError(IO)" in str(error):
            raise _unusable(uri, "read", error) from error
        said = _said(error).partition(" Valid fields")[0][:300]  # they are the table's
        raise ImageIndexError(
            f"expected a condition over path, bytes, modified, got {where!r}: {said}; mend it"
        ) from error


def _waited(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine returns."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        runs_here = False
    else:
        runs_here = True
    if not runs_here:
        return _run(coroutine)
    thread = ThreadPoolExecutor(1)  # as in a notebook
    try:
        return thread.submit(_run, coroutine).result()
    finally:
        thread.shutdown(wait=False)


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Like asyncio.run, which would take away the loop that the thread has, and costs twice as much."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(coroutine)
    try:
        return loop.run_until_complete(task)
    finally:
        if not task.done():  # interrupted
            task.cancel()
            loop.run_until_complete(asyncio.wait([task]))
        loop.close()
