"""embed_images with processes that decode writes what it writes with threads, also where they or it are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from processes import copies, is_alive, shares_by_name, until
from samples import embed_arguments, file_contents

from training import embed_images
from turkish_clip.preprocessing import FastPreprocessing

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")


def written(argv: list[str], run: Path, processes: int) -> dict[str, bytes]:
    embed_images.main([*argv, "--run", str(run), "--decode_processes", str(processes)])
    return file_contents(run / "embeddings")


def test_a_process_that_is_killed_changes_nothing(
    broken_source: Path,
    tiny_clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    argv = embed_arguments(broken_source, tiny_clip, tmp_path, "--max_skipped_fraction", "0.1")
    caplog.set_level("INFO")
    expected = written(argv, tmp_path / "threads", 0)
    assert "embedding 4 images at a time on cpu in float32; 2 threads decode ahead" in caplog.text.replace(
        f"{os.cpu_count()} threads", "2 threads"
    ).replace("1 threads", "2 threads")
    main, pixels = os.getpid(), FastPreprocessing.pixels

    def deadly(self: FastPreprocessing, image: Image.Image) -> Any:
        if os.getpid() != main and not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return pixels(self, image)

    monkeypatch.setattr(FastPreprocessing, "pixels", deadly)
    assert written(argv, tmp_path / "killed", 2) == expected
    assert "; 2 processes decode ahead" in caplog.text
    assert caplog.text.count("another takes its place") == 1
    assert not copies(main)


def test_images_inside_a_table_are_read_once_and_sent(
    captioned_folder: Path, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [path.read_bytes() for path in sorted((captioned_folder / "train").glob("*.png"))]
    images[3] = b"no image"
    table = {"image": [{"bytes": data, "path": None} for data in images], "caption": ["ev"] * len(images)}
    pq.write_table(pa.table(table), tmp_path / "data.parquet")
    argv = embed_arguments(tmp_path / "data.parquet", tiny_clip, tmp_path, "--max_skipped_fraction", "0.1")
    assert written(argv, tmp_path / "processes", 2) == written(argv, tmp_path / "threads", 0)


@pytest.mark.parametrize(
    "how",
    [signal.SIGINT, *(pytest.param(other, marks=pytest.mark.slow) for other in (signal.SIGTERM, signal.SIGKILL))],
)
def test_a_command_that_is_ended_leaves_no_process_and_goes_on(
    how: signal.Signals, tiny_clip: Path, tmp_path: Path
) -> None:
    source = slow_source(tmp_path / "source", 24)
    argv = embed_arguments(source, tiny_clip, tmp_path / "run", "--shard_size", "8", "--decode_processes", "2")
    command = [sys.executable, "-m", "training.embed_images", *argv]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        first = tmp_path / "run" / "embeddings" / "shard-00000.parquet"
        until(lambda: first.exists() or process.poll() is not None, 100)
        processes = copies(process.pid)
        assert len(processes) == 2
        assert not any(map(shares_by_name, [*processes, process.pid]))
        (os.killpg if how == signal.SIGINT else os.kill)(process.pid, how)  # a terminal tells all of them
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == (130 if how == signal.SIGINT else -how)
    assert "Traceback" not in said
    until(lambda: not any(map(is_alive, processes)), 20)
    assert not (first.parent / "shard-00002.parquet").exists()
    assert written(argv, tmp_path / "run", 1) == written(argv, tmp_path / "threads", 0)


def slow_source(folder: Path, number: int) -> Path:
    """A source whose images take a while to open."""
    folder.mkdir()
    Image.effect_noise((1200, 1200), 60).convert("RGB").save(folder / "0.png")
    rows = [{"file_name": f"{n}.png", "captions": ["gürültü"], "split": "train"} for n in range(number)]
    for row in rows[1:]:
        os.link(folder / "0.png", folder / str(row["file_name"]))
    (folder / "metadata.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return folder
