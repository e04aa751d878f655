"""What a sample found: counts, and how far they may be trusted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kvmigrate.consistency.bounds import CONFIDENCE, Bounds, anytime_bounds, fixed_bounds, needed_samples
from kvmigrate.consistency.judge import OUTSIDE
from kvmigrate.consistency.stable import Settled
from kvmigrate.consistency.strata import (
    DIVERGENT,
    EQUAL,
    MOST_TENANTS,
    OTHERS,
    UNDECIDED,
    Stratum,
    kinds_of,
    strata_by_name,
)

TARGET_PCT = 0.1
"""For which share of divergent keys the report says how many samples are needed, where nobody named another."""

MAX_EXAMPLES = 50
KINDS = ("age", "size", "tenant")
"""By what keys are told apart besides their entity."""


@dataclass(slots=True)
class SampleReport:
    """A sample's counts by entity, and what follows from them.

    Attributes:
        seed: Drew the keys; with the same keys it draws them again.

        anytime: The sample grew until it sufficed, so that its bounds must hold at every moment.

        target_pct: Up to which share of divergent keys, in per cent, is to be shown.

        strata: By entity.

        kinds: Compared keys told apart by what else there is (`KINDS`), then by name; how many there are of each
            in all nobody knows.

        places: Divergent keys by entity, table and column that differ; with "" as the column, in whatever of the table.

        oldest_s: How long the oldest of the differences was watched, in seconds.

        divergent_keys: All of them, with their causes.
    """

    seed: int
    confidence: float = CONFIDENCE
    anytime: bool = False
    target_pct: float = TARGET_PCT
    strata: defaultdict[str, Stratum] = field(default_factory=strata_by_name)
    kinds: defaultdict[str, defaultdict[str, Stratum]] = field(default_factory=lambda: defaultdict(strata_by_name))
    places: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    tolerances: Counter[str] = field(default_factory=Counter)
    examples: list[dict[str, Any]] = field(default_factory=list)
    divergent_keys: dict[str, Sequence[str]] = field(default_factory=dict)
    oldest_s: float = 0.0

    def add(self, settled: Settled) -> None:
        """Count one key."""
        entity = settled.plan.entity.name if settled.plan else ""
        counted = settled.verdict.counted
        self.strata[entity].counts[counted] += 1
        for kind, name in kinds_of(settled):
            known = self.kinds[kind]
            known[name if name in known or len(known) < MOST_TENANTS else OTHERS].counts[counted] += 1
        if settled.verdict.tolerated:
            self.tolerances.update(settled.verdict.tolerated)
        if counted in DIVERGENT:
            self.divergent_keys[settled.key] = [str(each.cause) for each in settled.verdict.differences]
            self.oldest_s = max(self.oldest_s, settled.stable_s)
            differ = {(entity, each.table, each.column) for each in settled.verdict.differences if each.table}
            self.places.update(differ | {(entity, table, "") for _, table, _ in differ})
            for each in settled.verdict.differences:
                self.causes[str(each.cause)] += 1
                if len(self.examples) < MAX_EXAMPLES:
                    self.examples.append({**each.to_json(), "stable_s": round(settled.stable_s, 3)})

    @property
    def total(self) -> Stratum:
        """All entities together."""
        whole = Stratum()
        for each in self.strata.values():
            whole.population += each.population
            whole.counts.update(each.counts)
        return whole

    def bounds(self, stratum: Stratum, *, undecided_diverge: bool = False) -> Bounds:
        """Return between what the share of divergent keys lies; keys that came meanwhile enlarge the population."""
        more = stratum.undecided if undecided_diverge else 0
        divergent, n = stratum.divergent + more, stratum.n + more
        bounds = anytime_bounds if self.anytime else fixed_bounds
        population = max(n, stratum.population) if stratum.population else None
        return bounds(divergent, n, population=population, confidence=self.confidence)

    def needed(self, stratum: Stratum) -> int | None:
        """Return how many more keys without a difference it takes to show the target; ``None`` where none suffice."""
        return needed_samples(
            self.target_pct / 100,
            stratum.divergent,
            stratum.n,
            population=max(stratum.n, stratum.population),
            confidence=self.confidence,
            anytime=self.anytime,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the report's fields for the JSON envelope."""
        return {
            **self._shown(self.total),
            "confidence": self.confidence,
            "method": self.bounds(self.total).method,
            "seed": self.seed,
            "target_pct": self.target_pct,
            "causes": dict(sorted(self.causes.items())),
            "tolerances": dict(sorted(self.tolerances.items())),
            "oldest_s": round(self.oldest_s, 3),
            "strata": [
                {"entity": name, **self._shown(each), "unnamed_upper_pct": self._place(name, 0)["upper_pct"]}
                for name, each in sorted(self.strata.items())
                if name
            ],
            "places": [
                {"entity": entity, "table": table, "column": column, **self._place(entity, divergent)}
                for (entity, table, column), divergent in sorted(self.places.items())
            ],
            "kinds": [
                {"by": kind, "name": name, **self._brief(each)}
                for kind in KINDS
                for name, each in sorted(self.kinds.get(kind, {}).items())
            ],
            "examples": list(self.examples),
        }

    def evidence(self) -> dict[str, Any]:
        """Return what is kept of it: no value, and every divergent key."""
        left = {name: value for name, value in self.to_json().items() if name != "examples"}
        # A tenant's name may be a person's.
        left["kinds"] = [each for each in left["kinds"] if each["by"] != "tenant"]
        return {**left, "keys": dict(sorted(self.divergent_keys.items()))}

    def take(self, facts: Mapping[str, Any]) -> None:
        """Go on from what `evidence` gave; populations are counted anew. Examples and tenants are not kept."""
        for each in facts["strata"]:
            counts = {name: each[name] for name in (*EQUAL, *DIVERGENT, *UNDECIDED)}
            self.strata[each["entity"]].counts.update({**counts, OUTSIDE: each["vanished"]})
        for each in facts["kinds"]:
            stratum = self.kinds[each["by"]][each["name"]]
            # Of the counts only equal, divergent and undecided are told apart from here on.
            stratum.counts.update(
                {
                    EQUAL[0]: each["n"] - each["divergent"],
                    DIVERGENT[0]: each["divergent"],
                    UNDECIDED[0]: each["undecided"],
                }
            )
        self.places.update(
            {(each["entity"], each["table"], each["column"]): each["divergent"] for each in facts.get("places", ())}
        )
        self.causes.update(facts["causes"])
        self.tolerances.update(facts["tolerances"])
        self.divergent_keys.update(facts["keys"])
        self.oldest_s = max(self.oldest_s, facts["oldest_s"])

    def _share(self, stratum: Stratum) -> Mapping[str, Any]:
        bounds = self.bounds(stratum)
        return {
            "n": stratum.n,
            "divergent": stratum.divergent,
            "divergence_pct": _percent(stratum.divergent / stratum.n) if stratum.n else None,
            "lower_pct": _percent(bounds.lower),
            "upper_pct": _percent(bounds.upper),
        }

    def _place(self, entity: str, divergent: int) -> Mapping[str, Any]:
        """Return what is known of one place: of the entity's keys so many differ there."""
        whole = self.strata[entity]
        return self._share(Stratum(whole.population, Counter({EQUAL[0]: whole.n - divergent, DIVERGENT[0]: divergent})))

    def _brief(self, stratum: Stratum) -> Mapping[str, Any]:
        return {**self._share(stratum), "undecided": stratum.undecided}

    def _shown(self, stratum: Stratum) -> Mapping[str, Any]:
        return {
            **self._share(stratum),
            "population": stratum.population,
            "worst_pct": _percent(self.bounds(stratum, undecided_diverge=True).upper),
            "needed_samples": self.needed(stratum),
            **{name: stratum.counts[name] for name in (*EQUAL, *DIVERGENT, *UNDECIDED)},
            "vanished": stratum.counts[OUTSIDE],
        }


def _percent(share: float) -> float:
    """Return per cents to six significant digits: no report needs more, and every machine gives the same."""
    return float(f"{share * 100:.6g}")


class Sampled(NamedTuple):
    """A sample, and what became of it.

    Attributes:
        unkept: Why it could not be kept as evidence, or "".

        unfinished: The tables are those of a backfill that did not come to its end.
    """

    report: SampleReport
    unkept: str
    unfinished: bool
