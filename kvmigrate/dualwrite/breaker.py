"""Whether the other side is worth asking: after some failures in a row it is left alone for a while."""

from __future__ import annotations

from collections.abc import Callable
from random import SystemRandom
from threading import Lock

_CHANCE = SystemRandom()
"""Not the program's own, whose numbers it may want to have again."""


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
        jitter: Callable[[], float] = _CHANCE.random,
    ) -> None:
        """Open after so many failures in a row, first for *pause_s*, then longer up to *most_s*.

        *jitter* gives numbers from 0 to 1, so that many processes do not come back at one moment.
        """
        self._limit, self._pause_s, self._most_s, self._jitter = failures, pause_s, most_s, jitter
        self._failures = 0
        self._rounds = 0
        self._closed_again_at: float | None = None
        self._lock = Lock()

    @property
    def is_open(self) -> bool:
        """Whether the other side is left alone."""
        return self._closed_again_at is not None

    def lets(self, now: float) -> bool:
        """Return whether to ask. Open, it lets one try pass at the end of each pause."""
        again_at = self._closed_again_at
        if again_at is None:
            return True
        with self._lock:
            again_at = self._closed_again_at
            if again_at is None:
                return True
            if now < again_at:
                return False
            # The others wait for what this one finds; if it never says, the next pause ends all the same.
            self._closed_again_at = now + self._pause()
            return True

    def succeeded(self) -> None:
        """Note that the other side answered."""
        if self._failures or self._closed_again_at is not None:
            with self._lock:
                self._failures, self._rounds, self._closed_again_at = 0, 0, None

    def failed(self, now: float) -> None:
        """Note that it did not."""
        with self._lock:
            self._failures += 1
            if self._failures < self._limit:
                return
            self._closed_again_at = now + self._pause()
            self._rounds += 1

    def _pause(self) -> float:
        longest: float = min(self._most_s, self._pause_s * 2 ** min(self._rounds, 16))
        return longest * (0.5 + 0.5 * self._jitter())
