"""What a sampler that goes on says meanwhile: lines for people, a page for probes."""

from __future__ import annotations

import sys
import time

from kvmigrate.cli.health import Answer, probed
from kvmigrate.consistency.rounds import Rounds
from kvmigrate.consistency.sample_metrics import SampleMetrics
from kvmigrate.consistency.sample_report import SampleReport

LINE_S = 10.0
"""Between two lines, where nothing but numbers changes."""


class SampleLines:
    """Prints how a sampler stands: when a key was found, when it waits, else now and then."""

    def __init__(self, scope: str) -> None:
        self._metrics = SampleMetrics(scope)
        self._state: tuple[object, ...] = ()
        self._printed_at = time.monotonic()

    def answer(self, path: str) -> Answer:
        """Answer a probe, or who scrapes metrics."""
        metrics = self._metrics
        return probed(path, is_well=metrics.is_well, facts=metrics.facts(), metrics=metrics.prometheus)

    def __call__(self, report: SampleReport, rounds: Rounds) -> None:
        """Say how it stands, if that is worth a line."""
        self._metrics.note(report, rounds)
        total = report.total
        state, now = (total.divergent, rounds.ended, rounds.waits), time.monotonic()
        if state == self._state and now - self._printed_at < LINE_S:
            return
        self._state, self._printed_at = state, now
        upper_pct = 100 * report.bounds(total).upper
        words = f"{total.n} compared, {total.divergent} divergent, at most {upper_pct:.3g} %"
        if rounds.share < 1:
            words += f"; slowed down to {rounds.share:.0%} of its budget"
        if rounds.waits:
            words += f"; waiting: {rounds.waits}"
        sys.stderr.write(f"round {rounds.ended + 1}: {words}\n")
