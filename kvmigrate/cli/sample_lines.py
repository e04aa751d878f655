"""What a sampler that goes on says meanwhile: lines for people, a page for probes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Protocol

from kvmigrate.cli.health import Answer, probed
from kvmigrate.consistency.rounds import Rounds
from kvmigrate.consistency.sample_metrics import SampleMetrics
from kvmigrate.consistency.sample_report import SampleReport
from kvmigrate.errors import KVMigrateError

READERS_S = 2.0
"""So often it is asked at most which endpoints read."""

STANDING_S = 10.0
"""So often it is asked which endpoints are still sent back."""

LINE_S = 10.0
"""Between two lines, where nothing but numbers changes."""


_STAY = "stay with the tables, which lead"


class Alarm:
    """Sends all reads back to the store, once, when more keys diverge for sure than is allowed."""

    def __init__(self, above_pct: float, roll_back: Callable[[str], bool]) -> None:
        """Call *roll_back* with the reason when the lower bound, of all keys or of an entity, is above *above_pct*.

        It returns whether reads stay with the tables all the same.
        """
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
                    tables_lead = self._roll_back(why)
                except KVMigrateError as exc:
                    sys.stderr.write(f"reads could not be rolled back: {exc}\n")
                    return
                self.why = why
                if tables_lead:
                    sys.stderr.write(f"all reads {_STAY}: {why}; `kvmigrate stage rollback` moves them\n")
                    return
                sys.stderr.write(f"all reads go to the store: {why}; `kvmigrate rollback --clear` lifts it\n")
                return


class Reads(Protocol):
    """Which endpoints read, and which do not any more. Both may raise `KVMigrateError`."""

    def readers(self) -> Mapping[str, Collection[str] | None]:
        """Return the entities of each that is not rolled back, ``None`` for any."""
        ...

    def sent_back(self) -> Collection[str]:
        """Return those whose reads a sampler sent back and nobody lifted."""
        ...


class EndpointAlarm:
    """Sends the reads of single endpoints back to the store, of which more items diverge for sure than is allowed.

    An endpoint goes back once in a round: who lifts that knows why. Nothing is ever lifted here.

    Attributes:
        demoted: Those that a sampler sent back, in any round, and that nobody lifted.
    """

    def __init__(self, above_pct: float, reads: Reads, roll_back: Callable[[str, str], bool]) -> None:
        """Call *roll_back* with endpoint and reason; it returns whether reads stay with the tables all the same."""
        self._above_pct, self._reads, self._roll_back = above_pct, reads, roll_back
        self._seed, self._asked_at, self._looked_at = -1, -READERS_S, -STANDING_S
        self._sent: set[str] = set()
        self.demoted: set[str] = set()

    def __call__(self, report: SampleReport) -> None:
        """Look at the numbers; what no place took is tried again with later ones."""
        if report.seed != self._seed:
            self._seed, self._sent = report.seed, set()
        lower = {name: 100 * report.bounds(each).lower for name, each in report.strata.items() if each.divergent}
        above = {name: pct for name, pct in lower.items() if pct > self._above_pct}
        now = time.monotonic()
        if now - self._looked_at >= STANDING_S:
            self._looked_at = now
            with suppress(KVMigrateError):  # What is not known now stands as it stood.
                self.demoted = set(self._reads.sent_back())
        if not above or now - self._asked_at < READERS_S:
            return
        self._asked_at = now
        try:
            for slug, entities in self._reads.readers().items():
                read = {name: pct for name, pct in above.items() if entities is None or name in entities}
                if read and slug not in self._sent:
                    name = max(read, key=lambda each: read[each])
                    told = f"at least {read[name]:.3g} % of {name or 'ambiguous keys'} diverge"
                    self._send_back(slug, f"{told}, and {self._above_pct:g} % may")
        except KVMigrateError as exc:
            sys.stderr.write(f"reads could not be sent back: {exc}\n")

    def _send_back(self, slug: str, why: str) -> None:
        tables_lead = self._roll_back(slug, why)
        self._sent.add(slug)
        if tables_lead:
            sys.stderr.write(f"reads of {slug} {_STAY}: {why}; `kvmigrate stage rollback` moves them\n")
            return
        self.demoted.add(slug)
        lift = f"`kvmigrate rollback --clear --endpoint {slug}` lifts it"
        sys.stderr.write(f"reads of {slug} go to the store: {why}; {lift}\n")


class SampleLines:
    """Prints how a sampler stands: when a key was found, when it waits, else now and then.

    Attributes:
        unmended: Keys found divergent, in whatever round, that nothing has mended since.
    """

    def __init__(self, scope: str, alarm: Alarm | None = None, endpoints: EndpointAlarm | None = None) -> None:
        self._metrics, self._alarm, self._endpoints = SampleMetrics(scope), alarm, endpoints
        self._state: tuple[object, ...] = ()
        self.unmended = 0
        self._printed_at = time.monotonic()

    def answer(self, path: str) -> Answer:
        """Answer a probe, or who scrapes metrics."""
        metrics = self._metrics
        return probed(path, is_well=metrics.is_well, facts=metrics.facts(), metrics=metrics.prometheus)

    def __call__(self, report: SampleReport, rounds: Rounds) -> None:
        """Say how it stands, if that is worth a line."""
        if self._endpoints is not None:
            self._endpoints(report)
            self._metrics.demoted = sorted(self._endpoints.demoted)
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
