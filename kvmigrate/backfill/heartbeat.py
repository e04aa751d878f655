"""A thread beside a run: says every second that it lives, hears its knobs, and reads the target's signals."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from kvmigrate.backfill.pace import Knobs, State
from kvmigrate.errors import KVMigrateError
from kvmigrate.log import get_log
from kvmigrate.target.base import Beside, Signals

EVERY_S = 1.0

SILENT_BEATS = 5
"""After so many beats in a row that failed, people are told."""

_END_S = 2.0

_log = get_log()


class Standing(NamedTuple):
    """What a run is about, and why."""

    state: State = State.RUNNING
    reason: str = ""


class Known(NamedTuple):
    """What the thread heard last.

    Attributes:
        signals, signals_at: Of the target, and by the monotonic clock when they were asked for.

        is_newest: No newer backfill took over.
    """

    knobs: Knobs
    signals: Signals | None = None
    signals_at: float = 0.0
    is_newest: bool = True


class Heartbeat:
    """Beats until it is ended. What it asks may fail or take long: the run goes on with what was heard last.

    Attributes:
        known: For any thread to read.
    """

    def __init__(self, beside: Beside, knobs: Knobs) -> None:
        """Begin to beat."""
        self._beside, self._first = beside, knobs
        self.known = Known(knobs)
        self._standing = Standing()
        self._wake = threading.Event()
        self._is_ended, self._unheard = False, 0
        self._thread = threading.Thread(target=self._run, name="kvmigrate-heartbeat", daemon=True)
        self._thread.start()

    def stands(self, standing: Standing) -> None:
        """Note what the run is about; a new state is told at once."""
        is_new = standing.state is not self._standing.state
        self._standing = standing
        if is_new:
            self._wake.set()

    def end(self) -> None:
        """Beat a last time and end; a target that does not answer is not waited for."""
        self._is_ended = True
        self._wake.set()
        self._thread.join(timeout=_END_S)

    def _run(self) -> None:
        try:
            while not self._is_ended:
                self._tell(self._standing)
                self._ask()
                self._wake.wait(EVERY_S)
                self._wake.clear()
            self._tell(Standing(State.ENDED))
        finally:
            self._beside.close()

    def _ask(self) -> None:
        """Read the signals, unless that was done within the last second."""
        known, now = self.known, time.monotonic()
        knobs = known.knobs
        if not any(knobs.asked) or (known.signals is not None and now - known.signals_at < EVERY_S):
            return
        try:
            lag, active = knobs.asked
            signals = self._beside.signals(lag=lag, active=active)
        except KVMigrateError as exc:
            signals = Signals(lag_unread=str(exc), active_unread=str(exc))
        self.known = known._replace(signals=signals, signals_at=now)

    def _tell(self, standing: Standing) -> None:
        first: Mapping[str, Any] = msgspec.to_builtins(self._first)
        try:
            heard = self._beside.beat(standing.state, standing.reason, first)
            knobs = msgspec.convert(heard.knobs, Knobs)
        except (KVMigrateError, msgspec.ValidationError) as exc:
            self._unheard += 1
            if self._unheard == SILENT_BEATS:
                _log.warning("this run can be neither seen nor retuned", why=str(exc))
            return
        self._unheard = 0
        # Signals that were not asked for say nothing of a limit that is new.
        signals = self.known.signals if knobs.asked == self.known.knobs.asked else None
        self.known = self.known._replace(knobs=knobs, signals=signals, is_newest=heard.is_newest)
