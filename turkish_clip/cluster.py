"""Search of an index by the workers of a Ray cluster (extra `distributed`): each its part, the best of all kept."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from turkish_clip.errors import InputError, one_line

LOCAL = "local"  # in place of an address: a cluster of its own on this machine


class ClusterError(InputError):
    """A cluster that can't be joined."""


class SearchCluster:
    """Workers that look through parts of a Lance table; they stay for the next query.

    Args:
        address: "auto" for the cluster that this machine is a node of, or "local" for one of its own, which listens on
            127.0.0.1 alone; or the address that ray.init takes.
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
            raise ClusterError(
                'expected Ray and lance-ray, got none installed; pip install "turkish-clip[distributed]"'
            ) from error
        if not ray.is_initialized():
            join(address, workers)
        self.workers = workers
        self._pool: Any = pool.Pool(processes=workers, ray_remote_args={"num_cpus": 0.5})

    def nearest(self, table: Any, nearest: dict[str, Any], columns: Sequence[str], where: str | None) -> Any:
        """The nearest rows of all parts.

        Args:
            table: a LanceDataset; its address goes to the workers, not its rows.
            nearest: column, q, k, metric and the like, as Lance's scanner takes them. The metric must not be dot: there
                lance-ray 0.5 counts parts without partitions from another zero than the others, and merges wrongly.
            columns: to return, beside _distance.
            where: a condition in SQL, or None.

        Returns:
            A pyarrow Table, the nearest first.
        """
        from lance_ray import vector_search
        from lance_ray.pool import set_global_pool

        set_global_pool(self._pool)  # else each query starts and stops processes of its own
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
        """Stops the workers; a cluster that others use goes on."""
        self._pool.terminate()
        self._pool.join()


@contextmanager
def joined(address: str, workers: int) -> Iterator[Any]:
    """Ray, joined to a cluster, and left at the end; one of our own is stopped.

    Raises:
        ClusterError: Ray is not installed, or there is no cluster at the address.
    """
    _before_import(address)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ClusterError('expected Ray, got none installed; pip install "turkish-clip[distributed]"') from error
    here = not ray.is_initialized()
    if here:
        join(address, workers)
    try:
        yield ray
    finally:
        if here:
            ray.shutdown()


def _before_import(address: str) -> None:
    """What Ray reads from the environment as it is imported."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address == LOCAL:  # without it, Ray listens on all of the machine's addresses
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


def join(address: str, workers: int) -> None:
    """Joins a cluster, or starts one."""
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
