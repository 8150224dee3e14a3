"""One row for each image: rows of one image_id are merged where they are of one image, and kept apart where not."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import reduce
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np

from training.data.image_files import NO_IMAGE_NAMED
from training.data.lazy_images import LazyImage, MissingImage
from training.data.samples import Row, merged
from training.data.store import IdIndex, Rows, RowWriter
from training.run.provenance import sha256_of
from training.run.source import Source, SourceError
from turkish_clip.images import ImageError

log = logging.getLogger("training")
MAX_PAIRS_IN_PASSING = 1000  # images on disk that are compared by commands that open none
MAX_REMOTE_PAIRS = 16  # images over the network that are compared: ids that restart show in the first ones


@dataclass
class Identity:
    """Tells whether two rows with one image_id are of one image, by where the images are, and else by their bytes.

    Attributes:
        source: where the rows are from.
        own_ids: whether the image_ids are those of a column; else they are the images' paths or row numbers.
        opens_images: whether the command opens images anyway, so that all may be compared under ids of a column. Others
            compare the first of those on disk: the command that embedded them has compared all.
    """

    source: Source
    own_ids: bool
    opens_images: bool
    _remote_pairs: int = 0
    _local_pairs: int = 0

    def trusts(self, first: Row, second: Row) -> bool:
        """Returns whether the image_id alone, without a look at the images, makes two rows those of one image.

        Args:
            first: the first row of the image_id, whose image is in another place than that of `second`.
            second: another row of it.
        """
        images = (first.image, second.image)
        if None in images:
            return True
        if not self.own_ids:
            return False
        if any(isinstance(image, MissingImage) and image.reason == NO_IMAGE_NAMED for image in images):
            return True
        if not all(isinstance(image, LazyImage) for image in images) or MissingImage in map(type, images):
            return False
        if any(image.is_remote for image in images):
            self._remote_pairs += 1
            return not self.opens_images or self._remote_pairs > MAX_REMOTE_PAIRS
        self._local_pairs += 1
        return not self.opens_images and self._local_pairs > MAX_PAIRS_IN_PASSING


def one_per_image(rows: Rows, new_writer: Callable[[], RowWriter], identity: Identity) -> Rows:
    """Merges the rows of each image into one, in the position of the first of them.

    Where ids come from images' paths, other images of the same name get a number after it (name#2).

    Args:
        rows: all rows of a source.
        new_writer: makes the writer of the merged rows.
        identity: tells which rows of one image_id are of one image.

    Raises:
        SourceError: an id column gives two images one image_id.
    """
    index = IdIndex(rows.image_ids())
    firsts = index.firsts()
    if (firsts == np.arange(len(firsts))).all():
        return rows
    renamed = _renamed(rows, firsts, index, identity)
    if renamed:
        _log_renamed(renamed, identity.source)
        names = (renamed.get(number, name) for number, name in enumerate(rows.image_ids()))
        firsts = IdIndex(names).firsts()
    writer, order = new_writer(), np.argsort(firsts, kind="stable")
    torn = 0
    numbered = zip(order.tolist(), firsts[order].tolist(), rows.take(order))
    for _, group in groupby(numbered, key=itemgetter(1)):
        found = [replace(row, image_id=renamed.get(number, row.image_id)) for number, _, row in group]
        torn += len({row.split for row in found}) > 1
        writer.add(reduce(merged, found))
    if torn:
        log.warning(
            "%s: %d images are in several splits; each is kept in test, or else in validation, with all its captions",
            identity.source.captions, torn,
        )  # fmt: skip
    return writer.finish()


def _renamed(rows: Rows, firsts: np.ndarray, index: IdIndex, identity: Identity) -> dict[int, str]:
    """Returns row number → new image_id of the rows whose image_id is another image's.

    Raises:
        SourceError: an id column gives two images one image_id.
    """
    counts = np.bincount(firsts, minlength=len(firsts))
    numbers = np.flatnonzero(counts[firsts] > 1)
    numbers = numbers[np.argsort(firsts[numbers], kind="stable")]
    renamed: dict[int, str] = {}
    for _, group in groupby(zip(firsts[numbers].tolist(), numbers.tolist(), rows.take(numbers)), key=itemgetter(0)):
        renamed.update(_renamed_in_group(((number, row) for _, number, row in group), index, identity))
    return renamed


def _renamed_in_group(group: Iterator[tuple[int, Row]], index: IdIndex, identity: Identity) -> dict[int, str]:
    first: Row | None = None
    names: dict[str, str] = {}
    renamed: dict[int, str] = {}
    for number, row in group:
        if first is None:
            first = row
            continue
        if row.image == first.image or identity.trusts(first, row):
            continue
        if not names:
            names[_content_key(first)] = first.image_id
        key = _content_key(row)
        if key not in names:
            if identity.own_ids:
                raise _two_images(first, row, identity.source)
            names[key] = _free_name(first.image_id, len(names) + 1, index)
        if names[key] != row.image_id:
            renamed[number] = names[key]
    return renamed


def _free_name(name: str, number: int, index: IdIndex) -> str:
    while index.find([f"{name}#{number}"])[0] >= 0:
        number += 1
    return f"{name}#{number}"


def _content_key(row: Row) -> str:
    """Returns the hash of the bytes of a row's image, or its place if it can't be read."""
    try:
        file = row.file
        return sha256_of(file) if isinstance(file, Path) else hashlib.sha256(file).hexdigest()
    except (ImageError, OSError):
        return f"unread {place_of(row)}"


def place_of(row: Row) -> str:
    """Returns where a row's image is, for messages."""
    image = row.image
    return image.place if isinstance(image, LazyImage) else str(image)


def _two_images(first: Row, second: Row, source: Source) -> SourceError:
    column = source.id_column or "image_id"
    return SourceError(
        f"expected one image for each {column}, got two for {first.image_id!r} in {source.captions}: {place_of(first)} "
        f"and {place_of(second)}; if {column} starts again in each split or file, or names something else, give "
        "--id_column none, which names images by their place"
    )


def _log_renamed(renamed: dict[int, str], source: Source) -> None:
    example = next(iter(renamed.values()))
    log.warning(
        "%s: %d rows have the path of another image; they are told apart by a number, such as %s",
        source.captions, len(renamed), example,
    )  # fmt: skip
