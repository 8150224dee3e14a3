"""Flickr and COCO ids in image names, by which a benchmark's images are recognised in a source."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from training.data.lazy_images import MissingImage
from training.data.samples import Row

COCO = re.compile(r"(?:COCO_(?:train|val|test)\d{4}_)?(\d{12})")
NUMBER = re.compile(r"[1-9]\d{0,5}")  # COCO ids as its annotations have them; most are too short for Flickr
FLICKR = re.compile(r"([1-9]\d{5,10})(?:_[0-9a-f]{8,12}(?:_[a-z])?)?")


def id_texts(row: Row) -> list[str]:
    """Returns the texts of a row that may contain an id: its image_id, and the name of its file."""
    return [row.image_id, row.image.name] if isinstance(row.image, (Path, MissingImage)) else [row.image_id]


def ids_of(texts: Iterable[str], *, bare: bool = False) -> set[str]:
    """Returns the Flickr and COCO ids in file names, as "flickr N" and "coco N".

    Args:
        texts: names with or without folders and suffixes.
        bare: also take short bare numbers, which in file names may be row numbers: COCO's, of six digits also Flickr's.

    >>> sorted(ids_of(["train/COCO_train2014_000000000139.jpg", "1009434119_febe49276a.jpg", "elma"]))
    ['coco 139', 'flickr 1009434119']
    """
    found = set()
    for text in texts:
        stem = text.replace("\\", "/").rpartition("/")[2].partition(".")[0]
        if match := COCO.fullmatch(stem):
            found.add(f"coco {int(match[1])}")
        elif bare and NUMBER.fullmatch(stem):
            found |= {f"coco {stem}"} | ({f"flickr {stem}"} if len(stem) > 5 else set())
        elif match := FLICKR.fullmatch(stem):
            found.add(f"flickr {int(match[1])}")
    return found
