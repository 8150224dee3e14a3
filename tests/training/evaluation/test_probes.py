"""Forced choices, the spread over templates and the shift of slices equal what is counted by hand."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from training.data.samples import Negative, Row
from training.evaluation.probes import (
    Remembered,
    has_english,
    label_hits,
    measure_probes,
    measure_prompts,
    measure_slices,
    recall_in_gallery,
)
from training.run.config import EvaluateConfig
from turkish_clip.metrics import Vectors, ranks, unit
from turkish_clip.templates import PHOTOGRAPHS, fill

CONFIG = EvaluateConfig(captions="x", run="x", bootstrap_samples=200)
IMAGES = np.eye(3, dtype=np.float32)


class Encoder:
    """Gives texts the vectors of a table, all others one and the same, and remembers what it was asked."""

    def __init__(self, table: dict[str, Vectors] | None = None, dim: int = 3) -> None:
        self.table = table or {}
        self.default = np.full(dim, dim**-0.5, np.float32)
        self.calls: list[list[str]] = []

    def __call__(self, texts: list[str]) -> Vectors:
        self.calls.append(texts)
        return np.stack([self.table.get(text, self.default) for text in texts])


def test_a_remembered_text_is_not_encoded_again() -> None:
    encoder = Encoder({"ev": IMAGES[0], "kuş": IMAGES[1], "göl": IMAGES[2]})
    remembered = Remembered(encoder, ["ev"], IMAGES[:1])
    assert remembered(["kuş", "ev", "kuş"]).tolist() == IMAGES[[1, 0, 1]].tolist()
    assert remembered(["ev", "göl", "kuş"]).tolist() == IMAGES[[0, 2, 1]].tolist()
    assert encoder.calls == [["kuş"], ["göl"]]


def row(number: int, *negatives: Negative, **fields: object) -> Row:
    return replace(Row(str(number), None, (f"t{number}",), (), "test", negatives=negatives), **fields)  # type: ignore[arg-type]


def test_accuracy_by_hand() -> None:
    """Of four choices two are right, one is wrong and one a tie: 2.5 of 4."""
    near, far = np.eye(3, dtype=np.float32)[[0, 1]]
    student = Encoder({"doğru": near, "yanlış": far})
    rows = [
        row(0, Negative("a", "doğru", "yanlış"), Negative("a", "eşit", "denk"), Negative("b", "yanlış", "doğru")),
        row(1, Negative("a", "doğru", "yanlış"), Negative("a", "yanlış", "doğru")),
        row(2),
    ]
    probes = measure_probes(student, None, rows, IMAGES, CONFIG)
    assert list(probes) == ["a", "b"]
    found = probes["a"]
    assert (found.pairs, found.images, found.chance, found.teacher) == (4, 2, 0.5, None)
    assert found.student.value == 2.5 / 4
    assert found.student.ci95 == (0.5, 0.75)  # of image 1 alone, and of image 0 alone
    assert probes["b"].student.value == 0.0
    assert student.calls == [["doğru", "yanlış", "eşit", "denk"]]  # each text once, all in one pass


def test_a_collapsed_encoder_is_at_chance_and_one_that_is_not_finite_below() -> None:
    rows = [row(number, Negative("a", f"t{number}", f"u{number}")) for number in range(3)]
    assert measure_probes(Encoder(), None, rows, IMAGES, CONFIG)["a"].student.value == 0.5
    broken = Encoder({f"t{number}": np.full(3, np.nan, np.float32) for number in range(3)})
    assert measure_probes(broken, None, rows, IMAGES, CONFIG)["a"].student.value == 0.0


def test_the_teacher_reads_english_where_each_pair_has_it() -> None:
    both = Negative("a", "ev", "kuş", "house", "bird")
    rows = [row(0, both, replace(both, probe="b")), row(1, both, Negative("b", "ev", "kuş", "house"))]
    student, teacher = Encoder({"ev": IMAGES[1]}), Encoder({"house": IMAGES[0], "bird": IMAGES[1]})
    probes = measure_probes(student, teacher, rows, IMAGES, CONFIG)
    assert probes["a"].teacher is not None
    assert probes["a"].teacher.value == 0.5
    assert probes["b"].teacher is None  # one of its pairs has no English negative
    assert teacher.calls == [["house", "bird"]]
    assert [has_english(one) for one in (*rows, row(2, Negative("a", "ev", "kuş", "house")))] == [True, True, False]
    without = measure_probes(student, None, rows, IMAGES, replace(CONFIG, bootstrap_samples=0))
    assert without["a"].teacher is None
    assert without["a"].student.ci95 is None


def test_no_negatives_no_probes_and_nothing_encoded() -> None:
    student = Encoder()
    assert measure_probes(student, student, [row(0), row(1)], IMAGES, CONFIG) == {}
    assert measure_prompts(student, [row(0), row(1)], IMAGES, CONFIG) is None
    assert measure_slices(student, student, [row(0), row(1)], IMAGES, CONFIG) == {}
    assert student.calls == []


def test_the_spread_over_templates_by_hand() -> None:
    """In one template each label has the vector of its image; in the others all have the same, and none is right."""
    labels = ("ev", "kuş", "göl")
    good = PHOTOGRAPHS[3]
    student = Encoder({fill(good, label): IMAGES[number] for number, label in enumerate(labels)})
    rows = [row(number, labels=(label,)) for number, label in enumerate(labels)]
    spread = measure_prompts(student, rows, IMAGES, CONFIG)
    assert spread is not None
    assert spread.templates == {template: float(template == good) for template in PHOTOGRAPHS}
    assert (spread.images, spread.labels, spread.chance) == (3, 3, pytest.approx(1 / 3))
    count = len(PHOTOGRAPHS)
    assert (spread.mean, spread.min, spread.max) == (pytest.approx(1 / count), 0.0, 1.0)
    assert spread.standard_deviation == pytest.approx(math.sqrt(1 / count))  # n (1/n) (1 − 1/n) / (n − 1)
    assert spread.ensemble.value == 1.0  # the one good template tips the mean


def test_images_of_several_labels_choose_once_for_each() -> None:
    images = unit(np.array([[3, 2, 1, 0], [0, 0, 0, 1]], np.float32))
    labels = np.eye(4, dtype=np.float32)
    assert label_hits(labels, images, [[0, 1], [0]]).tolist() == [1.0, 1.0, 0.0]
    assert label_hits(labels, images, [[0, 2], [3]]).tolist() == [1.0, 0.0, 1.0]
    rows = [row(0, labels=("a", "b")), row(1, labels=("d",)), row(2), row(3, labels=("a", "b", "d"))]
    spread = measure_prompts(Encoder(), rows, IMAGES[[0, 1, 2, 0]], CONFIG)
    assert spread is not None
    assert (spread.images, spread.labels) == (2, 3)  # the last image has all labels, and no wrong one to choose
    assert spread.chance == pytest.approx((1 / 2 + 1 / 2 + 1 / 3) / 3)
    assert spread.max == 0.0


def test_recall_in_a_smaller_gallery_equals_the_mean_over_all_galleries() -> None:
    rng = np.random.default_rng(0)
    queries, candidates = (unit(rng.standard_normal((count, 4)).astype(np.float32)) for count in (5, 7))
    relevant = [[0], [1], [2, 3], [4], [6]]
    for size in (2, 3, 5, 7):
        expected = []
        for query, own in zip(queries, relevant):
            others = [number for number in range(7) if number not in own]
            galleries = list(itertools.combinations(others, size - len(own)))
            found = [
                ranks(query[None], candidates[[*own, *drawn]], [list(range(len(own)))])[0] == 1 for drawn in galleries
            ]
            expected.append(np.mean(found))
        assert recall_in_gallery(queries, candidates, relevant, size) == pytest.approx(expected, abs=1e-12)
    assert recall_in_gallery(queries, candidates, relevant, 1) == pytest.approx(1.0)


def test_a_slice_is_measured_among_its_own_images_and_against_the_rest() -> None:
    """The texts of 10 drawn images find their images, those of 20 painted ones a neighbour first, then theirs."""
    images = np.eye(30, dtype=np.float32)
    neighbours = images[[*range(10), *range(11, 30), 10]]
    texts = unit(images + 2 * neighbours)
    found = {f"t{number}": texts[number] for number in range(30)}
    rows = [row(number, slices=("çizim",) if number < 10 else ("boya", "hepsi")) for number in range(30)]
    rows[0] = replace(rows[0], slices=("çizim", "az"))
    slices = measure_slices(Encoder(found, 30), Encoder({}, 30), rows, images, CONFIG)
    assert list(slices) == ["çizim", "boya", "hepsi"]  # "az" has one image
    drawn, painted = slices["çizim"], slices["boya"]
    assert (drawn.images, drawn.captions, drawn.text_to_image.recall_at_1) == (10, 10, 1.0)
    assert (painted.images, painted.text_to_image.recall_at_1) == (20, 0.0)
    assert drawn.teacher_text_to_image is None  # no image has an English caption
    # In a gallery of 10, the one wrong neighbour of 19 is drawn among 9: 1 − 9/19 of the painted are found.
    assert drawn.shift["text_to_image"].value == pytest.approx(1 - 10 / 19)
    assert painted.shift["text_to_image"].value == pytest.approx(10 / 19 - 1)
    assert drawn.shift["image_to_text"].value == pytest.approx(1 - 10 / 19)
    assert set(drawn.shift) == {"text_to_image", "image_to_text"}


def test_the_teacher_beside_each_slice_and_no_difference_without_a_rest() -> None:
    images = np.eye(12, dtype=np.float32)
    rows = [row(number, slices=("çizim",), english=(f"e{number}",)) for number in range(12)]
    teacher = Encoder({f"e{number}": images[number] for number in range(12)}, 12)
    found = measure_slices(Encoder({}, 12), teacher, rows, images, CONFIG)["çizim"]
    assert found.text_to_image.recall_at_1 == 0.0
    assert found.teacher_text_to_image is not None
    assert found.teacher_image_to_text is not None
    assert (found.teacher_captions, found.teacher_text_to_image.recall_at_1) == (12, 1.0)
    assert found.teacher_image_to_text.recall_at_1 == 1.0
    assert found.shift == {}
    assert len(teacher.calls) == 1


def test_the_interval_of_a_difference_holds_it_and_narrows_with_more_images() -> None:
    def width(count: int) -> float:
        rng = np.random.default_rng(count)
        images = unit(rng.standard_normal((count, 16)).astype(np.float32))
        texts = unit(images + 0.4 * rng.standard_normal((count, 16)).astype(np.float32))
        student = Encoder({f"t{number}": texts[number] for number in range(count)}, 16)
        rows = [row(number, slices=("çizim",) if number % 2 else ()) for number in range(count)]
        shift = measure_slices(student, None, rows, images, CONFIG)["çizim"].shift["text_to_image"]
        assert shift.ci95 is not None
        low, high = shift.ci95
        assert low < shift.value < high
        return high - low

    assert width(400) < 0.7 * width(60)
