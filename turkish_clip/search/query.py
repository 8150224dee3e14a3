"""Finds the images nearest to a vector in the table of images, with or without the correction of hubs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from turkish_clip.metrics import unit
from turkish_clip.search.correction import widened_query
from turkish_clip.search.native import NativeTables, result_of
from turkish_clip.search.storage import storage_errors

if TYPE_CHECKING:
    from turkish_clip.cluster import SearchCluster
    from turkish_clip.metrics import Vectors

METRIC = "cosine"  # although the vectors have norm 1: lance-ray merges results by dot product wrongly
ROWS_IN_PARTITION = 4096
# Rows found by their codes are candidates, re-ranked by exact cosine: REFINE times k, and at least CANDIDATES.
CANDIDATES, REFINE = 20, 2
# Partitions that a query searches: one of PARTITIONS_PER_PROBE, and at least PROBES. Of a text's ten nearest among a
# million images, a quarter of the partitions misses 0.28, half of them 0.04.
PROBES, PARTITIONS_PER_PROBE = 20, 2
ALL_PROBES = 1_000_000  # more than there are partitions
MORE_FRAMES = 8  # times the rows are looked at where too many are frames of the same videos
FOUND = ["path", "also_at"]  # the columns of a result
ENTRY = ["content", "second"]  # the hash of the file, one for all frames of a video; the second of a frame, else NULL
PHOTO = ["taken", "lat", "lon", "camera"]  # those of it that `turkish_clip.photo.Photo` fills
COLUMNS = [*FOUND, *ENTRY, *PHOTO, "vector", "_distance"]  # those of a candidate


class NearestImages:
    """A handle on one table that sees the rows that other processes have written since.

    It runs LanceDB's coroutines in the calling thread: LanceDB's synchronous calls hand each query to another thread,
    which takes one of five milliseconds (training/LOG.md).
    """

    def __init__(self, uri: str, name: str, native: NativeTables | None = None) -> None:
        self._uri = uri
        self._name = name
        self._native = native
        self._table: Any = None

    def find(
        self, vector: Vectors, k: int, where: str | None, exact: bool, weight: float = 0.0
    ) -> list[dict[str, Any]]:
        """Returns the rows of the k largest scores: FOUND, ENTRY, PHOTO, cosine, hub_score and vector; [] without any.

        Of the frames of one video, there is the best one alone.

        Args:
            vector: (dim,) float32.
            k: number of rows, at least 1.
            where: a condition in SQL; None searches all rows.
            exact: compare with every vector, as is done under a condition too.
            weight: of an image's hub score, which is taken off its cosine.
        """
        query, every = widened_query(vector, weight), bool(exact or where)
        # Of the few rows that meet a condition, the probed partitions might hold too few; for the others, LanceDB's own
        # re-ranking reads the vectors first and the other columns afterwards, which takes longer.
        find = self._find if self._native is None else self._find_native
        limit = k if every else k * _refine_factor(k)
        return _best_entries(lambda limit: find(query, limit, where, every), limit, vector, k, weight)

    def _find_native(self, query: Vectors, limit: int, where: str | None, every: bool) -> Any:
        with storage_errors(self._uri, "read"):
            table = self._latest_native()
        if table is None:
            return None
        return table.nearest(query, limit, where, None if every else _probes(table.count_rows()), COLUMNS, METRIC)

    def _latest_native(self) -> Any:
        if self._table is not None:
            self._table.checkout_latest()
        elif self._native is not None and self._native.has(self._name):
            self._table = self._native.open(self._name)
        return self._table

    def _find(self, query: Vectors, limit: int, where: str | None, every: bool) -> Any:
        return result_of(self._found(query, limit, where, every))

    async def _found(self, query: Vectors, limit: int, where: str | None, every: bool) -> Any:
        with storage_errors(self._uri, "read"):
            table = await self._latest()
        if table is None:
            return None
        search = table.query().nearest_to(query).column("vector").distance_type(METRIC)
        search = (search.where(where) if where else search).select(COLUMNS)
        search = search.bypass_vector_index() if every else search.nprobes(_probes(await table.count_rows()))
        return await search.limit(limit).to_arrow()

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
    query: dict[str, Any] = {"column": "vector", "q": widened_query(vector, weight), "metric": METRIC}
    query |= {"refine_factor": _refine_factor(k), "nprobes": ALL_PROBES if where else _probes(table.count_rows())}
    columns, dataset = [*FOUND, *ENTRY, *PHOTO, "vector"], table.to_lance()
    return _best_entries(
        lambda limit: cluster.nearest(dataset, {**query, "k": limit}, columns, where), k, vector, k, weight
    )


def vectors_of(rows: Any) -> Vectors:
    """Returns the (n, width) float32 stored vectors of a pyarrow table of at least one row."""
    return np.concatenate([_matrix_of(chunk) for chunk in rows["vector"].chunks])


def _matrix_of(lists: Any) -> Vectors:
    """Returns the rows of a pyarrow array of lists of one width, without nulls.

    Its own `flatten` imports pyarrow.compute, and `to_numpy` pandas.
    """
    width, numbers = lists.type.list_size, lists.values
    start = numbers.offset + lists.offset * width
    flat = np.frombuffer(numbers.buffers()[1], numbers.type.to_pandas_dtype())
    return np.asarray(flat[start : start + len(lists) * width].reshape(-1, width))


def _best_entries(
    find: Callable[[int], Any], limit: int, vector: Vectors, k: int, weight: float
) -> list[dict[str, Any]]:
    """Returns the k best entries, looking at more rows where videos have many frames among the best.

    Args:
        find: returns a pyarrow Table of up to so many of the nearest rows; None without a table.
        limit: of the rows that are looked at first.
        vector: as in `_reranked`.
        k: as in `_reranked`.
        weight: as in `_reranked`.
    """
    while True:
        rows = find(limit)
        found = [] if rows is None else _reranked(rows, vector, k, weight)
        if rows is None or len(found) == k or len(rows) < limit:
            return found
        limit *= MORE_FRAMES


def _reranked(rows: Any, vector: Vectors, k: int, weight: float) -> list[dict[str, Any]]:
    """Returns the k entries of the largest exact scores, the largest first: images, and the best frames of videos."""
    if not len(rows):
        return []
    stored, dim = vectors_of(rows), len(vector)
    cosines, hub_scores = stored[:, :dim] @ unit(vector[None])[0], stored[:, dim]
    names = [*FOUND, *ENTRY, *PHOTO]
    columns = [rows[name].to_pylist() for name in names]
    ordered = np.argsort(weight * hub_scores - cosines, kind="stable").tolist()
    contents, of_entry = columns[names.index("content")], dict[str, int]()
    for place in ordered:
        of_entry.setdefault(contents[place], place)
    best = list(of_entry.values())[:k]
    return [
        {
            **{name: column[place] for name, column in zip(names, columns)},
            "cosine": float(cosines[place]),
            "hub_score": float(hub_scores[place]),
            "vector": stored[place, :dim],
        }
        for place in best
    ]


def _probes(rows: int) -> int:
    """Returns the number of partitions that a query of a table of so many rows searches."""
    return max(PROBES, rows // ROWS_IN_PARTITION // PARTITIONS_PER_PROBE)


def _refine_factor(k: int) -> int:
    """Returns how many candidates there are for each of the k results."""
    return max(REFINE, -(-CANDIDATES // k))
