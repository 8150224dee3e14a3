"""The script that measures a GPU runs to its end without one, on a data set of a few images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("gpu.py")
SMALL = "--device cpu --images 40 --large 6 --captions 400 --layers 1 --parts embed,distill,limits".split()


@pytest.mark.slow
def test_it_runs_without_a_gpu(tmp_path: Path) -> None:
    argv = [sys.executable, str(SCRIPT), *SMALL, "--minutes", "20", "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["about"]["device"].startswith("none")
    lines = {(line["what"], line["way"]): line for line in found["measured"]}
    ways = {what: {way for named, way in lines if named == what} for what, _ in lines}
    assert {"this", "a bare PyTorch loop", "the device alone"} <= ways["distill, float32, batch 128"]
    assert {"this", "encode of opened images, float32"} <= ways["embed_images, 640x480"]
    assert all(line["rate"] and line["rate"] > 0 for line in lines.values()), lines
    started = [line for line in lines.values() if line["way"] == "this"]
    assert all(0 < line["start"] < line["whole"] for line in started)


@pytest.mark.slow
def test_what_no_time_is_left_for_is_named(tmp_path: Path) -> None:
    argv = [sys.executable, str(SCRIPT), *SMALL, "--minutes", "0", "--folder", str(tmp_path / "kept")]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=600)
    assert "not measured" in done.stdout
    assert "not run: 0 minutes were over" in done.stdout
    assert (tmp_path / "kept" / "small" / "metadata.jsonl").is_file()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--parts", "embed,cooking"], "expected parts out of embed, distill, limits, large, compile, got cooking"),
        (["--build", "no/such/place"], "expected a checkout with training/distill.py, got no/such/place"),
    ],
)
def test_wrong_options(argv: list[str], message: str) -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), *argv], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert message in done.stderr
