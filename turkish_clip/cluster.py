"""Searches an index on a Ray cluster (extra `distributed`): each worker a part, whose best rows are merged."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from turkish_clip.errors import InputError, not_imported, one_line

LOCAL = "local"  # in place of an address: a new cluster on this machine


class ClusterError(InputError):
    """A cluster that can't be joined."""


class SearchCluster:
    """Workers that search the parts of a Lance table, and keep running between queries.

    Args:
        address: "auto" for this machine's cluster, "local" for a new one on 127.0.0.1, or an address for ray.init.
        workers: processes that search.

    Raises:
        ClusterError: Ray or lance-ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, address: str = LOCAL, workers: int = 2) -> None:
        _before_import(address)
        try:
            import ray
            from lance_ray import pool
        except ImportError as error:
            raise ClusterError(not_imported(error, "Ray and lance-ray", "distributed", "ray", "lance_ray")) from error
        if not ray.is_initialized():
            join(address, workers)
        self.workers = workers
        self._pool: Any = pool.Pool(processes=workers, ray_remote_args={"num_cpus": 0.5})

    def nearest(self, table: Any, nearest: dict[str, Any], columns: Sequence[str], where: str | None) -> Any:
        """Returns the nearest rows of all parts as a pyarrow Table, by ascending distance.

        The metric must not be dot: lance-ray 0.5 measures it from another zero in parts without an index partition,
        and merges wrongly.

        Args:
            table: a LanceDataset; the workers get its address, not its rows.
            nearest: column, q, k, metric and the like, as Lance's scanner takes them.
            columns: to return besides _distance.
            where: a condition in SQL; None searches all rows.
        """
        from lance_ray import vector_search
        from lance_ray.pool import set_global_pool

        set_global_pool(self._pool)  # otherwise each query starts and stops its own processes
        try:
            return vector_search(
                table,
                nearest=nearest,
                columns=list(columns),
                filter=where,
                num_workers=self.workers,
                scanner_options={"prefilter": True} if where else None,
            )
        finally:
            set_global_pool(None)

    def close(self) -> None:
        """Stops the workers; the cluster keeps running."""
        self._pool.terminate()
        self._pool.join()


@contextmanager
def ray_session(address: str, workers: int) -> Iterator[Any]:
    """Yields Ray, connected to a cluster; a connection made here ends with the block, and a local cluster with it.

    Args:
        address: as in `SearchCluster`.
        workers: CPUs of a local cluster; other clusters have their own.

    Raises:
        ClusterError: Ray is not installed, or there is no cluster at the address.
    """
    _before_import(address)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ClusterError(not_imported(error, "Ray", "distributed", "ray")) from error
    here = not ray.is_initialized()
    if here:
        join(address, workers)
    try:
        yield ray
    finally:
        if here:
            ray.shutdown()


def _before_import(address: str) -> None:
    """Sets the environment variables that Ray reads when it is imported."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address == LOCAL:  # otherwise Ray listens on all network addresses of the machine
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


def join(address: str, workers: int) -> None:
    """Connects to a Ray cluster, or starts a local one.

    Args:
        address: as in `SearchCluster`.
        workers: CPUs of a local cluster; other clusters have their own.

    Raises:
        ClusterError: there is no cluster at the address.
    """
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address == LOCAL:
            ray.init(num_cpus=workers, include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, TimeoutError) as error:
        raise ClusterError(
            f"expected a Ray cluster at {address!r}, got {one_line(error, 160)}; "
            "give auto on a node of a cluster, or local"
        ) from error
