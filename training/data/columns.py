"""Which columns of a source mean what, and the row that a record becomes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from training.data.samples import SAMPLE_IMAGE, Record, Row, SkippedSample
from training.run.source import Source, SourceError
from turkish_clip.text import nfc

IMAGE_COLUMNS = ("file_name", "image", "image_path", "path")
CAPTION_COLUMNS = ("captions", "caption", "text")
SAMPLE_IMAGE_COLUMNS = (SAMPLE_IMAGE, "jpg", "png", "webp")  # the last as the Hub's client reads WebDataset shards
SAMPLE_CAPTION_COLUMNS = ("txt",)
ENGLISH_COLUMNS = ("captions_en", "caption_en")
LABEL_COLUMNS = ("labels",)
ID_COLUMNS = ("image_id",)
SPLIT_NAMES = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip


@dataclass(frozen=True)
class Columns:
    """Which columns of a source mean what: from the configuration, or by their usual names."""

    source: Source
    image: str
    captions: tuple[str, ...]
    english: tuple[str, ...]
    labels: tuple[str, ...]
    image_id: str

    @classmethod
    def of(cls, record: Record, source: Source) -> Columns:
        """Chooses among the columns of a source's first record.

        Raises:
            SourceError: one that was named, or that is needed, is not there; lists those that are.
        """
        names = tuple(name for name in record.values if name != SAMPLE_IMAGE)

        def there(chosen: tuple[str, ...]) -> tuple[str, ...]:
            for name in chosen:
                if name not in record.values and name.partition(".")[0] not in names:
                    raise SourceError(
                        f"expected the column {name!r} in {source.captions}, got {', '.join(names)}; name one of those"
                    )
            return chosen

        def usual(candidates: tuple[str, ...], of_samples: tuple[str, ...], option: str) -> str:
            for name in (*of_samples, *candidates):
                if name in record.values:
                    return name
            raise SourceError(
                f"expected a column {' or '.join(candidates)} in {source.captions}, got {', '.join(names)}; "
                f"name it with --{option}"
            )

        image = source.image_column or usual(IMAGE_COLUMNS, SAMPLE_IMAGE_COLUMNS, "image_column")
        return cls(
            source,
            there((image,))[0],
            there(source.caption_columns) or (usual(CAPTION_COLUMNS, SAMPLE_CAPTION_COLUMNS, "caption_columns"),),
            there(source.english_columns) or ENGLISH_COLUMNS,
            there((source.label_column,)) if source.label_column else LABEL_COLUMNS,
            there((source.id_column,))[0] if source.id_column else next((n for n in ID_COLUMNS if n in names), ""),
        )

    def row(self, record: Record) -> Row | SkippedSample:
        """The row that a record makes, or why it makes none."""
        image = record.image(self.image)
        image_id = record.values.get(self.image_id) if self.image_id else None
        image_id = nfc(str(image_id) if image_id not in (None, "") else record.prefix + record.name(self.image))
        if isinstance(image, str):
            return SkippedSample(image_id, record.name(self.image), image)
        turkish, english = _texts(record, self.captions), _texts(record, self.english)
        captions = _distinct(turkish)
        if not captions:
            return SkippedSample(image_id, record.name(self.image), _why_none(record, self.captions))
        return Row(
            image_id,
            image,
            captions,
            _distinct(english),
            self.split(record),
            self.source.captions,
            _distinct(_texts(record, self.labels)),
            translations(captions, turkish, english) if len(turkish) == len(english) else (),
        )

    def split(self, record: Record) -> str:
        """The record's split: its split column, else the source's layout; empty where neither says one that we know."""
        named = str(record.values.get(self.source.split_column) or "")
        if named and named.lower() not in SPLIT_NAMES:
            raise SourceError(
                f"expected train, validation or test in column {self.source.split_column!r} of "
                f"{self.source.captions}, got {named!r} in row {record.number}; name another column with --split_column"
            )
        return SPLIT_NAMES.get((named or record.split).lower(), "")


def translations(captions: Sequence[str], turkish: Sequence[str], english: Sequence[str]) -> tuple[int, ...]:
    """For each caption the place of its translation among the distinct English texts, -1 where it has none.

    >>> translations(["ev", "kuş"], ["ev", "", "kuş", "kuş"], ["house", "tree", "", "bird"])
    (0, -1)

    Args:
        captions: distinct.
        turkish: these captions, in any order and number, and empty ones.
        english: the translation of each of those; empty: none.
    """
    place_of = {text: place for place, text in enumerate(_distinct(english))}
    of = {text: place_of.get(other, -1) for text, other in zip(reversed(turkish), reversed(english))}  # the first wins
    return tuple(of[text] for text in captions)


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for text in texts if text))


def _texts(record: Record, columns: tuple[str, ...]) -> list[str]:
    """The texts of columns, tidied; empty where there is none."""
    items = [item.replace("\0", " ") if isinstance(item, str) else "" for item in _items(record, columns)]
    return [" ".join(nfc(item).split()) for item in items]


def _items(record: Record, columns: tuple[str, ...]) -> list[Any]:
    """What the cells of columns hold, lists and single values alike."""
    there = [column for column in columns if column in record.values or column.partition(".")[0] in record.values]
    values = [_value(record.values, column) for column in there]
    return [item for value in values for item in (value if isinstance(value, (list, tuple)) else [value])]


def _why_none(record: Record, columns: tuple[str, ...]) -> str:
    """Why a record has no caption: it has nothing, or something else in its place."""
    others = [item for item in _items(record, columns) if item is not None and not isinstance(item, str)]
    if not others:
        return "no caption"
    kinds = {int: "a number", float: "a number", bool: "a truth value", dict: "a record", bytes: "bytes"}
    return f"no caption, but {kinds.get(type(others[0]), type(others[0]).__name__)}"


def _value(values: dict[str, Any], column: str) -> Any:
    """A column's value; `name.field` is that field of the column's record, or of each record of its list."""
    name, dot, field = column.partition(".")
    if column in values or not dot:
        return values.get(column)
    value = values.get(name)
    if isinstance(value, (list, tuple)):
        return [item.get(field) for item in value if isinstance(item, dict)]
    return value.get(field) if isinstance(value, dict) else None
