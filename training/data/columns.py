"""The meaning of a source's columns, and how a record becomes a row."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from training.data.lazy_images import MissingImage
from training.data.samples import SAMPLE_IMAGE, Negative, Record, Row, SkippedSample
from training.run.source import Source, SourceError
from turkish_clip.text import nfc

IMAGE_COLUMNS = ("file_name", "image", "image_path", "path")
CAPTION_COLUMNS = ("captions", "caption", "text")
SAMPLE_IMAGE_COLUMNS = (SAMPLE_IMAGE, "jpg", "png", "webp")  # the last three: WebDataset shards on the Hub
SAMPLE_CAPTION_COLUMNS = ("txt",)
ENGLISH_COLUMNS = ("captions_en", "caption_en")
LABEL_COLUMNS = ("labels",)
NEGATIVES_COLUMN = "negatives"
SLICES_COLUMN = "slices"
NO_COLUMN = "none"  # as negatives_column or slices_column: the usual name means something else in this source
PROBE = "negatives"  # of negatives that are texts alone
ID_COLUMNS = ("image_id",)
SPLIT_NAMES = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip


@dataclass(frozen=True)
class Columns:
    """The columns of a source: images, captions, English captions, class labels, negatives, slices and ids.

    A source of texts alone has no column of images ("").
    """

    source: Source
    image: str
    captions: tuple[str, ...]
    english: tuple[str, ...]
    labels: tuple[str, ...]
    negatives: str
    slices: str
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

        def optional(chosen: str, usual_name: str) -> str:
            return "" if chosen == NO_COLUMN else existing((chosen,))[0] if chosen else usual_name

        if source.text_only:
            if not source.english_columns and not any(name in names for name in ENGLISH_COLUMNS):
                usual(ENGLISH_COLUMNS, (), "english_columns")
            image = ""
        else:
            image = existing((source.image_column or usual(IMAGE_COLUMNS, SAMPLE_IMAGE_COLUMNS, "image_column"),))[0]
        return cls(
            source,
            image,
            existing(source.caption_columns) or (usual(CAPTION_COLUMNS, SAMPLE_CAPTION_COLUMNS, "caption_columns"),),
            existing(source.english_columns) or ENGLISH_COLUMNS,
            existing((source.label_column,)) if source.label_column else LABEL_COLUMNS,
            optional(source.negatives_column, NEGATIVES_COLUMN),
            optional(source.slices_column, SLICES_COLUMN),
            existing((source.id_column,))[0] if source.id_column else next((n for n in ID_COLUMNS if n in names), ""),
        )

    def row(self, record: Record, *, check_files: bool = True) -> Row | SkippedSample:
        """Returns the row that a record becomes, or a skipped sample with the reason why it becomes none.

        Args:
            record: of the source.
            check_files: whether a record without an image becomes a skipped sample; otherwise its row has a
                `MissingImage`.
        """
        image: Any = None if self.source.text_only else record.image(self.image)
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
        if image is None and not any(english):
            return SkippedSample(image_id, record.name(self.image), "no English caption")
        return Row(
            image_id,
            image,
            captions,
            _distinct(english),
            self.split(record),
            self.source.captions,
            _distinct(_texts(record, self.labels)),
            translations(captions, turkish, english) if len(turkish) == len(english) else (),
            self._negatives(record, turkish),
            self._slices(record),
        )

    def _negatives(self, record: Record, turkish: Sequence[str]) -> tuple[Negative, ...]:
        """Returns a record's negatives; `turkish` are its captions as written, with empty and repeated ones.

        Raises:
            SourceError: the cell holds anything but a list of texts or of records with their texts, or a negative that
                is its caption.
        """
        cell = _listed(_value(record.values, self.negatives))
        if cell in (None, ""):
            return ()
        items = cell if isinstance(cell, (list, tuple)) else [cell]
        found = _text_negatives(items, turkish) if _are_texts(cell) else [_record_negative(item) for item in items]
        for item, negative in zip(items, found):
            if negative is None or items is not cell or negative.negative == negative.caption != "":
                what = "a list of texts or of records (probe, caption, negative), each unlike its caption,"
                raise self._unexpected(record, "negatives", what, item)
        return tuple(dict.fromkeys(negative for negative in found if negative and negative.negative))

    def _slices(self, record: Record) -> tuple[str, ...]:
        """Returns the names of a record's slices.

        Raises:
            SourceError: the cell holds anything but a text or a list of texts.
        """
        cell = _listed(_value(record.values, self.slices))
        names = [cell] if cell is None or isinstance(cell, str) else cell
        if not _are_texts(names):
            raise self._unexpected(record, "slices", "a text or a list of texts", cell)
        return _distinct(map(_clean, names))

    def _unexpected(self, record: Record, kind: str, expected: str, found: Any) -> SourceError:
        """Returns the error of a cell of the wrong type; `kind` is negatives or slices."""
        return SourceError(
            f"expected {expected} in column {getattr(self, kind)!r} of {self.source.captions}, got {_short(found)} in "
            f"row {record.number}; correct it, or name another column with --{kind}_column ({NO_COLUMN}: no column)"
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
    return [_clean(item) for item in _items(record, columns)]


def _clean(value: Any) -> str:
    """Returns a text in NFC with its spaces collapsed; an empty one for a value of another type."""
    return clean_text(value) if isinstance(value, str) else ""


def _listed(cell: Any) -> Any:
    """Returns what a cell holds; a list that is written as JSON, as a CSV file must, as a list.

    >>> _listed('["bir ev"]'), _listed("bir ev"), _listed("[bir ev]")
    (['bir ev'], 'bir ev', '[bir ev]')
    """
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            return cell
    return cell


def _are_texts(cell: Any) -> bool:
    """Returns whether a cell holds a list of texts, some of which may be missing."""
    return isinstance(cell, (list, tuple)) and all(item is None or isinstance(item, str) for item in cell)


def _text_negatives(items: Sequence[Any], turkish: Sequence[str]) -> list[Negative]:
    """Returns the negatives that are given as texts, an empty one where there is none.

    As many as there are captions belong to these in turn; any other number belongs to the first caption.
    """
    first = next(filter(None, turkish))
    captions = turkish if len(items) == len(turkish) else [first] * len(items)
    return [Negative(PROBE, caption, _clean(item) if caption else "") for item, caption in zip(items, captions)]


def _record_negative(item: Any) -> Negative | None:
    """Returns the negative that is given as a record; None where it is no record, or lacks a text."""
    if not isinstance(item, dict):
        return None
    texts = [_clean(item.get(name)) for name in ("probe", "caption", "negative", "caption_en", "negative_en")]
    return Negative(*texts) if all(texts[:3]) else None


def _short(value: Any) -> str:
    """Returns a value as an error message shows it, in one line."""
    shown = json.dumps(value, ensure_ascii=False, default=lambda other: type(other).__name__)
    return shown if len(shown) <= 80 else shown[:79] + "…"


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
