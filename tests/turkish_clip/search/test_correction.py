"""Words are ordered by cosine less the hub score, exactly; images and other text encoders by cosine alone."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples import paint

from turkish_clip import build_text_encoder
from turkish_clip.bank import BankError, TextBank
from turkish_clip.dual_encoder import DualEncoder
from turkish_clip.metrics import HUB_NEIGHBOURS, HUB_WEIGHT, Vectors, hub_scores, unit
from turkish_clip.search import tables as search_tables
from turkish_clip.search.correction import stored_width, widened, widened_query
from turkish_clip.search.index import ImageIndex
from turkish_clip.search.tables import ImageTables, IndexMetadata

COLOURS, THINGS = "kırmızı mavi sarı bir iki".split(), "ev ağaç çiçek köpek kuş şeker".split()
QUERIES = [f"{colour} {thing} {place} {other}" for colour in COLOURS for thing in THINGS
           for place in ("üstünde", "altında") for other in ("ev", "ağaç")]  # fmt: skip


def test_a_dot_product_with_a_stored_vector_is_the_corrected_score() -> None:
    """Worked by hand: [0.6, 0.8] with hub score 0.28 is stored with 0.96 behind it, so that its norm is √2."""
    stored = widened(np.array([[0.6, 0.8]], np.float32), np.array([0.28], np.float32))
    assert stored.tolist()[0] == pytest.approx([0.6, 0.8, 0.28, 0.96, 0, 0, 0, 0])
    assert np.linalg.norm(stored) == pytest.approx(2**0.5)
    query = widened_query(np.array([0, 2], np.float32), 0.5)
    assert query.tolist() == pytest.approx([0, 1, -0.5, 0, 0, 0, 0, 0])
    assert float(stored[0] @ query) == pytest.approx(0.8 - 0.5 * 0.28)
    assert [stored_width(dim) for dim in (6, 7, 16, 512, 768)] == [8, 16, 24, 520, 776]


def expected_order(index: ImageIndex, encoder: DualEncoder, query: str, texts: list[str]) -> list[tuple[str, float]]:
    paths, vectors = index.vectors()
    bank = TextBank.of(texts, encoder.encode_texts, 16, "")
    scores = vectors @ encoder.encode_texts([query])[0] - HUB_WEIGHT * hub_scores(vectors, bank.unit_vectors)
    return sorted(zip(paths, scores.tolist()), key=lambda found: -found[1])


def order(hits: list[Any]) -> list[str]:
    return [hit.path for hit in hits]


def test_words_are_ordered_by_corrected_scores(index: ImageIndex, photos: Path, encoder: DualEncoder) -> None:
    assert index.search("kırmızı ev")[0].corrected is None
    assert index.add(photos, queries=QUERIES).bank_texts == len(set(QUERIES))
    plain = index.search("kırmızı ev", corrected=False)
    hits = index.search("kırmızı ev")
    expected = expected_order(index, encoder, "kırmızı ev", QUERIES)
    assert order(hits) == [path for path, _ in expected]
    assert [hit.corrected for hit in hits] == pytest.approx([score for _, score in expected], abs=1e-5)
    cosines = {hit.path: hit.score for hit in plain}
    assert {hit.path: hit.score for hit in hits} == pytest.approx(cosines, abs=1e-6)
    assert order(plain) == sorted(cosines, key=lambda path: -cosines[path])
    assert all(hit.corrected is None for hit in plain)
    assert order(index.search("kırmızı ev", where="bytes > 0")) == order(hits)


def test_similar_images_are_ordered_by_cosine(index: ImageIndex, photos: Path) -> None:
    before = [(hit.path, pytest.approx(hit.score, abs=1e-6), None) for hit in index.search(photos / "0.png")]
    index.add(photos, queries=QUERIES)
    after = index.search(photos / "0.png")
    assert [(hit.path, hit.score, hit.corrected) for hit in after] == before
    by_vector = index.search_vector(index.vector_of("ev"))
    assert order(by_vector) == order(index.search("ev", corrected=False))


def test_new_images_are_corrected_by_the_texts_that_the_index_keeps(
    index: ImageIndex, photos: Path, encoder: DualEncoder, tmp_path: Path
) -> None:
    index.add(photos, queries=QUERIES)
    paint(photos / "late.png", 77)
    again = ImageIndex.open(tmp_path / "index", encoder)
    assert (again.add(photos).added, len(again)) == (1, 7)
    for query in ("mavi kuş", "sarı şeker"):
        assert order(again.search(query)) == [path for path, _ in expected_order(again, encoder, query, QUERIES)]
    fewer = QUERIES[:100]
    again.add(photos, queries=fewer)
    assert order(again.search("mavi kuş")) == [path for path, _ in expected_order(again, encoder, "mavi kuş", fewer)]
    with pytest.raises(BankError, match="expected at least 100 different texts .*, got 2"):
        again.add(photos, queries=["ev", "kuş"])


@pytest.fixture
def other(encoder: DualEncoder, tiny_bert: Path) -> DualEncoder:
    """Another text encoder for the same image model."""
    import torch

    torch.manual_seed(9)
    return DualEncoder(encoder.spec, build_text_encoder(tiny_bert, dim=16, max_tokens=32, device="cpu"), encoder.image)


def test_another_text_encoder_is_not_corrected_until_it_indexes(
    index: ImageIndex, photos: Path, other: DualEncoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index.add(photos, queries=QUERIES)
    with_other = ImageIndex.open(tmp_path / "index", other)
    with caplog.at_level(logging.WARNING):
        hits = with_other.search("kırmızı ev")
        assert with_other.search("kırmızı ev") == hits
    assert caplog.text.count("corrects hubs for another text encoder than") == 1
    assert [hit.corrected for hit in hits] == [None] * 6
    assert order(hits) == order(with_other.search("kırmızı ev", corrected=False))
    paint(photos / "late.png", 77)
    with_other.add(photos)  # it has no bank: the first one's correction stays, for the new image too
    assert order(index.search("mavi kuş")) == [
        path for path, _ in expected_order(index, index.encoder, "mavi kuş", QUERIES)
    ]
    other.__dict__["bank"] = TextBank.of(QUERIES, other.encode_texts, 16, other.text_weights_sha256)
    with_other.add(photos)  # now it has one
    assert order(with_other.search("kırmızı ev")) == [
        path for path, _ in expected_order(with_other, other, "kırmızı ev", QUERIES)
    ]
    assert index.search("mavi kuş")[0].corrected is None


@pytest.mark.parametrize("moment", ["_write_bank", "_merge", "optimize"])
def test_a_kill_leaves_the_old_correction_the_new_one_or_none(
    index: ImageIndex, photos: Path, encoder: DualEncoder, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.add(photos, queries=QUERIES)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ImageTables, moment, killed)
    with pytest.raises(KeyboardInterrupt):
        index.add(photos, queries=QUERIES[:100])
    monkeypatch.undo()
    hits = index.search("mavi kuş")
    if moment == "optimize":  # all is written before
        assert order(hits) == [path for path, _ in expected_order(index, encoder, "mavi kuş", QUERIES[:100])]
    else:
        assert hits[0].corrected is None
    index.add(photos, queries=QUERIES[:100])
    assert order(index.search("mavi kuş")) == [
        path for path, _ in expected_order(index, encoder, "mavi kuş", QUERIES[:100])
    ]


def test_a_correction_with_other_numbers_is_made_again(
    index: ImageIndex, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turkish_clip.search.correction.HUB_WEIGHT", 0.1)
    index.add(photos, queries=QUERIES)
    monkeypatch.undo()
    metadata = index.metadata
    assert metadata is not None
    assert metadata.correction is not None
    assert (metadata.correction.weight, metadata.correction.neighbours) == (0.1, HUB_NEIGHBOURS)
    old = index.search("ev", k=1)[0]
    assert old.corrected is not None
    index.add(photos)
    assert index.metadata == replace(metadata, correction=replace(metadata.correction, weight=HUB_WEIGHT))


def test_partitions_are_searched_by_corrected_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among 2,000 images a fifth is near all texts: the corrected ten best lie deep in the order of cosines."""
    monkeypatch.setattr(search_tables, "ROWS_FOR_INDEX", 500)
    monkeypatch.setattr(search_tables, "ROWS_IN_PARTITION", 100)
    rng = np.random.default_rng(0)
    mean = unit(rng.standard_normal((1, 32)))
    texts = unit(unit(rng.standard_normal((300, 32))) + mean)
    images = unit(unit(rng.standard_normal((2000, 32))) + np.where(np.arange(2000) % 5, 0, 1)[:, None] * mean)
    bank = TextBank(texts[:200].astype(np.float16), "x")
    scores = hub_scores(images, bank.unit_vectors)
    tables = ImageTables.connect(str(tmp_path / "index"))
    tables.create(IndexMetadata(model="x", revision="", image_model="y", image_revision="", weights_sha256="", dim=32))
    tables.correct(bank)
    write(tables, images[:1500], scores[:1500], 0)
    tables.optimize()
    write(tables, images[1500:], scores[1500:], 1500)
    depths = []

    def best(weight: float, query: Vectors) -> list[int]:
        return np.argsort(weight * scores - images @ query, kind="stable")[:10].tolist()

    def found(weight: float, query: Vectors, exact: bool = False) -> list[int]:
        rows = tables.nearest(query, 10, None, exact, weight)
        assert [row["hub_score"] for row in rows] == pytest.approx(scores[[int(row["path"]) for row in rows]])
        return [int(row["path"]) for row in rows]

    kept = []
    for query in texts[200:240]:
        order = np.argsort(-(images @ query)).tolist()
        depths.append(max(order.index(image) for image in best(1.0, query)))
        assert found(1.0, query, exact=True) == best(1.0, query)
        for weight in (0.0, 1.0):
            kept.append(len(set(found(weight, query)) & set(best(weight, query))))
    assert np.median(depths) > 40
    assert np.mean(kept) > 9.8


def write(tables: ImageTables, vectors: Vectors, scores: Vectors, first: int) -> None:
    row: dict[str, Any] = {"also_at": [], "bytes": 1, "modified": datetime(2026, 1, 1, tzinfo=timezone.utc)}
    names = [str(first + number) for number in range(len(vectors))]
    rows = [
        {**row, "content": name, "path": name, "vector": vector, "hub_score": score}
        for name, vector, score in zip(names, vectors, scores)
    ]
    tables.write(rows, [], [])
