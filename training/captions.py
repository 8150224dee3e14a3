"""Any source of captioned pictures → rows of (image_id, image, captions); counts what it drops, and why."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from training.atomic import write_text
from training.config import Source, SourceConfig
from training.rows import SPLIT_NAMES, CaptionsError, Columns, Reject, Row
from training.shards import is_shards, shard_records, shards_below, shards_of
from training.tables import Record, hub_records, is_table, json_lines, table_records

METADATA_NAMES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")


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
                + (
                    "give it pictures to train on"
                    if name == "train"
                    else f"raise --{name}_share, or give it that split"
                )
            )
        return rows


def read_captions(config: SourceConfig) -> Captions:
    """Reads the sources that the configuration names.

    Rows of one image_id are one picture with all their captions; where there are several sources, an image_id begins
    with its source's name. Splits come from the source (a split column, Hub splits, or subfolders with metadata of
    their own); a split that a source lacks is cut from its train by a seeded hash of image_id.

    Raises:
        CaptionsError: no such source, a column that is not there, no caption left, or too many rejects.
    """
    rows: list[Row] = []
    rejects: list[Reject] = []
    for source in config.all_sources:
        found, left_out = _read_source(source, config)
        found = _with_splits(found, config)
        if config.sources:
            found = [replace(row, image_id=f"{source.captions}/{row.image_id}") for row in found]
            left_out = [replace(reject, image_id=f"{source.captions}/{reject.image_id}") for reject in left_out]
        rows += found
        rejects += left_out
    captions = Captions(config.source_names, rows, rejects)
    check_rejects(rejects, captions, config)
    return captions


def _read_source(source: Source, config: SourceConfig) -> tuple[list[Row], list[Reject]]:
    rows: dict[str, Row] = {}
    rejects: list[Reject] = []
    columns: Columns | None = None
    total = 0
    for record in _records(source, config.folder):
        total += 1
        columns = columns or Columns.of(record, source)
        outcome = columns.row(record)
        if isinstance(outcome, Reject):
            rejects.append(outcome)
        elif outcome.image_id in rows:
            rows[outcome.image_id] = _merged(rows[outcome.image_id], outcome)
        else:
            rows[outcome.image_id] = outcome
    if not rows:
        raise CaptionsError(
            f"expected captions in {source.captions}, got none left of {total} rows ({_reasons(rejects) or 'empty'}); "
            "look at its caption columns"
        )
    return list(rows.values()), rejects


def check_rejects(rejects: Sequence[Reject], captions: Captions, config: SourceConfig) -> None:
    """Stops a run of which too much was rejected, rows and pictures together.

    Raises:
        CaptionsError: the share of rejects is above `max_reject_share`; names the commonest reasons.
    """
    rejected, total = len(rejects), len(captions.rows) + len(captions.rejects)
    if rejected > config.max_reject_share * total:
        raise CaptionsError(
            f"expected at most {config.max_reject_share:.1%} rejects in {captions.name}, got {rejected} of {total} "
            f"({_reasons(rejects)}; the first: {rejects[0].path}); mend the source or raise --max_reject_share"
        )


def _reasons(rejects: Iterable[Reject]) -> str:
    counts = Counter(reject.reason for reject in rejects)
    return ", ".join(f"{count} × {reason}" for reason, count in counts.most_common(3))


def write_rejects(path: Path, rejects: Iterable[Reject]) -> None:
    """Writes rejects.jsonl: image_id, path and reason a line."""
    write_text(path, "".join(reject.as_json() + "\n" for reject in rejects))


def read_rejects(path: Path) -> list[Reject]:
    """Reads rejects.jsonl; empty where there is none."""
    if not path.is_file():
        return []
    return [Reject(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def hash_share(seed: int, image_id: str) -> float:
    """A number in [0, 1) that depends on the seed and the picture's name alone: the law of the splits."""
    digest = hashlib.sha256(f"{seed}:{image_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _records(source: Source, run: Path) -> Iterator[Record]:
    world, _, size = source.captions.partition(":")
    if world == "mini":
        from training.mini.world import WorldSize, write_world

        if size and not size.isdecimal():
            raise CaptionsError(f"expected mini or mini:PICTURES, got {source.captions!r}; give a whole number")
        world_size = WorldSize(train=int(size)) if size else WorldSize()
        return _folder_records(write_world(run / "data", world_size))
    path = Path(source.captions)
    if source.captions_streaming and (path.exists() or is_shards(source.captions)):
        raise CaptionsError(
            f"expected a Hub data set to stream, got {path}, which is here; leave captions_streaming out: its pictures "
            "are read one by one anyway"
        )
    if path.is_dir():
        return _folder_records(path)
    if is_shards(source.captions):
        return shard_records(shards_of(source.captions))
    if path.is_file():
        if not is_table(path):
            convert = f"make lines of it: {json_lines(path)}" if path.suffix == ".json" else "convert it to one"
            raise CaptionsError(f"expected a .csv, .tsv, .jsonl or .parquet table or a .tar, got {path}; {convert}")
        return table_records(path, confined=False)
    if source.captions.count("/") != 1 or source.captions.startswith((".", "/", "~")) or is_table(path):
        raise CaptionsError(
            f"expected a folder, table or Hub data set, got {source.captions!r}, which is not there; "
            "check the path (a Hub id is owner/name)"
        )
    if source.captions_streaming:
        from training.hub_streams import streamed_records

        return streamed_records(source.captions, source.captions_config, source.captions_revision)
    return hub_records(source.captions, source.captions_config or None, source.captions_revision or None)


def _folder_records(folder: Path) -> Iterator[Record]:
    """Records of a folder: of pictures with metadata at its top or in train/, validation/ and test/, or of shards."""
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
    if found:
        return
    if shards := shards_below(folder):
        yield from shard_records(shards)
    elif any(folder.rglob("*.parquet")):
        from training.hub_streams import streamed_records

        yield from streamed_records(str(folder), "", "")
    else:
        raise CaptionsError(
            f"expected metadata.jsonl or metadata.csv in {folder} (columns file_name and captions), or .tar or "
            ".parquet files, got none; write one"
        )


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
