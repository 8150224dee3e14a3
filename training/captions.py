"""Any source of captioned pictures → rows of (image_id, image, captions); counts what it drops, and why."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from training.atomic import write_text
from training.config import SourceConfig
from training.tables import Record, hub_records, is_table, table_records
from turkish_clip.errors import InputError
from turkish_clip.images import open_image
from turkish_clip.text import nfc

IMAGE_COLUMNS = ("file_name", "image", "image_path", "path")
CAPTION_COLUMNS = ("captions", "caption", "text")
ENGLISH_COLUMNS = ("captions_en", "caption_en")
ID_COLUMNS = ("image_id",)
METADATA_NAMES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
SPLIT_NAMES = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip


class CaptionsError(InputError):
    """A source of captions that can't be read as one."""


@dataclass(frozen=True)
class Reject:
    """A row or picture that is left out, and why."""

    image_id: str
    path: str
    reason: str

    def as_json(self) -> str:
        return json.dumps({"image_id": self.image_id, "path": self.path, "reason": self.reason}, ensure_ascii=False)


@dataclass(frozen=True)
class Row:
    """One picture with its captions.

    Attributes:
        image: a path, or an object whose `read()` gives the bytes of the file.
        split: "train", "validation" or "test".
    """

    image_id: str
    image: Any
    captions: tuple[str, ...]
    english: tuple[str, ...]
    split: str

    def open(self, min_side: int | None = None) -> Image.Image:
        """The picture as RGB.

        Raises:
            ImageError: it does not open.
        """
        return open_image(self.image if isinstance(self.image, Path) else self.image.read(), min_side=min_side)


@dataclass(frozen=True)
class Captions:
    """A source that has been read.

    Attributes:
        name: as the user named it, for reports.
        rows: in the source's order, one per picture.
        rejects: what was left out.
    """

    name: str
    rows: list[Row]
    rejects: list[Reject] = field(default_factory=list)

    def split(self, name: str) -> list[Row]:
        """The rows of one split.

        Raises:
            CaptionsError: there are none.
        """
        rows = [row for row in self.rows if row.split == name]
        if not rows:
            sizes = dict(Counter(row.split for row in self.rows))
            raise CaptionsError(
                f"expected pictures in the {name} split of {self.name}, got none (splits: {sizes}); "
                f"set the {name} share or give the source that split"
            )
        return rows


def read_captions(config: SourceConfig) -> Captions:
    """Reads the source that the configuration names.

    Rows of one image_id are one picture with all their captions. Splits come from the source (a split column, Hub
    splits, or subfolders with metadata of their own); a split that the source lacks is cut from train by a seeded
    hash of image_id.

    Raises:
        CaptionsError: no such source, a column that is not there, no caption left, or too many rejects.
    """
    records = _records(config)
    rows: dict[str, Row] = {}
    rejects: list[Reject] = []
    columns = _Columns(config)
    total = 0
    for record in records:
        total += 1
        outcome = columns.row(record)
        if isinstance(outcome, Reject):
            rejects.append(outcome)
        elif outcome.image_id in rows:
            rows[outcome.image_id] = _merged(rows[outcome.image_id], outcome)
        else:
            rows[outcome.image_id] = outcome
    if not rows:
        reasons = dict(Counter(reject.reason for reject in rejects))
        raise CaptionsError(
            f"expected captions in {config.captions}, got none left of {total} rows ({reasons or 'empty'})"
        )
    check_rejects(len(rejects), total, config, rejects)
    return Captions(config.captions, _with_splits(list(rows.values()), config), rejects)


def check_rejects(rejected: int, total: int, config: SourceConfig, rejects: Iterable[Reject]) -> None:
    """Stops a run of which too much was rejected.

    Raises:
        CaptionsError: the share of rejects is above `max_reject_share`; names the commonest reasons.
    """
    if rejected > config.max_reject_share * total:
        reasons = ", ".join(f"{n} × {why}" for why, n in Counter(reject.reason for reject in rejects).most_common(3))
        raise CaptionsError(
            f"expected at most {config.max_reject_share:.1%} rejects in {config.captions}, got {rejected} of {total} "
            f"({reasons}); mend the source or raise --max_reject_share"
        )


def write_rejects(path: Path, rejects: Iterable[Reject]) -> None:
    """Writes rejects.jsonl: image_id, path and reason a line."""
    write_text(path, "".join(reject.as_json() + "\n" for reject in rejects))


def hash_share(seed: int, image_id: str) -> float:
    """A number in [0, 1) that depends on the seed and the picture's name alone: the law of the splits."""
    digest = hashlib.sha256(f"{seed}:{image_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _records(config: SourceConfig) -> Iterator[Record]:
    world, _, size = config.captions.partition(":")
    if world == "mini":
        from training.mini.world import WorldSize, write_world

        if size and not size.isdecimal():
            raise CaptionsError(f"expected mini or mini:PICTURES, got {config.captions!r}; give a whole number")
        world_size = WorldSize(train=int(size)) if size else WorldSize()
        return _folder_records(write_world(config.folder / "data", world_size))
    path = Path(config.captions)
    if path.is_dir():
        return _folder_records(path)
    if path.is_file():
        if not is_table(path):
            raise CaptionsError(f"expected a .csv, .tsv, .jsonl or .parquet table, got {path}; convert it to one")
        return table_records(path, confined=False)
    if config.captions.count("/") > 1 or config.captions.startswith((".", "/", "~")) or is_table(path):
        raise CaptionsError(f"expected a folder, table or Hub data set, got {config.captions!r}, which is not there")
    return hub_records(config.captions, config.captions_config or None, config.captions_revision or None)


def _folder_records(folder: Path) -> Iterator[Record]:
    """Records of a captioned image folder: metadata at its top, or in train/, validation/ and test/ below it."""
    tables = [folder / name for name in METADATA_NAMES if (folder / name).is_file()][:1]
    if tables:
        yield from table_records(tables[0], confined=True)
        return
    found = False
    for subfolder in sorted(path for path in folder.iterdir() if path.name in SPLIT_NAMES):
        for table in [subfolder / name for name in METADATA_NAMES if (subfolder / name).is_file()][:1]:
            found = True
            for record in table_records(table, confined=True):
                yield replace(record, split=SPLIT_NAMES[subfolder.name], prefix=f"{subfolder.name}/")
    if not found:
        raise CaptionsError(
            f"expected metadata.jsonl or metadata.csv in {folder} (columns file_name and captions), got none; write one"
        )


class _Columns:
    """Picks the columns of a source, from the configuration or by their usual names, and makes rows."""

    def __init__(self, config: SourceConfig) -> None:
        self.config = config
        self.known: dict[tuple[str, ...], tuple[str, tuple[str, ...], tuple[str, ...], str]] = {}

    def row(self, record: Record) -> Row | Reject:
        names = tuple(record.values)
        if names not in self.known:
            self.known[names] = self._choose(names)
        image_column, caption_columns, english_columns, id_column = self.known[names]
        image = record.image(image_column)
        image_id = str(record.values[id_column]) if id_column and record.values[id_column] not in (None, "") else ""
        image_id = nfc(image_id or record.prefix + record.name(image_column))
        if isinstance(image, str):
            return Reject(image_id, record.name(image_column), image)
        captions = _texts(record, caption_columns)
        if not captions:
            return Reject(image_id, record.name(image_column), "no caption")
        split = record.split or str(record.values.get(self.config.split_column) or "")
        return Row(image_id, image, captions, _texts(record, english_columns), self._split(split))

    def _choose(self, names: tuple[str, ...]) -> tuple[str, tuple[str, ...], tuple[str, ...], str]:
        config = self.config
        return (
            self._one(names, config.image_column, IMAGE_COLUMNS, "image_column"),
            self._all(names, config.caption_columns) or (self._one(names, "", CAPTION_COLUMNS, "caption_columns"),),
            self._all(names, config.english_columns) or tuple(name for name in ENGLISH_COLUMNS if name in names),
            self._all(names, (config.id_column,) if config.id_column else ())[0]
            if config.id_column
            else next((name for name in ID_COLUMNS if name in names), ""),
        )

    def _one(self, names: tuple[str, ...], chosen: str, usual: tuple[str, ...], option: str) -> str:
        if chosen:
            return self._all(names, (chosen,))[0]
        for name in usual:
            if name in names:
                return name
        raise CaptionsError(
            f"expected a column {' or '.join(usual)} in {self.config.captions}, got {', '.join(names)}; "
            f"name it with --{option}"
        )

    def _all(self, names: tuple[str, ...], chosen: tuple[str, ...]) -> tuple[str, ...]:
        for name in chosen:
            if name not in names:
                raise CaptionsError(
                    f"expected the column {name!r} in {self.config.captions}, got {', '.join(names)}; name one of those"
                )
        return chosen

    def _split(self, name: str) -> str:
        if name and name.lower() not in SPLIT_NAMES:
            raise CaptionsError(
                f"expected train, validation or test in column {self.config.split_column!r} of "
                f"{self.config.captions}, got {name!r}; name another column with --split_column"
            )
        return SPLIT_NAMES.get(name.lower(), "")


def _texts(record: Record, columns: tuple[str, ...]) -> tuple[str, ...]:
    texts: list[str] = []
    for column in columns:
        value = record.values[column]
        items = value if isinstance(value, (list, tuple)) else [value]
        texts += [" ".join(nfc(item).split()) for item in items if isinstance(item, str)]
    return tuple(dict.fromkeys(text for text in texts if text))


def _merged(first: Row, second: Row) -> Row:
    return replace(
        first,
        captions=tuple(dict.fromkeys(first.captions + second.captions)),
        english=tuple(dict.fromkeys(first.english + second.english)),
    )


def _with_splits(rows: list[Row], config: SourceConfig) -> list[Row]:
    """Cuts the splits that the source lacks out of train."""
    given = {row.split for row in rows}
    shares = {"test": config.test_share, "validation": config.validation_share}
    result = []
    for row in rows:
        split = row.split or "train"
        if split == "train":
            position = hash_share(config.split_seed, row.image_id)
            for name, share in shares.items():
                if name in given:
                    continue
                if position < share:
                    split = name
                    break
                position -= share
        result.append(replace(row, split=split))
    return result
