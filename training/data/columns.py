"""The meaning of a source's columns, and how a record becomes a row."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.data.cells import DoubledCell, clean_text, flat, is_missing, raw_text, read_cell, why_unread
from training.data.image_files import CAPTION_NUMBER, without_caption_number
from training.data.lazy_images import LazyImage, MissingImage
from training.data.samples import SAMPLE_IMAGE, Negative, Record, Row, SkippedSample, one_spelling
from training.data.splits import SplitMeanings
from training.run.source import Source, SourceError
from turkish_clip.text import nfc

log = logging.getLogger("training")
IMAGE_COLUMNS = ("file_name", "image", "image_path", "path")
CAPTION_COLUMNS = ("captions", "caption", "text")
SAMPLE_IMAGE_COLUMNS = (SAMPLE_IMAGE, "jpg", "png", "webp")  # the last three: WebDataset shards on the Hub
SAMPLE_CAPTION_COLUMNS = ("txt",)
ENGLISH_COLUMNS = ("captions_en", "caption_en")
LABEL_COLUMNS = ("labels",)
NEGATIVES_COLUMN = "negatives"
SLICES_COLUMN = "slices"
NO_COLUMN = "none"  # as negatives_column or slices_column: the usual name means something else in this source
MAX_NAMED = 12  # columns in a line
MAX_PATH = 1024  # characters
MAX_NAME = 60  # characters of a column's name in a line
PROBE = "negatives"  # of negatives that are texts alone
ID_COLUMNS = ("image_id",)
# Of columns with other names, those that an error offers: open_clip's, Flickr30k's, and what people write.
LIKELY_IMAGES = ("filepath", "image_name", "filename", "file", "image_file", "img", "resim", "görsel", "video", "audio")
LIKELY_CAPTIONS = ("title", "comment", "sentences.raw", "sentence", "description", "açıklama", "altyazı", "metin")


@dataclass(frozen=True)
class Columns:
    """The columns of a source: images, captions, English captions, class labels, negatives, slices and ids.

    A source of texts alone has no column of images (""). `is_absolute` says whether the path of its first image is one
    from the root of the machine; the image_ids that are paths are then all such ones.
    """

    source: Source
    image: str
    captions: tuple[str, ...]
    english: tuple[str, ...]
    labels: tuple[str, ...]
    negatives: str
    slices: str
    image_id: str
    is_absolute: bool = False

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
        missing: dict[str, tuple[str, ...]] = {}

        def existing(chosen: tuple[str, ...]) -> tuple[str, ...]:
            for name in chosen:
                if name not in record.values and name.partition(".")[0] not in names:
                    raise SourceError(
                        f"expected the column {name!r} in {source.captions}, got {_named(names)}; name one of those"
                    )
            return chosen

        def usual(candidates: tuple[str, ...], in_shards: tuple[str, ...], option: str) -> str:
            found = next((name for name in (*in_shards, *candidates) if name in record.values), "")
            if not found:
                missing[option] = candidates
            return found

        def optional(chosen: str, usual_name: str) -> str:
            return "" if chosen == NO_COLUMN else existing((chosen,))[0] if chosen else usual_name

        if source.text_only:
            if not source.english_columns and not any(name in names for name in ENGLISH_COLUMNS):
                usual(ENGLISH_COLUMNS, (), "english_columns")
            image = ""
        else:
            image = existing((source.image_column,))[0] if source.image_column else ""
            image = image or usual(IMAGE_COLUMNS, SAMPLE_IMAGE_COLUMNS, "image_column")
        captions = existing(source.caption_columns) or (
            usual(CAPTION_COLUMNS, SAMPLE_CAPTION_COLUMNS, "caption_columns"),
        )
        if missing:
            raise _no_columns(missing, names, source)
        usual_id = "" if source.text_only else next((name for name in ID_COLUMNS if name in names), "")
        columns = cls(
            source,
            image,
            captions,
            existing(source.english_columns) or ENGLISH_COLUMNS,
            existing((source.label_column,)) if source.label_column else LABEL_COLUMNS,
            optional(source.negatives_column, NEGATIVES_COLUMN),
            optional(source.slices_column, SLICES_COLUMN),
            optional(source.id_column, usual_id),
            record.name(image).startswith("/"),
        )
        columns._refuse_doubled(record)
        columns._log([name for name in names if name == image or not isinstance(record.values[name], LazyImage)])
        return columns

    def _refuse_doubled(self, record: Record) -> None:
        """Refuses a column that is named more than once and may hold one value alone.

        Raises:
            SourceError: the column of images, ids or splits is named twice.
        """
        for name in (self.image, self.image_id, self.source.split_column):
            if isinstance(record.values.get(name), DoubledCell):
                raise SourceError(
                    f"expected the column {name!r} once in {self.source.captions}, got it twice or more; rename one of "
                    "them"
                )

    def _log(self, names: Sequence[str]) -> None:
        """Logs which columns are read, and which are not."""
        others = (name for name in (*self.english, *self.labels) if name in names)
        texts = list(dict.fromkeys([*self.captions, *others]))  # a column may be named as two of them
        used = {self.image, self.image_id, self.negatives, self.slices, self.source.split_column}
        used |= {name.partition(".")[0] for name in texts} | set(texts)
        unread = [name for name in names if name and name not in used]
        left = f"; not read: {_named(unread)}" if unread else ""
        named = f", ids {self.image_id}" if self.image_id else ""
        images = "" if self.source.text_only or self.image == SAMPLE_IMAGE else f"images {self.image}, "
        log.info("columns of %s: %stexts %s%s%s", self.source.captions, images, ", ".join(texts), named, left)

    def row(self, record: Record, split: str, *, check_files: bool = True) -> Row | SkippedSample:
        """Returns the row that a record becomes, or a skipped sample with the reason why it becomes none.

        Args:
            record: of the source.
            split: its split, as `split` returns it.
            check_files: whether a record without an image becomes a skipped sample; otherwise its row has a
                `MissingImage`.
        """
        image: Any = None if self.source.text_only else record.image(self.image)
        image_id = nfc(self._own_id(record) or record.own_id(self.image, absolute=self.is_absolute))
        if not (isinstance(image, Path) and CAPTION_NUMBER.search(image.name)):
            image_id = without_caption_number(image_id)
        name = _brief(record.name(self.image))
        image_id = _brief(image_id)
        if isinstance(image, str):
            if check_files:
                return SkippedSample(image_id, name, image)
            image = MissingImage(record.prefix + name, image)
        for column in (*self.captions, *self.english, *self.labels):
            head = column if column in record.values else column.partition(".")[0]
            if reason := why_unread(record.values.get(head)):
                return SkippedSample(image_id, name, f"{reason}, in column {head}")
        turkish, english = _texts(record, self.captions), _texts(record, self.english)
        captions = _distinct(turkish)
        if not captions:
            return SkippedSample(image_id, name, _why_none(record, self.captions))
        if image is None and not any(english):
            return SkippedSample(image_id, name, "no English caption")
        return Row(
            image_id,
            image,
            captions,
            _distinct(english),
            split,
            self.source.captions,
            _distinct(_texts(record, self.labels)),
            translations(captions, turkish, english) if len(turkish) == len(english) else (),
            self._negatives(record, turkish),
            self._slices(record),
        )

    def _own_id(self, record: Record) -> str:
        """Returns the id that the record's id column gives; empty without one."""
        value = record.values.get(self.image_id) if self.image_id else None
        return "" if value is None or value != value else one_spelling(str(value).strip())  # NaN

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

    def split(self, record: Record, meanings: SplitMeanings) -> str:
        """Returns the split by the record's split column, else by the source's layout; empty where neither gives one.

        Args:
            record: of the source.
            meanings: what names of splits mean in the source; it remembers names without a meaning.
        """
        column = self.source.split_column
        named = "" if column == NO_COLUMN else record.values.get(column)
        named = "" if named is None or named != named or named == [] else str(named).strip()
        return meanings.of_cell(named) if named else meanings.of_layout(record.split)

    def path(self, record: Record) -> str:
        """Returns the path of a record's image, whose folders may name its split where nothing else does.

        It is empty where the layout names it, where the option says `none`, and without images.
        """
        is_named = self.source.split_column == NO_COLUMN or record.split or not self.image
        return "" if is_named else record.path(self.image)


def _brief(name: str) -> str:
    """Returns a name, or the beginning and a hash of one that is too long for a path, as of an image as text."""
    if len(name) <= MAX_PATH:
        return name
    return f"{name[:MAX_NAME]}…{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def _named(names: Sequence[str]) -> str:
    """Returns the names of columns as a message lists them: in one line, the first of many, and long ones cut."""
    shown = [" ".join(name.split())[:MAX_NAME] for name in names[:MAX_NAMED]]
    return (", ".join(shown) + (" …" if len(names) > MAX_NAMED else "")) or "no columns"


def _no_columns(missing: dict[str, tuple[str, ...]], names: Sequence[str], source: Source) -> SourceError:
    """Returns the error of a source without columns of the usual names; it says how to name them.

    Args:
        missing: option → the usual names.
        names: the columns that there are.
        source: the source.
    """
    wanted = " and ".join(f"a column {' or '.join(usual)}" for usual in missing.values())
    likely = {"image_column": LIKELY_IMAGES, "caption_columns": LIKELY_CAPTIONS}
    lowered = {name.lower(): name for name in names}
    words = []
    for option, usual in missing.items():
        candidates = (*usual, *likely.get(option, ()))
        found = next((name for name in candidates if name.partition(".")[0] in lowered), "")
        head, dot, field = found.partition(".")
        words.append(f"--{option} {lowered[head] + dot + field if found else 'COLUMN'}")
    return SourceError(
        f"expected {wanted} in {source.captions}, got {_named(names)}; name "
        f"{'them' if len(missing) > 1 else 'it'} with {' '.join(words)}"
    )


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
    items = (raw_text(item) for value in values for item in flat(read_cell(value)))
    return [None if is_missing(item) else item for item in items]


def _why_none(record: Record, columns: tuple[str, ...]) -> str:
    """Returns why a record has no caption: its cells are empty, or hold another type than text."""
    others = [item for item in _items(record, columns) if item is not None and not isinstance(item, str)]
    if not others:
        return "no caption"
    kinds = {int: "a number", float: "a number", bool: "a truth value", dict: "a record", bytes: "bytes"}
    if isinstance(others[0], dict) and others[0]:
        return f"no caption, but a record of {_named([str(name) for name in others[0]])}"
    return f"no caption, but {kinds.get(type(others[0]), type(others[0]).__name__)}"


def _value(values: dict[str, Any], column: str) -> Any:
    """Returns a column's value; `name.field` means that field of the column's record, or of each record in its list."""
    name, dot, field = column.partition(".")
    if column in values or not dot:
        return values.get(column)
    value = read_cell(values.get(name))
    if isinstance(value, (list, tuple)):
        return [item.get(field) for item in value if isinstance(item, dict)]
    return value.get(field) if isinstance(value, dict) else None
