"""Whether the other side is worth asking: after some failures in a row it is left alone for a while."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from kvmigrate.pause import GrowingPause


class Breaker:
    """A pure decision: whoever asks says what time it is. For any number of threads.

    While all is well, nothing is locked: two plain reads answer. A lost count among threads
    only makes it open one failure later.
    """

    def __init__(
        self,
        *,
        failures: int = 5,
        pause_s: float = 0.5,
        most_s: float = 15.0,
        jitter: Callable[[], float] | None = None,
    ) -> None:
        """Open after so many failures in a row; the rest as of `GrowingPause`."""
        self._limit, self._failures = failures, 0
        self._pause = GrowingPause(pause_s, most_s, jitter)
        self._lock = Lock()

    @property
    def is_open(self) -> bool:
        """Whether the other side is left alone."""
        return self._pause.until is not None

    def lets(self, now: float) -> bool:
        """Return whether to ask. Open, it lets one try pass at the end of each pause."""
        if self._pause.until is None:
            return True
        with self._lock:
            return self._pause.lets(now)

    def succeeded(self) -> None:
        """Note that the other side answered."""
        if self._failures or self._pause.until is not None:
            with self._lock:
                if self._pause.succeeded():
                    self._failures = 0

    def failed(self, now: float) -> None:
        """Note that it did not."""
        with self._lock:
            self._failures += 1
            if self._pause.until is not None:
                self._pause.failed(now)
            elif self._failures >= self._limit:
                self._pause.begin(now)
