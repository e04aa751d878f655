"""How an engine tells how far it is: one small callback."""

from __future__ import annotations

import time
from typing import Protocol


class Progress(Protocol):
    """Called now and then from the thread that runs the engine; must return quickly and not raise."""

    def __call__(self, phase: str, done: int, total: int | None, per_second: float) -> None:
        """Say that *done* of about *total* (``None``: unknown) keys of *phase* are through."""
        ...


class Meter:
    """Counts one phase and reports it a few times per second."""

    INTERVAL_S = 0.2

    def __init__(self, progress: Progress | None, phase: str, total: int | None) -> None:
        """Start the clock; *progress* may be ``None``."""
        self._progress, self._phase, self._total = progress, phase, total
        self._started = self._told = time.monotonic()
        self.done = 0

    def add(self, count: int) -> None:
        """Count *count* more keys."""
        self.done += count
        if time.monotonic() - self._told >= self.INTERVAL_S:
            self._tell()

    def finish(self) -> float:
        """Report the end and return how many seconds the phase took."""
        self._tell()
        return time.monotonic() - self._started

    def _tell(self) -> None:
        self._told = time.monotonic()
        if self._progress is not None:
            elapsed = max(self._told - self._started, 1e-9)
            self._progress(self._phase, self.done, self._total, self.done / elapsed)
