"""How an engine tells how far it is: one event, several times per second, whoever shows it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from kvmigrate.backfill.pace import Knobs, State

SMOOTH_S = 10.0
"""The rate is that of about the last so many seconds."""


class Event(msgspec.Struct, frozen=True, tag_field="event", tag="progress"):
    """How far a phase is.

    Attributes:
        done, total: Keys that are through, and about how many there are; ``None`` is unknown.

        per_second: Of late; 0 where nothing is known.

        eta_s: Seconds to the end of the phase, if it goes on like that; ``None`` where nobody can tell.

        state, reason: Whether it goes on, and why not.

        knobs: The limits that are set.
    """

    phase: str
    done: int
    total: int | None = None
    per_second: float = 0.0
    eta_s: float | None = None
    state: State = State.RUNNING
    reason: str = ""
    knobs: Knobs = Knobs()


Progress = Callable[[Event], None]
"""Called from any thread, one at a time; must return quickly and not raise."""

Counted = Callable[[str, int, "int | None"], None]
"""Called with the phase, how much is done, and how much there is, if known."""


SHORTEST_S = 0.05
"""A rate over less time than this says nothing."""


class RecentRate(NamedTuple):
    """A rate in which what is longer ago counts less. Pure: the clock's value is given.

    Attributes:
        keys, seconds: What counts still of all that was added.
    """

    keys: float = 0.0
    seconds: float = 0.0

    def plus(self, keys: int, seconds: float) -> RecentRate:
        """Return the rate after *seconds* more in which *keys* were done."""
        left = math.exp(-max(seconds, 0.0) / SMOOTH_S)
        return RecentRate(self.keys * left + keys, self.seconds * left + max(seconds, 0.0))

    @property
    def per_second(self) -> float:
        """Keys per second; 0 while too little time has passed to tell, or a phase began anew."""
        return max(self.keys / self.seconds, 0.0) if self.seconds >= SHORTEST_S else 0.0


class Meter:
    """Counts one phase and tells of it a few times per second. For several threads."""

    INTERVAL_S = 0.2

    def __init__(self, progress: Progress | None, phase: str, total: int | None) -> None:
        """Start the clock; *progress* may be ``None``."""
        self._progress, self._phase, self.total = progress, phase, total
        self._started = self._counted = time.monotonic()
        self._told, self._state, self._told_state = self._started, State.RUNNING, State.RUNNING
        self._rate, self._new = RecentRate(), 0
        self._lock = threading.Lock()
        self.done = 0

    def add(self, count: int, *, at_once: bool = False) -> None:
        """Count *count* more keys; tell of them *at once*, or soon."""
        with self._lock:
            self.done += count
            self._new += count
            self._tell(at_once=at_once)

    def stands(self, state: State) -> None:
        """Say that the phase goes on, or why it does not; told at once where that is new."""
        with self._lock:
            self._state = state
            self._tell()

    def finish(self) -> float:
        """Report the end and return how many seconds the phase took."""
        with self._lock:
            self._tell(at_once=True)
        return time.monotonic() - self._started

    def _tell(self, *, at_once: bool = False) -> None:
        now, state = time.monotonic(), self._state
        if now - self._told < self.INTERVAL_S and not at_once and state == self._told_state:
            return
        # A pause says nothing about how fast the rest will be.
        paused = state is State.PAUSED and self._told_state is State.PAUSED
        self._rate = self._rate.plus(self._new, 0.0 if paused else now - self._counted)
        self._told, self._counted, self._told_state, self._new = now, now, state, 0
        if self._progress is not None:
            per_second = self._rate.per_second
            eta_s = _eta_s(self.done, self.total, per_second) if state is not State.PAUSED else None
            self._progress(Event(self._phase, self.done, self.total, round(per_second, 1), eta_s, state))


def counted(progress: Progress | None) -> Counted | None:
    """Return what makes events of plain counts, for engines that know no more."""
    if progress is None:
        return None
    meters: dict[str, Meter] = {}

    def tell(phase: str, done: int, total: int | None) -> None:
        is_new = phase not in meters
        meter = meters.setdefault(phase, Meter(progress, phase, total))
        meter.total = total
        meter.add(done - meter.done, at_once=is_new or done == total)

    return tell


def _eta_s(done: int, total: int | None, per_second: float) -> float | None:
    if total is None or per_second <= 0:
        return None
    return round(max(total - done, 0) / per_second, 1)
