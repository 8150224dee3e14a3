"""Reads any source of captioned images into rows, and keeps what it skips with the reasons."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np

from training.data.columns import SPLIT_NAMES, Columns
from training.data.readers.hub_datasets import hub_records
from training.data.samples import Record, Row, SkippedSample, merged
from training.data.store import SPLITS, IdIndex, LazyImageCodec, Rows, RowWriter, SkippedWriter, SplitNumbers
from training.data.readers.tables import is_table, json_lines, table_records
from training.data.readers.webdataset import is_shards, shard_records, shards_below, shards_of
from training.run.source import Source, SourceConfig, SourceError, is_mini
from turkish_clip.atomic import atomic_write

log = logging.getLogger("training")
METADATA_NAMES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")


@dataclass(frozen=True)
class Captions:
    """A source that has been read.

    Attributes:
        name: the source as the user named it, for reports.
        rows: one per image, in the source's order; on disk until the process ends.
        skipped: the skipped samples; on disk likewise.
        texts: rows of text-only sources, which have captions and English captions but no image; None without such
            sources. They are for training alone, and in no split.
    """

    name: str
    rows: Rows
    skipped: Sequence[SkippedSample] = ()
    texts: Rows | None = None

    @property
    def samples(self) -> int:
        """The number of rows that were read, with and without images, and of skipped samples."""
        return len(self.rows) + len(self.skipped) + len(self.texts or ())

    def split(self, name: str) -> Rows:
        """Returns the rows of one split.

        Raises:
            SourceError: the split is empty.
        """
        rows = self.rows.of_split(name)
        if not rows:
            counts = np.bincount(self.rows.splits, minlength=len(SPLITS)).tolist()
            sizes = {split: count for split, count in zip(SPLITS, counts) if count}
            raise SourceError(
                f"expected images in the {name} split of {self.name}, got none (splits: {sizes}); "
                + ("add images to train on" if name == "train" else f"raise --{name}_fraction, or add that split to it")
            )
        return rows


def read_captions(config: SourceConfig, *, check_files: bool = True) -> Captions:
    """Reads the configured sources in one pass, with at most a few thousand rows in memory.

    Rows of one image_id are merged into one with all their captions; with several sources, an image_id begins with
    its source's name. Splits come from the source (a split column, Hub splits, or subfolders with their own metadata);
    a split that a source lacks is cut from its train split by a seeded hash of the image_id. Rows of text-only sources
    are kept apart: those that their source gives to validation or test are left out.

    Args:
        config: names the sources.
        check_files: whether rows whose images are not there are skipped. Commands that open no image keep them: their
            image embeddings, or the list of what was skipped when these were made, decide.

    Raises:
        SourceError: a source or column does not exist, no caption is left, or too many samples were skipped.
    """
    codec, skipped = LazyImageCodec(), SkippedWriter(config.folder)
    parts: dict[bool, list[Rows]] = {False: [], True: []}
    for source in config.all_sources:
        parts[source.text_only].append(_read_source(source, config, codec, skipped, check_files))
    texts = Rows.joined(parts[True]) if parts[True] else None
    captions = Captions(config.source_names, Rows.joined(parts[False]), skipped.finish(), texts)
    if texts is not None:
        log.info("%d rows of text-only sources: they are trained on, and need no image", len(texts))
    check_skipped(captions.skipped, captions, config)
    return captions


def _read_source(
    source: Source, config: SourceConfig, codec: LazyImageCodec, skipped: SkippedWriter, check_files: bool
) -> Rows:
    """Reads one source, and adds what it skips to `skipped`."""
    prefix = f"{source.captions}/" if config.sources else ""
    writer = RowWriter(config.folder, codec)
    reasons: Counter[str] = Counter()
    columns: Columns | None = None
    last: Row | None = None
    total = 0
    for record in _records(source, config.folder):
        total += 1
        columns = columns or Columns.of(record, source)
        outcome = columns.row(record, check_files=check_files)
        if prefix:
            outcome = replace(outcome, image_id=prefix + outcome.image_id)
        if isinstance(outcome, SkippedSample):
            skipped.add(outcome)
            reasons[outcome.reason] += 1
        elif last is not None and outcome.image_id == last.image_id:
            last = merged(last, outcome)
        else:
            if last is not None:
                writer.add(last)
            last = outcome
    if last is None:
        raise SourceError(
            f"expected captions in {source.captions}, got none in {total} rows "
            f"({_commonest(reasons) or 'empty'}); check its caption columns"
        )
    writer.add(last)
    rows = _one_per_image(writer.finish(), lambda: RowWriter(config.folder, codec))
    if source.text_only:
        return _of_training(rows, source)
    return rows.with_splits(_splits(rows, len(prefix), config))


def _of_training(rows: Rows, source: Source) -> Rows:
    """Returns the rows of a text-only source that it does not give to validation or test.

    Raises:
        SourceError: it gives all of them to those.
    """
    places = np.flatnonzero(np.isin(rows.splits, (SPLITS.index(""), SPLITS.index("train"))))
    if not len(places):
        raise SourceError(
            f"expected captions to train on in {source.captions}, got {len(rows)} of validation and test; add others, "
            "or name another column with --split_column"
        )
    if len(places) < len(rows):
        log.info("%d rows of %s are of validation or test: left out", len(rows) - len(places), source.captions)
    return rows.take(places)


def check_skipped(skipped: Sequence[SkippedSample], captions: Captions, config: SourceConfig) -> None:
    """Stops a run that skips too many samples.

    Args:
        skipped: the samples that were skipped so far, when rows were read or images opened.
        captions: the source; its rows and skipped samples are the whole.
        config: gives `max_skipped_fraction`.

    Raises:
        SourceError: the fraction is above `max_skipped_fraction`; the message gives the commonest reasons.
    """
    check_skipped_fraction(skipped, captions.samples, config.max_skipped_fraction, captions.name)


def check_skipped_fraction(skipped: Sequence[SkippedSample], total: int, allowed: float, name: str) -> None:
    """Stops a run that skips too many samples.

    Args:
        skipped: the samples that were skipped so far.
        total: number of samples, the skipped ones included.
        allowed: the largest fraction of them that may be skipped.
        name: where they are from, for the message.

    Raises:
        SourceError: the fraction is larger; the message gives the commonest reasons.
    """
    if len(skipped) > allowed * total:
        reasons = Counter(sample.reason for sample in skipped)
        raise SourceError(
            f"expected at most {allowed:.1%} skipped in {name}, got {len(skipped)} of {total} "
            f"({_commonest(reasons)}; the first: {skipped[0].path}); fix the source or raise --max_skipped_fraction"
        )


def _commonest(reasons: Counter[str]) -> str:
    return ", ".join(f"{count} × {reason}" for reason, count in reasons.most_common(3))


def write_skipped(path: Path, skipped: Iterable[SkippedSample]) -> None:
    """Writes skipped.jsonl atomically: one JSON object a line, with image_id, path and reason.

    Args:
        path: the file.
        skipped: the samples, in order.
    """
    with atomic_write(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.writelines(sample.as_json() + "\n" for sample in skipped)


def read_skipped(path: Path) -> list[SkippedSample]:
    """Reads a skipped.jsonl; a missing file means no skipped samples."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as file:
        return [SkippedSample(**json.loads(line)) for line in file]


def hash_fraction(seed: int, image_id: str) -> float:
    """Returns a fraction in [0, 1) that depends on the seed and the image_id only; it decides an image's split.

    Args:
        seed: another one gives an independent fraction.
        image_id: the name of the image in its source.
    """
    digest = hashlib.sha256(f"{seed}:{image_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _records(source: Source, run: Path) -> Iterator[Record]:
    """Reads a source's records, whatever kind of source its name means."""
    if is_mini(source.captions):
        from training.mini.world import WorldSize, write_world

        size = source.captions.partition(":")[2]
        if size and not size.isdecimal():
            raise SourceError(f"expected mini or mini:IMAGES, got {source.captions!r}; give a whole number")
        world_size = WorldSize(train=int(size)) if size else WorldSize()
        return _folder_records(write_world(run / "data", world_size))
    path = Path(source.captions)
    if source.captions_streaming and (path.exists() or is_shards(source.captions)):
        raise SourceError(
            f"expected a Hub data set to stream, got the local {path}; leave captions_streaming out: local images are "
            "read one by one anyway"
        )
    if path.is_dir():
        return _folder_records(path)
    if is_shards(source.captions):
        return shard_records(shards_of(source.captions))
    if path.is_file():
        if not is_table(path):
            convert = (
                f"write one record a line: {json_lines(path)}"
                if path.suffix == ".json"
                else "convert it to one of them"
            )
            raise SourceError(f"expected a .csv, .tsv, .jsonl or .parquet table or a .tar, got {path}; {convert}")
        return table_records(path, confined=False)
    if source.captions.count("/") != 1 or source.captions.startswith((".", "/", "~")) or is_table(path):
        raise SourceError(
            f"expected a folder, table or Hub data set, got {source.captions!r}, which is not there; "
            "check the path (a Hub id is owner/name)"
        )
    if source.captions_streaming:
        from training.data.readers.hub_datasets import streamed_records

        return streamed_records(source.captions, source.captions_config, source.captions_revision)
    return hub_records(source.captions, source.captions_config or None, source.captions_revision or None)


def _folder_records(folder: Path) -> Iterator[Record]:
    """Reads a folder of images with metadata (or train/, validation/, test/ with theirs), of shards or of Parquet."""
    tables = [folder / name for name in METADATA_NAMES if (folder / name).is_file()][:1]
    if tables:
        yield from table_records(tables[0], confined=True)
        return
    has_splits = False
    for subfolder in sorted(path for path in folder.iterdir() if path.name in SPLIT_NAMES):
        for table in [subfolder / name for name in METADATA_NAMES if (subfolder / name).is_file()][:1]:
            has_splits = True
            for record in table_records(table, confined=True):
                yield replace(record, split=SPLIT_NAMES[subfolder.name], prefix=f"{subfolder.name}/")
    if has_splits:
        return
    if shards := shards_below(folder):
        yield from shard_records(shards, folder)
    elif any(folder.rglob("*.parquet")):
        from training.data.readers.hub_datasets import streamed_records

        yield from streamed_records(str(folder), "", "")
    else:
        raise SourceError(
            f"expected metadata.jsonl or metadata.csv in {folder} (columns file_name and captions), or .tar or "
            ".parquet files, got none; write the metadata"
        )


def _one_per_image(rows: Rows, new_writer: Callable[[], RowWriter]) -> Rows:
    """Merges the rows of each image_id into one, in the position of the first of them."""
    firsts = IdIndex(rows.image_ids()).firsts()
    if (firsts == np.arange(len(firsts))).all():
        return rows
    writer, order = new_writer(), np.argsort(firsts, kind="stable")
    for _, group in groupby(zip(firsts[order].tolist(), rows.take(order)), key=itemgetter(0)):
        writer.add(reduce(merged, (row for _, row in group)))
    return writer.finish()


def _splits(rows: Rows, prefix: int, config: SourceConfig) -> SplitNumbers:
    """Returns the number of each row's split, with the splits that the source lacks cut from train: (n,) uint8.

    What is hashed is a row's image_id without its first `prefix` characters, which name the source.
    """
    given = {SPLITS[number] for number in np.unique(rows.splits).tolist()}
    train = SPLITS.index("train")
    splits = np.where(rows.splits == 0, np.uint8(train), rows.splits)
    cut = {"test": config.test_fraction, "validation": config.validation_fraction}
    cut = {name: fraction for name, fraction in cut.items() if name not in given}
    if cut:
        ids = (image_id[prefix:] for image_id in rows.image_ids())
        hashes = np.fromiter((hash_fraction(config.split_seed, image_id) for image_id in ids), np.float64, len(rows))
        for name, fraction in cut.items():
            splits[(splits == train) & (hashes < fraction)] = SPLITS.index(name)
            hashes -= fraction
    return splits
