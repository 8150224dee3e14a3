"""The cut-off: how far a query stands out among the texts of the bank, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from turkish_clip.bank import TextBank
from turkish_clip.cutoff import LEAST, Cutoff

EAST, NORTH = np.array([1, 0], np.float32), np.array([0, 1], np.float32)


def cutoff_of(*texts: np.ndarray) -> Cutoff:
    return Cutoff(TextBank(np.stack(texts).astype(np.float16), "of no model"))


def test_the_distance_is_in_standard_deviations_of_the_images_own_cosines() -> None:
    """Of an image to the east the cosines to texts in all four directions are 1, 0, -1, 0: mean 0, deviation √½."""
    cutoff = cutoff_of(EAST, NORTH, -EAST, -NORTH)
    images = np.stack([EAST, NORTH, np.array([0.6, 0.8], np.float32)])
    assert cutoff.distances(EAST, images) == pytest.approx([2**0.5, 0, 0.6 * 2**0.5])
    assert cutoff.least(EAST) == LEAST
    assert not cutoff.fits(EAST, images).any()


def test_what_many_texts_tell_of_need_not_stand_out_as_far() -> None:
    """One of ten texts is to the east: the cosines of such an image are 1 and nine times 0, mean 0.1, deviation 0.3.

    It stands out by (1 - 0.1) / 0.3 = 3 = √(0.9 / 0.1), the most that is possible.
    """
    cutoff = cutoff_of(EAST, *[NORTH] * 9)
    assert cutoff.distances(EAST, EAST[None]) == pytest.approx([3], abs=1e-5)
    assert cutoff.least(EAST) == pytest.approx(0.8 * 3)
    assert cutoff.fits(EAST, np.stack([EAST, NORTH])).tolist() == [True, False]


def test_a_bank_of_one_text_again_and_again_leaves_finite_distances() -> None:
    distances = cutoff_of(EAST, EAST, EAST).distances(NORTH, np.stack([EAST, NORTH]))
    assert distances == pytest.approx([-200, 200])  # the cosines differ by 1 from those of the bank: 1 / 0.005
