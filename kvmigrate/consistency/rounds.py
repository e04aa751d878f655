"""A sampler that goes on: round after round, within a budget, until its time is over or it is stopped.

A round draws keys as any sample does, in a random order, and compares them one after the other; its bounds hold at each
moment of it (`anytime_bounds`). With its last key it ends, and the next one draws anew, from the keys that there are
then. What is known of a round is kept all along, so that a sampler that was stopped goes on where it was.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from kvmigrate.consistency.budget import Budget
from kvmigrate.consistency.draw import place_of
from kvmigrate.consistency.sample import Sampler
from kvmigrate.consistency.sample_report import SampleReport
from kvmigrate.errors import SourceError, TargetError

KEEP_S = 10.0
"""What is known is kept so often, in seconds."""

ROUND_KEYS = 20_000
"""Keys of a round: without a difference they show that less than 0.05 % diverge, with confidence 0.95."""

RATE = 50.0
"""Keys a second by default: a guest on servers that have other work."""


class Begun(NamedTuple):
    """A round that was begun earlier and did not end.

    Attributes:
        id: Of its evidence.

        through: Keys up to this place of its order were compared.

        facts: What was kept of it.
    """

    id: int
    seed: int
    through: int
    facts: Mapping[str, Any]


class Keeper(Protocol):
    """Keeps what is known of rounds."""

    def begun(self) -> Begun | None:
        """Return the round to go on with. Raises `TargetError`."""
        ...

    def keep(self, known: int | None, facts: Mapping[str, Any], found: Mapping[str, Sequence[str]]) -> int:
        """Keep *facts* of a round, of which *known* was kept before, and the keys *found* divergent since then.

        Returns the round's number. Raises `TargetError`.
        """
        ...

    def doubtful(self) -> Sequence[str]:
        """Return keys that were found divergent and not mended since. Raises `TargetError`."""
        ...

    def equal(self, keys: Sequence[str]) -> None:
        """Keep that these agree again. Raises `TargetError`."""
        ...


class Ways(NamedTuple):
    """How a sampler goes on.

    Attributes:
        size: Keys of a round.

        rate: Keys a second.

        seconds: So long; ``None`` for as long as it is let.
    """

    size: int = ROUND_KEYS
    rate: float = RATE
    seconds: float | None = None


Tell = Callable[[SampleReport, "Rounds"], None]


class Rounds:
    """One sampler that goes on.

    Attributes:
        ended: Rounds that came to their end.

        compared: Keys looked at by this process.

        waits: Why it waits, or "".

        share: Of the budget that is used now.
    """

    def __init__(
        self,
        sampler: Callable[[SampleReport], Sampler],
        fresh: Callable[[int | None], SampleReport],
        keeper: Keeper,
        ways: Ways,
        stop: threading.Event,
        tell: Tell,
    ) -> None:
        """Begin nothing yet.

        Args:
            sampler: Makes what draws and compares for a report.

            fresh: Makes an empty report of this seed, of a new one for ``None``.

            keeper: Keeps what is known.

            ways: Size, budget, time.

            stop: Set to end it.

            tell: Told after every batch.
        """
        self._sampler, self._fresh, self._keeper = sampler, fresh, keeper
        self._ways, self._stop, self._tell = ways, stop, tell
        self._budget = Budget(ways.rate)
        self._until = None if ways.seconds is None else time.monotonic() + ways.seconds
        self._report = fresh(None)
        self._last: SampleReport | None = None
        self._kept_at = 0.0
        self._round: int | None = None
        self._told: set[str] = set()
        self.ended, self.compared, self.waits = 0, 0, ""
        self._doubtful: set[str] = set()

    @property
    def share(self) -> float:
        """Of the budget that is used now."""
        return self._budget.share

    @property
    def unmended(self) -> int:
        """Keys found divergent, by whichever sampler, that did not agree again when this one last looked."""
        return len(self._doubtful | self._report.divergent_keys.keys())

    def run(self) -> SampleReport:
        """Sample until the time is over or it is stopped.

        Returns the last round that ended; the one under way where none did, or where that found more.

        A side that fails later is waited for; one that fails before anything was compared is not.

        Raises:
            SourceError, TargetError: a side failed at once.
        """
        while not self._is_over():
            try:
                self._one_round()
            except (SourceError, TargetError) as exc:
                if not self.compared:
                    raise
                self.waits = str(exc)
                self._tell(self._report, self)
                self._sleep(self._budget.failed_s())
        if self._last is None or self._report.total.divergent > self._last.total.divergent:
            return self._report
        return self._last

    def _one_round(self) -> None:
        begun = self._keeper.begun()
        report = self._report = self._fresh(begun.seed if begun else None)
        report.anytime = True
        self._round, through = (begun.id, begun.through) if begun else (None, -1)
        if begun:
            report.take(begun.facts)
        self._told = set(report.divergent_keys)
        sampler = self._sampler(report)
        self._look_again(sampler)
        keys = [key for key in sampler.draw(self._ways.size) if place_of(key, report.seed) > through]
        while keys and not self._is_over():
            size = self._budget.keys
            batch, keys = keys[:size], keys[size:]
            begun_at, paused_s = time.monotonic(), sampler.paused_s
            sampler.compare(batch)
            took_s, paused_s = time.monotonic() - begun_at, sampler.paused_s - paused_s
            self.compared, self.waits, through = self.compared + len(batch), "", place_of(batch[-1], report.seed)
            if time.monotonic() - self._kept_at >= KEEP_S:
                self._keep(report, through, left=len(keys))
            self._tell(report, self)
            # What waited for a change under way says nothing of how busy the servers are.
            self._sleep(self._budget.pause_s(len(batch), took_s - paused_s) - paused_s)
        if not keys:
            self._last, self.ended = report, self.ended + 1
        # Where no round ended before, a time that was set beforehand is an end, too; to be stopped is none.
        is_end = not keys or (self._is_late() and self._last is None)
        if any(report.total.counts.values()):
            self._keep(report, through, left=0 if is_end else len(keys))
        elif not keys:
            # Nothing is there yet.
            self._sleep(self._budget.failed_s())

    def _look_again(self, sampler: Sampler) -> None:
        """Look at what an earlier round found: what agrees by now stands in nobody's way any more."""
        self._doubtful = set(self._keeper.doubtful())
        if equal := sampler.equal_again(sorted(self._doubtful)):
            self._keeper.equal(equal)
            self._doubtful -= set(equal)

    def _keep(self, report: SampleReport, through: int, *, left: int) -> None:
        found = {key: causes for key, causes in report.divergent_keys.items() if key not in self._told}
        # The keys have evidence of their own, which ends with an item that is erased.
        facts = {**report.evidence(), "keys": {}, "left": left, "through": str(through)}
        self._round = self._keeper.keep(self._round, facts, found)
        self._told |= found.keys()
        self._kept_at = time.monotonic()

    def _is_late(self) -> bool:
        return self._until is not None and time.monotonic() >= self._until

    def _is_over(self) -> bool:
        return self._stop.is_set() or self._is_late()

    def _sleep(self, seconds: float) -> None:
        left_s = seconds if self._until is None else min(seconds, self._until - time.monotonic())
        self._stop.wait(max(0.0, left_s))
