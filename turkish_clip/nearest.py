"""Asks the pictures' table for those nearest to a vector."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from turkish_clip.errors import InputError, one_line

if TYPE_CHECKING:
    from turkish_clip.cluster import SearchCluster
    from turkish_clip.metrics import Vectors

METRIC = "cosine"  # the vectors are of norm 1; by dot products lance-ray merges wrongly
ROWS_IN_PARTITION = 4096
CANDIDATES = 20  # at least, and
REFINE = 2  # times k, whose exact distances are computed
PROBES = 24  # partitions looked into, at least; and
SHARE_PROBED = 4  # a quarter of all
ALL_PROBES = 1_000_000
FOUND = ["path", "also_at"]  # the columns of an answer


class PictureIndexError(InputError):
    """An index that can't be opened, asked or written, or that is of other vectors."""


class NearestPictures:
    """A handle of its own on one table, which sees what other processes have written since.

    Through LanceDB's coroutines, in a loop in the thread that asks: its plain calls hand each query to another thread
    and back, which is a millisecond of five (LOG.md).
    """

    def __init__(self, uri: str, name: str) -> None:
        self._uri = uri
        self._name = name
        self._table: Any = None

    def find(self, vector: Vectors, k: int, where: str | None, exact: bool) -> list[dict[str, Any]]:
        """The rows of the k largest cosines to a (dim,) vector, with _distance = 1 - cosine; [] without a table.

        Raises:
            PictureIndexError: the index can't be read. What LanceDB says of a condition comes as it is.
        """
        return list(_waited(self._found(vector, k, where, exact)))

    async def _found(self, vector: Vectors, k: int, where: str | None, exact: bool) -> list[dict[str, Any]]:
        with storage_errors(self._uri, "read"):
            table = await self._latest()
            if table is None:
                return []
            rows = await table.count_rows()
        query = table.query().nearest_to(vector).column("vector").distance_type(METRIC).limit(k)
        query = query.select([*FOUND, "_distance"])
        query = query.where(where) if where else query
        if exact or where:
            # A condition that keeps few rows would find too few of them through the partitions.
            return list(await query.bypass_vector_index().to_list())
        query = query.nprobes(probes(rows)).refine_factor(refined(k))
        return list(await query.to_list())

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
    asked["nprobes"] = ALL_PROBES if where else probes(table.count_rows())
    return list(cluster.nearest(table.to_lance(), asked, FOUND, where).to_pylist())


def probes(rows: int) -> int:
    """How many partitions to look into."""
    return max(PROBES, rows // ROWS_IN_PARTITION // SHARE_PROBED)


def refined(k: int) -> int:
    """How many times k rows have their exact distances computed."""
    return max(REFINE, -(-CANDIDATES // k))


@contextmanager
def storage_errors(uri: str, to_do: str) -> Iterator[None]:
    """What LanceDB says of a disk or of object storage, in several types, as one of ours.

    Raises:
        PictureIndexError: in place of RuntimeError, OSError and ValueError.
    """
    try:
        yield
    except InputError:
        raise
    except (RuntimeError, OSError, ValueError) as error:
        raise PictureIndexError(f"expected an index to {to_do} in {uri}, got {one_line(error)}; try again") from error


def _waited(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine returns."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1) as thread:  # a loop runs in this one, as in a notebook
        return thread.submit(asyncio.run, coroutine).result()
