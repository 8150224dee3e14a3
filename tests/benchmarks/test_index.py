"""The index at 100,000 images against exact search on the same core: recall, time of a query, opening, adding; and
what the correction of hubs costs a query."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import large_index
import numpy as np
import pytest
from memory import peak_of
from ratios import report

from turkish_clip.bank import TextBank
from turkish_clip.metrics import HUB_WEIGHT, hub_scores, unit
from turkish_clip.search.files import File
from turkish_clip.search.query import FOUND, vectors_of
from turkish_clip.search.tables import NEW_ROWS, ImageTables, IndexMetadata

IMAGES, DIM, CLUSTERS, QUERIES, K = 100_000, 512, 2_000, 200, 10
LARGE = int(os.environ.get("INDEX_ROWS", "1000000"))  # multiples of 10,000; fewer for a try
RECALL, SLOWER, OPENED_SECONDS = 0.98, 3, 0.05
GROWTH = 450  # bytes of memory for each further row: LanceDB partitions in memory that grows a little (LOG.md)
PROGRAM = [sys.executable, large_index.__file__]
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def metadata_of(dim: int) -> IndexMetadata:
    return IndexMetadata(model="x", revision="", image_model="y", image_revision="", weights_sha256="", dim=dim)


def clustered(count: int, seed: int, centres: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((count, DIM), np.float32) * 0.04
    return unit(centres[rng.integers(0, len(centres), count)] + noise)


def apart(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and texts as CLIP has them, on two cones: a text's nearest images are as good as each other.

    The two means, and latent vectors that both share, whose spectrum falls as 1 / sqrt(rank).
    """
    rng = np.random.default_rng(seed)
    image_mean, text_mean = unit(rng.standard_normal((2, DIM), np.float32))
    spectrum = np.arange(1, DIM + 1, dtype=np.float32) ** -0.5
    latent = rng.standard_normal((IMAGES, DIM), np.float32) * spectrum
    meant = latent[rng.integers(0, IMAGES, QUERIES)]
    texts = meant + 0.6 * rng.standard_normal((QUERIES, DIM), np.float32) * spectrum
    return unit(image_mean + unit(latent)), unit(0.85 * text_mean + 0.5 * unit(texts))


def write(tables: ImageTables, vectors: np.ndarray, first: int) -> None:
    for start in range(0, len(vectors), 10_000):
        part = vectors[start : start + 10_000]
        names = [f"/photos/{first + start + number:07}.jpg" for number in range(len(part))]
        rows: list[dict[str, Any]] = [
            {"content": name, "path": name, "also_at": [], "bytes": 1, "modified": NOW, "vector": vector}
            for name, vector in zip(names, part)
        ]
        tables.write(rows, [], [File(name, "/photos", 1, 1, name) for name in names])


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = call()
    return time.perf_counter() - began, result


@pytest.fixture
def one_core() -> Iterator[None]:
    """Every thread of the process on one core; threads made meanwhile inherit it."""
    tasks = Path("/proc/self/task")
    if not tasks.is_dir():
        pytest.skip("binding every thread to a core needs Linux")

    def bind(cores: set[int]) -> None:
        for task in tasks.iterdir():
            os.sched_setaffinity(int(task.name), cores)

    cores = os.sched_getaffinity(0)
    bind({min(cores)})
    yield
    bind(cores)


def queried(tables: ImageTables, vectors: np.ndarray, queries: np.ndarray) -> tuple[float, float, float]:
    """recall@K, and the median milliseconds of a query and of exact search."""
    best = [timed(lambda query=query: np.argpartition(-(vectors @ query), K)[:K]) for query in queries]
    rows = [timed(lambda query=query: tables.nearest(query, K, None, False)) for query in queries]
    pairs = zip(rows, best)
    found = sum(len({int(row["path"][8:15]) for row in mine} & set(exact.tolist())) for (_, mine), (_, exact) in pairs)
    fast, slow = (1000 * float(np.median([seconds for seconds, _ in results])) for results in (rows, best))
    return found / (K * len(queries)), fast, slow


@pytest.mark.bench
def test_the_index_at_100_000_images(tmp_path: Path, one_core: None) -> None:
    centres = np.random.default_rng(0).standard_normal((CLUSTERS, DIM), np.float32)
    centres = unit(centres)
    vectors = clustered(IMAGES, 1, centres)
    tables = ImageTables.connect(str(tmp_path / "index"))
    tables.create(metadata_of(DIM))
    writing, _ = timed(lambda: write(tables, vectors, 0))
    building, _ = timed(tables.optimize)

    opening, tables = timed(lambda: ImageTables.connect(str(tmp_path / "index")))
    opening += timed(tables.metadata)[0]
    recall, fast, slow = queried(tables, vectors, clustered(QUERIES, 2, centres))

    more = clustered(NEW_ROWS, 3, centres)
    adding, _ = timed(lambda: write(tables, more, IMAGES))
    tidying, _ = timed(tables.optimize)
    fresh = [tables.nearest(vector, 1, None, False)[0]["path"] for vector in more[:50]]
    print(f"\nindex of {IMAGES} x {DIM}: written in {writing:.1f} s, partitions in {building:.1f} s")
    print(f"opened in {opening:.3f} s; recall@{K} {recall:.4f}")
    report(f"the median query of an index of {IMAGES:,}", "exact search in numpy", [fast], [slow], "ms")
    report("taking 1,000 more into the partitions", "building the partitions again", [tidying], [building])
    print(f"1,000 more written in {adding:.2f} s")
    assert recall >= 0.98
    assert opening <= 0.3
    assert fast < slow
    assert fresh == [f"/photos/{IMAGES + number:07}.jpg" for number in range(50)]
    assert tidying < building / 2


@pytest.mark.bench
def test_the_index_where_texts_lie_apart_from_images(tmp_path: Path, one_core: None) -> None:
    vectors, texts = apart(4)
    tables = ImageTables.connect(str(tmp_path / "index"))
    tables.create(metadata_of(DIM))
    write(tables, vectors, 0)
    tables.optimize()
    recall, fast, slow = queried(tables, vectors, texts)
    print(f"\ntexts apart from images: recall@{K} {recall:.4f}")
    report("the median query by texts apart from images", "exact search in numpy", [fast], [slow], "ms")
    assert recall >= 0.98
    assert fast < slow


@pytest.mark.bench
def test_a_query_with_the_correction_of_hubs(tmp_path: Path, one_core: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the same index with vectors as narrow as the images', which has no room for hub scores; in CPU time.

    A query is the encoding of its words by an encoder as small as ELECTRA-small, and the search.
    """
    vectors, texts = apart(4)
    bank = TextBank(apart(5)[1].astype(np.float16), "x")
    scores = hub_scores(vectors, bank.unit_vectors)
    wide, narrow = (ImageTables.connect(str(tmp_path / name)) for name in ("wide", "narrow"))
    wide.create(metadata_of(DIM))
    write(wide, vectors, 0)
    with monkeypatch.context() as patch:
        patch.setattr("turkish_clip.search.tables.stored_width", lambda dim: dim)
        patch.setattr("turkish_clip.search.tables.widened", lambda rows, _: rows)
        narrow.create(metadata_of(DIM))
        write(narrow, vectors, 0)
        narrow.optimize()
    correcting, _ = timed(lambda: wide.correct(bank))
    print(f"\nhub scores of {IMAGES:,} images, and their partitions: {correcting:.1f} s")
    encoder = small_encoder(tmp_path)
    encoding = 1000 * float(
        np.median([cpu_timed(lambda: encoder.encode("karda oynayan iki köpek"))[0] for _ in range(30)])
    )

    def corrected(query: np.ndarray) -> Any:
        return cpu_timed(lambda: wide.nearest(query, K, None, False, HUB_WEIGHT))

    def plain(query: np.ndarray) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr("turkish_clip.search.query.widened_query", lambda vector, _: vector)
            patch.setattr("turkish_clip.search.query._reranked", reranked_by_cosine)
            return cpu_timed(lambda: narrow.nearest(query, K, None, False))

    found, ours, other = 0, [], []
    for _ in range(5):
        costs: tuple[list[float], list[float]] = ([], [])
        for number, query in enumerate(texts):  # each goes first with every other query
            pair = [corrected(query), plain(query)] if number % 2 else [plain(query), corrected(query)][::-1]
            for cost, (seconds, _) in zip(costs, pair):
                cost.append(1000 * seconds)
            best = np.argsort(HUB_WEIGHT * scores - vectors @ query)[:K].tolist()
            found += len({int(row["path"][8:15]) for row in pair[0][1]} & set(best))
        ours.append(float(np.median(costs[0])))
        other.append(float(np.median(costs[1])))
    recall = found / (K * len(texts) * len(ours))
    print(f"recall@{K} of the corrected order {recall:.4f}")
    report("the search of a query with hubs corrected", "an index without hub scores", ours, other, "ms of CPU")
    with_encoding = [[cost + encoding for cost in costs] for costs in (ours, other)]
    ratio = report(
        "a query with hubs corrected, words encoded", "an index without hub scores", *with_encoding, "ms of CPU"
    )
    assert recall >= 0.98
    assert ratio >= 1 / 1.05


def small_encoder(folder: Path) -> Any:
    """A text encoder of the size of ELECTRA-small, random weights."""
    from transformers import BertConfig, BertModel

    from training.small_models.vocabularies import learn_wordpiece
    from turkish_clip import build_text_encoder

    size = {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024}
    BertModel(BertConfig(vocab_size=2000, **size)).save_pretrained(folder / "small")
    learn_wordpiece(["karda oynayan iki köpek"], 500, 128).save_pretrained(folder / "small")
    return build_text_encoder(folder / "small", dim=DIM, device="cpu")


def cpu_timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """The seconds that all threads of the process computed, whatever else the machine does."""
    began = time.process_time()
    result = call()
    return time.process_time() - began, result


def reranked_by_cosine(rows: Any, vector: np.ndarray, k: int, _: float) -> list[dict[str, Any]]:
    """What the index did before it had hub scores."""
    cosines = unit(vectors_of(rows)) @ unit(vector[None])[0]
    columns = [rows[name].to_pylist() for name in FOUND]
    best = np.argsort(-cosines, kind="stable")[:k].tolist()
    return [
        {**{name: column[place] for name, column in zip(FOUND, columns)}, "cosine": float(cosines[place])}
        for place in best
    ]


@pytest.mark.bench
def test_a_large_index_against_one_of_100_000(tmp_path: Path, one_core: None) -> None:
    """Each step in a process of its own, whose memory and imports are its alone."""
    found: dict[int, dict[str, Any]] = {}
    for rows in (IMAGES, LARGE):
        folder, measured = tmp_path / str(rows), dict[str, Any]()
        peak = peak_of([*PROGRAM, "build", str(folder), str(rows)])
        measured["build"] = result_of(folder)
        measured["own"], measured["resident"] = peak.own, peak.resident
        measured["disk"] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        measured["open"] = [run("open", folder) for _ in range(5)]
        measured["ask"] = run("ask", folder, rows)
        found[rows] = measured
        print(f"\n{rows:,}: {json.dumps(measured)}")
    small, large = found[IMAGES], found[LARGE]
    grown = run("grow", tmp_path / str(LARGE), LARGE, large_index.BLOCK)
    print(f"{large_index.BLOCK:,} more: {json.dumps(grown)}")

    what = f"an index of {LARGE:,} × {DIM}"
    opening = [one["opening"] for one in large["open"]]
    report(f"opening {what}", "starting Python and the imports", opening, [one["imports"] for one in large["open"]])
    report(f"memory of building {what}", f"{IMAGES:,}", [large["own"] / 1e6], [small["own"] / 1e6], "MB")
    for kind in large_index.KINDS:
        times = [one["ask"][kind]["computed"] for one in (large, small)]
        report(f"CPU time of the median query of {what}, near {kind}", f"{IMAGES:,}", *([time] for time in times), "ms")
        assert min(one["ask"][kind]["recall"] for one in (large, small)) >= RECALL
        assert times[0] <= SLOWER * times[1]
        assert large["ask"][f"{kind}, condition"]["recall"] >= RECALL
    assert not any(one["package"] for one in large["open"])
    assert float(np.median(opening)) < OPENED_SECONDS
    assert large["own"] - small["own"] < GROWTH * (LARGE - IMAGES)
    assert grown["found_at_once"] == 1
    assert min(grown[when]["recall"] for when in ("waiting", "tidied")) >= RECALL
    assert grown["tidying"][0] < large["build"]["partitioning"][0] / 10
    assert (grown["removed"] > 0, grown["still_found"]) == (True, 0)


def result_of(folder: Path) -> dict[str, Any]:
    """What a step of large_index.py wrote."""
    written: dict[str, Any] = json.loads(Path(f"{folder}.json").read_text(encoding="utf-8"))
    return written


def run(step: str, folder: Path, *numbers: int) -> dict[str, Any]:
    """Runs a step of large_index.py in a process of its own."""
    subprocess.run([*PROGRAM, step, str(folder), *map(str, numbers)], check=True)
    return result_of(folder)
