"""What a sampler that goes on says meanwhile: lines for people, a page for probes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from kvmigrate.cli.health import Answer, probed
from kvmigrate.consistency.rounds import Rounds
from kvmigrate.consistency.sample_metrics import SampleMetrics
from kvmigrate.consistency.sample_report import SampleReport
from kvmigrate.errors import KVMigrateError

LINE_S = 10.0
"""Between two lines, where nothing but numbers changes."""


class Alarm:
    """Sends all reads back to the store, once, when more keys diverge for sure than is allowed."""

    def __init__(self, above_pct: float, roll_back: Callable[[str], object]) -> None:
        """Call *roll_back* with the reason when the lower bound, of all keys or of an entity, is above *above_pct*."""
        self._above_pct, self._roll_back = above_pct, roll_back
        self.why = ""

    def __call__(self, report: SampleReport) -> None:
        """Look at the numbers; a rollback that no place took is tried again with the next ones."""
        if self.why:
            return
        for name, stratum in (("all keys", report.total), *report.strata.items()):
            lower_pct = 100 * report.bounds(stratum).lower
            if stratum.divergent and lower_pct > self._above_pct:
                why = f"the sampler: at least {lower_pct:.3g} % of {name} diverge, and {self._above_pct:g} % may"
                try:
                    self._roll_back(why)
                except KVMigrateError as exc:
                    sys.stderr.write(f"reads could not be rolled back: {exc}\n")
                    return
                self.why = why
                sys.stderr.write(f"all reads go to the store: {why}; `kvmigrate rollback --clear` lifts it\n")
                return


class SampleLines:
    """Prints how a sampler stands: when a key was found, when it waits, else now and then.

    Attributes:
        unmended: Keys found divergent, in whatever round, that nothing has mended since.
    """

    def __init__(self, scope: str, alarm: Alarm | None = None) -> None:
        self._metrics, self._alarm = SampleMetrics(scope), alarm
        self._state: tuple[object, ...] = ()
        self.unmended = 0
        self._printed_at = time.monotonic()

    def answer(self, path: str) -> Answer:
        """Answer a probe, or who scrapes metrics."""
        metrics = self._metrics
        return probed(path, is_well=metrics.is_well, facts=metrics.facts(), metrics=metrics.prometheus)

    def __call__(self, report: SampleReport, rounds: Rounds) -> None:
        """Say how it stands, if that is worth a line."""
        self._metrics.note(report, rounds)
        self.unmended = rounds.unmended
        if self._alarm is not None:
            self._alarm(report)
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
