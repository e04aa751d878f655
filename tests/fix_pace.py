"""A backfill that runs in a thread of its own, in this process or with workers, while a test changes its pace."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from kvmigrate.backfill.progress import Event
from kvmigrate.backfill.report import BackfillReport
from kvmigrate.backfill.runner import run_backfill
from kvmigrate.backfill.share_work import BackfillSetup, Done
from kvmigrate.processes.crew import Crew
from kvmigrate.target.postgres import PostgresTarget
from kvmigrate.target.retune import RunState, retune
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import Lens, compile_mapping
from tests.fix_migration import SHOP, Fill

PATIENCE_S = 60.0


class Run:
    """A backfill under way.

    Attributes:
        events, times: What it told so far, and when.
    """

    def __init__(self, work: Callable[["Run"], BackfillReport], target: str) -> None:
        """Begin it."""
        self.events: list[Event] = []
        self.times: list[float] = []
        self._target = target
        self._outcome: BackfillReport | BaseException | None = None
        self._thread = threading.Thread(target=self._do, args=(work,), daemon=True)
        self._thread.start()

    def _do(self, work: Callable[["Run"], BackfillReport]) -> None:
        try:
            self._outcome = work(self)
        except BaseException as exc:  # noqa: BLE001 - the test raises it
            self._outcome = exc

    def tell(self, event: Event) -> None:
        """Take an event."""
        self.times.append(time.monotonic())
        self.events.append(event)

    @property
    def done(self) -> int:
        """How many keys are through in the phase that was told of last."""
        return self.events[-1].done if self.events else 0

    def is_over(self) -> bool:
        """Whether it ended."""
        return not self._thread.is_alive()

    def reaches(self, condition: Callable[[Event], bool]) -> Event:
        """Wait for an event and return it."""
        end, seen = time.monotonic() + PATIENCE_S, 0
        while time.monotonic() < end:
            for event in self.events[seen:]:
                seen += 1
                if condition(event):
                    return event
            assert not self.is_over(), (self._outcome, self.events)
            time.sleep(0.02)
        raise AssertionError(self.events[-3:])

    def stands_still(self) -> int:
        """Wait until it does nothing for a second; return how many keys are through."""
        end = time.monotonic() + PATIENCE_S
        while True:
            before = self.done
            time.sleep(1.0)
            if before == self.done:
                return before
            assert time.monotonic() < end, "it goes on"

    def retune(self, **changes: Any) -> RunState:
        """Change its knobs as another terminal does."""
        return retune(self._target, "shop", changes)

    def ends(self) -> BackfillReport:
        """Wait for its end and return its report, or raise what it raised."""
        self._thread.join(PATIENCE_S)
        assert not self.is_over() or self._outcome is not None
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        assert self._outcome is not None, "it runs on"
        return self._outcome


class Paced:
    """Begins backfills of a Redis, in this process or with two workers."""

    def __init__(self, fill: Fill, source: str, target: str, lens: Lens, workers: int) -> None:
        self.fill, self.target, self.workers = fill, target, workers
        self.crew: Crew[Done] | None = None
        self._source, self._lens = source, lens
        self._runs: list[Run] = []

    def __call__(self, *, url: str = "", **options: Any) -> Run:
        """Begin one; *url* is another one for the same target."""

        def work(run: Run) -> BackfillReport:
            with ExitStack() as stack:
                target = stack.enter_context(PostgresTarget.connect(url or self.target, self._lens))
                if self.workers:
                    setup = BackfillSetup(self._source, url or self.target, SHOP, self._lens.mapping.fingerprint)
                    self.crew = options["crew"] = stack.enter_context(Crew(setup, self.workers, Done))
                return run_backfill(
                    self.fill.source, target, self._lens, progress=run.tell, **{"page_keys": 20, **options}
                )

        self._runs.append(Run(work, self.target))
        return self._runs[-1]

    def close(self) -> None:
        """Let what is paused go on, so that it ends."""
        for run in self._runs:
            if not run.is_over():
                run.retune(paused=False, rate=None, max_lag_s=None, max_active=None)
                run.ends()


@pytest.fixture(params=[0, 2], ids=["in-process", "workers"])
def paced(request: pytest.FixtureRequest, fill: Fill, redis_url: str, database: str) -> Iterator[Paced]:
    """Backfills of an empty Redis to be filled, into an empty database."""
    found = Paced(fill, redis_url, database, compile_mapping(load_mapping(SHOP)), request.param)
    yield found
    found.close()
