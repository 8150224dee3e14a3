"""What a source gives: records, the rows that they become, and skipped samples with their reasons."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from training.data.lazy_images import LazyImage, MissingImage
from turkish_clip.images import Opened, open_hashed, open_image


@dataclass(frozen=True)
class Record:
    """One row of a source, before its columns have a meaning.

    Attributes:
        values: column → value; an image inside the table is a `LazyImage`, or `MissingImage`.
        folder: where a relative path starts, or None where there are no files.
        confined: whether a path may not leave the folder.
        number: the row's number, from 1, for messages and as the name of an image that has none.
        split: the split where the source's layout gives it.
        prefix: put before the image's path to make its name.
    """

    values: dict[str, Any]
    folder: Path | None
    confined: bool
    number: int
    split: str = ""
    prefix: str = ""

    def name(self, column: str) -> str:
        """The image's path as written, or the row's number."""
        value = self.values.get(column)
        if isinstance(value, dict):
            value = value.get("path")
        elif isinstance(value, (LazyImage, MissingImage)):
            value = getattr(value, "name", "")
        return (
            value if isinstance(value, str) and value else f"{self.split}{'-' if self.split else ''}{self.number:08d}"
        )

    def image(self, column: str) -> Path | LazyImage | str:
        """The way to the image, or why there is none."""
        value = self.values.get(column)
        if isinstance(value, LazyImage):
            return value
        if isinstance(value, MissingImage):
            return value.reason
        if isinstance(value, dict):  # the Hub's own layout of an image in Parquet
            value = value.get("path")
        return inside(self.folder, value, confined=self.confined)


def inside(folder: Path | None, name: object, *, confined: bool) -> Path | str:
    """The file that a cell names, or why it is none.

    Args:
        folder: where a relative path starts, or None where there are no files.
        name: what the cell holds.
        confined: whether a path may not leave the folder.
    """
    if not isinstance(name, str) or not name:
        return "no image named"
    if folder is None:
        return "a path in a data set without files"
    if name.startswith(("http://", "https://")):
        return "a URL, not a file"
    path = folder / name
    try:
        if confined and not path.resolve().is_relative_to(folder.resolve()):
            return "a path that leaves the folder"
        return path if path.is_file() else "no file"
    except (OSError, ValueError):  # longer than a path can be, or with a NUL character
        return "no file"


@dataclass(frozen=True)
class SkippedSample:
    """A row or image that is left out, and why."""

    image_id: str
    path: str
    reason: str

    def as_json(self) -> str:
        return json.dumps({"image_id": self.image_id, "path": self.path, "reason": self.reason}, ensure_ascii=False)


@dataclass(frozen=True)
class Row:
    """One image with its captions.

    Attributes:
        image: a path, or an object whose `read()` gives the bytes of the file.
        split: "train", "validation" or "test".
        source: the source's name, as the configuration has it.
        labels: what the image shows, in Turkish, as a classifier would be asked.
        translations: for each caption the place in `english` of the text that it translates, -1 where none is known;
            empty: of none of them.
    """

    image_id: str
    image: Any
    captions: tuple[str, ...]
    english: tuple[str, ...]
    split: str
    source: str = ""
    labels: tuple[str, ...] = ()
    translations: tuple[int, ...] = ()

    def translated(self) -> dict[str, str]:
        """The captions of which it is known what they translate, with that English text."""
        return {text: self.english[place] for text, place in zip(self.captions, self.translations) if place >= 0}

    @property
    def size(self) -> int:
        """Bytes of the image's file, or of the table that it is in; 0 in a data set of the Hub, or if it is gone."""
        try:
            return self.image.stat().st_size if isinstance(self.image, Path) else getattr(self.image, "size", 0)
        except OSError:
            return 0

    @property
    def file(self) -> Path | bytes:
        """The image's path, or the bytes of its file.

        Raises:
            ImageError: there is none.
        """
        return self.image if isinstance(self.image, Path) else self.image.read()

    def open(self, min_side: int | None = None) -> Image.Image:
        """The image as RGB.

        Raises:
            ImageError: it does not open.
        """
        return open_image(self.file, min_side=min_side)

    def load(self, min_side: int | None = None) -> Opened:
        """The image as RGB, and the hash of its file.

        Raises:
            ImageError: it does not open.
        """
        return open_hashed(self.file, min_side=min_side)


def merged(first: Row, second: Row) -> Row:
    """One image with the captions of two rows, those of the first before those of the second."""
    english = tuple(dict.fromkeys(first.english + second.english))
    translated = second.translated() | first.translated()
    captions = tuple(dict.fromkeys(first.captions + second.captions))
    return replace(
        first,
        captions=captions,
        english=english,
        translations=tuple(english.index(translated[text]) if text in translated else -1 for text in captions),
        labels=tuple(dict.fromkeys(first.labels + second.labels)),
    )


SAMPLE_IMAGE = "__image__"  # where a source's layout, not a name, says which part is the image
