"""The table that `make bench` ends with: every line compares two measurements of one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """What ours costs, against what one would do otherwise; of each round, other / ours."""

    what: str
    otherwise: str
    unit: str
    ours: float
    other: float
    ratios: tuple[float, ...]

    @property
    def middle(self) -> float:
        """The median of the rounds' ratios: above 1, ours costs less."""
        return statistics.median(self.ratios)

    def cells(self) -> tuple[str, ...]:
        """The line of the table."""
        spread = f"{min(self.ratios):.2f} to {max(self.ratios):.2f}" if len(self.ratios) > 1 else ""
        costs = (f"{self.ours:.4g} {self.unit}", f"{self.other:.4g} {self.unit}")
        return (self.what, self.otherwise, *costs, f"{self.middle:.2f}", spread)


HEADER = ("what", "otherwise", "ours", "other", "other / ours", "rounds")
KEPT: list[Ratio] = []


def report(what: str, otherwise: str, ours: Sequence[float], other: Sequence[float], unit: str = "s") -> float:
    """Prints a comparison, keeps it for the table, and returns the median ratio; the rounds are in pairs."""
    ratios = tuple(theirs / mine for mine, theirs in zip(ours, other, strict=True))
    kept = Ratio(what, otherwise, unit, statistics.median(ours), statistics.median(other), ratios)
    KEPT.append(kept)
    print("\n" + " | ".join(kept.cells()))
    return kept.middle


def table(kept: Sequence[Ratio]) -> str:
    """The lines as a Markdown table, its columns aligned."""
    rows = [HEADER, *(one.cells() for one in kept)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def seconds_of(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began
