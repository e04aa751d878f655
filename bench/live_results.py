"""Figures of the live benchmarks: percentiles, medians over rounds, tables for RESULTS.md."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Sequence


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def table(title: str, heads: Sequence[str], rows: Sequence[Sequence[object]], *remarks: str) -> str:
    """Return a table with the machine's load; the first cell of a row is its name."""
    lines = [f"### {title}", "", f"| | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join([*lines, "", *remarks, f"Load at its end: {os.getloadavg()[0]:.1f}."])
