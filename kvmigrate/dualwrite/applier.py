"""Marked keys into the tables: one pass is the oldest marks, seen as of one moment, applied, then acknowledged."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from kvmigrate.ahead import Ahead
from kvmigrate.dualwrite.looker import SHARDS_AT_ONCE, Looker, batched
from kvmigrate.dualwrite.observation import TABLES_LEAD, Work, why_held
from kvmigrate.dualwrite.ripeness import GRACE_S, StuckKeys
from kvmigrate.dualwrite.settler import Relayed, Settler
from kvmigrate.dualwrite.waiters import Patience
from kvmigrate.model import Authority, Version
from kvmigrate.stores.fence_base import FencedStore
from kvmigrate.target.base import Applied
from kvmigrate.target.live_base import LiveTarget
from kvmigrate.transform.lens import Lens

WORKS_AHEAD = 2
"""Works looked at before the one in the tables is done."""

PASS_S = 2.0
"""A pass takes about so long at most, so that waiting items have their turn while marks keep coming."""

DUE_PAGE = 1_000

LINKS_UNDER_WRITES = 5
"""A drain frees items that wait for others link by link; while writes make ever new ones wait, so many links."""

CIRCLE_ITEMS = 5_000
"""Most items that are tried together because they wait for each other."""


class Drained(NamedTuple):
    """How a drain ended.

    Attributes:
        left: Marks that are older than its beginning and still there; 0 where it did what it was for.

        held: Why marks are left alone, or "".

        stuck: Keys that fail by themselves, and why.
    """

    left: int
    held: str
    stuck: Mapping[str, str]


class Applier:
    """Applies what is marked. Any number of them, in any processes, give the same tables.

    Two stores and a target of its own: one store is read by a thread that looks ahead while the database works.
    """

    def __init__(
        self,
        looking: FencedStore,
        acking: FencedStore,
        target: LiveTarget,
        lens: Lens,
        *,
        grace_s: float = GRACE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is done yet.

        Args:
            looking: The store for the thread that looks ahead.

            acking: The same store, opened once more.

            target: The tables.

            lens: The mapping at work.

            grace_s: How long a fresh mark is left to its writer's own mirror.

            clock: Seconds that only grow.
        """
        self._acking, self._target, self._clock = acking, target, clock
        self._stuck = StuckKeys()
        self._looker = Looker(looking, lens, self._stuck, grace_s=grace_s, clock=clock)
        self._settler = Settler(acking, target, lens, self._stuck, clock=clock)
        self._patience = Patience()

    @property
    def done(self) -> Relayed:
        """What was done since it began."""
        return self._settler.done

    @property
    def held(self) -> str:
        """Why marks are left alone at the moment, or ""."""
        return self._looker.held

    @property
    def stuck(self) -> Mapping[str, str]:
        """Some keys that fail by themselves, and why."""
        return self._stuck.examples()

    def look_around(self) -> str:
        """Ask both sides why nothing may be applied at the moment; "" where something may. For once in a while."""
        if self._target.control().authority is not Authority.STORE:
            return TABLES_LEAD
        reasons = {why_held(fence) for fence in self._acking.fences().values() if fence is not None}
        return "" if "" in reasons else next(iter(reasons), "")

    def run_pass(
        self,
        *,
        hurry: bool = False,
        among: Sequence[str] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> int:
        """Apply and acknowledge what is marked, up to about `PASS_S`; return how many works that were.

        Args:
            hurry: Also what was marked just now.

            among: Shards that have marks, where the caller knows them: no other is looked at.

            stop: Asked between works.

        Raises:
            FenceError: another epoch or authority took over; look again later.

            FenceMissingError, SourceError, TargetError: as the seams; the marks stay.
        """
        shards = self._acking.shards_with_marks() if among is None else among
        if not shards:
            self._looker.nothing_marked()
            return 0
        return self._settle_all(self._looker.look(shards, hurry=hurry, until=self._clock() + PASS_S), stop)[0]

    def retry_waiting(
        self, *, at_once: bool = False, compared: bool = False, stop: Callable[[], bool] = lambda: False
    ) -> int:
        """Apply again the waiting items whose obstacle is gone, if it is time to; return how many were settled.

        The time comes soon while something that waits might be freed, and more and more seldom otherwise. While
        everything is owed it never comes: a store that was emptied would take the waiting items for gone.

        Args:
            at_once: It is time now.

            compared: The caller compared everything that is owed.

            stop: As `run_pass`, and it raises as that.
        """
        if not at_once and not self._patience.is_over(self._clock()):
            return 0
        freed = 0
        # What is owed is asked for last: all shards are asked, and most times nothing waits.
        if self._target.mark_due():
            if not compared and self._owes_all():
                return 0
            freed = self._retry_due(stop)
        if not freed and not stop() and (at_once or self._patience.is_long):
            circles = self._target.circles(limit=CIRCLE_ITEMS)
            if circles and not compared and self._owes_all():
                return 0
            freed = self._retry_circles(circles, stop)
        self._patience.asked(self._clock(), helped=freed > 0)
        return freed

    def drain(self, *, seconds: float, compared: bool = False, stop: Callable[[], bool] = lambda: False) -> Drained:
        """Work until everything that is marked now is in the tables, and nothing is due that can be settled.

        A key that is written meanwhile does not count: it has a newer mark. Nor do items without end that such
        writes make wait and free again. *compared* is as for `retry_waiting`; raises as `run_pass`.
        """
        if held := self.look_around():
            return Drained(self._acking.marks(), held, self.stuck)
        end, clocks = self._clock() + seconds, dict(self._acking.clocks())
        links = LINKS_UNDER_WRITES
        while True:
            did = self.run_pass(hurry=True, stop=stop)
            left = self._older(clocks)
            is_idle = not left or not did
            freed = self.retry_waiting(at_once=True, compared=compared, stop=stop) if is_idle else 0
            if not left and did:
                links -= 1
            if stop() or self._clock() >= end or (is_idle and not freed) or not links:
                return Drained(left, self.held, self.stuck)

    def _owes_all(self) -> bool:
        fences = self._acking.fences().values()
        # Without a fence its marks are gone, too. The control row is read behind the fences: who clears one of them has
        # written it there before.
        return any(fence is None or fence.owes_all for fence in fences) or self._target.control().owes_all

    def _older(self, clocks: Mapping[str, Version]) -> int:
        """Count marks that were there when the clocks said that; of each shard up to `DUE_PAGE`."""
        shards = [shard for shard in self._acking.shards_with_marks() if shard in clocks]
        return sum(
            mark.n <= clocks[shard].n
            for some in batched(shards, SHARDS_AT_ONCE)
            for shard, marks in self._acking.marked_in(some, limit=DUE_PAGE).items()
            for mark in marks
        )

    def _retry_due(self, stop: Callable[[], bool]) -> int:
        freed, after = 0, ""
        while not stop() and (keys := self._target.due_keys(after=after, limit=DUE_PAGE)):
            after = keys[-1]
            freed += self._freed(self._looker.look_at(keys), stop)
        return freed

    def _retry_circles(self, circles: Iterable[Sequence[str]], stop: Callable[[], bool]) -> int:
        """Apply items that wait for each other as one batch: apart they never would succeed."""
        freed = 0
        for keys in circles:
            if stop():
                break
            freed += self._freed(self._looker.look_at(keys, together=True), stop)
        return freed

    def _freed(self, works: Iterator[Work], stop: Callable[[], bool]) -> int:
        removed = self.done.removed
        _, applied = self._settle_all(works, stop)
        return applied.written + self.done.removed - removed

    def _settle_all(self, works: Iterator[Work], stop: Callable[[], bool]) -> tuple[int, Applied]:
        count, total, looker = 0, Applied(), self._looker
        ahead = Ahead(works, most=WORKS_AHEAD)
        try:
            with ahead:
                for work in ahead:
                    try:
                        total = total.plus(self._settler.settle(work))
                    finally:
                        looker.in_hand.give(work.keys)
                    count += 1
                    if stop():
                        break
        finally:
            for unused in ahead.unused:
                looker.in_hand.give(unused.keys)
        if count:
            self._patience.stirred(self._clock())
        return count, total
