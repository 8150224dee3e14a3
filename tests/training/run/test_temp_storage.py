"""Temporary storage: rows come back in any order, no file is left over, and a full disk is an error."""

from __future__ import annotations

import errno
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from memory import write_source

from training.run import temp_storage
from training.run.temp_storage import Numbers, TableRows, TableWriter, unnamed_array


class Numbered(TableRows[tuple[int, str]]):
    """Rows of a number and a text."""

    def _make(self, batch: pa.RecordBatch, numbers: Numbers) -> Iterable[tuple[int, str]]:
        assert batch.column(0).to_pylist() == numbers.tolist()  # the first column holds the row's number
        return zip(batch.column(0).to_pylist(), batch.column(1).to_pylist())


def numbered(rows: int, temp_dir: Path) -> tuple[Numbered, list[tuple[int, str]]]:
    expected = [(number, f"satır {number}") for number in range(rows)]
    writer = TableWriter(pa.schema([("number", pa.int64()), ("text", pa.string())]), temp_dir)
    for row in expected:
        writer.add(row)
    return Numbered(writer.finish()), expected


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temp_storage, "BATCH_ROWS", 7)
    monkeypatch.setattr(temp_storage, "BLOCK", 5)


@pytest.mark.parametrize("count", [0, 1, 7, 50])
def test_rows_behave_as_a_list(count: int, tmp_path: Path, small_batches: None, rng: random.Random) -> None:
    rows, expected = numbered(count, tmp_path)
    assert (len(rows), list(rows), bool(rows)) == (count, expected, bool(count))
    for part in (slice(3, 20), slice(None, None, 3), slice(None, None, -1), slice(-4, None), slice(60, 70)):
        assert list(rows[part]) == expected[part]
        assert list(rows[part][1:]) == expected[part][1:]
    for place in range(-count, count):
        assert rows[place] == expected[place]
    with pytest.raises(IndexError):
        rows[count]
    places = [rng.randrange(count) for _ in range(2 * count)]
    taken = rows.take(np.array(places, np.int64))
    assert list(taken) == [expected[place] for place in places]
    assert list(taken[::-1].take(np.arange(count))) == [expected[place] for place in places[::-1][:count]]


def test_large_rows_are_written_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temp_storage, "BATCH_BYTES", 100)
    writer = TableWriter(pa.schema([("content", pa.large_binary())]), tmp_path)
    for _ in range(4):
        writer.add((b"x" * 60,), 60)
    assert [len(batch) for batch in writer.finish().to_batches()] == [2, 2]


def test_an_array_is_writable_zeros(tmp_path: Path) -> None:
    array = unnamed_array((3, 4), np.float32, tmp_path / "not" / "there")
    assert array.shape == (3, 4)
    assert not array.any()
    array[1] = 2
    assert array.sum() == 8
    assert unnamed_array((0, 4), np.float32, tmp_path).shape == (0, 4)


def test_files_are_unnamed(tmp_path: Path) -> None:
    rows, _ = numbered(100, tmp_path)
    array = unnamed_array((10, 10), np.float32, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    assert len(rows) == len(array) * 10


def test_a_killed_process_leaves_nothing(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys, pyarrow as pa\n"
        "from pathlib import Path\n"
        "from training.run.temp_storage import TableWriter, unnamed_array\n"
        "temp_dir = Path(sys.argv[1])\n"
        "array = unnamed_array((1000, 1000), 'float32', temp_dir)\n"
        "writer = TableWriter(pa.schema([('text', pa.string())]), temp_dir)\n"
        "for number in range(20000): writer.add((f'satır {number}',))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_too_small_for_an_array(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space left") as full:
        unnamed_array((1000, 1000), np.float32, small_disk)
    assert full.value.errno == errno.ENOSPC


def test_a_disk_too_small_for_the_rows_of_a_source(small_disk: Path, tmp_path: Path) -> None:
    table = write_source(tmp_path / "source", 20_000)
    words = ["-m", "training.embed_images", "--captions", str(table), "--run", str(small_disk / "run")]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    columns, error = done.stderr.splitlines()
    assert columns.startswith("columns of")
    assert error.startswith("error: expected free disk space, got a full disk")
    assert list(small_disk.iterdir()) == []
