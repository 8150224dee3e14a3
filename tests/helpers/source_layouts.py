"""Sources of every layout that a reader knows, written from the same rows, each of which has a caption of its own."""

from __future__ import annotations

import base64
import csv
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image


@dataclass(frozen=True)
class RawRow:
    """A row as a source has it: a caption like no other's, or none, and the number of its image, or none."""

    caption: str
    image: int | None
    split: str = ""


def png(number: int) -> bytes:
    """An image, another for each number."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (number % 256, number // 256 % 256, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def _name(row: RawRow) -> str:
    return "none.png" if row.image is None else f"{row.image}.png"


def _images(folder: Path, rows: Sequence[RawRow]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in {row.image for row in rows if row.image is not None}:
        (folder / f"{number}.png").write_bytes(png(number))


def _records(rows: Sequence[RawRow]) -> list[dict[str, Any]]:
    return [{"file_name": _name(row), "caption": row.caption, "split": row.split} for row in rows]


def _lines(path: Path, records: Sequence[Any]) -> None:
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text(text, encoding="utf-8")


def _table(path: Path, rows: Sequence[RawRow], delimiter: str) -> None:
    _images(path.parent, rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["file_name", "caption", "split"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(_records(rows))


def metadata_jsonl(folder: Path, rows: Sequence[RawRow]) -> Path:
    _images(folder, rows)
    _lines(folder / "metadata.jsonl", _records(rows))
    return folder


def metadata_csv(folder: Path, rows: Sequence[RawRow]) -> Path:
    _table(folder / "metadata.csv", rows, ",")
    return folder


def semicolons(folder: Path, rows: Sequence[RawRow]) -> Path:
    _table(folder / "metadata.csv", rows, ";")
    return folder


def tabs(folder: Path, rows: Sequence[RawRow]) -> Path:
    _table(folder / "table.tsv", rows, "\t")
    return folder / "table.tsv"


def bars(folder: Path, rows: Sequence[RawRow]) -> Path:
    _table(folder / "table.txt", rows, "|")
    return folder / "table.txt"


def split_tables(folder: Path, rows: Sequence[RawRow]) -> Path:
    """A table for each split, named after it."""
    _images(folder, rows)
    for split in {row.split or "train" for row in rows}:
        part = [row for row in rows if (row.split or "train") == split]
        _lines(folder / f"{split}.jsonl", [{"image": _name(row), "text": row.caption} for row in part])
    return folder


def base64_csv(folder: Path, rows: Sequence[RawRow]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "table.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption", "split"])
        for row in rows:
            cell = "" if row.image is None else base64.b64encode(png(row.image)).decode()
            writer.writerow([cell, row.caption, row.split])
    return folder / "table.csv"


def json_list(folder: Path, rows: Sequence[RawRow]) -> Path:
    _images(folder, rows)
    (folder / "list.json").write_text(json.dumps(_records(rows), ensure_ascii=False, indent=1), encoding="utf-8")
    return folder / "list.json"


def karpathy(folder: Path, rows: Sequence[RawRow]) -> Path:
    _images(folder, rows)
    images = [
        {"filename": _name(row), "imgid": n, "split": row.split, "sentences": [{"raw": row.caption, "tokens": []}]}
        for n, row in enumerate(rows)
    ]
    (folder / "dataset.json").write_text(json.dumps({"images": images, "dataset": "x"}), encoding="utf-8")
    return folder / "dataset.json"


def coco(folder: Path, rows: Sequence[RawRow]) -> Path:
    """COCO's file: its images are named once, and have no split."""
    _images(folder, rows)
    names = list(dict.fromkeys(_name(row) for row in rows))
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    notes = [{"id": n, "image_id": names.index(_name(row)), "caption": row.caption} for n, row in enumerate(rows)]
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": notes}), encoding="utf-8")
    return folder / "captions.json"


def split_folders(folder: Path, rows: Sequence[RawRow]) -> Path:
    """A folder for each split, with metadata; rows without a split are those of training."""
    for split in {row.split or "train" for row in rows}:
        part = [row for row in rows if (row.split or "train") == split]
        _images(folder / split, part)
        _lines(folder / split / "metadata.jsonl", [{"file_name": _name(row), "text": row.caption} for row in part])
    return folder


def pairs(folder: Path, rows: Sequence[RawRow]) -> Path:
    """An image and a .txt for each row, as img2dataset writes them, in a folder for each hundred."""
    for number, row in enumerate(rows):
        place = folder / (row.split or "train") / f"{number // 100:05d}"
        place.mkdir(parents=True, exist_ok=True)
        if row.image is not None:
            (place / f"{number:09d}.png").write_bytes(png(row.image))
        (place / f"{number:09d}.txt").write_text(row.caption, encoding="utf-8")
    return folder


def shards(folder: Path, rows: Sequence[RawRow]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split in {row.split or "train" for row in rows}:
        with tarfile.open(folder / f"{split}-000000.tar", "w") as tar:
            for number, row in enumerate(rows):
                if (row.split or "train") == split:
                    parts = [] if row.image is None else [("png", png(row.image))]
                    for kind, content in [*parts, ("txt", row.caption.encode())]:
                        member = tarfile.TarInfo(f"{number:06d}.{kind}")
                        member.size = len(content)
                        tar.addfile(member, io.BytesIO(content))
    return folder


def _parquet(path: Path, rows: Sequence[RawRow]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = [
        {"bytes": None if row.image is None else png(row.image), "path": f"{number}.png"}
        for number, row in enumerate(rows)
    ]
    columns = {"image": pa.array(cells, kind), "caption": [row.caption for row in rows]}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns | {"split": [row.split for row in rows]}), path, row_group_size=7)


def parquet_table(folder: Path, rows: Sequence[RawRow]) -> Path:
    _parquet(folder / "table.parquet", rows)
    return folder / "table.parquet"


def parquet_folder(folder: Path, rows: Sequence[RawRow]) -> Path:
    for split in {row.split or "train" for row in rows}:
        part = [row for row in rows if (row.split or "train") == split]
        _parquet(folder / "data" / f"{split}-00000-of-00001.parquet", part)
    return folder


LAYOUTS: tuple[Callable[[Path, Sequence[RawRow]], Path], ...] = (
    metadata_jsonl, metadata_csv, semicolons, tabs, bars, base64_csv, json_list, karpathy, coco, split_folders,
    split_tables, pairs, shards, parquet_table, parquet_folder,
)  # fmt: skip
