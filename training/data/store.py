"""Rows of a source of any size, stored on disk in columns and read in batches; and an index of their ids."""

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

from training.data.samples import SPLITS, Negative, Row, SkippedSample
from training.run.temp_storage import Numbers, TableRows, TableWriter, Texts

if TYPE_CHECKING:
    import pyarrow as pa
    from typing_extensions import Self

DIGEST_BYTES = 16  # two of a trillion names share them with a probability below 1e-14
Places = NDArray[np.int64]


class IdIndex:
    """An index of the names in a sequence, 24 bytes each: their digests, sorted, with their positions."""

    def __init__(self, names: Iterable[str]) -> None:
        digests = _digests(names)
        self._order: Places = np.argsort(digests, kind="stable")
        self._digests = digests[self._order]

    def __len__(self) -> int:
        return len(self._order)

    def find(self, names: Iterable[str]) -> Places:
        """Returns the last position of each name in the sequence, (n,) int64; -1 for a name that is not in it."""
        digests = _digests(names)
        if not len(self):
            return np.full(len(digests), -1, np.int64)
        nearest = np.searchsorted(self._digests, digests, side="right") - 1  # -1 is the largest digest, which differs
        return np.where(self._digests[nearest] == digests, self._order[nearest], -1)

    def firsts(self) -> Places:
        """Returns for each name of the sequence the position of its first occurrence: (n,) int64."""
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


NEGATIVE_TEXTS = len(dataclasses.fields(Negative))  # a negative's fields are stored as so many texts
NO_IMAGE, PATH = 0, 1  # kinds of packed images; the classes of lazy images follow from 2 on
SplitNumbers = NDArray[np.uint8]


class LazyImageCodec:
    """Packs paths and lazy images into bytes, and unpacks them in the same process.

    A field that many lazy images have in common, such as the data set that they read, is kept in memory once.
    """

    def __init__(self) -> None:
        self._kinds: list[type] = []
        self._shared: list[Any] = []
        self._number_of: dict[Any, int] = {}

    def pack(self, image: Any) -> tuple[int, bytes]:
        """Returns an image's kind, and its path or the JSON of its fields as bytes."""
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
                values.append({"shared": self._shared_number(value)})
        return self._kinds.index(type(image)) + PATH + 1, json.dumps(values).encode()

    def unpack(self, kind: int, name: bytes) -> Any:
        """Returns the image that `pack` was given.

        Args:
            kind: the first value that `pack` returned.
            name: the second.
        """
        if kind in (NO_IMAGE, PATH):
            return Path(os.fsdecode(name)) if kind == PATH else None
        return self._kinds[kind - PATH - 1](*(self._value(value) for value in json.loads(name)))

    def _shared_number(self, value: Any) -> int:
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
    """Writes the rows of one source to temporary storage, in order."""

    def __init__(self, temp_dir: Path, codec: LazyImageCodec) -> None:
        import pyarrow as pa

        texts = pa.list_(pa.string())
        columns = {"image_id": pa.string(), "kind": pa.int16(), "name": pa.binary()}
        columns |= {"captions": texts, "english": texts, "translations": pa.list_(pa.int32())}
        columns |= {"source": pa.string(), "labels": texts, "negatives": texts, "slices": texts}
        self._writer = TableWriter(pa.schema(list(columns.items())), temp_dir)
        self._codec = codec
        self._splits = bytearray()

    def add(self, row: Row) -> None:
        self._splits.append(SPLITS.index(row.split))
        negatives = tuple(text for negative in row.negatives for text in vars(negative).values())
        size = sum(map(len, row.captions + row.english + negatives))
        texts = (row.captions, row.english, row.translations)
        others = (row.source, row.labels, negatives, row.slices)
        self._writer.add((row.image_id, *self._codec.pack(row.image), *texts, *others), size)

    def finish(self) -> Rows:
        """Returns the rows that were added."""
        return Rows(self._writer.finish(), np.frombuffer(bytes(self._splits), np.uint8), self._codec)


class Rows(TableRows[Row]):
    """Rows of a source, or a selection of them: a slice, `take` and `of_split` copy row numbers only."""

    def __init__(self, table: pa.Table, splits: SplitNumbers, codec: LazyImageCodec) -> None:
        """Takes a RowWriter's table, the (n,) uint8 split numbers of its rows as in SPLITS, and its codec."""
        super().__init__(table)
        self._table = table
        self._splits = splits
        self._codec = codec

    @classmethod
    def of(cls, rows: Iterable[Row], temp_dir: Path) -> Rows:
        """Writes rows to temporary storage.

        Args:
            rows: the rows, in order.
            temp_dir: the folder on whose disk they are stored.
        """
        writer = RowWriter(temp_dir, LazyImageCodec())
        for row in rows:
            writer.add(row)
        return writer.finish()

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """Concatenates the rows of several sources, or selections of them, whose images were packed by one codec."""
        import pyarrow as pa

        if len(parts) == 1:
            return parts[0]
        table = pa.concat_tables([part._table for part in parts])
        rows = cls(table, np.concatenate([part._splits for part in parts]), parts[0]._codec)
        if len(rows) == sum(map(len, parts)):
            return rows
        starts = np.cumsum([0, *(len(part._table) for part in parts)], dtype=np.int64)
        return rows.take(np.concatenate([start + part.numbers for start, part in zip(starts, parts)]))

    @property
    def splits(self) -> SplitNumbers:
        """The split numbers of these rows: (n,) uint8, as in SPLITS."""
        return self._splits[self.numbers]

    def with_splits(self, splits: SplitNumbers) -> Rows:
        """Returns all rows of the table with other split numbers: (n,) uint8, as in SPLITS."""
        return Rows(self._table, splits, self._codec)

    def of_split(self, name: str) -> Self:
        """Returns the rows of one split; there may be none."""
        return self.take(np.flatnonzero(self.splits == SPLITS.index(name)))

    def image_ids(self) -> Texts:
        """Returns the image_ids of these rows without reading the other columns."""
        return Texts(self._table.select(["image_id"]), self._numbers)

    def _make(self, batch: pa.RecordBatch, numbers: Numbers) -> Iterator[Row]:
        images = zip(*(batch.column(name).to_pylist() for name in ("kind", "name")))
        names, sources = (batch.column(name).to_pylist() for name in ("image_id", "source"))
        lists = (_tuples(batch.column(name)) for name in ("captions", "english"))
        others = (_tuples(batch.column(name)) for name in ("labels", "translations", "negatives", "slices"))
        splits = [SPLITS[number] for number in self._splits[numbers]]
        for name, image, captions, english, split, source, labels, translations, negatives, slices in zip(
            names, images, *lists, splits, sources, *others
        ):
            pairs = tuple(Negative(*texts) for texts in zip(*[iter(negatives)] * NEGATIVE_TEXTS))
            yield Row(
                name, self._codec.unpack(*image), captions, english, split, source, labels, translations, pairs, slices
            )


def _tuples(lists: pa.ListArray) -> Iterator[tuple[Any, ...]]:
    """Returns the lists of a column as tuples, four times as fast as its own to_pylist."""
    values, ends = lists.flatten().to_pylist(), lists.offsets.to_numpy()
    edges = (ends - ends[0]).tolist()
    return (tuple(values[start:end]) for start, end in pairwise(edges))


class SkippedWriter:
    """Writes skipped samples to temporary storage, in order."""

    def __init__(self, temp_dir: Path) -> None:
        import pyarrow as pa

        self._writer = TableWriter(
            pa.schema([(name, pa.string()) for name in ("image_id", "path", "reason")]), temp_dir
        )

    def add(self, sample: SkippedSample) -> None:
        self._writer.add((sample.image_id, sample.path, sample.reason))

    def finish(self) -> SkippedSamples:
        """Returns the samples that were added."""
        return SkippedSamples(self._writer.finish())


class SkippedSamples(TableRows[SkippedSample]):
    """The skipped samples of a source, on disk."""

    def _make(self, batch: pa.RecordBatch, numbers: Numbers) -> Iterator[SkippedSample]:
        return (SkippedSample(*values) for values in zip(*(column.to_pylist() for column in batch.columns)))
