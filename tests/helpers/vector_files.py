"""Vectors of images as other programs store them, in their real layouts."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


def pgvector(vector: Array) -> str:
    """A vector as PostgreSQL's pgvector prints it."""
    return "[" + ",".join(f"{number:.8g}" for number in vector) + "]"


def clip_retrieval(folder: Path, paths: Sequence[str], vectors: Array, parts: int = 3) -> Path:
    """What clip-retrieval's inference writes, in parts: half precision, and captions beside the paths."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "img_emb").mkdir(parents=True)
    (folder / "metadata").mkdir()
    for number, rows in enumerate(np.array_split(np.arange(len(paths)), parts)):
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", vectors[rows].astype(np.float16))
        table = pa.table({"caption": ["x"] * len(rows), "image_path": [paths[row] for row in rows]})
        pq.write_table(table, folder / "metadata" / f"metadata_{number}.parquet")
    return folder


def asset_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


# The columns of version 1.135.3, whose table was called assets.
ASSET = (
    'id, "deviceAssetId", "ownerId", "deviceId", type, "originalPath", "fileCreatedAt", "fileModifiedAt", '
    '"isFavorite", duration, "encodedVideoPath", checksum, "livePhotoVideoId", "updatedAt", "createdAt", '
    '"originalFileName", '
    '"sidecarPath", thumbhash, "isOffline", "libraryId", "isExternal", "deletedAt", "localDateTime", "stackId", '
    '"duplicateId", status, "updateId", visibility'
)


def _asset(number: int, path: str, deleted: str) -> str:
    escaped = path.replace("\\", "\\\\").replace("\t", "\\t")
    time = f"2025-04-{1 + number % 28:02} 19:25:45+00"
    none = "\\N"
    before = [asset_id(number), f"{Path(path).name}-1745954745194", asset_id(999), "WEB", "IMAGE", escaped, time, time]
    middle = ["f", none, "", "\\\\xf73a17059f4aedaeef82579b8ee58bcb18c7f90b", none, time, time, Path(path).name, none]
    behind = ["\\\\x10080e06808987967f", "f", none, "f", deleted, time, none, none, "active", asset_id(998), "timeline"]
    return "\t".join([*before, *middle, *behind])


def immich_dump(
    path: Path,
    paths: Sequence[str],
    embeddings: Sequence[str],
    *,
    table: str = "assets",
    deleted: Sequence[int] = (),
    vectors_first: bool = False,
) -> Path:
    """A plain pg_dump of immich's database, with a table beside those that are read; compressed if it is named so."""
    time = "2025-05-01 00:00:00+00"
    assets = [f"COPY public.{table} ({ASSET}) FROM stdin;"]
    assets += [_asset(number, name, time if number in deleted else "\\N") for number, name in enumerate(paths)]
    vectors = ['COPY public.smart_search ("assetId", embedding) FROM stdin;']
    vectors += [f"{asset_id(number)}\t{vector}" for number, vector in enumerate(embeddings)]
    other = ["COPY public.users (id, name) FROM stdin;", f"{asset_id(999)}\tCOPY public.smart_search (a) FROM stdin;"]
    tables = [vectors, assets] if vectors_first else [assets, vectors]
    lines = ["--", "-- PostgreSQL database dump", "--", "SET client_encoding = 'UTF8';", ""]
    for part in (other, *tables):
        lines += [*part, "\\.", "", ""]
    text = "\n".join(lines)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def immich_csv(folder: Path, paths: Sequence[str], embeddings: Sequence[str]) -> Path:
    """Immich's two tables as psql's \\copy … CSV HEADER writes them."""
    folder.mkdir()
    assets = [["id", "type", "originalPath", "deletedAt"]]
    assets += [[asset_id(number), "IMAGE", path, ""] for number, path in enumerate(paths)]
    vectors = [["assetId", "embedding"], *([asset_id(number), text] for number, text in enumerate(embeddings))]
    for name, rows in (("asset", assets), ("smart_search", vectors)):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
    return folder
