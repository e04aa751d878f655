"""The pace of one run, where its pages are handed out: asks for the facts, waits, stops, and tells why."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from kvmigrate.backfill.budget import Budget, Tolls, over_budget
from kvmigrate.backfill.findings import PageReport
from kvmigrate.backfill.heartbeat import Heartbeat, Known, Standing
from kvmigrate.backfill.names import NAME_BYTES
from kvmigrate.backfill.pace import HELD_S, Bucket, Facts, Knobs, State, Verdict, decide
from kvmigrate.backfill.progress import Event, Meter, Progress
from kvmigrate.target.base import Target

T = TypeVar("T")


class Pacer:
    """Decides before each page. A context manager: leaving it ends the thread beside the run.

    One thread hands out, another one may say what is through.
    """

    def __init__(
        self,
        target: Target,
        knobs: Knobs,
        budget: Budget | None = None,
        progress: Progress | None = None,
        *,
        page_keys: int,
    ) -> None:
        """Keep what is needed; `begin` says which run it is. *page_keys* are about those of a page."""
        self._target, self._budget, self._progress = target, budget, progress
        self._beat: Heartbeat | None = None
        self._known = Known(knobs)
        self._standing = Standing()
        self._bucket: Bucket | None = None
        self._done, self._pages, self._handed = 0, 0, 0
        self._page_keys = float(page_keys)
        self._before, self._sweep = Tolls(), Tolls()
        self._run, self._resumed = 0, False
        self._over = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._beat is not None:
            self._beat.end()

    def begin(self, run: int) -> None:
        """Say which run this is; from now on it can be seen and retuned."""
        self._run = run
        self._beat = Heartbeat(self._target.beside(run), self._known.knobs)

    def resume(self) -> None:
        """Say that the run goes on with a first load that was cut short: what that quarantined counts, too."""
        self._resumed = True
        if self._budget is not None:
            self._before = Tolls(*self._target.quarantined_by(self._run, resumed=True))

    @property
    def progress(self) -> Progress | None:
        """What an engine tells events to: they get the state of the run and its knobs."""
        return self._tell if self._progress is not None else None

    def over(self, parts: Iterable[T], meter: Meter) -> Iterator[T | None]:
        """Yield the parts of one sweep, one whenever it may go; ``None`` for "not now".

        It ends early where the run must stop: ask `check_stopped` then.
        """
        self._sweep, self._before = self._before, Tolls()
        self._handed = self._pages
        waiting = iter(parts)
        while not (verdict := self._decide(meter)).stop:
            if verdict.wait_s:
                yield None
                continue
            try:
                part = next(waiting)
            except StopIteration:
                return
            self._handed += 1
            yield part

    def through(self, page: PageReport) -> None:
        """Note that a page is in the tables."""
        self._done += page.keys
        self._pages += 1
        self._page_keys += (page.keys - self._page_keys) / min(self._pages, 20)
        quarantined = page.applied[2]
        self._sweep = self._sweep.plus(Tolls(quarantined, len(page.matched) // NAME_BYTES))
        if self._budget is not None and not self._over:
            # Each sweep for itself: a later one meets again what was quarantined before.
            self._over = self._budget.exceeded(self._sweep)

    def hold(self, keys: int, meter: Meter) -> None:
        """Wait here until so many keys may be read that no page names; for the run's own thread."""
        self._handed = self._pages
        while (verdict := self._decide(meter)).wait_s:
            time.sleep(min(verdict.wait_s, HELD_S))
        self._done += keys

    def finishing(self) -> None:
        """Say that no more pages are handed out."""
        self._stand(Standing(State.FINISHING))

    def check_stopped(self) -> None:
        """Raise the error of a run that was stopped.

        Raises:
            CheckFailedError: too many items were quarantined.
        """
        if self._over:
            raise over_budget(self._over, finished=False)

    def check_end(self, items: int) -> None:
        """Judge a run that came to its end with so many items, from the database itself.

        Raises:
            CheckFailedError: too many items were quarantined.
        """
        if self._budget is None:
            return
        quarantined, _ = self._target.quarantined_by(self._run, resumed=self._resumed)
        if said := self._budget.exceeded(Tolls(quarantined, items), at_end=True):
            raise over_budget(said, finished=True)

    def _decide(self, meter: Meter) -> Verdict:
        known = self._beat.known if self._beat is not None else self._known
        in_hand = max(self._handed - self._pages, 0)
        facts = Facts(
            time.monotonic(),
            self._done,
            in_hand * self._page_keys,
            known.signals,
            known.signals_at,
            self._over,
            outdated=not known.is_newest,
        )
        verdict, self._bucket = decide(known.knobs, facts, self._bucket)
        self._stand(Standing(verdict.state, verdict.reason))
        meter.stands(verdict.state)
        return verdict

    def _stand(self, standing: Standing) -> None:
        self._standing = standing
        if self._beat is not None:
            self._beat.stands(standing)

    def _tell(self, event: Event) -> None:
        assert self._progress is not None  # noqa: S101 - else nobody is told to tell
        knobs = self._beat.known.knobs if self._beat is not None else self._known.knobs
        state, reason = self._standing
        self._progress(msgspec.structs.replace(event, state=state, reason=reason, knobs=knobs))
