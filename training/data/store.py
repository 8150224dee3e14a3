"""The rows of a source of any size: on disk, in columns, one at a time in memory; and an index of their ids."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from training.data.samples import Row, SkippedSample
from training.run.temp_storage import Numbers, TableRows, TableWriter, Texts

if TYPE_CHECKING:
    import pyarrow as pa
    from typing_extensions import Self

DIGEST_BYTES = 16  # two of a trillion names agree in them with a probability below 1e-14
Places = NDArray[np.int64]


class IdIndex:
    """Names of a sequence, 24 bytes each: their digests in order, and where each stands."""

    def __init__(self, names: Iterable[str]) -> None:
        digests = _digests(names)
        self._order: Places = np.argsort(digests, kind="stable")
        self._digests = digests[self._order]

    def __len__(self) -> int:
        return len(self._order)

    def find(self, names: Iterable[str]) -> Places:
        """The last place of each name, (n,) int64; -1 where it is none of them."""
        wanted = _digests(names)
        if not len(self):
            return np.full(len(wanted), -1, np.int64)
        found = np.searchsorted(self._digests, wanted, side="right") - 1
        return np.where(self._digests[found] == wanted, self._order[found], -1)  # place -1 is the last: another name

    def firsts(self) -> Places:
        """For each name of the sequence the place where it comes first: (n,) int64."""
        begins = np.ones(len(self), bool)
        begins[1:] = self._digests[1:] != self._digests[:-1]
        result = np.empty(len(self), np.int64)
        result[self._order] = self._order[begins][np.cumsum(begins) - 1]
        return result


def _digests(names: Iterable[str]) -> NDArray[np.bytes_]:
    joined = bytearray()
    for name in names:
        joined += hashlib.blake2b(name.encode(), digest_size=DIGEST_BYTES).digest()
    return np.frombuffer(joined, f"S{DIGEST_BYTES}")


SPLITS = ("", "train", "validation", "test")  # a split's number is its place; "": the source says none
NO_IMAGE, PATH = 0, 1  # kinds of images; from 2 on, the classes of tables.py
SplitNumbers = NDArray[np.uint8]


class LazyImageCodec:
    """The ways to images as bytes, and back: paths as they are, the objects of tables.py by their fields.

    What such an object shares with others, as the data set that it reads, stays in memory, once.
    """

    def __init__(self) -> None:
        self._kinds: list[type] = []
        self._shared: list[Any] = []
        self._number_of: dict[Any, int] = {}

    def pack(self, image: Any) -> tuple[int, bytes]:
        """An image's kind, and what names it."""
        if image is None or isinstance(image, Path):
            return (NO_IMAGE, b"") if image is None else (PATH, os.fsencode(image))
        if type(image) not in self._kinds:
            self._kinds.append(type(image))
        values: list[Any] = []
        for field in dataclasses.fields(image):
            value = getattr(image, field.name)
            if isinstance(value, Path):
                values.append({"path": str(value)})
            elif value is None or isinstance(value, (str, int, float)):
                values.append(value)
            else:
                values.append({"shared": self._share(value)})
        return self._kinds.index(type(image)) + PATH + 1, json.dumps(values).encode()

    def unpack(self, kind: int, name: bytes) -> Any:
        """The image that was packed."""
        if kind in (NO_IMAGE, PATH):
            return Path(os.fsdecode(name)) if kind == PATH else None
        return self._kinds[kind - PATH - 1](*(self._value(value) for value in json.loads(name)))

    def _share(self, value: Any) -> int:
        if value not in self._number_of:
            self._number_of[value] = len(self._shared)
            self._shared.append(value)
        return self._number_of[value]

    def _value(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if "shared" in value:
            return self._shared[value["shared"]]
        return Path(value["path"])


class RowWriter:
    """Writes the rows of one source, in order."""

    def __init__(self, temp_dir: Path, codec: LazyImageCodec) -> None:
        import pyarrow as pa

        texts = pa.list_(pa.string())
        columns = {"image_id": pa.string(), "kind": pa.int16(), "name": pa.binary()}
        columns |= {"captions": texts, "english": texts, "translations": pa.list_(pa.int32())}
        columns |= {"source": pa.string(), "labels": texts}
        self._writer = TableWriter(pa.schema(list(columns.items())), temp_dir)
        self._codec = codec
        self._splits = bytearray()

    def add(self, row: Row) -> None:
        self._splits.append(SPLITS.index(row.split))
        size = sum(map(len, row.captions + row.english))
        texts = (row.captions, row.english, row.translations)
        self._writer.add((row.image_id, *self._codec.pack(row.image), *texts, row.source, row.labels), size)

    def finish(self) -> Rows:
        """The rows that were added."""
        return Rows(self._writer.finish(), np.frombuffer(bytes(self._splits), np.uint8), self._codec)


class Rows(TableRows[Row]):
    """Rows of a source, or some of them. A slice, `take` and `of_split` hold numbers of rows alone."""

    def __init__(self, table: pa.Table, splits: SplitNumbers, codec: LazyImageCodec) -> None:
        """Takes the table of RowWriter and the split of each of its rows, (n,) uint8 as in SPLITS."""
        super().__init__(table)
        self._table = table
        self._splits = splits
        self._codec = codec

    @classmethod
    def of(cls, rows: Iterable[Row], temp_dir: Path) -> Rows:
        """Rows that are in memory, on disk."""
        writer = RowWriter(temp_dir, LazyImageCodec())
        for row in rows:
            writer.add(row)
        return writer.finish()

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """The rows of several sources, one after the other; their images were packed by one codec."""
        import pyarrow as pa

        if len(parts) == 1:
            return parts[0]
        tables = pa.concat_tables([part._table for part in parts])
        return cls(tables, np.concatenate([part._splits for part in parts]), parts[0]._codec)

    @property
    def splits(self) -> SplitNumbers:
        """The split of each of these rows: (n,) uint8, as in SPLITS."""
        return self._splits[self.numbers]

    def with_splits(self, splits: SplitNumbers) -> Rows:
        """All rows of the table, with other splits."""
        return Rows(self._table, splits, self._codec)

    def of_split(self, name: str) -> Self:
        """Those of one split; there may be none."""
        return self.take(np.flatnonzero(self.splits == SPLITS.index(name)))

    def image_ids(self) -> Texts:
        """The image_id of each, without the rest of it."""
        return Texts(self._table.select(["image_id"]), self._numbers)

    def _make(self, batch: pa.RecordBatch, numbers: Numbers) -> Iterator[Row]:
        images = zip(*(batch.column(name).to_pylist() for name in ("kind", "name")))
        names, sources = (batch.column(name).to_pylist() for name in ("image_id", "source"))
        lists = (_tuples(batch.column(name)) for name in ("captions", "english", "labels", "translations"))
        splits = [SPLITS[number] for number in self._splits[numbers]]
        for name, image, split, source, *of in zip(names, images, splits, sources, *lists):
            captions, english, labels, translations = of
            yield Row(name, self._codec.unpack(*image), captions, english, split, source, labels, translations)


def _tuples(lists: pa.ListArray) -> Iterator[tuple[Any, ...]]:
    """The lists of a column as tuples; four times as fast as its own to_pylist."""
    values, ends = lists.flatten().to_pylist(), lists.offsets.to_numpy()
    edges = (ends - ends[0]).tolist()
    return (tuple(values[start:end]) for start, end in pairwise(edges))


class SkippedWriter:
    """Writes skipped in order, and counts their reasons."""

    def __init__(self, temp_dir: Path) -> None:
        import pyarrow as pa

        self._writer = TableWriter(
            pa.schema([(name, pa.string()) for name in ("image_id", "path", "reason")]), temp_dir
        )

    def add(self, sample: SkippedSample) -> None:
        self._writer.add((sample.image_id, sample.path, sample.reason))

    def finish(self) -> SkippedSamples:
        """The skipped that were added."""
        return SkippedSamples(self._writer.finish())


class SkippedSamples(TableRows[SkippedSample]):
    """The skipped of a source."""

    def _make(self, batch: pa.RecordBatch, numbers: Numbers) -> Iterator[SkippedSample]:
        return (SkippedSample(*values) for values in zip(*(column.to_pylist() for column in batch.columns)))
