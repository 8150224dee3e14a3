"""The index of images finds what exact search finds, follows a folder, and survives a kill."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from samples import paint

from turkish_clip.dual_encoder import DualEncoder
from turkish_clip.encoder import load_model
from turkish_clip.images import ImageError
from turkish_clip.metrics import unit
from turkish_clip.search import correction as search_correction
from turkish_clip.search import files as search_files
from turkish_clip.search import tables as search_tables
from turkish_clip.search.files import CollectionError, scan
from turkish_clip.search.index import ImageIndex
from turkish_clip.search.storage import ImageIndexError, holds_index, one_condition, storage_errors
from turkish_clip.search.tables import IndexMetadata


def metadata_of(dim: int) -> IndexMetadata:
    return IndexMetadata(model="x", revision="", image_model="y", image_revision="", weights_sha256="", dim=dim)


def test_every_image_finds_itself_and_words_rank_as_cosines(
    index: ImageIndex, photos: Path, encoder: DualEncoder
) -> None:
    for path in sorted(photos.rglob("*.png")):
        best = index.search(path, k=1)[0]
        assert (best.path, round(best.score, 4)) == (str(path), 1.0)
    hits = index.search("kırmızı ev", k=6)
    text = encoder.encode_texts(["kırmızı ev"])[0]
    paths, vectors = index.vectors()
    expected = sorted(zip((vectors @ text).tolist(), paths), reverse=True)
    assert [hit.path for hit in hits] == [path for _, path in expected]
    assert np.allclose([hit.score for hit in hits], [score for score, _ in expected], atol=1e-5)


def test_images_of_files_that_were_never_recorded_are_removed(
    index: ImageIndex, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between the two tables leaves a new image and a new copy, whose files are then deleted."""
    paint(photos / "new.png", 10)
    (photos / "copy.png").write_bytes((photos / "0.png").read_bytes())
    upsert = search_tables.ImageTables._upsert

    def killed(tables: search_tables.ImageTables, name: str, key: str, rows: list[dict[str, object]]) -> None:
        if name == search_tables.FILES:
            raise KeyboardInterrupt
        upsert(tables, name, key, rows)

    monkeypatch.setattr(search_tables.ImageTables, "_upsert", killed)
    with pytest.raises(KeyboardInterrupt):
        index.add(photos)
    monkeypatch.undo()
    assert len(index) == 7
    (photos / "new.png").unlink()
    (photos / "copy.png").unlink()
    assert index.add(photos).images == 6
    assert sorted(index.vectors()[0]) == sorted(map(str, photos.rglob("*.png")))


def test_adding_follows_the_folder(index: ImageIndex, photos: Path) -> None:
    same = index.add(photos)
    assert (same.added, same.unchanged, same.vanished, same.images) == (0, 6, 0, 6)
    paint(photos / "new.png", 10)
    (photos / "0.png").unlink()
    paint(photos / "2.png", 12)
    os.utime(photos / "2.png", ns=(1, 1))
    changed = index.add(photos)
    assert (changed.added, changed.unchanged, changed.vanished, changed.images) == (2, 4, 1, 6)
    assert str(photos / "0.png") not in index.vectors()[0]
    assert index.search(photos / "2.png", k=1)[0].score > 0.999


def test_files_of_the_same_bytes_are_one_image(index: ImageIndex, photos: Path) -> None:
    copy = photos / "copy.png"
    copy.write_bytes((photos / "4.png").read_bytes())
    added = index.add(photos)
    assert (added.added, added.duplicates, added.images) == (0, 1, 6)
    hit = index.search(photos / "4.png", k=1)[0]
    assert {hit.path, *hit.also_at} == {str(photos / "4.png"), str(copy)}
    (photos / "4.png").unlink()
    assert index.add(photos).vanished == 1
    left = index.search(copy, k=1)[0]
    assert (left.path, left.also_at) == (str(copy), [])
    assert index.remove([copy]) == 1
    assert len(index) == 5


def test_skipped_files_are_listed_with_their_reasons(index: ImageIndex, photos: Path, tmp_path: Path) -> None:
    (photos / "empty.png").touch()
    (photos / "text.jpg").write_text("no image", encoding="utf-8")
    (photos / "cut.png").write_bytes((photos / "0.png").read_bytes()[:60])
    outside = paint(tmp_path / "outside.png", 99)
    (photos / "link.png").symlink_to(outside)
    (photos / "dangling.png").symlink_to(photos / "nothing.png")
    added = index.add(photos)
    reasons = {Path(sample.path).name: sample.reason for sample in added.skipped}
    assert reasons == {
        "empty.png": "an empty file",
        "text.jpg": "a file that is not an image",
        "cut.png": "a truncated or damaged image",
        "link.png": "a link that leaves the folder",
        "dangling.png": "not a regular file",
    }
    assert added.images == 6
    again = index.add(photos)
    assert {Path(sample.path).name for sample in again.skipped} == set(reasons)
    for name in ("cut-1.png", "cut-2.png"):  # the same broken bytes once more
        (photos / name).write_bytes((photos / "cut.png").read_bytes())
    assert {"cut-1.png", "cut-2.png"} <= {Path(sample.path).name for sample in index.add(photos).skipped}
    assert str(outside) not in index.vectors()[0]


def test_a_condition_restricts_the_hits(index: ImageIndex, photos: Path) -> None:
    hits = index.search("ev", k=10, where="path LIKE '%/sub/%'")
    assert {Path(hit.path).parent.name for hit in hits} == {"sub"}
    assert len(hits) == 3
    with pytest.raises(ImageIndexError, match="expected a condition over .*, got 'colour = 1', with 'colour' in it"):
        index.search("ev", where="colour = 1")


CONDITIONS = (
    "bytes > 0; bytes < 0",
    "bytes > 0 ORDER BY path",
    "bytes > 0 LIMIT 1",
    "bytes > 0, bytes < 0",
    "bytes > 0 bytes < 0",
    "bytes > 0 -- and bytes < 0",
    "bytes > 0 /* and */",
    "bytes > 0) OR (bytes > 0",
    "(bytes > 0); (bytes < 0)",
    "bytes > 0 \0 AND bytes < 0",
    "path = 'a",
    "bytes",
    "content = 'x'",
    "`content` = 'x'",
    '"content" IS NOT NULL',
    'path = "a"',
    "vector IS NOT NULL",
    "_rowid < 3",
    "images.path = 'x'",
    "random() < 0.5",
    "bytes > (SELECT 1)",
    "path <> $$'$$",
    "path = N'a'",
    "bytes::int > 1",
    "path = ?",
    "path = @a",
    "path ~ 'a'",
)


def test_a_condition_is_one_and_nothing_of_it_is_dropped(indexed: Path) -> None:
    index = ImageIndex.open(indexed / ".turkish-clip")
    for where in CONDITIONS:
        with pytest.raises(
            ImageIndexError,
            match="expected (one|a) condition over path, also_at, bytes, .*, camera, second, got ",
        ):
            index.search_vector(np.ones(16), where=where)
    quoted = "path LIKE '%;%' OR path = ') -- it''s /*' OR (bytes > 0 AND path LIKE '%.png')"
    assert len(index.search_vector(np.ones(16), 100, where=quoted)) == 10
    for where in (
        "path LIKE '%.png' And bytes BETWEEN 1 AND 1000000",
        "`path` IN ('a', 'ç') OR lower(path) LIKE '%.PNG' OR NOT (bytes <> bytes + 0)",
        "modified > timestamp '2001-01-31' AND date_part('year', modified) > 2001",
        "\"path\" <> 'a'",
        "array_to_string(also_at, ' ') NOT LIKE '%none%'",
    ):
        assert len(index.search_vector(np.ones(16), 100, where=where)) == 10, where


@pytest.mark.parametrize(
    "where",
    [
        " OR ".join(["bytes = 1"] * 200),
        "(" * 300 + "bytes = 1" + ")" * 300,
        "NOT " * 600 + "bytes = 1",
        "bytes = 1" + "+1" * 600,
        f"path = '{'a' * 100_000}'",
    ],
)
def test_a_condition_that_would_overflow_the_parser_is_refused(where: str) -> None:
    with pytest.raises(ImageIndexError, match=r"expected a condition of at most 100000 .* 500 .*; shorten it") as told:
        one_condition(where)
    assert len(str(told.value)) < 300


def test_a_long_list_is_a_condition_and_errors_cut_it(indexed: Path) -> None:
    paths = ", ".join(f"'{number}'" for number in range(5000))
    assert one_condition(f"path IN ({paths}) AND bytes IN ({paths.replace(chr(39), '')})")
    assert one_condition(" OR ".join(["path LIKE '%a%'"] * 100))
    for where in (f"path IN ({paths}))", f"colour IN ({paths})"):
        with pytest.raises(ImageIndexError, match=r"got .path IN|got .colour IN") as told:
            ImageIndex.open(indexed / ".turkish-clip").search_vector(np.ones(16), where=where)
        assert len(str(told.value)) < 800


def test_another_image_model_is_refused(index: ImageIndex, tmp_path: Path, encoder: DualEncoder) -> None:
    from training.run.config import PretrainConfig
    from training.small_models.models import build_clip, build_processor, save_clip

    config = PretrainConfig(
        captions="x", run="x", image_size=32, vision_layers=1, vision_hidden=32, text_layers=1, text_hidden=32,
        vocabulary=514, caption_tokens=16, dim=16, seed=5,
    )  # fmt: skip
    processor = build_processor(["a red house"], config)
    import torch

    torch.manual_seed(5)
    save_clip(build_clip(processor, config), processor, tmp_path / "other")
    other = DualEncoder(encoder.spec, encoder.text, load_model(tmp_path / "other", device="cpu"))
    with pytest.raises(ImageIndexError, match="expected the image model that .* was made with .*, got other weights"):
        ImageIndex.open(tmp_path / "index", other)


def test_unusable_queries_and_folders_are_refused(index: ImageIndex, tmp_path: Path, encoder: DualEncoder) -> None:
    with pytest.raises(ImageIndexError, match="got k = 0"):
        index.search("ev", k=0)
    with pytest.raises(ImageIndexError, match="expected images in .*, got none; add some first"):
        ImageIndex.open(tmp_path / "nothing", encoder).search("ev")
    with pytest.raises(ImageIndexError, match="expected a model to add images, got none"):
        ImageIndex.open(tmp_path / "nothing").add(tmp_path)
    with pytest.raises(ImageError, match="no file"):
        index.search(tmp_path / "none.png")
    with pytest.raises(CollectionError, match="expected a folder of images"):
        index.add(tmp_path / "none")


READER = """
import sys, time
from turkish_clip.search import ImageIndex
index = ImageIndex.open(sys.argv[1])
counts = []
print("ready", flush=True)
while not counts or counts[-1] < int(sys.argv[2]):
    paths, vectors = index.vectors()
    assert len(paths) == len(vectors) >= (counts[-1] if counts else 0)
    counts.append(len(paths))
    time.sleep(0.05)
print(len(set(counts)))
"""


@pytest.mark.slow
def test_two_processes_read_while_one_writes(
    index: ImageIndex, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turkish_clip.search.update.ROWS_PER_WRITE", 4)
    argv = [sys.executable, "-c", READER, str(tmp_path / "index"), "46"]
    readers = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for reader in readers:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
    for number in range(100, 140):
        paint(photos / f"{number}.png", number)
    assert index.add(photos).images == 46
    for reader in readers:
        out, _ = reader.communicate(timeout=60)
        assert reader.returncode == 0
        assert int(out) > 2  # it saw the index grow


def test_two_readers_see_what_a_writer_adds(
    index: ImageIndex, photos: Path, tmp_path: Path, encoder: DualEncoder
) -> None:
    readers = [ImageIndex.open(tmp_path / "index", encoder) for _ in range(2)]
    assert [len(reader) for reader in readers] == [6, 6]
    paint(photos / "late.png", 50)
    index.add(photos)
    for reader in readers:
        assert reader.search(photos / "late.png", k=1)[0].path == str(photos / "late.png")


KILLED = """
import os, signal, sys
from turkish_clip.search import ImageIndex, update
from turkish_clip.search.tables import ImageTables
from turkish_clip.dual_encoder import load_dual_encoder
update.ROWS_PER_WRITE = 4
calls = [0]
original = ImageTables._upsert
def counting(self, *args):
    calls[0] += 1
    if calls[0] == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
    original(self, *args)
ImageTables._upsert = counting
ImageIndex.open(sys.argv[1], load_dual_encoder(sys.argv[2], device="cpu")).add(sys.argv[3])
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(1, 8))
def test_a_kill_loses_no_finished_batch(
    tmp_path: Path, pair_folder: Path, encoder: DualEncoder, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "many"
    for number in range(14):
        paint(folder / f"{number:02}.png", number)
    argv = [sys.executable, "-c", KILLED, str(tmp_path / "index"), str(pair_folder), str(folder), str(moment)]
    killed = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    index = ImageIndex.open(tmp_path / "index", encoder)
    assert len(index) == 4 * (moment // 2)
    added = index.add(folder)
    assert (added.images, added.skipped) == (14, [])
    for path in sorted(folder.iterdir()):
        assert index.search(path, k=1)[0].path == str(path)


def test_many_images_are_searched_through_partitions(
    tmp_path: Path, encoder: DualEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_tables, "ROWS_FOR_INDEX", 256)
    folder = tmp_path / "many"
    for number in range(300):
        paint(folder / f"{number}.png", number)
    index = ImageIndex.open(tmp_path / "index", encoder)
    index.add(folder)
    assert partitions(index._tables).num_indexed_rows == 300
    text = index.vector_of("kırmızı ev")
    exact = [hit.path for hit in index.search_vector(text, 10, exact=True)]
    assert len(set(exact) & {hit.path for hit in index.search_vector(text, 10)}) >= 9


def partitions(tables: search_tables.ImageTables) -> Any:
    return tables._table(search_tables.IMAGES).index_stats(search_tables.VECTOR_INDEX)


def test_new_rows_are_partitioned_once_there_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ROWS_FOR_INDEX": 200, "ROWS_IN_PARTITION": 50, "NEW_ROWS": 10, "DELTAS": 2}.items():
        monkeypatch.setattr(search_tables, name, value)
    vectors = unit(np.random.default_rng(0).standard_normal((300, 16), np.float32))
    tables = search_tables.ImageTables.connect(str(tmp_path / "index"))
    tables.create(metadata_of(16))
    now, written, seen = datetime(2026, 1, 1, tzinfo=timezone.utc), 0, []
    for count in (199, 1, 9, 1, 10, 10):
        names = [str(number) for number in range(written, written + count)]
        row = {"also_at": [], "bytes": 1, "modified": now}
        tables.write([{**row, "content": name, "path": name, "vector": vectors[int(name)]} for name in names], [], [])
        written += count
        tables.optimize()
        stats, queries = partitions(tables), [*range(0, written, 29), written - 1]
        seen.append(stats and (stats.num_indexed_rows, stats.num_indices))
        nearest = [tables.nearest(vectors[number], 1, None, False)[0]["path"] for number in queries]
        assert nearest == [str(number) for number in queries]
    assert seen == [None, (200, 1), (200, 1), (210, 2), (220, 3), (230, 1)]


def partitioned(folder: Path, dim: int) -> tuple[search_tables.ImageTables, Any]:
    """Writes 300 images of random vectors; returns the tables and the vectors."""
    vectors = unit(np.random.default_rng(dim).standard_normal((300, dim)).astype(np.float32))
    tables = search_tables.ImageTables.connect(str(folder))
    tables.create(metadata_of(dim))
    row = {"also_at": [], "bytes": 1, "modified": datetime(2026, 1, 1, tzinfo=timezone.utc)}
    rows = [{**row, "content": str(number), "path": str(number), "vector": vectors[number]} for number in range(300)]
    tables.write(rows, [], [])
    tables.optimize()
    return tables, vectors


@pytest.mark.parametrize("dim", [6, 12, 100, 127, 130])
def test_vectors_of_any_width_are_partitioned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dim: int) -> None:
    monkeypatch.setattr(search_tables, "ROWS_FOR_INDEX", 256)
    tables, vectors = partitioned(tmp_path, dim)
    assert partitions(tables).num_indexed_rows == 300
    for number in range(0, 300, 60):
        assert tables.nearest(vectors[number], 1, None, False)[0]["path"] == str(number)


def test_vectors_that_can_not_be_partitioned_are_compared_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As if no width were rounded up, or the library took fewer than it does."""
    monkeypatch.setattr(search_tables, "ROWS_FOR_INDEX", 256)
    for module in (search_tables, search_correction):
        monkeypatch.setattr(module, "stored_width", lambda dim: dim + search_correction.EXTRA)
    tables, vectors = partitioned(tmp_path, 100)
    assert "300 images of 100 numbers can't be partitioned (Invalid input, vector dimension must be" in caplog.text
    assert "nothing is lost" in caplog.text
    assert partitions(tables) is None
    assert tables.nearest(vectors[7], 1, None, False)[0]["path"] == "7"


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (OSError(28, "No space left on device"), "free some space and run it again: what was written before is kept"),
        (RuntimeError("lance error: LanceError(IO): corrupt"), "check rights and disk; if it is damaged, delete it"),
        (ValueError("Invalid user input: a width"), "its files and the disk are in order: LanceDB refuses what it was"),
    ],
)
def test_the_advice_of_an_error_fits_its_cause(tmp_path: Path, error: Exception, advice: str) -> None:
    with pytest.raises(ImageIndexError, match=re.escape(advice)), storage_errors(str(tmp_path), "write"):
        raise error
    gone = "its folder is not there: is its disk still mounted?"
    with pytest.raises(ImageIndexError, match=re.escape(gone)), storage_errors(str(tmp_path / "gone"), "write"):
        raise error


def test_scan_compares_size_and_time(tmp_path: Path) -> None:
    path = paint(tmp_path / "a.png", 1)
    first = scan(tmp_path, {})
    known = {file.path: file for file in first.pending}
    assert scan(tmp_path, known).unchanged == [str(path)]
    os.utime(path, ns=(5, 5))
    assert [file.path for file in scan(tmp_path, known).pending] == [str(path)]
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    assert len(scan(tmp_path, {}).pending) == 1
    assert scan([path], {}).pending[0].path == str(path)
    too_large = search_files.File(str(path), str(tmp_path), search_files.MAX_BYTES + 1, 0)
    assert search_files.hashed([too_large], 1)[1][0].reason == "more than 1 GB"


def broken_files(folder: Path, good: bytes, each: int) -> dict[str, str]:
    """Writes files broken in ten ways, `each` of each; returns path → expected reason."""
    jpeg = folder / "whole.jpg"
    Image.new("RGB", (64, 64), "red").save(jpeg)
    bomb = folder / "bomb.png"
    Image.new("1", (20_000, 9_000)).save(bomb)
    ways: dict[str, tuple[bytes, str]] = {
        "empty.png": (b"", "an empty file"),
        "text.jpg": (b"not an image", "a file that is not an image"),
        "svg.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a file that is not an image"),
        "html.gif": (b"<html><body>", "a file that is not an image"),
        "zeros.bmp": (bytes(500), "a file that is not an image"),
        "head.png": (good[:40], "a file that is not an image"),
        "half.jpg": (jpeg.read_bytes()[:200], "a file that is not an image"),
        "flipped.png": (good[:60] + bytes(b ^ 255 for b in good[60:90]) + good[90:], "a truncated or damaged image"),
        "bomb.png": (bomb.read_bytes(), "more than 178956970 pixels"),
        "eps.tif": (b"%!PS-Adobe-3.0 EPSF-3.0", "a file that is not an image"),
    }
    jpeg.unlink()
    bomb.unlink()
    expected = {}
    for name, (content, reason) in ways.items():
        for number in range(each):
            path = folder / f"{number:02}-{name}"
            path.write_bytes(content + (number.to_bytes(2, "big") if content and name != "bomb.png" else b""))
            expected[str(path)] = reason
    return expected


@pytest.mark.slow
def test_ten_thousand_files_of_which_three_hundred_are_broken(tmp_path: Path, encoder: DualEncoder) -> None:
    folder = tmp_path / "many"
    for number in range(9_700):
        path = folder / f"{number // 500:02}" / f"{number:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 24), (number % 256, number // 256, 77)).save(path)
    expected = broken_files(folder, path.read_bytes(), 30)
    index = ImageIndex.open(tmp_path / "index", encoder)
    added = index.add(folder)
    assert added.images == 9_700
    skipped = {sample.path: sample.reason for sample in added.skipped}
    assert set(skipped) == set(expected)
    assert {reason for path, reason in skipped.items() if "bomb" in path} == {"more than 178956970 pixels"}
    assert skipped == expected
    again = index.add(folder)  # skipped files are read again
    assert (again.unchanged, len(again.skipped)) == (9700, 300)


def test_an_index_of_an_older_format_is_refused(tmp_path: Path, encoder: DualEncoder, photos: Path) -> None:
    connection = lancedb.connect(str(tmp_path / "old"))
    rows = pa.table({"content": ["a"], "vector": [[0.0] * 16]})
    connection.create_table("pictures", rows.replace_schema_metadata({"turkish_clip": "{}"}))
    assert [holds_index(folder) for folder in (tmp_path / "old", str(photos), tmp_path / "none")] == [
        True,
        False,
        False,
    ]
    for ask in (lambda index: index.search("ev"), lambda index: index.add(photos)):
        with pytest.raises(ImageIndexError, match=r"expected an index of format 7 in .*; delete it and index again"):
            ask(ImageIndex.open(tmp_path / "old", encoder))
