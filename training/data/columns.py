"""The meaning of a source's columns, and how a record becomes a row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from training.data.lazy_images import MissingImage
from training.data.samples import SAMPLE_IMAGE, Record, Row, SkippedSample
from training.run.source import Source, SourceError
from turkish_clip.text import nfc

IMAGE_COLUMNS = ("file_name", "image", "image_path", "path")
CAPTION_COLUMNS = ("captions", "caption", "text")
SAMPLE_IMAGE_COLUMNS = (SAMPLE_IMAGE, "jpg", "png", "webp")  # the last three: WebDataset shards on the Hub
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
    """The columns of a source that hold images, captions, English captions, class labels and ids."""

    source: Source
    image: str
    captions: tuple[str, ...]
    english: tuple[str, ...]
    labels: tuple[str, ...]
    image_id: str

    @classmethod
    def of(cls, record: Record, source: Source) -> Columns:
        """Returns the columns that the configuration names, and for the others those with the usual names.

        Args:
            record: the source's first record; its keys are the source's columns.
            source: the source's configuration; empty options mean the usual names.

        Raises:
            SourceError: a named or required column is missing; the message lists the columns there are.
        """
        names = tuple(name for name in record.values if name != SAMPLE_IMAGE)

        def existing(chosen: tuple[str, ...]) -> tuple[str, ...]:
            for name in chosen:
                if name not in record.values and name.partition(".")[0] not in names:
                    raise SourceError(
                        f"expected the column {name!r} in {source.captions}, got {', '.join(names)}; name one of those"
                    )
            return chosen

        def usual(candidates: tuple[str, ...], in_shards: tuple[str, ...], option: str) -> str:
            for name in (*in_shards, *candidates):
                if name in record.values:
                    return name
            raise SourceError(
                f"expected a column {' or '.join(candidates)} in {source.captions}, got {', '.join(names)}; "
                f"name it with --{option}"
            )

        image = source.image_column or usual(IMAGE_COLUMNS, SAMPLE_IMAGE_COLUMNS, "image_column")
        return cls(
            source,
            existing((image,))[0],
            existing(source.caption_columns) or (usual(CAPTION_COLUMNS, SAMPLE_CAPTION_COLUMNS, "caption_columns"),),
            existing(source.english_columns) or ENGLISH_COLUMNS,
            existing((source.label_column,)) if source.label_column else LABEL_COLUMNS,
            existing((source.id_column,))[0] if source.id_column else next((n for n in ID_COLUMNS if n in names), ""),
        )

    def row(self, record: Record, *, check_files: bool = True) -> Row | SkippedSample:
        """Returns the row that a record becomes, or a skipped sample with the reason why it becomes none.

        Args:
            record: of the source.
            check_files: whether a record without an image becomes a skipped sample; otherwise its row has a
                `MissingImage`.
        """
        image: Any = record.image(self.image)
        image_id = record.values.get(self.image_id) if self.image_id else None
        image_id = nfc(str(image_id) if image_id not in (None, "") else record.prefix + record.name(self.image))
        if isinstance(image, str):
            if check_files:
                return SkippedSample(image_id, record.name(self.image), image)
            image = MissingImage(record.name(self.image), image)
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
        """Returns the split by the record's split column, else by the source's layout; empty where neither gives one.

        Raises:
            SourceError: the split column holds another word than the usual names of splits.
        """
        named = str(record.values.get(self.source.split_column) or "")
        if named and named.lower() not in SPLIT_NAMES:
            raise SourceError(
                f"expected train, validation or test in column {self.source.split_column!r} of "
                f"{self.source.captions}, got {named!r} in row {record.number}; name another column with --split_column"
            )
        return SPLIT_NAMES.get((named or record.split).lower(), "")


def translations(captions: Sequence[str], turkish: Sequence[str], english: Sequence[str]) -> tuple[int, ...]:
    """Returns for each caption the index of its translation among the distinct English texts, -1 where it has none.

    >>> translations(["ev", "kuş"], ["ev", "", "kuş", "kuş"], ["house", "tree", "", "bird"])
    (0, -1)

    Args:
        captions: the distinct captions.
        turkish: the same captions in any order, repeated or with empty texts between them.
        english: the translation of each text of `turkish`; an empty one means none.
    """
    index_of = {text: index for index, text in enumerate(_distinct(english))}
    pairs = zip(reversed(turkish), reversed(english))  # reversed: the first translation of a caption wins
    translation_of = {text: index_of.get(other, -1) for text, other in pairs}
    return tuple(translation_of[text] for text in captions)


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for text in texts if text))


def clean_text(text: str) -> str:
    """Returns a text as rows hold it: in NFC, with spaces collapsed."""
    return " ".join(nfc(text.replace("\0", " ")).split())


def _texts(record: Record, columns: tuple[str, ...]) -> list[str]:
    """Returns the texts of columns in NFC, spaces collapsed; an empty text where a cell holds another type."""
    return [clean_text(item) if isinstance(item, str) else "" for item in _items(record, columns)]


def _items(record: Record, columns: tuple[str, ...]) -> list[Any]:
    """Returns the values in the cells of columns, with lists unpacked."""
    existing = [column for column in columns if column in record.values or column.partition(".")[0] in record.values]
    values = [_value(record.values, column) for column in existing]
    return [item for value in values for item in (value if isinstance(value, (list, tuple)) else [value])]


def _why_none(record: Record, columns: tuple[str, ...]) -> str:
    """Returns why a record has no caption: its cells are empty, or hold another type than text."""
    others = [item for item in _items(record, columns) if item is not None and not isinstance(item, str)]
    if not others:
        return "no caption"
    kinds = {int: "a number", float: "a number", bool: "a truth value", dict: "a record", bytes: "bytes"}
    return f"no caption, but {kinds.get(type(others[0]), type(others[0]).__name__)}"


def _value(values: dict[str, Any], column: str) -> Any:
    """Returns a column's value; `name.field` means that field of the column's record, or of each record in its list."""
    name, dot, field = column.partition(".")
    if column in values or not dot:
        return values.get(column)
    value = values.get(name)
    if isinstance(value, (list, tuple)):
        return [item.get(field) for item in value if isinstance(item, dict)]
    return value.get(field) if isinstance(value, dict) else None
