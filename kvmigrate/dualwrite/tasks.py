"""Things that a relay does again and again, each in a thread of its own, whatever fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from random import SystemRandom
from typing import Protocol

from kvmigrate.dualwrite.unforeseen import told
from kvmigrate.errors import AbsentItemsError, FenceError, FenceMissingError, KVMigrateError, StaleError
from kvmigrate.log import get_log

_CHANCE = SystemRandom()
"""Not the program's own, whose numbers it may want to have again."""


_log = get_log()

PAUSES_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Waits after failures in a row; the last one stays."""

MOVED_PAUSE_S = 0.1
"""Wait after the authority moved: a flip takes well under a second."""

FAILING_S = 15.0
"""A task that has not succeeded for so long is failing: longer than a failover usually takes."""


def at_leisure(pause_s: float, took_s: float, *, times: int = 10) -> float:
    """Return how long to wait, at least *pause_s*, behind a look that took so long and found nothing to do.

    So a look at all shards, of which a cluster has 16384, takes a small part of the time.
    """
    return max(pause_s, times * took_s)


class Step(Protocol):
    """One thing to do again and again."""

    def open(self) -> None:
        """Connect. May raise anything; `close` is called then, too."""
        ...

    def step(self) -> float:
        """Do it once; return after how many seconds to do it again. May raise anything."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...


class Task:
    """A step in a thread: opened when it can be, done again and again, opened anew after a failure.

    Attributes:
        name: Of the thread, and in what is told.

        error: What failed last; "" once it succeeded again.
    """

    def __init__(
        self,
        name: str,
        step: Step,
        stop: threading.Event,
        *,
        may_run: Callable[[], bool] = lambda: True,
    ) -> None:
        """Begin nothing yet.

        Args:
            name: Of the thread.

            step: What to do.

            stop: Ends it, after the step under way.

            may_run: Asked before each step; where it says no, nothing is done for a second.
        """
        self.name, self._step, self._stop, self._may_run = name, step, stop, may_run
        self._is_open = False
        self._failures = 0
        self._since = time.monotonic()
        self.error = ""
        self._thread = threading.Thread(target=self._run, name=f"kvmigrate-{name}", daemon=True)

    @property
    def is_failing(self) -> bool:
        """Whether it has not succeeded for `FAILING_S`, though it tried, or waits for a person to decide."""
        return bool(self.error) and time.monotonic() - self._since > FAILING_S

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self, timeout: float) -> bool:
        """Wait for its end; return whether it came."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            pause_s = self._once() if self._may_run() else 1.0
            if pause_s > 0:
                self._stop.wait(pause_s)
        self._close()

    def _once(self) -> float:
        try:
            if not self._is_open:
                self._step.open()
                self._is_open = True
            pause_s = self._step.step()
        except (FenceError, StaleError) as exc:
            # Nothing was written. Who writes now is found out by the next step.
            self.error = f"{self.name}: {exc}"
            return MOVED_PAUSE_S
        except Exception as exc:  # noqa: BLE001 - whatever it is, the next step may succeed
            return self._failed(exc)
        self._since, self._failures, self.error = time.monotonic(), 0, ""
        return pause_s

    def _failed(self, exc: Exception) -> float:
        kind = "" if isinstance(exc, KVMigrateError) else f"{type(exc).__name__}: "
        message = f"{self.name}: {kind}{exc}"
        if message != self.error:
            _say(message, exc)
        self.error = message
        if isinstance(exc, AbsentItemsError):
            self._since = float("-inf")
        if not isinstance(exc, FenceMissingError):
            # Whatever state a connection was left in, the next step begins with fresh ones.
            self._close()
        pause_s = PAUSES_S[min(self._failures, len(PAUSES_S) - 1)]
        self._failures += 1
        return pause_s * _CHANCE.uniform(0.8, 1.2)

    def _close(self) -> None:
        self._is_open = False
        try:
            self._step.close()
        except Exception as exc:  # noqa: BLE001 - what is lost cannot be closed, and need not be
            _log.debug(f"{self.name}: closing failed", error=str(exc))


def _say(message: str, exc: Exception) -> None:
    hint = {"hint": exc.hint} if isinstance(exc, KVMigrateError) and exc.hint else {}
    if isinstance(exc, AbsentItemsError):
        _log.error(message, **hint)
    else:
        _log.warning(message, **hint, **({} if isinstance(exc, KVMigrateError) else told(exc)))
