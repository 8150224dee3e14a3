"""Embedding by the workers of a local Ray cluster: the bytes of one process, also where a worker is killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training import embed_images
from training.data.sources import read_captions
from training.embeddings import shard_writer
from training.embeddings.embed import Chunk
from training.embeddings.manifest import EmbeddingsError
from training.embeddings.ray_embed import portable
from training.run.source import SourceConfig
from turkish_clip.cluster import ClusterError
from turkish_clip.images import ImageError

SHARDS = ["--shard_size", "6", "--image_batch_size", "4", "--device", "cpu"]


def command(folder: Path, clip: Path, run: Path, *more: str) -> list[str]:
    return ["--captions", str(folder), "--image_model", str(clip), "--run", str(run), *SHARDS, *more]


def bytes_of(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((run / "embeddings").iterdir())}


def embedders() -> list[int]:
    """Returns the process ids of the pool's workers."""
    workers = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if name.startswith(b"ray::") and b"MapWorker" in name:
            workers.append(int(process.name))
    return workers


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray leaves sockets open
def test_two_workers_write_what_one_process_writes_though_one_is_killed(
    captioned_folder: Path, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed_images.main(command(captioned_folder, tiny_clip, tmp_path / "alone"))
    killed: list[int] = []
    add = shard_writer.ShardWriter.add

    def add_and_kill(writer: shard_writer.ShardWriter, part: Any) -> None:
        add(writer, part)
        if not killed:
            killed.append(embedders()[0])
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(shard_writer.ShardWriter, "add", add_and_kill)
    summary = embed_images.main(command(captioned_folder, tiny_clip, tmp_path / "many", "--cluster", "local"))
    assert killed
    assert summary["shards"] == 8
    assert bytes_of(tmp_path / "many") == bytes_of(tmp_path / "alone")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_error_of_a_worker_is_one_line(
    captioned_folder: Path, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.embeddings.shard_writer.weights_sha256", lambda model: "0" * 64)
    with pytest.raises(EmbeddingsError, match="the same weights of .* on all nodes, got others") as raised:
        embed_images.main(command(captioned_folder, tiny_clip, tmp_path / "run", "--cluster", "local"))
    assert "\n" not in str(raised.value)


def test_a_missing_image_is_sent_as_one_that_does_not_open(tmp_path: Path) -> None:
    pq.write_table(
        pa.table(
            {"image": [{"bytes": b"here", "path": None}, {"bytes": None, "path": None}], "caption": ["ev", "kuş"]}
        ),
        tmp_path / "t.parquet",
    )
    rows = read_captions(
        SourceConfig(captions=str(tmp_path / "t.parquet"), run=str(tmp_path), max_skipped_fraction=1)
    ).rows
    present, missing = portable(Chunk(0, rows, [row.size for row in rows])).rows
    assert present.image.read() == b"here"
    with pytest.raises(ImageError, match="no image"):
        missing.open()


def test_no_cluster_at_the_address(captioned_folder: Path, tiny_clip: Path, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"expected a Ray cluster at 'auto', got .*; give auto on a node"):
        embed_images.main(command(captioned_folder, tiny_clip, tmp_path / "run", "--cluster", "auto"))
