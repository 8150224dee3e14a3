"""Duplicate images, recognized by the hash of their file: kept in one split only, and counted once in evaluation."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from training.data.samples import SPLITS, Row, merged
from training.data.sources import Captions
from training.run.record import Duplicates
from training.run.source import SourceError
from turkish_clip.images import ImageError

log = logging.getLogger("training")
DIGEST_BYTES = 16  # of the hash, kept per image: two of a billion files share them with a probability below 1e-20
Digests = NDArray[np.bytes_]


@dataclass(frozen=True)
class DisjointSplits:
    """A source whose splits have no image in common.

    Attributes:
        removed: per split, how many rows were removed because a later split has their image.
        repeated: per split, how many of the remaining rows show the same image as an earlier row.
        digests: (n,) digests of the remaining rows; empty where they are unknown.
    """

    captions: Captions
    removed: dict[str, int]
    repeated: dict[str, int]
    digests: Digests = field(default_factory=lambda: np.empty(0, np.bytes_))

    @property
    def duplicates(self) -> Duplicates | None:
        """The counts as run.json records them; None where the image embeddings have no hashes."""
        return Duplicates(self.removed, self.repeated) if self.removed else None


def disjoint_splits(captions: Captions, digests: Digests) -> DisjointSplits:
    """Removes each image from all splits but its last (of train, validation, test), and logs what it removes.

    Args:
        captions: the source.
        digests: (n,) digests of the files of its rows.

    Raises:
        SourceError: nothing is left of a split.
    """
    splits = captions.rows.splits
    kept = in_last_split(digests, splits)
    repeats = kept & (first_occurrences(digests, splits) != np.arange(len(digests)))
    removed = {name: int((~kept & (splits == number)).sum()) for number, name in enumerate(SPLITS) if name}
    repeated = {name: int((repeats & (splits == number)).sum()) for number, name in enumerate(SPLITS) if name}
    for number, name in enumerate(SPLITS):
        if name and removed[name] and not (kept & (splits == number)).any():
            raise SourceError(
                f"expected images of its own in the {name} split of {captions.name}, got {removed[name]} that are "
                "all in validation or test too; add other images to it"
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
    """Returns the rows with those of the same image merged into the first of them.

    Args:
        rows: the rows; returned as they are where no image repeats.
        digests: (n,) digests of their files.
    """
    firsts = first_occurrences(digests, np.zeros(len(rows), np.uint8)).tolist()
    images: dict[int, Row] = {}
    for number, row in zip(firsts, rows):
        first = images.get(number)
        images[number] = row if first is None else merged(first, row)
    return rows if len(images) == len(rows) else list(images.values())


def digests_of_files(rows: Iterable[Row], count: int) -> Digests:
    """Returns the (count,) digests of the rows' files; of the image_id where a file does not open as an image.

    Every image is opened, since broken files are often identical (empty, or a 404 page) without being one image.

    Args:
        rows: the rows; each is read once.
        count: their number.
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
    """Returns for each row whether no later split has its image: (n,) bool.

    >>> in_last_split(np.array([b"a", b"b", b"a"]), np.array([0, 0, 2], np.uint8)).tolist()
    [False, True, True]

    Args:
        digests: (n,) digests of the rows' files.
        splits: (n,) number of each row's split, as in SPLITS.
    """
    order = np.lexsort((splits, digests))
    ends = np.ones(len(order), bool)
    ends[:-1] = digests[order[1:]] != digests[order[:-1]]
    last = np.flatnonzero(ends)
    kept = np.empty(len(order), bool)
    kept[order] = splits[order] == splits[order[last[np.cumsum(ends) - ends]]]
    return kept


def first_occurrences(digests: Digests, splits: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Returns for each row the number of the first row that has the same image in the same split: (n,) int64.

    >>> first_occurrences(np.array([b"a", b"b", b"a", b"a"]), np.array([0, 0, 0, 2], np.uint8)).tolist()
    [0, 1, 0, 3]

    Args:
        digests: (n,) digests of the rows' files.
        splits: (n,) number of each row's split, as in SPLITS.
    """
    order = np.lexsort((splits, digests))  # stable: duplicates stay in the order of the source
    begins = np.ones(len(order), bool)
    begins[1:] = (digests[order[1:]] != digests[order[:-1]]) | (splits[order[1:]] != splits[order[:-1]])
    firsts = np.empty(len(order), np.int64)
    firsts[order] = order[begins][np.cumsum(begins) - 1]
    return firsts


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} of {name}" for name, count in counts.items() if count)
