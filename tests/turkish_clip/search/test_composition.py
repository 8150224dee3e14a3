"""Queries of several parts: their vector worked by hand, what an index answers, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from turkish_clip.dual_encoder import DualEncoder
from turkish_clip.metrics import HUB_WEIGHT
from turkish_clip.search import ImageIndex, ImageIndexError, Query, QueryError, weighted
from turkish_clip.search.composition import composed

WORDS = "kırmızı mavi sarı ev ağaç çiçek köpek kuş şeker bir iki".split()
QUERIES = [f"{one} {other}" for one in WORDS for other in WORDS]
EAST, NORTH, UP = np.eye(3, dtype=np.float32)


def test_the_vector_is_the_weighted_sum() -> None:
    """[1, -½, 0] has the norm √1.25, and the hubs count for 1 - ½ in that measure."""
    found = composed(Query("araba", without=[("gece", 0.5)]), np.stack([EAST, NORTH]))
    assert found.vector == pytest.approx([1 / 1.25**0.5, -0.5 / 1.25**0.5, 0])
    assert found.hub_weight == pytest.approx(0.5 / 1.25**0.5)
    assert found.wanted == pytest.approx(EAST)
    assert found.unwanted.tolist() == [NORTH.tolist()]
    assert not found.has_image


def test_several_images_and_images_to_keep_away() -> None:
    query = Query("ev", without=["kuş"], image="a.png", images=["b.png"], without_images=["c.png"])
    assert [part.kind for part in query.parts] == ["text", "without", "image", "image", "without image"]
    assert (query.texts, query.images) == (["ev", "kuş"], ["a.png", "b.png", "c.png"])
    assert str(query) == "ev - kuş + a.png + b.png - c.png"
    found = composed(Query(images=["a.png", "b.png"], without_images=["c.png"]), np.stack([EAST, UP, NORTH]))
    expected = (EAST + UP - NORTH) / np.sqrt(3)  # each of weight 1 where there are no words
    assert found.vector == pytest.approx(expected)
    assert (found.hub_weight, found.wanted, found.has_image) == (0.0, None, True)
    beside = composed(Query("ev", without_images=["c.png"]), np.stack([EAST, NORTH]))
    assert beside.vector == pytest.approx((EAST - 0.25 * NORTH) / np.sqrt(1 + 0.25**2))
    assert beside.hub_weight == pytest.approx(1 / np.sqrt(1 + 0.25**2))
    with pytest.raises(QueryError, match="expected words or an image to look for, got only what is kept away, c.png"):
        Query(without_images=["c.png"])


def test_an_image_counts_for_a_quarter_beside_words_and_not_for_hubs() -> None:
    found = composed(Query(("araba", 2), image="x.png"), np.stack([EAST, UP]))
    norm = (4 + 1 / 16) ** 0.5
    assert found.vector == pytest.approx([2 / norm, 0, 0.25 / norm])
    assert (found.hub_weight, found.has_image) == (pytest.approx(2 / norm), True)
    heavier = composed(Query("araba", image="x.png", image_weight=1), np.stack([EAST, UP]))
    assert heavier.vector == pytest.approx([0.5**0.5, 0, 0.5**0.5])


def test_one_part_is_its_own_vector_whatever_its_weight() -> None:
    alone = composed(Query(("araba", 7)), NORTH[None])
    assert (alone.vector.tolist(), alone.hub_weight) == (NORTH.tolist(), 1.0)
    image = composed(Query(image="x.png"), NORTH[None])
    assert (image.vector.tolist(), image.hub_weight, image.wanted) == (NORTH.tolist(), 0.0, None)


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("gece", ("gece", 1)),
        ("gece^0.5", ("gece", 0.5)),
        ("iki ev^2 ", ("iki ev", 2)),
        ("x ^ y", ("x ^ y", 1)),
        ("a^2^3", ("a^2", 3)),
    ],
)
def test_a_weight_is_a_number_after_the_text(typed: str, read: tuple[str, float]) -> None:
    assert weighted(typed) == read


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: weighted("ev^nan"), r"expected a weight above 0, up to 1000, got nan for 'ev\^nan'; give another"),
        (
            lambda: weighted("ev^y"),
            r"a number after \^, the weight of .*, got 'ev\^y'; write 'gece\^0.5'",
        ),
        (lambda: weighted("ev^-1"), r"got -1 for 'ev\^-1'; keep it away instead"),
        (lambda: weighted("ev^0"), "got 0 for"),
        (lambda: weighted("ev^inf"), "got inf for"),
        (lambda: weighted("ev^1001"), "got 1001 for"),
        (lambda: Query(("ev", math.nan)), "got nan for 'ev'"),
        (lambda: Query("ev", image="x.png", image_weight=-1), "got -1 for the image"),
        (lambda: Query(), "expected words or an image to look for, got nothing; add words"),
        (lambda: Query(without=["ev"]), "got only what is kept away, 'ev'; add words"),
        (lambda: Query("ev", " "), "got an empty text"),
        (
            lambda: composed(Query("ev", without=["ev"]), np.stack([EAST, EAST])),
            "got ev - ev, which cancel each other out; change one",
        ),
    ],
)
def test_what_can_not_be_used_is_told(ask: Any, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        ask()


def test_an_index_orders_by_the_sum_less_the_hubs(index: ImageIndex, photos: Path, encoder: DualEncoder) -> None:
    index.add(photos, queries=QUERIES)
    query = Query("kırmızı", ("ev", 0.5), without=["kuş"], image=photos / "0.png")
    texts = encoder.encode_texts(["kırmızı", "ev", "kuş"])
    total = texts[0] + 0.5 * texts[1] - texts[2] + 0.25 * index.vector_of(photos / "0.png")
    norm = np.linalg.norm(total)
    paths, vectors = index.vectors()
    hubs = {hit.path: (hit.score - (hit.corrected or 0)) / HUB_WEIGHT for hit in index.search("ev", k=6)}
    weight = HUB_WEIGHT * (1 + 0.5 - 1) / norm
    scores = {path: float(score) for path, score in zip(paths, vectors @ total / norm)}
    expected = sorted(paths, key=lambda path: weight * hubs[path] - scores[path])
    answer = index.ask(query, k=6)
    assert [hit.path for hit in answer.hits] == expected
    assert {hit.path: hit.score for hit in answer.hits} == pytest.approx(scores, abs=1e-5)
    assert [hit.corrected for hit in answer.hits] == pytest.approx(
        [scores[path] - weight * hubs[path] for path in expected], abs=1e-5
    )
    assert (answer.fits, answer.no_cutoff) == (None, "words alone can tell what fits, not an image")
    assert str(query) == f"kırmızı + ev - kuş + {photos / '0.png'}"


def test_an_index_says_whether_anything_fits(
    index: ImageIndex, photos: Path, encoder: DualEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = index.ask("kırmızı ev")
    assert (without.fits, without.hits[0].fits) == (None, None)
    assert without.no_cutoff == "the index has no text bank to tell what fits"
    index.add(photos, queries=QUERIES)
    for least, fits in ((-100.0, True), (100.0, False)):
        monkeypatch.setattr("turkish_clip.cutoff.Cutoff.least", lambda self, query, least=least: least)
        answer = index.ask("kırmızı ev", k=2)
        assert (answer.fits, [hit.fits for hit in answer.hits], answer.no_cutoff) == (fits, [fits, fits], "")
        kept_away = index.ask(Query("kırmızı", without=["ev"]), k=2)
        assert kept_away.fits is False  # what fits is kept away as well, or nothing fits
    monkeypatch.undo()
    assert index.ask("xyzw").understood is False
    assert index.ask("xyzw").fits is False
    assert index.ask(Query("xyzw", "ev")).understood
    assert index.ask(photos / "0.png").fits is None


def test_pages_follow_each_other(index: ImageIndex) -> None:
    whole = index.search("kırmızı ev", k=6)
    assert [hit for offset in (0, 2, 4) for hit in index.search("kırmızı ev", k=2, offset=offset)] == whole
    assert index.search("kırmızı ev", k=2, offset=6) == []
    with pytest.raises(ImageIndexError, match="expected a place to begin at, got offset = -1; give 0 or more"):
        index.search("ev", offset=-1)
