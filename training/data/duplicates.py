"""The same image under several names, by the hash of its file: in one split alone, and once where it is measured."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from training.data.samples import Row, merged
from training.data.sources import Captions
from training.data.store import SPLITS
from training.run.source import CaptionsError
from turkish_clip.images import ImageError

log = logging.getLogger("training")
DIGEST_BYTES = 16  # of the hash, held per picture: two of a billion files agree in them with a probability below 1e-20
Digests = NDArray[np.bytes_]


@dataclass(frozen=True)
class Apart:
    """A source of which no picture is in more than one split.

    Attributes:
        left_out: per split how many rows are left out, because their pictures are in validation or test.
        repeated: per split how many rows are left that show a picture of an earlier row again.
        digests: (n,) of the rows that are left, or none where they are not known.
    """

    captions: Captions
    left_out: dict[str, int]
    repeated: dict[str, int]
    digests: Digests = field(default_factory=lambda: np.empty(0, np.bytes_))

    def as_json(self) -> dict[str, Any]:
        """The counts, as a run keeps them; empty where the targets hold no hashes."""
        return {"duplicates": {"left_out": self.left_out, "repeated": self.repeated}} if self.left_out else {}


def apart_by(captions: Captions, digests: Digests) -> Apart:
    """`keep_apart` by the digest of each row: (n,).

    Raises:
        CaptionsError: nothing is left of a split.
    """
    splits = captions.rows.splits
    kept = in_last_split(digests, splits)
    again = kept & (first_places(digests, splits) != np.arange(len(digests)))
    left_out = {name: int((~kept & (splits == number)).sum()) for number, name in enumerate(SPLITS) if name}
    repeated = {name: int((again & (splits == number)).sum()) for number, name in enumerate(SPLITS) if name}
    for number, name in enumerate(SPLITS):
        if name and left_out[name] and not (kept & (splits == number)).any():
            raise CaptionsError(
                f"expected pictures of its own in the {name} split of {captions.name}, got {left_out[name]} that are "
                "all in validation or test, too; give it others"
            )
    if any(left_out.values()):
        log.warning("left out, because the same picture is in validation or test: %s", _told(left_out))
    if any(repeated.values()):
        log.info("the same picture under another name: %s", _told(repeated))
    if kept.all():
        return Apart(captions, left_out, repeated, digests)
    rows = captions.rows.take(np.flatnonzero(kept))
    return Apart(dataclasses.replace(captions, rows=rows), left_out, repeated, digests[kept])


def once_by(rows: Sequence[Row], digests: Digests) -> Sequence[Row]:
    """`once` by the digest of each row: (n,)."""
    firsts = first_places(digests, np.zeros(len(rows), np.uint8)).tolist()
    pictures: dict[int, Row] = {}
    for place, row in zip(firsts, rows):
        first = pictures.get(place)
        pictures[place] = row if first is None else merged(first, row)
    return rows if len(pictures) == len(rows) else list(pictures.values())


def digests_of_files(rows: Iterable[Row], count: int) -> Digests:
    """The (count,) digests of the files of so many rows; for one that does not open, of its name: it is no other's.

    Every picture is opened, since files that are none are often the same (an empty one, a page that says 404).
    """
    digests = np.empty(count, f"S{DIGEST_BYTES}")
    for number, row in enumerate(tqdm(rows, total=count, desc="hashes", unit="picture", mininterval=1)):
        try:
            digest = row.load(min_side=1).content
        except ImageError:
            digest = hashlib.sha256(row.image_id.encode()).digest()
        digests[number] = digest[:DIGEST_BYTES]
    return digests


def in_last_split(digests: Digests, splits: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """For each picture whether no later split has it: (n,).

    >>> in_last_split(np.array([b"a", b"b", b"a"]), np.array([0, 0, 2], np.uint8)).tolist()
    [False, True, True]
    """
    order = np.lexsort((splits, digests))
    ends = np.ones(len(order), bool)
    ends[:-1] = digests[order[1:]] != digests[order[:-1]]
    last = np.flatnonzero(ends)
    kept = np.empty(len(order), bool)
    kept[order] = splits[order] == splits[order[last[np.cumsum(ends) - ends]]]
    return kept


def first_places(digests: Digests, splits: NDArray[np.uint8]) -> NDArray[np.int64]:
    """For each picture the place where its split has it first: (n,).

    >>> first_places(np.array([b"a", b"b", b"a", b"a"]), np.array([0, 0, 0, 2], np.uint8)).tolist()
    [0, 1, 0, 3]
    """
    order = np.lexsort((splits, digests))  # stable: equal ones stay in the order of the source
    begins = np.ones(len(order), bool)
    begins[1:] = (digests[order[1:]] != digests[order[:-1]]) | (splits[order[1:]] != splits[order[:-1]])
    firsts = np.empty(len(order), np.int64)
    firsts[order] = order[begins][np.cumsum(begins) - 1]
    return firsts


def _told(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} of {name}" for name, count in counts.items() if count)
