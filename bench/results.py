"""What runs cost, as tables that can stand in RESULTS.md."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.meter import Cost


@dataclass
class Result:
    """All runs of one contestant.

    Attributes:
        items: Items of the store.

        best: The quickest run speaks for all; else it is the median.

        note: What must be known to read its figures.
    """

    name: str
    items: int
    best: bool = False
    note: str = ""
    rows: int = 0
    costs: list[Cost] = field(default_factory=list)
    phases: list[dict[str, float]] = field(default_factory=list)

    def add(self, cost: Cost, rows: int) -> None:
        """Note a run."""
        self.costs.append(cost)
        self.rows = rows

    def add_phases(self, seconds: dict[str, float]) -> None:
        """Note where the seconds of the last run went."""
        self.phases.append(seconds)

    def of(self, figure: Callable[[Cost], float]) -> float:
        """Return the figure that speaks for all runs."""
        if self.best:
            return figure(min(self.costs, key=lambda cost: cost.wall_s))
        return statistics.median(map(figure, self.costs))

    @property
    def wall_s(self) -> float:
        """Seconds."""
        return self.of(lambda cost: cost.wall_s)

    @property
    def spread(self) -> str:
        """The quickest and the slowest run."""
        seconds = [cost.wall_s for cost in self.costs]
        return f"{min(seconds):.2f}-{max(seconds):.2f}"


def table(title: str, results: Sequence[Result]) -> str:
    """Return a table of contestants; the first is ours."""
    lines = [
        f"### {title}: {results[0].items:,} items",
        "",
        "| | wall s (spread) | items/s | time x ours | CPU s | client | Redis | PostgreSQL | peak MB | rows |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_line(result, results[0]) for result in results]
    remarks = [f"{result.name}: {', '.join(said)}" for result in results if (said := _remarks(result))]
    return "\n".join([*lines, "", *remarks]).rstrip()


def size_table(results: Sequence[Result]) -> str:
    """Return what an item costs in stores of several sizes, and how far that spreads."""
    figures: dict[str, Callable[[Cost], float]] = {
        "all": lambda cost: cost.cpu_s,
        "client": lambda cost: cost.client_s,
        "Redis": lambda cost: cost.redis_s,
        "PostgreSQL": lambda cost: cost.postgres_s,
        "wall": lambda cost: cost.wall_s,
    }
    per_item = [[result.of(figure) / result.items * 1e6 for figure in figures.values()] for result in results]
    spreads = [max(column) / min(column) if min(column) else 1.0 for column in zip(*per_item, strict=True)]
    lines = [
        "### Size: CPU microseconds per item",
        "",
        f"| items | {' | '.join(figures)} | peak MB |",
        "|---|" + "---|" * (len(figures) + 1),
    ]
    for result, row in zip(results, per_item, strict=True):
        peak = result.of(lambda cost: cost.peak_mb)
        lines.append(f"| {result.items:,} | {' | '.join(f'{value:.1f}' for value in row)} | {peak:.0f} |")
    lines.append(f"| dearest : cheapest | {' | '.join(f'{spread:.2f}' for spread in spreads)} | |")
    return "\n".join(lines)


def _line(result: Result, ours: Result) -> str:
    parts = [
        result.of(lambda cost: cost.cpu_s),
        result.of(lambda cost: cost.client_s),
        result.of(lambda cost: cost.redis_s),
        result.of(lambda cost: cost.postgres_s),
    ]
    cells = [
        result.name,
        f"{result.wall_s:.2f} ({result.spread})",
        f"{result.items / result.wall_s:,.0f}",
        f"{result.wall_s / ours.wall_s:.2f}",
        *(f"{seconds:.2f}" for seconds in parts),
        f"{result.of(lambda cost: cost.peak_mb):.0f}",
        f"{result.rows:,}",
    ]
    return f"| {' | '.join(cells)} |"


def _remarks(result: Result) -> list[str]:
    said = [result.note] if result.note else []
    names = list(result.phases[0]) if result.phases else []
    said += [f"{name} {statistics.median(each[name] for each in result.phases):.2f} s" for name in names]
    return said
