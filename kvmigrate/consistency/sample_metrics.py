"""What a sampler that goes on knows, as Prometheus text. Keys and tenants are no labels."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from kvmigrate.consistency.rounds import Rounds
from kvmigrate.consistency.sample_report import SampleReport
from kvmigrate.exposition import Family, Sample, page_of

EVERY_S = 1.0
"""The numbers are made anew so often at most: a bound costs a millisecond."""

_TOLD = {
    "divergence_upper_ratio": 'At most such a share of keys diverges; entity "" is all.',
    "divergence_lower_ratio": "At least such a share of keys diverges.",
    "divergence_confidence": "How often a bound may be trusted.",
    "sampled_keys": "Keys compared in this round.",
    "sampled_divergent_keys": "Those that diverge.",
    "sampled_undecided_keys": "Those that could not be compared.",
    "population_keys": "Keys of both sides.",
    "unmended_keys": "Keys found divergent that nothing has mended since.",
    "sampler_rounds": "Rounds that came to their end.",
    "sampler_budget_ratio": "Share of the budget that is used.",
    "sampler_demoted": "Whether a sampler sent the reads of an endpoint back to the store, and nobody lifted that.",
    "sampler_waits": "Whether a side is waited for.",
}


class SampleMetrics:
    """The last numbers of one sampler. `note` belongs to the sampler's thread, the rest to any.

    Attributes:
        is_well: No side is waited for.

        demoted: Endpoints whose reads a sampler sent back to the store, as long as that stands.
    """

    def __init__(self, scope: str) -> None:
        """Know nothing yet."""
        self._scope, self._page = scope, ""
        self._facts: dict[str, Any] = {"scope": scope}
        self._made_at = -EVERY_S
        self.is_well = True
        self.demoted: Sequence[str] = ()

    def note(self, report: SampleReport, rounds: Rounds) -> None:
        """Take the numbers as they are now."""
        now = time.monotonic()
        if now - self._made_at < EVERY_S and not rounds.waits:
            return
        self._made_at, self.is_well = now, not rounds.waits
        total = report.total
        self._facts = {
            "scope": self._scope,
            "n": total.n,
            "divergent": total.divergent,
            "unmended": rounds.unmended,
            "rounds": rounds.ended,
            "waits": rounds.waits,
        }
        samples = _samples(report, rounds, self._scope)
        samples["sampler_demoted"] = [("", {"scope": self._scope, "endpoint": each}, 1) for each in self.demoted]
        self._page = page_of(Family(f"kvmigrate_{name}", "gauge", told, samples[name]) for name, told in _TOLD.items())

    def prometheus(self) -> str:
        """Return the page of metrics."""
        return self._page

    def facts(self) -> dict[str, Any]:
        """Return what a probe wants to know."""
        return self._facts


def _samples(report: SampleReport, rounds: Rounds, scope: str) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {name: [] for name in _TOLD}
    for labels, name, value in _values(report):
        found[name].append(("", {"scope": scope, **labels}, value))
    for name, value in (
        ("divergence_confidence", report.confidence),
        ("unmended_keys", rounds.unmended),
        ("sampler_rounds", rounds.ended),
        ("sampler_budget_ratio", rounds.share),
        ("sampler_waits", int(bool(rounds.waits))),
    ):
        found[name].append(("", {"scope": scope}, value))
    return found


def _values(report: SampleReport) -> Iterator[tuple[dict[str, str], str, float]]:
    for entity, stratum in [("", report.total), *((name, each) for name, each in report.strata.items() if name)]:
        bounds = report.bounds(stratum)
        for name, value in (
            ("divergence_upper_ratio", bounds.upper),
            ("divergence_lower_ratio", bounds.lower),
            ("sampled_keys", stratum.n),
            ("sampled_divergent_keys", stratum.divergent),
            ("sampled_undecided_keys", stratum.undecided),
            ("population_keys", stratum.population),
        ):
            yield {"entity": entity}, name, value
