"""Reads any source of captioned images into rows, and keeps what it skips with the reasons."""

from __future__ import annotations

import hashlib
import logging
import os
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from training.data.cells import DamagedTexts
from training.data.columns import Columns
from training.data.identity import Identity, one_per_image
from training.data.readers.clips import rows_of
from training.data.readers.folders import count_images, folder_records
from training.data.readers.hub_datasets import hub_records
from training.data.readers.tables import is_table, table_records
from training.data.readers.webdataset import is_shards, shard_records, shards_of
from training.data.samples import SPLITS, Record, Row, SkippedSample, merged
from training.data.splits import PathSplits, SplitMeanings, split_words, splits_of_sources
from training.data.store import IdIndex, LazyImageCodec, Rows, RowWriter, SkippedWriter, SplitNumbers
from training.run.source import LEFT_OUT, Source, SourceConfig, SourceError, is_mini
from turkish_clip.atomic import atomic_write
from turkish_clip.clips import whole_name

log = logging.getLogger("training")


@dataclass(frozen=True)
class Captions:
    """A source that has been read.

    Attributes:
        name: the source as the user named it, for reports.
        rows: one per image, in the source's order; on disk until the process ends.
        skipped: the skipped samples; on disk likewise.
        texts: rows of text-only sources, which have captions and English captions but no image; None without such
            sources. They are for training alone, and in no split.
        read: the number of rows in the sources: those that were merged, skipped or left out included.
        left_out: why rows were left out on purpose → how many.
    """

    name: str
    rows: Rows
    skipped: Sequence[SkippedSample] = ()
    texts: Rows | None = None
    read: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)

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
                + (_no_train_advice(sizes) if name == "train" else f"raise --{name}_fraction, or add that split to it")
            )
        return rows


def read_captions(config: SourceConfig, *, check_files: bool = True, numbers_as_texts: bool = False) -> Captions:
    """Reads the configured sources in one pass, with at most a few thousand rows in memory.

    Rows of one image are merged into one with all their captions; with several sources, an image_id begins with its
    source's name. Splits come from the source (a split column, or the names of Hub splits, folders, files, and of the
    sources themselves where there are several); a split that a source lacks is cut from its train split by a seeded
    hash of the image_id. Rows of text-only sources are kept apart: those that their source gives to validation or test
    are left out.

    Args:
        config: names the sources.
        check_files: whether rows whose images are not there are skipped. Commands that open no image keep them: their
            image embeddings, or the list of what was skipped when these were made, decide.
        numbers_as_texts: whether a caption may be a number or a truth value, as the values of attributes are.

    Raises:
        SourceError: a source or column does not exist, an image_id is that of two images, a split has an unknown name,
            no caption is left, or too many samples were skipped.
    """
    reading = _Reading(config, check_files, numbers_as_texts)
    parts: dict[bool, list[Rows]] = {False: [], True: []}
    for source in config.all_sources:
        parts[source.text_only].append(reading.read(source))
    texts = Rows.joined(parts[True]) if parts[True] else None
    rows = Rows.joined(parts[False])
    if len(parts[False]) > 1:
        _check_unique(rows)
    skipped = reading.skipped.finish()
    captions = Captions(config.source_names, rows, skipped, texts, reading.total, dict(reading.left_out))
    for reason, count in captions.left_out.items():
        log.info("left out: %d rows, %s", count, reason)
    if texts is not None:
        log.info("%d rows of text-only sources: they are trained on, and need no image", len(texts))
    check_skipped(captions.skipped, captions, config)
    return captions


class _Reading:
    """Reads the sources of one command, and counts what it reads."""

    def __init__(self, config: SourceConfig, check_files: bool, numbers_as_texts: bool) -> None:
        self.config = config
        self.check_files = check_files
        self.numbers_as_texts = numbers_as_texts
        self.codec = LazyImageCodec()
        self.skipped = SkippedWriter(config.folder)
        self.left_out: Counter[str] = Counter()
        self.total = 0
        self.own_splits = _own_splits(config)

    def read(self, source: Source) -> Rows:
        """Returns the rows of one source, and adds what it skips and leaves out."""
        config, prefix = self.config, f"{source.captions}/" if self.config.sources else ""
        writer = RowWriter(config.folder, self.codec)
        reasons: Counter[str] = Counter()
        meanings = SplitMeanings(source, self.own_splits[source.captions] if self.config.sources else "")
        paths, others = PathSplits(meanings), False
        columns: Columns | None = None
        last: Row | None = None
        before = self.total
        unnamed = UnnamedImages(source) if self.check_files else None
        damaged, unopened = DamagedTexts(), False
        for record in _records(source, meanings, config.folder):
            self.total += 1
            if self.numbers_as_texts:
                record = _with_texts(record, source.caption_columns)
            columns = columns or Columns.of(record, source)
            split = columns.split(record, meanings)
            others, path = others or bool(split), "" if split else columns.path(record)
            split = split or paths.of(path)
            if split == LEFT_OUT:
                if unnamed:
                    unnamed.add(record, columns.image)
                self.left_out[f"of splits that --split_names leaves out of {source.captions}"] += 1
                continue
            whole = columns.row(record, split, check_files=self.check_files)
            if unnamed:
                unnamed.add(record, columns.image, whole)
            if prefix:
                whole = replace(whole, image_id=prefix + whole.image_id)
            kept = False
            for outcome in self._images_of(whole, source):
                if isinstance(outcome, SkippedSample):
                    self.skipped.add(outcome)
                    reasons[outcome.reason] += 1
                    unopened = isinstance(whole, Row)
                    continue
                kept = True
                if last is not None and _is_of_one_image(last, outcome):
                    last = merged(last, outcome)
                else:
                    if last is not None:
                        writer.add(last)
                    last = outcome
            if not kept:
                continue
            for text in whole.captions if isinstance(whole, Row) else ():
                damaged.add(text)
            if path:
                paths.add(path)
        meanings.check()
        for line in damaged.lines():
            log.warning("%s: %s; they are trained on as they are: mend the source", source.captions, line)
        if unnamed:
            unnamed.log()
        if columns is None or last is None:
            raise SourceError(
                f"expected captions in {source.captions}, got none in {self.total - before} rows "
                f"({_commonest(reasons) or 'it is empty'}); "
                + ("play one of its videos or sounds" if unopened else _advice(reasons))
            )
        writer.add(last)
        in_paths = paths.check(others)
        identity = Identity(source, bool(columns.image_id), self.check_files)
        rows = one_per_image(writer.finish(), lambda: RowWriter(config.folder, self.codec), identity)
        if not in_paths and not others:
            rows = _all_of(rows, SPLITS[0])
        if own_split := self._own_split(source, rows):
            rows = _all_of(rows, own_split)
        if source.text_only:
            return self._of_training(rows, source)
        return rows.with_splits(_splits(rows, len(prefix), config))

    def _images_of(self, whole: Row | SkippedSample, source: Source) -> Iterable[Row | SkippedSample]:
        """Returns what a record becomes: itself, or the images of its video or sound."""
        if isinstance(whole, SkippedSample):
            return [whole]
        return rows_of(whole, source.clip_images, check_files=self.check_files)

    def _of_training(self, rows: Rows, source: Source) -> Rows:
        """Returns the rows of a text-only source that it does not give to validation or test.

        Raises:
            SourceError: it gives all of them to those.
        """
        places = np.flatnonzero(np.isin(rows.splits, (SPLITS.index(""), SPLITS.index("train"))))
        if not len(places):
            raise SourceError(
                f"expected captions to train on in {source.captions}, got {len(rows)} of validation and test; add "
                "others, or name another column with --split_column"
            )
        if len(places) < len(rows):
            self.left_out[f"of validation and test in {source.captions}, which has texts alone"] += len(rows) - len(
                places
            )
        return rows.take(places)

    def _own_split(self, source: Source, rows: Rows) -> str:
        """Returns the split that a source's own name means where nothing in it names one; empty: none.

        One of several sources is of that split; a single one is divided, and a line says so.
        """
        named = self.own_splits[source.captions]
        if rows.splits.any():
            if named not in ("", "train") and not np.any(rows.splits > SPLITS.index("train")):
                log.warning(
                    "%s: all of it is read as train, as its column or layout says, though its name seems to mean %s",
                    source.captions, named,
                )  # fmt: skip
            return ""
        if not named:
            if split_words(_stem(source)):
                log.warning(
                    "%s is read as no split, though its name has the word of one; if it is one, add a column split",
                    source.captions,
                )
            return ""
        if not self.config.sources:
            if named != "train":
                log.warning(
                    "%s is the only source, and divided into train, validation and test, though its name seems to mean "
                    "%s; add a column split to it if it is", source.captions, named,
                )  # fmt: skip
            return ""
        log.info(
            "%s: all of it is read as %s, by its name; a column split or its split_names change that",
            source.captions, named,
        )  # fmt: skip
        return named


def _with_texts(record: Record, columns: Sequence[str]) -> Record:
    """Returns a record with the numbers and truth values of some columns as texts."""
    numbers = {name: record.values.get(name) for name in columns}
    texts = {name: str(value) for name, value in numbers.items() if isinstance(value, (int, float)) and value == value}
    return replace(record, values={**record.values, **texts}) if texts else record


def _stem(source: Source) -> str:
    """Returns the own name of a source: that of its file, folder or data set, without what follows a dot or brace."""
    return Path(source.captions).name.partition(".")[0].partition("{")[0]


def _own_splits(config: SourceConfig) -> dict[str, str]:
    """Returns source → the split that its own name means, by itself or beside those of the others; empty for none.

    Raises:
        SourceError: the configuration says that a source's own name means that it is left out.
    """
    folders = {source.captions: Path(source.captions).absolute().parent for source in config.all_sources}
    common = Path(os.path.commonpath(list(folders.values())))
    paths = {}
    for source in config.all_sources:
        folder = folders[source.captions]
        local = folder.relative_to(common).as_posix() if folder.is_dir() else ""
        paths[source.captions] = f"{local}/{_stem(source)}" if local not in ("", ".") else _stem(source)
    by_path = splits_of_sources(list(paths.values()))
    result = {captions: by_path[path] for captions, path in paths.items()}
    for source in config.all_sources:
        meanings, stem = SplitMeanings(source), _stem(source)
        if meanings.is_given(stem):
            result[source.captions] = meanings.known(stem)
        if result[source.captions] == LEFT_OUT:
            raise SourceError(
                f"expected a source that is read, got {source.captions}, left out by split_names; take it out"
            )
    return result


class UnnamedImages:
    """Counts the images of a folder that no row of its metadata names."""

    def __init__(self, source: Source) -> None:
        self._folder = Path(source.captions)
        self._is_folder = self._folder.is_dir()
        self._named = array("q")

    def add(self, record: Record, column: str, outcome: Row | SkippedSample | None = None) -> None:
        """Remembers the file that a record names, in eight bytes.

        Args:
            record: of the source.
            column: that of images.
            outcome: what became of the record; a row has found the file already.
        """
        if self._is_folder and isinstance(record.values.get(column), str):
            file = outcome.image if isinstance(outcome, Row) else record.image(column)
            if isinstance(file, Path):
                self._named.append(hash(file))

    def log(self) -> None:
        """Logs how many images are in the source's folder beside those that were named."""
        if self._named:
            total, named = count_images(self._folder), len(np.unique(np.frombuffer(self._named, np.int64)))
            if total > named:
                log.warning(
                    "%s: %d of its %d images are left out, since no row names them", self._folder, total - named, total
                )


def _is_of_one_image(last: Row, row: Row) -> bool:
    """Returns whether a row is surely of the image of the last one, and of the same split."""
    return (row.image_id, row.image, row.split) == (last.image_id, last.image, last.split)


def _all_of(rows: Rows, split: str) -> Rows:
    """Returns rows as those of one split."""
    return rows.with_splits(np.full(len(rows), SPLITS.index(split), np.uint8))


def _no_train_advice(sizes: Mapping[str, int]) -> str:
    if not sizes:
        return "add images to train on"
    return "add images to train on, or say that a split is for training: --split_names NAME=train"


def _advice(reasons: Counter[str]) -> str:
    """Returns what to do about a source of which nothing is left."""
    if any(reason.startswith(("no file", "no image named")) for reason in reasons):
        return "check its column of images; paths start from the table's folder, or from --image_folder"
    return "check its caption columns"


def _check_unique(rows: Rows) -> None:
    """Checks that no two sources give one image_id.

    Raises:
        SourceError: they do: one source's name is the beginning of another's.
    """
    firsts = IdIndex(rows.image_ids()).firsts()
    repeated = np.flatnonzero(firsts != np.arange(len(firsts)))
    if len(repeated):
        number = int(repeated[0])
        first, second = rows[int(firsts[number])], rows[number]
        raise SourceError(
            f"expected other images in each of the sources, got {second.image_id!r} in {first.source} and "
            f"{second.source}; move one of them to another folder"
        )


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
    """Reads a skipped.jsonl; a missing file means no skipped samples.

    Raises:
        SourceError: a line is damaged.
    """
    return SkippedSample.from_lines(path.read_bytes(), str(path)) if path.is_file() else []


def hash_fraction(seed: int, image_id: str) -> float:
    """Returns a fraction in [0, 1) that depends on the seed and the image_id only; it decides an image's split.

    Args:
        seed: another one gives an independent fraction.
        image_id: the name of the image in its source.
    """
    digest = hashlib.sha256(f"{seed}:{image_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _records(source: Source, meanings: SplitMeanings, run: Path) -> Iterator[Record]:
    """Reads a source's records, whatever kind of source its name means."""
    if is_mini(source.captions):
        from training.mini.world import WorldSize, write_world

        numbers = source.captions.split(":")[1:]
        if len(numbers) > 2 or not all(number.isdecimal() for number in numbers):
            raise SourceError(
                f"expected mini, mini:IMAGES or mini:IMAGES:SEED, got {source.captions!r}; give whole numbers"
            )
        world_size = WorldSize(**dict(zip(("train", "seed"), map(int, numbers))))
        return folder_records(write_world(run / "data", world_size), meanings)
    path = Path(source.captions)
    if source.captions_streaming and (path.exists() or is_shards(source.captions)):
        raise SourceError(
            f"expected a Hub data set to stream, got the local {path}; leave captions_streaming out: local images are "
            "read one by one anyway"
        )
    images = Path(source.image_folder) if source.image_folder else None
    if images is not None and not images.is_dir():
        raise SourceError(f"expected a folder as image_folder of {path}, got {images}, which is none; correct it")
    if path.is_dir():
        return folder_records(path, meanings, images)
    if is_shards(source.captions):
        return shard_records(shards_of(source.captions), meanings)
    if path.is_file():
        if not is_table(path):
            raise SourceError(
                f"expected a .csv, .tsv, .jsonl, .json or .parquet table or a .tar, got {path}; convert it to one of "
                "them"
            )
        return table_records(path, confined=False, folder=images, meanings=meanings)
    if source.captions.count("/") != 1 or source.captions.startswith((".", "/", "~")) or is_table(path):
        raise SourceError(
            f"expected a folder, table or Hub data set, got {source.captions!r}, which is not there; "
            "check the path (a Hub id is owner/name)"
        )
    if source.captions_streaming:
        from training.data.readers.hub_datasets import streamed_records

        return streamed_records(source.captions, source.captions_config, source.captions_revision, meanings)
    return hub_records(source.captions, source.captions_config or None, source.captions_revision or None, meanings)


def _splits(rows: Rows, prefix: int, config: SourceConfig) -> SplitNumbers:
    """Returns the number of each row's split, with the splits that the source lacks cut from train: (n,) uint8.

    What is hashed is a row's image_id without its first `prefix` characters, which name the source, and without the
    second of a clip's image, so that no clip is in two splits.
    """
    given = {SPLITS[number] for number in np.unique(rows.splits).tolist()}
    train = SPLITS.index("train")
    splits = np.where(rows.splits == 0, np.uint8(train), rows.splits)
    cut = {"test": config.test_fraction, "validation": config.validation_fraction}
    cut = {name: fraction for name, fraction in cut.items() if name not in given}
    if cut:
        ids = (whole_name(image_id[prefix:]) for image_id in rows.image_ids())
        hashes = np.fromiter((hash_fraction(config.split_seed, image_id) for image_id in ids), np.float64, len(rows))
        for name, fraction in cut.items():
            splits[(splits == train) & (hashes < fraction)] = SPLITS.index(name)
            hashes -= fraction
    return splits
