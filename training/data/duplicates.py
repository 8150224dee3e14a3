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
from training.run.source import SourceError
from turkish_clip.images import ImageError

log = logging.getLogger("training")
DIGEST_BYTES = 16  # of the hash, held per image: two of a billion files agree in them with a probability below 1e-20
Digests = NDArray[np.bytes_]


@dataclass(frozen=True)
class DisjointSplits:
    """A source of which no image is in more than one split.

    Attributes:
        removed: per split how many rows are left out, because their images are in validation or test.
        repeated: per split how many rows are left that show an image of an earlier row again.
        digests: (n,) of the rows that are left, or none where they are not known.
    """

    captions: Captions
    removed: dict[str, int]
    repeated: dict[str, int]
    digests: Digests = field(default_factory=lambda: np.empty(0, np.bytes_))

    def as_json(self) -> dict[str, Any]:
        """The counts, as a run keeps them; empty where the image embeddings hold no hashes."""
        return {"duplicates": {"removed": self.removed, "repeated": self.repeated}} if self.removed else {}


def disjoint_splits(captions: Captions, digests: Digests) -> DisjointSplits:
    """`remove_cross_split_duplicates` by the digest of each row: (n,).

    Raises:
        SourceError: nothing is left of a split.
    """
    splits = captions.rows.splits
    kept = in_last_split(digests, splits)
    again = kept & (first_places(digests, splits) != np.arange(len(digests)))
    removed = {name: int((~kept & (splits == number)).sum()) for number, name in enumerate(SPLITS) if name}
    repeated = {name: int((again & (splits == number)).sum()) for number, name in enumerate(SPLITS) if name}
    for number, name in enumerate(SPLITS):
        if name and removed[name] and not (kept & (splits == number)).any():
            raise SourceError(
                f"expected images of its own in the {name} split of {captions.name}, got {removed[name]} that are "
                "all in validation or test, too; give it others"
            )
    if any(removed.values()):
        log.warning("left out, because the same image is in validation or test: %s", _counted(removed))
    if any(repeated.values()):
        log.info("the same image under another name: %s", _counted(repeated))
    if kept.all():
        return DisjointSplits(captions, removed, repeated, digests)
    rows = captions.rows.take(np.flatnonzero(kept))
    return DisjointSplits(dataclasses.replace(captions, rows=rows), removed, repeated, digests[kept])


def deduplicate_by_digest(rows: Sequence[Row], digests: Digests) -> Sequence[Row]:
    """`deduplicate` by the digest of each row: (n,)."""
    firsts = first_places(digests, np.zeros(len(rows), np.uint8)).tolist()
    images: dict[int, Row] = {}
    for place, row in zip(firsts, rows):
        first = images.get(place)
        images[place] = row if first is None else merged(first, row)
    return rows if len(images) == len(rows) else list(images.values())


def digests_of_files(rows: Iterable[Row], count: int) -> Digests:
    """The (count,) digests of the files of so many rows; for one that does not open, of its name: it is no other's.

    Every image is opened, since files that are none are often the same (an empty one, a page that says 404).
    """
    digests = np.empty(count, f"S{DIGEST_BYTES}")
    for number, row in enumerate(tqdm(rows, total=count, desc="hashes", unit="image", mininterval=1)):
        try:
            digest = row.load(min_side=1).content
        except ImageError:
            digest = hashlib.sha256(row.image_id.encode()).digest()
        digests[number] = digest[:DIGEST_BYTES]
    return digests


def in_last_split(digests: Digests, splits: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """For each image whether no later split has it: (n,).

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
    """For each image the place where its split has it first: (n,).

    >>> first_places(np.array([b"a", b"b", b"a", b"a"]), np.array([0, 0, 0, 2], np.uint8)).tolist()
    [0, 1, 0, 3]
    """
    order = np.lexsort((splits, digests))  # stable: equal ones stay in the order of the source
    begins = np.ones(len(order), bool)
    begins[1:] = (digests[order[1:]] != digests[order[:-1]]) | (splits[order[1:]] != splits[order[:-1]])
    firsts = np.empty(len(order), np.int64)
    firsts[order] = order[begins][np.cumsum(begins) - 1]
    return firsts


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} of {name}" for name, count in counts.items() if count)
