"""The records of a source, the rows that they become, and skipped samples with their reasons."""

from __future__ import annotations

import json
import posixpath
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from training.data.image_files import resolve_image_path
from training.data.lazy_images import LazyImage, MissingImage
from training.run.source import SourceError
from turkish_clip.decoding import ImageInput
from turkish_clip.errors import one_line
from turkish_clip.images import OpenedImage, open_image
from turkish_clip.strict_json import json_text

SPLITS = ("", "train", "validation", "test")  # "": the source gives none
SAMPLE_IMAGE = "__image__"  # the key of a record's image where the source's layout, and no column name, determines it


def one_spelling(name: str) -> str:
    """Returns a name that is a path from here as paths are spelled in image_ids; any other as it is.

    >>> one_spelling("./x//0.png"), one_spelling("x//0.png")
    ('x/0.png', 'x//0.png')
    """
    return posixpath.normpath(name) if name.startswith("./") else name


@dataclass(frozen=True)
class Record:
    """One row of a source, before its columns have a meaning.

    Attributes:
        values: column → value; an image inside the source is a `LazyImage`.
        folder: what relative paths start from; None where there are no files.
        confined: whether paths that leave the folder are refused.
        number: the row's number, from 1, for messages and as the name of an unnamed image.
        split: what the source's layout calls the split; empty where it gives none.
        prefix: what precedes the image's path in its image_id.
    """

    values: dict[str, Any]
    folder: Path | None
    confined: bool
    number: int
    split: str = ""
    prefix: str = ""

    def _cell(self, column: str) -> Any:
        """Returns the value of a column of images; of a list of one, that one."""
        value = self.values.get(column)
        return value[0] if isinstance(value, list) and len(value) == 1 else value

    def name(self, column: str) -> str:
        """Returns the image's path as written, or the row's number in eight digits, after its split if there is one."""
        value = self._cell(column)
        if isinstance(value, dict):
            value = value.get("path")
        elif isinstance(value, LazyImage):
            value = getattr(value, "name", "")
        return (
            value if isinstance(value, str) and value else f"{self.split}{'-' if self.split else ''}{self.number:08d}"
        )

    def path(self, column: str) -> str:
        """Returns the path of an image, on disk or in its table or shard, in one spelling; empty without one.

        It starts from the record's folder where the image is below it.

        >>> Record({"a": "./x//0.png", "b": "/data/x/0.png"}, Path("/data"), True, 1).path("a")
        'x/0.png'
        """
        value = self._cell(column)
        value = value.get("path") if isinstance(value, dict) else value
        value = getattr(value, "name", "") if isinstance(value, LazyImage) else value
        if not isinstance(value, str) or not value.strip() or "://" in value:
            return ""
        path = posixpath.normpath(value.strip().replace("\\", "/"))
        if path.startswith("/") and self.folder is not None:
            above = posixpath.normpath(self.folder.absolute().as_posix()).rstrip("/") + "/"
            return path.removeprefix(above)
        return path

    def own_id(self, column: str, *, absolute: bool) -> str:
        """Returns the image_id of a record without a column of them: its image's path, or its name, after the prefix.

        One image on disk has one, whether its path is written as 0.png, ./0.png or from the root of the machine. The
        names of images in tables and shards are no paths, and as they are written.

        Args:
            column: that of images.
            absolute: whether it is the path from the root, as the source's first one is.
        """
        path = "" if isinstance(self.values.get(column), LazyImage) else self.path(column)
        if path and absolute and self.folder is not None:
            path = posixpath.normpath((self.folder.absolute() / path).as_posix())
        return self.prefix + (path or self.name(column))

    def image(self, column: str) -> Path | LazyImage | str:
        """Returns the image's path or lazy image, or as text the reason why there is none."""
        value = self._cell(column)
        if isinstance(value, MissingImage):
            return value.reason
        if isinstance(value, LazyImage):
            return value
        if isinstance(value, dict):  # the Hub's layout of an image in Parquet
            value = value.get("path")
        return resolve_image_path(self.folder, value, confined=self.confined)


@dataclass(frozen=True)
class SkippedSample:
    """A row or image that is left out, and why."""

    image_id: str
    path: str
    reason: str

    def as_json(self) -> str:
        """Returns the sample as a line of skipped.jsonl."""
        return json_text({"image_id": self.image_id, "path": self.path, "reason": self.reason})

    @classmethod
    def from_lines(cls, lines: bytes, where: str) -> list[SkippedSample]:
        """Returns the samples of what `as_json` wrote, one a line.

        Args:
            lines: in UTF-8.
            where: what an error names as their place.

        Raises:
            SourceError: a line is damaged.
        """
        samples: list[SkippedSample] = []
        try:
            for line in lines.decode("utf-8").removesuffix("\n").split("\n") if lines else []:
                values = json.loads(line)
                if not isinstance(values, dict) or set(values) != {"image_id", "path", "reason"}:
                    raise ValueError("other fields than image_id, path and reason")
                if not all(isinstance(value, str) for value in values.values()):
                    raise ValueError("a field that is no text")
                samples.append(cls(**values))
        except (ValueError, RecursionError) as error:
            raise SourceError(
                f"expected a skipped image in line {len(samples) + 1} of {where}, got {one_line(error)}; delete the "
                "folder, and embed or import again"
            ) from error
        return samples


@dataclass(frozen=True)
class Negative:
    """A true caption of an image and one minimal, false change of it: a forced choice for the image.

    Attributes:
        probe: what the change probes, such as binding; pairs of one name are measured together.
        caption: the true Turkish text.
        negative: the false one.
        caption_en: the true text in English; empty without one.
        negative_en: the false one in English; empty without one.
    """

    probe: str
    caption: str
    negative: str
    caption_en: str = ""
    negative_en: str = ""


@dataclass(frozen=True)
class Row:
    """One image with its captions.

    Attributes:
        image: a path, or a `LazyImage`.
        captions: distinct Turkish texts.
        english: distinct English captions.
        split: "train", "validation" or "test"; empty where the source gives none.
        source: the source's name, as configured.
        labels: the Turkish names of the classes that the image shows.
        translations: for each caption the index of its translation in `english`, -1 where none is known; or empty.
        negatives: true captions, each with a false change of it.
        slices: the names of the slices that the image belongs to.
    """

    image_id: str
    image: Any
    captions: tuple[str, ...]
    english: tuple[str, ...]
    split: str
    source: str = ""
    labels: tuple[str, ...] = ()
    translations: tuple[int, ...] = ()
    negatives: tuple[Negative, ...] = ()
    slices: tuple[str, ...] = ()

    def translated(self) -> dict[str, str]:
        """Returns caption → English text for the captions whose translation is known."""
        return {text: self.english[place] for text, place in zip(self.captions, self.translations) if place >= 0}

    @property
    def size(self) -> int:
        """Bytes of the image's file, or of the table that holds it; 0 in a Hub data set, or if the file is gone."""
        try:
            return self.image.stat().st_size if isinstance(self.image, Path) else getattr(self.image, "size", 0)
        except OSError:
            return 0

    @property
    def file(self) -> Path | bytes:
        """The image's path, or the bytes of its file.

        Raises:
            ImageError: there is none.
            SourceError: the source can't be read any more.
        """
        return self.image if isinstance(self.image, Path) else self.image.read()

    def open(self, min_side: int | None = None) -> Image.Image:
        """Opens the image as RGB; `min_side` as in `open_image`.

        Raises:
            ImageError: it does not open.
            SourceError: the source can't be read any more.
        """
        return open_image(self.file, min_side=min_side)

    def load(self, min_side: int | None = None) -> OpenedImage:
        """Opens the image as `open` does, and hashes its file.

        Raises:
            ImageError: it does not open.
            SourceError: the source can't be read any more.
        """
        return self.fetched().load(min_side)

    def fetched(self) -> ImageInput:
        """Returns the image alone, which another process can open and hash: as a path, or as the bytes of its file.

        Raises:
            ImageError: there is none.
            SourceError: the source can't be read any more.
        """
        return ImageInput(self.file, hashed=True)


def merged(first: Row, second: Row) -> Row:
    """Merges two rows of one image; if they are of two splits, it is in the later one: test, or else validation.

    Args:
        first: gives the image_id, image and source, and comes first in captions and labels.
        second: gives further captions, English captions, translations, labels, negatives and slices.
    """
    english = tuple(dict.fromkeys(first.english + second.english))
    translated = second.translated() | first.translated()
    captions = tuple(dict.fromkeys(first.captions + second.captions))
    return replace(
        first,
        split=max(first.split, second.split, key=SPLITS.index),
        captions=captions,
        english=english,
        translations=tuple(english.index(translated[text]) if text in translated else -1 for text in captions),
        labels=tuple(dict.fromkeys(first.labels + second.labels)),
        negatives=tuple(dict.fromkeys(first.negatives + second.negatives)),
        slices=tuple(dict.fromkeys(first.slices + second.slices)),
    )
