"""A reader of folders: metadata beside images, shards, images with a .txt each, Parquet files, tables of splits."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from training.data.lazy_images import MissingImage
from training.data.readers.parquet import parquet_folder_records
from training.data.readers.tables import is_table, table_records
from training.data.readers.webdataset import COMPRESSED, FIELDS, IMAGES, MAX_TEXT_BYTES, TEXTS, shard_records
from training.data.samples import SAMPLE_IMAGE, Record
from training.data.splits import SplitMeanings, split_words, splits_of_folders
from training.run.source import SourceError
from turkish_clip.clips import is_read
from turkish_clip.folders import INDEX_FOLDER, conversion_advice, is_hidden, not_read_text
from turkish_clip.images import SOUND, unread_kind
from turkish_clip.strict_json import json_text

log = logging.getLogger("training")
METADATA_NAMES = ("metadata.jsonl", "metadata.csv", "metadata.tsv", "metadata.parquet", "metadata.json")
MAX_LISTED = 5
UNREAD_TABLES = re.compile(
    r"\.(xlsx?|xlsm|xlsb|ods|numbers|feather|arrow|orc|avro|sqlite3?|db|pkl|pickle|ya?ml|zip|rar|7z"
    r"|(csv|tsv|txt|jsonl?|ndjson|parquet)\.(gz|bz2|xz|zst|lz4|br))$",
    re.IGNORECASE,
)
NO_TABLE = re.compile(r"^(dataset_infos?|state|package|config)\.json$|_stats\.json$")  # what libraries write
NO_CAPTIONS = frozenset("instances person keypoints panoptic stuff info".split())  # in the names of COCO's other files
TABLES = "tables"
ONE = {  # of what a line counts
    "tables": "table",
    "files of kinds that are not read": "file of a kind that is not read",
    "shards": "shard",
    "Parquet files": "Parquet file",
    "compressed shards": "compressed shard",
}
MAX_OPENED = 1000  # .txt files that are looked into; of the others their names count alone
TABLE_START = 4096  # bytes of a .txt that show whether it is a table


@dataclass
class Contents:
    """What is in a folder and below it; paths are relative to it, with forward slashes, and sorted.

    Attributes:
        metadata: the tables named metadata.
        tables: other tables.
        shards: tar files.
        parquet: Parquet files.
        compressed: compressed tar files.
        images: the number of image files, and of videos and sounds with a text of their name.
        clips: the number of other videos and sounds.
        texts: .txt files that are no image's, and named after a split or like a table inside.
        other_texts: the other .txt files that are no image's.
        json: .json files that are no image's.
        unread: tables of kinds that are not read, such as Excel's or compressed ones.
        pairs: whether some folder has an image and a text of one name.
        hidden: the number of hidden images and tables, which are not read.
        not_read: kind of image or video that is not read → number of files.
    """

    metadata: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    shards: list[str] = field(default_factory=list)
    parquet: list[str] = field(default_factory=list)
    compressed: list[str] = field(default_factory=list)
    images: int = 0
    clips: int = 0
    texts: list[str] = field(default_factory=list)
    other_texts: list[str] = field(default_factory=list)
    json: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    pairs: bool = False
    hidden: int = 0
    not_read: dict[str, int] = field(default_factory=dict)

    @property
    def every_table(self) -> list[str]:
        """All tables that could be read, but for those named metadata."""
        return self.tables + self.json + self.texts

    @classmethod
    def of(cls, folder: Path) -> Contents:
        """Walks a folder and the folders below it, linked ones included."""
        contents = cls()
        for parent, names in _folders(folder):
            contents._add(folder, parent, names)
        lists = (contents.metadata, contents.tables, contents.shards, contents.parquet, contents.compressed)
        for names in (*lists, contents.texts, contents.json, contents.unread):
            names.sort()
        return contents

    def _add(self, folder: Path, parent: str, names: Sequence[str]) -> None:
        stems: dict[bool, set[str]] = {True: set(), False: set()}
        named = set(_images_among(names))
        images = {name.rpartition(".")[0] for name in named}
        images |= {name.partition(".")[0] for name in images}
        for name in names:
            stem, _, kind = name.partition(".")
            path, last = parent + name, kind.rpartition(".")[2].lower()
            if is_hidden(path):
                counts = last in IMAGES or is_table(Path(name)) or last == "tar"
                self.hidden += counts and INDEX_FOLDER not in path.split("/")  # which nobody hid
            elif name in METADATA_NAMES:
                self.metadata.append(path)
            elif last == "tar":
                self.shards.append(path)
            elif last == "parquet":
                self.parquet.append(path)
            elif name.lower().endswith(COMPRESSED):
                self.compressed.append(path)
            elif name in named:
                self.images += 1
                stems[True].add(stem)
            elif last in TEXTS:
                stems[False].add(stem)
                if images.isdisjoint((stem, name.rpartition(".")[0])):
                    enough = len(self.texts) + len(self.other_texts) > MAX_OPENED
                    is_table_too = bool(split_words(stem)) if enough else _is_text_table(folder / path)
                    (self.texts if is_table_too else self.other_texts).append(path)
            elif last == FIELDS:
                if images.isdisjoint((stem, name.rpartition(".")[0])) and not NO_TABLE.search(name):
                    self.json.append(path)
            elif is_table(Path(name)):
                self.tables.append(path)
            elif UNREAD_TABLES.search(name):
                self.unread.append(path)
            elif is_read(name):
                self.clips += 1
            elif (found := unread_kind(name, with_libraries=False)) not in ("", SOUND):
                self.not_read[found] = self.not_read.get(found, 0) + 1
        self.pairs = self.pairs or not stems[True].isdisjoint(stems[False])


def _images_among(names: Sequence[str]) -> list[str]:
    """Returns the names of images, and of those videos and sounds that have a text of their name beside them."""
    texts = {name.rpartition(".")[0] for name in names if name.rpartition(".")[2].lower() in TEXTS}
    texts |= {text.rpartition(".")[0] for text in texts}  # a.en.txt
    return [
        name
        for name in names
        if name.rpartition(".")[2].lower() in IMAGES or (name.rpartition(".")[0] in texts and is_read(name))
    ]


def _folders(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yields each folder below a folder, as its relative path with a slash at its end, and its files' names, sorted."""
    for parent, below, names in os.walk(folder, followlinks=True):
        here = Path(parent)
        if here != folder and here.is_symlink() and any(here.resolve() == above.resolve() for above in here.parents):
            below.clear()  # a link to a folder that it is in
            continue
        below.sort()
        relative = Path(parent).relative_to(folder).as_posix()
        yield "" if relative == "." else f"{relative}/", sorted(names)


def folder_records(folder: Path, meanings: SplitMeanings, images: Path | None = None) -> Iterator[Record]:
    """Reads a folder of images with metadata, of shards, of images with a .txt each, or of Parquet files.

    What it finds and does not read is logged.

    Args:
        folder: the folder.
        meanings: what names of splits mean in the source.
        images: what the paths in its metadata start from; None: the folder of the metadata.

    Raises:
        SourceError: it has none of these, or folders or files with names that are no split's beside train.
    """
    found = Contents.of(folder)
    tables = _metadata_tables(found.metadata)
    split_tables = _split_tables(found, meanings)
    others = {"tables": sorted([name for name in found.metadata if name not in tables] + found.every_table)}
    others |= {"files of kinds that are not read": found.unread}
    others |= {"shards": found.shards, "Parquet files": found.parquet, "compressed shards": found.compressed}
    if found.hidden:
        log.info("%s: %d hidden images and tables are left out", folder, found.hidden)
    if found.not_read:
        advice = conversion_advice(found.not_read, with_libraries=False)
        log.warning("%s: %s; %s", folder, not_read_text(found.not_read), advice)
    if tables:
        _log_left_out(folder, others, f"since {', '.join(tables[:MAX_LISTED])} names the images")
        yield from _named_by(folder, tables, meanings, images)
    elif found.shards:
        _log_left_out(folder, {**others, "shards": []}, "since there are .tar shards")
        yield from shard_records([folder / name for name in found.shards], meanings, folder)
    elif found.pairs:
        others["tables"] = [name for name in others["tables"] if name not in found.texts]  # which are skipped samples
        _log_left_out(folder, others, "since there are images with a .txt each")
        yield from _pairs(folder, meanings)
    elif found.parquet:
        _log_left_out(folder, {**others, "Parquet files": []}, "since there are Parquet files")
        yield from _parquet(folder, found.parquet, meanings)
    elif split_tables:
        left = {**others, "tables": [name for name in others["tables"] if name not in split_tables]}
        _log_left_out(folder, left, f"since {', '.join(split_tables[:MAX_LISTED])} name the images")
        meanings.check_layout((name.partition(".")[0] for name in split_tables), TABLES)
        yield from _tables(folder, split_tables, meanings, images)
    else:
        raise _nothing(folder, found)


def _is_text_table(path: Path) -> bool:
    """Returns whether a .txt is named after a split, or its first two lines have the same number of some separator."""
    if split_words(path.name.partition(".")[0]):
        return True
    try:
        with path.open("rb") as file:
            lines = file.read(TABLE_START).split(b"\n")
    except OSError:
        return False
    return len(lines) > 1 and any(
        0 < lines[0].count(mark) == lines[1].count(mark) for mark in (b"\t", b";", b"|", b",")
    )


def _split_tables(found: Contents, meanings: SplitMeanings) -> list[str]:
    """Returns the tables in the folder itself that are read, where some are named after splits; none where none is.

    They are all tables that hold nothing else, and those of .json and .txt that have a split's word in their names.
    """
    plain = [name for name in found.tables if "/" not in name]
    others = [name for name in found.json + found.texts if "/" not in name and split_words(name.partition(".")[0])]
    others = [name for name in others if NO_CAPTIONS.isdisjoint(re.findall(r"[a-z]+", name.lower()))]
    stems = {name: name.partition(".")[0] for name in sorted(plain + others)}
    meanings.compare(list(dict.fromkeys(stems.values())), TABLES)
    return list(stems) if any(map(meanings.known, stems.values())) else []


def _metadata_tables(names: Sequence[str]) -> list[str]:
    """Returns the metadata that is read: that of the folder itself, else one of each folder below it."""
    best: dict[str, str] = {}
    for name in sorted(names, key=lambda name: METADATA_NAMES.index(name.rpartition("/")[2])):
        best.setdefault(name.rpartition("/")[0], name)
    return [best[""]] if "" in best else sorted(best.values())


def _log_left_out(folder: Path, others: dict[str, list[str]], why: str) -> None:
    """Logs the tables, shards and Parquet files that are not read."""
    for kind, names in others.items():
        if names:
            listed = ", ".join(names[:MAX_LISTED]) + (" …" if len(names) > MAX_LISTED else "")
            what = f"{len(names)} {kind} are" if len(names) > 1 else f"1 {ONE[kind]} is"
            log.warning("%s: %s left out (%s), %s", folder, what, listed, why)


def _named_by(folder: Path, tables: Sequence[str], meanings: SplitMeanings, images: Path | None) -> Iterator[Record]:
    """Yields the rows of a folder's metadata."""
    parents = {table: table.rpartition("/")[0] for table in tables}
    splits = splits_of_folders(parents.values(), meanings)
    for table in tables:
        prefix = f"{parents[table]}/" if parents[table] else ""
        for record in table_records(folder / table, confined=True, folder=images, meanings=meanings):
            yield replace(record, split=record.split or splits[parents[table]], prefix=prefix)


def _parquet(folder: Path, names: Sequence[str], meanings: SplitMeanings) -> Iterator[Record]:
    """Yields the rows of Parquet files; of those that the folder's README.md, like one of the Hub, names for splits."""
    readme = folder / "README.md"
    if readme.is_file() and "data_files:" in readme.read_text(encoding="utf-8", errors="replace"):
        from training.data.readers.hub_datasets import streamed_records

        return streamed_records(str(folder), meanings.source.captions_config, "", meanings)
    return parquet_folder_records(folder, names, meanings)


def _tables(folder: Path, names: Sequence[str], meanings: SplitMeanings, images: Path | None) -> Iterator[Record]:
    """Yields the rows of tables that are named after splits."""
    for name in names:
        stem = name.partition(".")[0]
        for record in table_records(folder / name, confined=True, folder=images, meanings=meanings):
            yield replace(record, split=record.split or (stem if meanings.known(stem) else ""))


def _pairs(folder: Path, meanings: SplitMeanings) -> Iterator[Record]:
    """Yields images with the .txt and .json of their names, as img2dataset writes them; `a.tr.txt` is column tr.txt."""
    with_texts = (
        parent.rstrip("/")
        for parent, names in _folders(folder)
        if any(name.endswith((".txt", ".json")) for name in names) and not is_hidden(parent.rstrip("/") or "x")
    )
    splits = splits_of_folders(with_texts, meanings)
    number = 0
    for parent, names in _folders(folder):
        if is_hidden(parent.rstrip("/") or "x"):
            continue
        for values in _samples(folder, parent, [name for name in names if not is_hidden(name)]):
            number += 1
            yield Record(values, folder, True, number, split=splits.get(parent.rstrip("/"), ""))


def _samples(folder: Path, parent: str, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yields the samples of one folder, as column → value."""
    images: dict[str, list[str]] = {}
    unread: dict[str, str] = {}
    named = set(_images_among(names))
    for name in names:
        stem, _, _ = name.rpartition(".")
        if name in named:
            images.setdefault(stem, []).append(name)
        elif found_kind := unread_kind(name, with_libraries=False):
            unread[stem] = f"an image of a kind that is not read ({found_kind})"
    found: dict[str, dict[str, Any]] = {stem: {"txt": ""} for stem in images}
    faults: dict[str, str] = {}
    for name in names:
        stem, _, kind = name.rpartition(".")
        column = kind.lower()
        if column not in TEXTS and column != FIELDS:
            continue
        if stem not in images and stem.rpartition(".")[0] in images:
            stem, _, language = stem.rpartition(".")
            column = f"{language}.{column}"
        if column == FIELDS and stem not in images:
            continue
        sample = found.setdefault(stem, {"txt": ""})
        content = _content(folder / parent / name, column)
        if isinstance(content, str) and column == FIELDS:
            faults[stem] = content
        elif isinstance(content, str):
            sample[column] = content
        elif content is None:
            faults[stem] = f"a .{column} that is not UTF-8, or has more than {MAX_TEXT_BYTES} bytes"
        else:
            found[stem] = {**content, **sample}
    for stem, values in found.items():
        for name in images.get(stem, [""]):
            fault = faults.get(stem) or ("" if name else unread.get(stem, "no image beside the caption"))
            image = MissingImage(parent + (name or stem), fault) if fault else parent + name
            yield {**values, SAMPLE_IMAGE: image}


def _content(path: Path, column: str) -> str | dict[str, Any] | None:
    """Returns the text of a .txt, the record of a .json or what is wrong with it, or None where it is no text."""
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            return None
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
    if column != FIELDS:
        return text
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return "a .json that does not read"
    return record if isinstance(record, dict) else "a .json that is no record"


def _nothing(folder: Path, found: Contents) -> SourceError:
    """Returns the error of a folder without anything to read; it says what there is, and what to do with it."""
    if found.compressed:
        return SourceError(
            f"expected uncompressed .tar files in {folder}, got compressed ones, in which no single image can "
            "be read; uncompress them (images hardly shrink)"
        )
    others = f"{not_read_text(found.not_read)}, " if found.not_read else ""
    convert = f"{conversion_advice(found.not_read, with_libraries=False)}, " if found.not_read else ""
    if tables := found.every_table or found.other_texts:
        listed = ", ".join(tables[:MAX_LISTED])
        advice = f"name one of them: --captions {shlex.quote(str(folder / tables[0]))}"
        if len(tables) > 1:
            shown = ", ".join(f"{{captions: {json_text(str(folder / name))}}}" for name in tables[:2])
            more = ", …" if len(tables) > 2 else ""
            advice = (
                f"name one of them with --captions, or in a recipe all that are to be read: sources: [{shown}{more}]"
            )
        if found.images and not found.every_table:
            advice = "if each .txt is the caption of an image, put it beside that image, under the same name"
    elif found.unread:
        listed = ", ".join(found.unread[:MAX_LISTED])
        advice = "save the table as .csv, .jsonl or .parquet"
    else:
        images = found.images + found.clips
        listed = f"{images} images alone" if images else ("no others" if others else "none")
        advice = "write the metadata"
    return SourceError(
        f"expected metadata.jsonl or metadata.csv in {folder} (columns file_name and captions), or .tar or "
        f".parquet files, got {others}{listed}; {convert}{advice}"
    )


def count_images(folder: Path) -> int:
    """Returns the number of images, videos and sounds in a folder and below it, without hidden ones."""
    found = Contents.of(folder)
    return found.images + found.clips
