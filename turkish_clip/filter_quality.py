"""How well a filter flags images of which it is known which ones it should: precision, recall and F1 with intervals."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from turkish_clip.errors import InputError, one_line
from turkish_clip.metrics import interval, wilson_interval
from turkish_clip.text_files import read_whole

if TYPE_CHECKING:
    from turkish_clip.filtering import Flag

BOOTSTRAP_SAMPLES = 1000


class ExpectedError(InputError):
    """Images that a filter is expected to flag, which can't be read or are not among those that it looks at."""


@dataclass(frozen=True)
class Measured:
    """A fraction, and the ends of its 95 % interval."""

    value: float
    ci95: tuple[float, float]


@dataclass(frozen=True)
class FilterQuality:
    """How well a filter flags the images that it should, of those that opened.

    Attributes:
        contrast: the contrast prompts of the filter.
        expected: number of images that it should flag.
        flagged: number that it flags.
        right: number of these that it should.
        precision: the fraction of the flagged images that are right, with its Wilson interval; None where none is
            flagged.
        recall: the fraction of the expected images that are flagged, with its Wilson interval.
        f1: their harmonic mean, with the interval of a bootstrap over images; where all or none are right, of which a
            bootstrap knows no other, with the harmonic means of the ends of both intervals.
        average_precision: of the images in the order of their scores, whatever is flagged: near the fraction of
            expected images for an order that says nothing, 1 for a perfect one.
    """

    contrast: list[str]
    expected: int
    flagged: int
    right: int
    precision: Measured | None
    recall: Measured
    f1: Measured
    average_precision: float


def expected_among(paths: Sequence[str | Path], expected: Path, folder: str) -> list[bool]:
    """Returns for each image whether a filter should flag it.

    Args:
        paths: of the images.
        expected: a folder of those that it should flag, or a UTF-8 file with a path of one a line, from the current
            folder or from `folder`.
        folder: where the images are.

    Raises:
        ExpectedError: nothing can be read there, one of them is not among the images, or all images are.
    """
    known = [os.path.realpath(path) for path in paths]
    chosen = _in_folder(known, expected, folder) if expected.is_dir() else _in_file(known, expected, folder)
    if all(chosen):
        raise ExpectedError(
            f"expected images in {folder} that should not be flagged, too, got none beside those of {expected}; name "
            "fewer, or filter a larger folder"
        )
    return chosen


def _in_folder(known: Sequence[str], expected: Path, folder: str) -> list[bool]:
    """Returns which of the images are in a folder."""
    above = os.path.realpath(expected) + os.sep
    found = [path.startswith(above) for path in known]
    if not any(found):
        raise ExpectedError(
            f"expected images of {folder} in {expected}, got none; name a folder inside it, or a file of paths"
        )
    return found


def _in_file(known: Sequence[str], expected: Path, folder: str) -> list[bool]:
    """Returns which of the images a file names; letters may be composed in one of them alone."""
    every = {unicodedata.normalize("NFC", path): path for path in known} | {path: path for path in known}
    wanted = set()
    for line in _lines(expected):
        places = [os.path.realpath(line), os.path.realpath(Path(folder) / line)]
        places += [unicodedata.normalize("NFC", place) for place in places]
        place = next((every[place] for place in places if place in every), None)
        if place is None:
            raise ExpectedError(
                f"expected paths of images in {folder}, got {line!r:.300} in {expected}, which is none of them; "
                "correct it"
            )
        wanted.add(place)
    return [path in wanted for path in known]


def check_expected(expected: Path) -> None:
    """Checks that images that should be flagged are named, before the work.

    Raises:
        ExpectedError: there is neither a folder nor a file of paths.
    """
    if not expected.is_dir():
        _lines(expected)


def _lines(file: Path) -> list[str]:
    try:
        lines = [line.strip() for line in read_whole(file).splitlines() if line.strip()]
    except (OSError, UnicodeError) as error:
        reason = one_line(error)
        raise ExpectedError(
            f"expected a folder of images, or a UTF-8 file with a path a line, got {file}: {reason}; check it"
        ) from error
    if any("\0" in line for line in lines):
        raise ExpectedError(f"expected a UTF-8 file with a path a line, got NUL characters in {file}; name another")
    if not lines:
        raise ExpectedError(f"expected paths of images in {file}, got an empty file; write one a line")
    return lines


def quality_of(flags: Sequence[Flag], expected: Sequence[bool], contrast: Sequence[str]) -> FilterQuality:
    """Measures a filter on images of which it is known whether it should flag them.

    Args:
        flags: of the images; those that did not open are left out.
        expected: whether each should be flagged.
        contrast: the contrast prompts of the filter.

    Raises:
        ExpectedError: none of the expected images opened.
    """
    opened = [place for place, flag in enumerate(flags) if flag.error is None]
    wanted = np.array([expected[place] for place in opened], bool)
    flagged = np.array([flags[place].flagged for place in opened], bool)
    if not wanted.any():
        raise ExpectedError("expected images that should be flagged and that open, got none; name others")
    cells = [int(np.sum((flagged == one) & (wanted == two))) for one in (True, False) for two in (True, False)]
    right, false, missed, _ = cells
    precision = _fraction(right, right + false) if right + false else None
    recall = _fraction(right, right + missed)
    if right and false + missed:
        drawn = np.random.default_rng(0).multinomial(len(opened), np.array(cells) / len(opened), BOOTSTRAP_SAMPLES)
        ends = interval(_f1s(drawn[:, 0], drawn[:, 1], drawn[:, 2]))
    else:
        pairs = zip((0.0, 1.0) if precision is None else precision.ci95, recall.ci95)
        low, high = (2 * one * two / (one + two) if one + two else 0.0 for one, two in pairs)
        ends = low, high
    order = np.argsort([-flags[place].score for place in opened], kind="stable")
    hits = wanted[order]
    precisions = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return FilterQuality(
        contrast=list(contrast),
        expected=right + missed,
        flagged=right + false,
        right=right,
        precision=precision,
        recall=recall,
        f1=Measured(2 * right / (2 * right + false + missed), ends),
        average_precision=float(precisions[hits].mean()),
    )


def _fraction(hits: int, count: int) -> Measured:
    return Measured(hits / count, wilson_interval(hits, count))


def _f1s(right: np.ndarray, false: np.ndarray, missed: np.ndarray) -> np.ndarray:
    """Returns the F1 of many samples; 0 of one without an expected or flagged image."""
    return np.asarray(2 * right / np.maximum(2 * right + false + missed, 1))
