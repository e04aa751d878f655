"""What the threads of a relay do: applier, reverse applier, sweeper and gauge, each with connections of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from kvmigrate.dualwrite.applier import Applier, Drained
from kvmigrate.dualwrite.readings import lag_s
from kvmigrate.dualwrite.reverse import Beforehand, ReverseApplier
from kvmigrate.dualwrite.settler import Relayed
from kvmigrate.dualwrite.sweeper import PAUSE_S, Sweeper
from kvmigrate.dualwrite.tasks import at_leisure
from kvmigrate.model import MarkedKey
from kvmigrate.stores.fence_base import FencedStore
from kvmigrate.target.live_base import Control, LiveTarget
from kvmigrate.transform.lens import Lens

IDLE_S = 0.05
"""The applier looks for marks so often; while it finds any, at once."""

LOOK_AROUND_S = 1.0
"""It asks who writes so often; within that, fences that moved meanwhile refuse whatever comes."""

HELD_S = 0.2
REVERSE_IDLE_S = 0.1
GAUGE_S = 1.0


class Sides(NamedTuple):
    """How both sides are opened; each call gives a new one, with connections of its own.

    Attributes:
        beforehand: What maintains indexes, given the store of the reverse applier; ``None`` where there are none.
    """

    store: Callable[[], FencedStore]
    target: Callable[[], LiveTarget]
    lens: Lens
    beforehand: Callable[[FencedStore], Beforehand | None] = lambda _store: None


class _OnBothSides:
    """Opens stores and targets, and closes them all."""

    def __init__(self, sides: Sides) -> None:
        self._sides = sides
        self._opened: list[Callable[[], None]] = []

    def _store(self) -> FencedStore:
        store = self._sides.store()
        self._opened.append(store.close)
        return store

    def _target(self) -> LiveTarget:
        target = self._sides.target()
        self._opened.append(target.close)
        return target

    def close(self) -> None:
        """Release connections."""
        opened, self._opened = self._opened, []
        for close in reversed(opened):
            close()


class Applying(_OnBothSides):
    """The applier, again and again.

    Attributes:
        held, stuck: As of `Applier`.
    """

    def __init__(self, sides: Sides, *, stopped: Callable[[], bool]) -> None:
        """Open nothing yet. *stopped* is asked between batches."""
        super().__init__(sides)
        self._stopped = stopped
        self._applier: Applier | None = None
        self._before = Relayed()
        self._look_around = 0.0
        self.held = ""
        self.stuck: Mapping[str, str] = {}

    @property
    def done(self) -> Relayed:
        """What was done since the relay began."""
        applier = self._applier
        return self._before.plus(applier.done) if applier is not None else self._before

    def open(self) -> None:
        """Connect."""
        self._look_around = 0.0
        self._applier = Applier(self._store(), self._store(), self._target(), self._sides.lens)

    def step(self) -> float:
        """Do one pass, and see to waiting items if it is time to."""
        assert self._applier is not None  # noqa: S101 - it was opened
        now = time.monotonic()
        if now >= self._look_around:
            self.held = self._applier.look_around()
            self._look_around = now + at_leisure(LOOK_AROUND_S, time.monotonic() - now)
        if self.held:
            return HELD_S
        now = time.monotonic()
        did = self._applier.run_pass(stop=self._stopped)
        looked_s = time.monotonic() - now
        self.held, self.stuck = self._applier.held, self._applier.stuck
        if not self.held:
            self._applier.retry_waiting(stop=self._stopped)
        return 0.0 if did else at_leisure(IDLE_S, looked_s)

    def drain(self, *, seconds: float) -> Drained:
        """Bring the tables to where the store is now; see `Applier.drain`."""
        assert self._applier is not None  # noqa: S101 - it was opened
        drained = self._applier.drain(seconds=seconds, stop=self._stopped)
        self.held, self.stuck = drained.held, drained.stuck
        return drained

    def close(self) -> None:
        """Release connections; what was done stays counted."""
        self._before, self._applier = self.done, None
        super().close()


class Reversing(_OnBothSides):
    """The reverse applier, again and again.

    Attributes:
        stuck: As of `ReverseApplier`.
    """

    def __init__(self, sides: Sides, *, stopped: Callable[[], bool]) -> None:
        """Open nothing yet."""
        super().__init__(sides)
        self._stopped = stopped
        self._applier: ReverseApplier | None = None
        self._before = 0
        self._beforehand: Beforehand | None = None
        self.stuck: Mapping[str, str] = {}

    @property
    def given(self) -> int:
        """Keys that the store was given since the relay began."""
        applier = self._applier
        return self._before + (applier.given if applier is not None else 0)

    @property
    def broken(self) -> Mapping[str, str]:
        """Indexes that cannot be maintained, and why; known since it was opened."""
        return self._beforehand.broken if self._beforehand is not None else {}

    def open(self) -> None:
        """Connect."""
        store, target = self._store(), self._target()
        self._beforehand = self._sides.beforehand(store)
        if self._beforehand is not None:
            self._opened.append(self._beforehand.close)
        self._applier = ReverseApplier(store, target, beforehand=self._beforehand)

    def step(self) -> float:
        """Give one page of what is owed."""
        assert self._applier is not None  # noqa: S101 - it was opened
        given = self._applier.run_pass()
        self.stuck = self._applier.stuck
        return 0.0 if given else REVERSE_IDLE_S

    def drain(self, *, seconds: float) -> int:
        """Give all that is owed now; return what is owed still."""
        assert self._applier is not None  # noqa: S101 - it was opened
        left = self._applier.drain(seconds=seconds, stop=self._stopped)
        self.stuck = self._applier.stuck
        return left

    def close(self) -> None:
        """Release connections; what was given stays counted."""
        self._before, self._applier = self.given, None
        super().close()


class Sweeping(_OnBothSides):
    """The sweeper, again and again."""

    def __init__(self, sides: Sides) -> None:
        """Open nothing yet."""
        super().__init__(sides)
        self._sweeper: Sweeper | None = None
        self.swept = 0

    def open(self) -> None:
        """Connect."""
        self._sweeper = Sweeper(self._store(), self._target())

    def step(self) -> float:
        """Sweep one page."""
        assert self._sweeper is not None  # noqa: S101 - it was opened
        self.swept += self._sweeper.sweep()
        return PAUSE_S


class Gauge(NamedTuple):
    """What is counted on both sides."""

    lag_s: float = 0.0
    marks: int = 0
    waiting: int = 0
    quarantined: int = 0
    owed: int = 0


class Gauging(_OnBothSides):
    """Counts, once a second.

    Attributes:
        last: What was counted last.
    """

    def __init__(self, sides: Sides) -> None:
        """Open nothing yet."""
        super().__init__(sides)
        self._counted: tuple[FencedStore, LiveTarget] | None = None
        self.last = Gauge()

    def open(self) -> None:
        """Connect."""
        self._counted = self._store(), self._target()

    def control(self) -> Control:
        """Return the control row."""
        assert self._counted is not None  # noqa: S101 - it was opened
        return self._counted[1].control()

    def step(self) -> float:
        """Count once."""
        assert self._counted is not None  # noqa: S101 - it was opened
        begun = time.monotonic()
        store, target = self._counted
        marks, oldest = store.marks(), list[MarkedKey]()
        if marks:
            for found in store.marked_in(store.shards_with_marks(), limit=1).values():
                oldest += found
        quarantined, waiting = target.unsettled()
        self.last = Gauge(lag_s(oldest, time.time()), marks, waiting, quarantined, target.owes())
        return at_leisure(GAUGE_S, time.monotonic() - begun)

    def close(self) -> None:
        """Release connections."""
        self._counted = None
        super().close()
