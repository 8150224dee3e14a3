"""An index on object storage, searched by a Ray cluster, gives the same hits as a folder and one process."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from samples import paint

from turkish_clip.cluster import ClusterError, SearchCluster
from turkish_clip.dual_encoder import DualEncoder
from turkish_clip.metrics import unit
from turkish_clip.search import tables as search_tables
from turkish_clip.search.index import ImageIndex
from turkish_clip.search.tables import ImageTables, IndexMetadata

DIM = 32


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yields the address of an index in an empty bucket of a mock object store on loopback."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    endpoint = f"http://127.0.0.1:{port}"
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT": endpoint,
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    store = boto3.resource("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket="photos")
    yield "s3://photos/index"
    store.objects.delete()  # all servers in a process share their buckets
    server.stop()


def test_an_index_on_object_storage_equals_one_in_a_folder(bucket: str, encoder: DualEncoder, tmp_path: Path) -> None:
    for number in range(6):
        paint(tmp_path / f"{number}.png", number)
    here = ImageIndex.open(tmp_path / "index", encoder)
    there = ImageIndex.open(bucket, encoder)
    for index in (here, there):
        assert index.add(tmp_path).images == 6
    (tmp_path / "0.png").unlink()
    paint(tmp_path / "7.png", 7)
    assert there.add(tmp_path).vanished == 1
    here.add(tmp_path)
    reopened = ImageIndex.open(bucket, encoder)
    assert reopened.metadata == here.metadata
    expected = [(hit.path, pytest.approx(hit.score, abs=1e-5)) for hit in here.search("kırmızı ev", k=6)]
    assert [(hit.path, hit.score) for hit in reopened.search("kırmızı ev", k=6)] == expected
    assert not list(tmp_path.glob("s3*"))


def write(tables: ImageTables, vectors: np.ndarray, first: int) -> None:
    now = datetime(2026, 1, 1, tzinfo=timezone.utc)
    rows = [
        {"content": name, "path": name, "also_at": [], "bytes": number, "modified": now, "vector": vector}
        for number, vector in enumerate(vectors)
        for name in [f"/photos/{first + number:05}.jpg"]
    ]
    tables.write(rows, [], [])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray leaves sockets open, and Lance warns at every fork
def test_a_cluster_finds_what_one_process_finds(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_tables, "ROWS_FOR_INDEX", 1000)
    vectors = unit(np.random.default_rng(0).standard_normal((1500, DIM), np.float32))
    alone = ImageTables.connect(bucket)
    metadata = IndexMetadata(model="x", revision="", image_model="y", image_revision="", weights_sha256="", dim=DIM)
    alone.create(metadata)
    write(alone, vectors[:700], 0)
    cluster = SearchCluster("local", workers=2)
    try:
        shared = ImageTables.connect(bucket, cluster)

        def nearest(tables: ImageTables, query: np.ndarray, where: str | None = None) -> list[tuple[str, float]]:
            return [(row["path"], row["cosine"]) for row in tables.nearest(query, 5, where, False)]

        def compare(upto: int, where: str | None = None) -> None:
            for query in vectors[:upto:100]:
                expected = [(path, pytest.approx(cosine, abs=1e-5)) for path, cosine in nearest(alone, query, where)]
                assert nearest(shared, query, where) == expected

        compare(700)
        write(alone, vectors[700:1400], 700)
        alone.optimize()
        compare(1400)
        write(alone, vectors[1400:], 1400)  # rows that are in no index partition yet
        assert nearest(shared, vectors[1450])[0][0] == "/photos/01450.jpg"
        assert nearest(shared, vectors[50])[0][0] == "/photos/00050.jpg"
        compare(1500, "bytes < 5")
    finally:
        cluster.close()


def test_an_address_without_a_cluster_is_refused() -> None:
    ray = pytest.importorskip("ray", reason="the extra distributed is not installed")
    pytest.importorskip("lance_ray", reason="lance-ray is not installed; it has no release for Python 3.14")
    ray.shutdown()  # earlier tests may have started it in this process
    with pytest.raises(ClusterError, match=r"expected a Ray cluster at 'auto', got .*; give auto on a node"):
        SearchCluster("auto")
