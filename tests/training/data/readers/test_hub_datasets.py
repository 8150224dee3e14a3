"""Streamed data sets: the same rows, images and embeddings as downloaded ones, without the download."""

from __future__ import annotations

import hashlib
import io
import json
import random
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from samples import paint
from stand_in_hub import StandInHub

from training.data import lazy_images
from training.data.lazy_images import StreamedImage, one_line_errors
from training.data.sources import read_captions
from training.run.config import EmbedConfig, read
from training.run.source import SourceConfig, SourceError

ROOT = Path(__file__).parents[4]
SMALL = "--backbone scratch --scratch_layers 1 --scratch_hidden 32 --scratch_vocabulary 300 --max_tokens 32 --epochs 1"
RECORD = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@dataclass(frozen=True)
class Numbers:
    """A store of numbers as bytes that can be read from each hundred on, and records what was read."""

    size: int

    def start(self, number: int) -> int:
        return number // 100 * 100

    def cells(self, start: int) -> Iterator[bytes]:
        OPENED.append(start)
        for number in range(start, self.size):
            PRODUCED.append(number)
            yield str(number).encode()

    def image(self, cell: Any, number: int) -> bytes:
        assert cell == str(number).encode()
        return bytes(cell)


OPENED: list[int] = []
PRODUCED: list[int] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    OPENED.clear()
    PRODUCED.clear()
    yield
    lazy_images._readers.clear()


def test_images_in_order_are_one_pass() -> None:
    store = Numbers(2000)
    assert [StreamedImage(store, n).read() for n in range(2000)] == [str(n).encode() for n in range(2000)]
    assert OPENED == [0]


def test_threads_that_read_ahead_of_each_other_read_nothing_twice() -> None:
    store = Numbers(3000)
    chunks = [range(start, start + 64) for start in range(0, 3000 - 64, 64)]
    gate = threading.Barrier(8)

    def chunk(numbers: range) -> list[bytes | Path]:
        if numbers.start < 8 * 64:
            gate.wait(timeout=20)  # eight at once
        return [StreamedImage(store, number).read() for number in numbers]

    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(chunk, chunks))
    assert [content for part in parts for content in part] == [str(n).encode() for part in chunks for n in part]
    assert len(PRODUCED) == len(set(PRODUCED))


def test_reading_begins_near_the_first_image_and_any_order_is_right() -> None:
    store = Numbers(50_000)
    assert StreamedImage(store, 40_050).read() == b"40050"
    assert OPENED == [40_000]
    numbers = list(range(0, 50_000, 977)) * 2
    random.Random(0).shuffle(numbers)
    assert [StreamedImage(store, n).read() for n in numbers] == [str(n).encode() for n in numbers]


def test_the_buffer_of_a_cursor_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy_images, "MAX_BUFFERED_BYTES", 50)
    store = Numbers(1000)
    assert StreamedImage(store, 900).read() == b"900"
    (cursor,) = lazy_images._readers[store].cursors
    assert list(cursor.buffered) == []
    assert StreamedImage(store, 990).read() == b"990"
    assert cursor.buffered_bytes == sum(map(len, cursor.buffered.values())) <= 50
    assert StreamedImage(store, 905).read() == b"905"
    assert OPENED == [900, 900]


def test_a_store_that_has_shrunk_or_fails_is_an_error_of_one_line() -> None:
    with pytest.raises(SourceError, match=r"expected row 31 in Numbers.*, got its end; it has changed: start again"):
        StreamedImage(Numbers(30), 30).read()
    again = r"expected to read x, got ValueError: a b; check .* the same command again"
    with pytest.raises(SourceError, match=again), one_line_errors("x"):
        raise ValueError("a\nb")
    with pytest.raises(SourceError, match="ours"), one_line_errors("x"):
        raise SourceError("ours")


def noise(number: int, side: int = 150) -> bytes:
    """An image that hardly compresses: 67 kB."""
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def rows(captioned_folder: Path) -> list[dict[str, Any]]:
    lines = (captioned_folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) | {"noise": noise(number)} for number, line in enumerate(lines)]


def parquet_files(rows: list[dict[str, Any]]) -> dict[str, bytes]:
    """A data set as the Hub's exporter writes it: two files of the train split, row groups of four images."""
    parts = {"validation-00000-of-00001": [row for row in rows if row["split"] == "validation"]}
    parts["test-00000-of-00001"] = [row for row in rows if row["split"] == "test"]
    train = [row for row in rows if row["split"] == "train"]
    parts |= {"train-00000-of-00002": train[:20], "train-00001-of-00002": train[20:]}
    files = {"README.md": b"---\nlicense: cc0-1.0\n---\n"}
    for name, part in parts.items():
        columns = {
            "image": pa.array([{"bytes": row["noise"], "path": f"{n}.png"} for n, row in enumerate(part)], RECORD),
            "captions": [row["captions"] for row in part],
            "captions_en": [row["captions_en"] for row in part],
        }
        buffer = io.BytesIO()
        pq.write_table(pa.table(columns), buffer, row_group_size=4)
        files[f"data/{name}.parquet"] = buffer.getvalue()
    return files


def tar_files(rows: list[dict[str, Any]]) -> dict[str, bytes]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number, row in enumerate(rows):
            for kind, content in (("png", row["noise"]), ("txt", row["captions"][0].encode())):
                member = tarfile.TarInfo(f"{number:04d}.{kind}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return {"README.md": b"# x", "train-0000.tar": buffer.getvalue()}


def folder_files(rows: list[dict[str, Any]]) -> dict[str, bytes]:
    lines = [json.dumps({"file_name": f"{n}.png", "text": row["captions"][0]}) for n, row in enumerate(rows)]
    files = {f"train/{n}.png": row["noise"] for n, row in enumerate(rows)}
    return {"README.md": b"# x", "train/metadata.jsonl": "\n".join(lines).encode(), **files}


STEPS = """
import hashlib, json, os, sys, time, urllib.error, urllib.request
time.sleep = lambda seconds: None  # the clients' own, between attempts
from training import distill, embed_images, evaluate
from training.data.sources import read_captions
from training.run.source import SourceConfig
from turkish_clip.errors import InputError

def mark(name):
    try:
        urllib.request.urlopen(os.environ["HF_ENDPOINT"] + "/mark/" + name)
    except urllib.error.HTTPError:
        pass

def images(captions, **options):
    rows = read_captions(SourceConfig(captions=captions, run="x", max_skipped_fraction=1.0, **options)).rows
    return [(row.image_id, row.captions, row.split, hashlib.sha256(row.image.read()).hexdigest()) for row in rows]

def message(captions):
    try:
        images(captions, captions_streaming=True)
    except InputError as error:
        return str(error)

run, small, common = sys.argv[1], sys.argv[2].split(), sys.argv[3:]
mark("embed")
embed_images.main([*common, "--run", run, "--captions_streaming"])
mark("distill")
distill.main([*common, "--run", run, "--captions_streaming", *small])
mark("evaluate")
evaluate.main([*common, "--run", run, "--captions_streaming", "--bootstrap_samples", "20", "--report_queries", "1"])
mark("others")
result = {"parquet": images("org/set", captions_streaming=True), "none": message("org/none")}
result["broken"] = message("org/broken")
for name in ("tars", "folder"):
    result[name] = images("org/" + name, captions_streaming=True)
mark("downloads")
result["downloaded"] = images("org/set")
embed_images.main([*common, "--run", run + "-whole"])
print("RESULT" + json.dumps(result))
"""


@dataclass
class Streaming:
    """What a process did with a stand-in Hub."""

    hub: StandInHub
    folder: Path
    argv: list[str]
    result: dict[str, Any]
    sent: dict[str, list[tuple[str, int]]]

    def shards_of(self, run: str) -> dict[str, bytes]:
        shards = sorted((self.folder / run / "embeddings").glob("*.parquet"))
        return {path.name: path.read_bytes() for path in shards}

    def bytes_of(self, step: str, kind: str = ".parquet") -> int:
        return sum(size for path, size in self.sent[step] if path.endswith(kind))


@pytest.fixture(scope="module")
def streaming(
    rows: list[dict[str, Any]], tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Streaming]:
    folder = tmp_path_factory.mktemp("streaming")
    with StandInHub() as hub:
        hub.put("datasets", "org/set", parquet_files(rows))
        hub.put("datasets", "org/broken", parquet_files(rows[:2] + rows[-12:]))
        hub.put("datasets", "org/tars", tar_files(rows[:9]))
        hub.put("datasets", "org/folder", folder_files(rows[:9]))
        hub.fail("GET", "org/set/resolve/.*train-00001.*parquet", 503, times=2)
        hub.fail("GET", "org/broken/resolve/.*parquet", 503, times=10**6)
        common = f"--captions org/set --image_model {tiny_clip} --image_batch_size 3 --shard_size 10 --workers 3"
        argv = [*common.split(), "--device", "cpu"]
        command = [sys.executable, "-W", "ignore", "-c", STEPS, str(folder / "run"), SMALL, *argv]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, env=hub.environment(folder / "cache"), timeout=400,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        result = json.loads(done.stdout.partition("RESULT")[2])
        sent: dict[str, list[tuple[str, int]]] = {}
        for path, size in hub.sent:
            step = path.removeprefix("/mark/")
            if step != path:
                sent[step] = []
            elif sent:
                sent[list(sent)[-1]].append((path, size))
        yield Streaming(hub, folder, argv, result, sent)


def expected(rows: list[dict[str, Any]]) -> list[list[Any]]:
    """Returns the sorted rows of the parquet files."""
    result = []
    for split in ("train", "validation", "test"):
        for number, row in enumerate([row for row in rows if row["split"] == split], start=1):
            digest = hashlib.sha256(row["noise"]).hexdigest()
            result.append([f"{split}-{number:08d}", list(dict.fromkeys(row["captions"])), split, digest])
    return sorted(result)


def test_streamed_rows_and_images_are_the_downloaded_ones(streaming: Streaming, rows: list[dict[str, Any]]) -> None:
    assert sorted(streaming.result["parquet"]) == expected(rows)
    assert sorted(streaming.result["downloaded"]) == expected(rows)
    assert streaming.result["parquet"] == streaming.result["downloaded"]


def test_embeddings_are_those_of_the_downloaded_images_bit_for_bit(streaming: Streaming) -> None:
    one, other = (streaming.shards_of(name) for name in ("run", "run-whole"))
    assert one == other
    assert len(one) == 5


def test_captions_are_read_without_the_images_and_images_once(streaming: Streaming, rows: list[dict[str, Any]]) -> None:
    images = sum(len(row["noise"]) for row in rows)
    assert images < streaming.bytes_of("embed") < 1.3 * images
    assert streaming.bytes_of("distill") < 0.2 * images
    test = sum(len(row["noise"]) for row in rows if row["split"] == "test")
    assert streaming.bytes_of("evaluate") < 0.2 * images + 1.1 * test
    assert streaming.bytes_of("downloads") > images


def test_a_run_on_a_streamed_data_set_is_complete_and_records_its_commit(streaming: Streaming) -> None:
    run = streaming.folder / "run"
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert record["inputs"]["captions_revisions"] == [streaming.hub.repositories["datasets", "org/set"].refs["main"]]
    assert "captions_streaming" not in record["config"]
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert (results["dataset"], results["images"]) == ("org/set", 10)
    assert (run / "report.html").read_text(encoding="utf-8").count("data:image/png;base64,") >= 10


def test_other_layouts_of_the_hub_stream_too(streaming: Streaming, rows: list[dict[str, Any]]) -> None:
    for name in ("tars", "folder"):
        found = {(captions[0], digest) for _, captions, _, digest in streaming.result[name]}
        expected_images = {(row["captions"][0], hashlib.sha256(row["noise"]).hexdigest()) for row in rows[:9]}
        assert found == expected_images, name
        assert len({image_id for image_id, *_ in streaming.result[name]}) == 9


def test_what_can_not_be_streamed_is_an_error_of_one_line(streaming: Streaming) -> None:
    assert streaming.result["none"].startswith("expected a folder, a table or a Hub data set, got 'org/none': ")
    assert "expected to read hf://datasets/org/broken@" in streaming.result["broken"]
    assert "503" in streaming.result["broken"]
    assert "give the same command again" in streaming.result["broken"]


CUT = """
import json, logging, sys
from training.data.sources import read_captions
from training.run.source import SourceConfig

logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
result = {}
for name in ("org/images", "org/parquet"):
    for streaming in (True, False):
        config = SourceConfig(
            captions=name, captions_streaming=streaming, run="x", max_skipped_fraction=1.0, validation_fraction=0.0,
            test_fraction=0.0,
        )
        rows = read_captions(config, check_files=False).rows
        result[f"{name} {streaming}"] = sorted((*row.captions, row.split, row.open().size[0]) for row in rows)
print("RESULT" + json.dumps(result))
"""


def test_data_sets_that_would_be_cut_by_names_of_files_are_read_whole(tmp_path: Path) -> None:
    names = ["kedi_train.png", "kuş.png", "dev-hayvanlar.png", "at.png"]
    content = {name: noise(number, 8 + number) for number, name in enumerate(names)}
    lines = [json.dumps({"file_name": name, "text": name}) for name in names]
    parts = {"küçük.parquet": names[:1], "dev-hayvanlar.parquet": names[1:]}
    files = {"README.md": b"# x"}
    for file, part in parts.items():
        cells = pa.array([{"bytes": content[name], "path": name} for name in part], RECORD)
        buffer = io.BytesIO()
        pq.write_table(pa.table({"image": cells, "text": part}), buffer)
        files[file] = buffer.getvalue()
    with StandInHub() as hub:
        hub.put("datasets", "org/images", {"README.md": b"# x", "metadata.jsonl": "\n".join(lines).encode(), **content})
        hub.put("datasets", "org/parquet", files)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", CUT], capture_output=True, text=True, cwd=ROOT,
            env=hub.environment(tmp_path / "cache"), timeout=400, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.partition("RESULT")[2])
    expected = sorted([name, "train", 8 + number] for number, name in enumerate(names))
    assert result == dict.fromkeys(result, expected)
    for name, count in (("org/images", "2 of its 4"), ("org/parquet", "1 of its 2")):
        assert f"{name}: {count} files have a split's name among other words; all are read" in done.stderr


@pytest.mark.slow
def test_a_killed_run_that_is_repeated_reads_only_what_is_missing(
    streaming: Streaming, rows: list[dict[str, Any]]
) -> None:
    argv = [*streaming.argv, "--run", str(streaming.folder / "cut"), "--captions_streaming"]
    environment = streaming.hub.environment(streaming.folder / "cache")
    options: dict[str, Any] = {"cwd": ROOT, "env": environment, "capture_output": True, "timeout": 300, "check": False}
    killing = [
        str(ROOT / "tests" / "helpers" / "killing.py"),
        "training.embed_images",
        "training.embeddings.shard_writer:write_shard",
    ]
    killed = subprocess.run([sys.executable, *killing, "4", *argv], **options)
    assert killed.returncode == -9
    before = len(streaming.hub.sent)
    done = subprocess.run([sys.executable, "-m", "training.embed_images", *argv], **options)
    assert done.returncode == 0, done.stderr
    sent = sum(size for path, size in streaming.hub.sent[before:] if path.endswith(".parquet"))
    assert sent < 0.6 * sum(len(row["noise"]) for row in rows)
    assert streaming.shards_of("cut") == streaming.shards_of("run")


def test_a_folder_of_parquet_files_is_read_in_place(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    for name, content in parquet_files(rows).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    found = read_captions(SourceConfig(captions=str(tmp_path), run="unused")).rows
    digests = [
        [row.image_id, list(row.captions), row.split, hashlib.sha256(row.image.read()).hexdigest()] for row in found
    ]
    assert sorted(digests) == expected(rows)


def test_paths_in_a_folder_of_parquet_files_stay_inside(tmp_path: Path) -> None:
    paint(tmp_path / "p" / "0.png", 0)
    paint(tmp_path / "p" / "d" / "1.png", 0)
    paths = ["0.png", "d/1.png", "../secret.png", "2.png"]
    paint(tmp_path / "secret.png", 0)
    pq.write_table(pa.table({"image": paths, "caption": ["ev"] * 4}), tmp_path / "p" / "train.parquet")
    captions = read_captions(SourceConfig(captions=str(tmp_path / "p"), run="unused", max_skipped_fraction=1.0))
    assert [row.image_id for row in captions.rows] == ["0.png", "d/1.png"]
    assert [sample.reason for sample in captions.skipped] == ["a path that leaves the folder", "no file"]


def test_a_local_source_is_not_streamed(captioned_folder: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "x.yaml"
    recipe.write_text(
        json.dumps({"sources": [{"captions": str(captioned_folder), "captions_streaming": True}]}), encoding="utf-8"
    )
    with pytest.raises(SourceError, match="expected a Hub data set to stream, got the local .*; leave"):
        read_captions(read(EmbedConfig, [str(recipe)]))
