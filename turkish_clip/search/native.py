"""Reads the tables of an index in a folder through LanceDB's compiled module alone.

LanceDB's Python package takes over a second to import, most of it for services and pandas, which reading a table does
not need: with it, a search of one's own images would mostly wait for imports.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from turkish_clip.search.storage import TABLE_SUFFIX

if TYPE_CHECKING:
    from turkish_clip.metrics import Vectors

PACKAGE, COMPILED = "lancedb", "lancedb._lancedb"
KNOWN = ("0.40.",)  # begin the versions whose compiled module was read; of others the package is used


class NativeTable:
    """One table, to read from."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def checkout_latest(self) -> None:
        """Moves on to what other processes have written since."""
        result_of(_called(self._table.checkout_latest))

    @property
    def schema(self) -> Any:
        """The pyarrow schema."""
        return result_of(_called(self._table.schema))

    def count_rows(self, condition: str | None = None) -> int:
        """Returns the number of rows that meet a condition in SQL; None counts all."""
        return int(result_of(_called(self._table.count_rows, condition)))

    def rows(self, condition: str | None, columns: Sequence[str] | None) -> Any:
        """Returns rows as a pyarrow Table.

        Args:
            condition: in SQL; None takes all rows.
            columns: by name; None takes all.
        """
        query = self._table.query()
        if condition is not None:
            query.where(condition)
        if columns is not None:
            query.select_columns(list(columns))
        return result_of(_read(query))

    def nearest(
        self, vector: Vectors, limit: int, where: str | None, probes: int | None, columns: Sequence[str], metric: str
    ) -> Any:
        """Returns the rows nearest to a vector as a pyarrow Table.

        Args:
            vector: (width,) float32, as wide as the stored ones.
            limit: number of rows.
            where: a condition in SQL; None searches all rows.
            probes: number of partitions that are searched; None compares with every vector.
            columns: by name.
            metric: of the distance.
        """
        import pyarrow as pa

        # pa.array asks whether it was given something of pandas, and imports that to find out
        flat = pa.py_buffer(np.ascontiguousarray(vector, np.float32))
        query = self._table.query().nearest_to(pa.FloatArray.from_buffers(pa.float32(), len(vector), [None, flat]))
        query.column("vector")
        query.distance_type(metric)
        if where is not None:
            query.where(where)
        query.select_columns(list(columns))
        if probes is None:
            query.bypass_vector_index()
        else:
            query.nprobes(probes)
        query.limit(limit)
        return result_of(_read(query))


async def _called(method: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a method that starts its work in the running loop, and returns the result."""
    return await method(*arguments)


async def _read(query: Any) -> Any:
    import pyarrow as pa

    stream = await query.execute()
    return pa.Table.from_batches([batch async for batch in stream], schema=stream.schema)


class NativeTables:
    """The tables of an index in a folder, to read from."""

    def __init__(self, compiled: Any, uri: str) -> None:
        self._compiled = compiled
        self._uri = uri

    @classmethod
    def of(cls, uri: str) -> NativeTables | None:
        """Returns the tables in a folder; None if LanceDB's package is loaded anyway, or is of an unknown version."""
        if PACKAGE in sys.modules:
            return None
        compiled = sys.modules.get(COMPILED) or _load()
        return None if compiled is None else cls(compiled, uri)

    def has(self, name: str) -> bool:
        """Returns whether there is a table, finished or not."""
        return (Path(self._uri) / f"{name}{TABLE_SUFFIX}").is_dir()

    def open(self, name: str) -> NativeTable:
        """Opens a table that exists."""
        return NativeTable(result_of(self._open(name)))

    async def _open(self, name: str) -> Any:
        connection = await self._compiled.connect(self._uri)
        return await connection.open_table(name)


def _load() -> Any:
    """Loads LanceDB's compiled module without its package, which finds it loaded if it is imported later.

    Returns:
        The module, or None if it is of an unknown version or does not load.
    """
    package = PathFinder.find_spec(PACKAGE)
    folders = package.submodule_search_locations if package is not None else None
    if not folders or not any(_is_known(Path(folder).parent) for folder in folders):
        return None
    spec = PathFinder.find_spec(COMPILED, folders)
    if spec is None or spec.loader is None:
        return None
    module = module_from_spec(spec)
    sys.modules[COMPILED] = module
    try:
        spec.loader.exec_module(module)
    except ImportError:
        del sys.modules[COMPILED]
        return None
    return module


def _is_known(packages: Path) -> bool:
    """Returns whether a folder of packages holds LanceDB in a known version; importlib.metadata takes longer to ask."""
    return any(any(packages.glob(f"{PACKAGE}-{begin}*.dist-info")) for begin in KNOWN)


def result_of(coroutine: Coroutine[Any, Any, Any]) -> Any:
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
