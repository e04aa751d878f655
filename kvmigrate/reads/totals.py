"""What all processes counted of an endpoint, added up. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf
from typing import Any

from kvmigrate.reads.counts import BUCKETS, slowdown_of

_ANSWERS = ("value", "null")


class Totals:
    """The sums of one endpoint.

    Attributes:
        demoted: In how many processes reads went back to the store by themselves, by what made them.

        pairs: Requests that the store answered and the tables were asked for, by `pair_bucket`; of processes that run.

        answered: Requests that both sides were asked beside the caller, by who answered; of processes that run.

        flags_age_s: Since the process that did so longest ago read the flags, of those that say so now; infinite where
            one never did, ``None`` where none says so.

    """

    def __init__(self) -> None:
        """Begin with zeros."""
        self.requests = self.on_tables = 0
        self.errors: dict[str, int] = {}
        self.fallbacks: dict[str, int] = {}
        self.compared: dict[str, int] = {}
        self.standby: dict[str, int] = {}
        self.demoted: dict[str, int] = {}
        self._entities: list[frozenset[str]] = []
        self.pairs: dict[int, int] = {}
        self.answered: dict[str, int] = {}
        self.flags_age_s: float | None = None
        self.times: Mapping[str, list[int]] = {"kv": [0] * BUCKETS, "tables": [0] * BUCKETS}

    def add(self, counts: Mapping[str, Any]) -> None:
        """Add what one process counted, `Counts.to_json`; what an earlier version left out counts as nothing."""
        self.requests += counts.get("requests", 0)
        is_running = not counts.get("ended")
        if is_running and (why := counts.get("demoted")):
            _raise(self.demoted, str(why), 1)
        if "entities" in counts:
            self._entities.append(frozenset(counts["entities"]))
        # Those of processes that ended say nothing of how the tables answer now.
        for bucket, number in counts.get("pairs", {}).items() if is_running else ():
            self.pairs[int(bucket)] = self.pairs.get(int(bucket), 0) + number
        for who, number in counts.get("answered", {}).items() if is_running else ():
            _raise(self.answered, who, number)
        if is_running and "flags_age_s" in counts:
            age_s = counts["flags_age_s"]
            self.flags_age_s = max(self.flags_age_s or 0.0, inf if age_s is None else age_s)
        tables = counts.get("tables", {})
        self.on_tables += sum(tables.get(name, 0) for name in _ANSWERS)
        for side in self.times:
            outcomes = counts.get(side, {})
            for name in ("error", "timeout"):
                _raise(self.errors, f"{side}_{name}", outcomes.get(name, 0))
            for bucket, number in enumerate(counts.get("times", {}).get(side, [])[:BUCKETS]):
                self.times[side][bucket] += number
        for name in ("fallbacks", "compared", "standby"):
            for reason, number in counts.get(name, {}).items():
                _raise(getattr(self, name), reason, number)

    @property
    def entities(self) -> frozenset[str] | None:
        """Names of those that it reads, as processes say; ``None`` where one of them may read any, or none says it."""
        return frozenset().union(*self._entities) if self._entities and all(self._entities) else None

    @property
    def served_pct(self) -> float | None:
        """How much the tables answered; ``None`` before the first read."""
        return round(100 * self.on_tables / self.requests, 2) if self.requests else None

    def slowdown(self, percent: float) -> float | None:
        """Return how many times as long the tables took for so many percent of the requests both answered, at most."""
        wanted, seen = sum(self.pairs.values()) * percent / 100, 0
        for bucket, number in sorted(self.pairs.items()):
            seen += number
            if seen >= wanted:
                return slowdown_of(bucket)
        return None

    def to_json(self) -> dict[str, Any]:
        """Return what reports tell of them."""
        return {
            "served_pct": self.served_pct,
            "requests": self.requests,
            "p50_ms": self.within_ms(50),
            "p95_ms": self.within_ms(95),
            "p99_ms": self.within_ms(99),
            "errors": self.errors,
            "fallbacks": self.fallbacks,
            "standby": self.standby,
            "compared": sum(self.compared.values()) - self.compared.get("shed", 0),
            "different": self.compared.get("different", 0),
        }

    def within_ms(self, percent: float) -> dict[str, float | None]:
        """Return by side how long so many percent of its reads took at most; ``None`` where there was none."""
        return {side: _within(times, percent) for side, times in self.times.items()}


def totals(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, Totals]:
    """Return the sums of rows of many processes, by endpoint."""
    found: dict[str, Totals] = {}
    for endpoint, counts in rows:
        found.setdefault(endpoint, Totals()).add(counts)
    return found


def _raise(sums: dict[str, int], name: str, number: int) -> None:
    if number:
        sums[name] = sums.get(name, 0) + number


def _within(times: list[int], percent: float) -> float | None:
    wanted, seen = sum(times) * percent / 100, 0
    for bucket, number in enumerate(times):
        seen += number
        if number and seen >= wanted:
            return float(2**bucket) / 1000
    return None
