"""Where names stand in a sequence of any length, by digests in place of the names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

DIGEST_BYTES = 16  # two of a trillion names agree in them with a probability below 1e-14

Places = NDArray[np.int64]


class Ids:
    """Names of a sequence, 24 bytes each: their digests in order, and where each stands."""

    def __init__(self, names: Iterable[str]) -> None:
        digests = _digests(names)
        self._order: Places = np.argsort(digests, kind="stable")
        self._digests = digests[self._order]

    def __len__(self) -> int:
        return len(self._order)

    def find(self, names: Iterable[str]) -> Places:
        """The last place of each name, (n,) int64; -1 where it is none of them."""
        wanted = _digests(names)
        if not len(self):
            return np.full(len(wanted), -1, np.int64)
        found = np.searchsorted(self._digests, wanted, side="right") - 1
        return np.where(self._digests[found] == wanted, self._order[found], -1)  # place -1 is the last: another name

    def firsts(self) -> Places:
        """For each name of the sequence the place where it comes first: (n,) int64."""
        begins = np.ones(len(self), bool)
        begins[1:] = self._digests[1:] != self._digests[:-1]
        result = np.empty(len(self), np.int64)
        result[self._order] = self._order[begins][np.cumsum(begins) - 1]
        return result


def _digests(names: Iterable[str]) -> NDArray[np.bytes_]:
    joined = bytearray()
    for name in names:
        joined += hashlib.blake2b(name.encode(), digest_size=DIGEST_BYTES).digest()
    return np.frombuffer(joined, f"S{DIGEST_BYTES}")
