"""What the benchmarks share: the table at their end."""

from __future__ import annotations

import pytest
from ratios import KEPT, table


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints all ratios of the run as one table."""
    if KEPT:
        terminalreporter.section("ratios")
        terminalreporter.write_line(table(KEPT))
