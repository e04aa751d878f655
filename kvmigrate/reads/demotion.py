"""When an endpoint stops to read the tables by itself, and when it tries again. Pure: whoever asks says the time."""

from __future__ import annotations

from collections.abc import Callable
from random import SystemRandom
from threading import Lock

_CHANCE = SystemRandom()
"""Not the program's own, whose numbers it may want to have again."""


WINDOW = 20
"""Of so many newest reads it looks at the failed ones."""


class Demotion:
    """A breaker of one endpoint's table reads.

    It opens after *failures* in a row, or where half of the last `WINDOW` reads failed, or after confirmed
    differences; then lets one read try, after a pause that grows. While all is well nothing is locked.

    Attributes:
        is_calm: Nothing failed lately, so that nothing is to be asked or told. Read it first: it costs nothing.

        why: What opened it last.

        opened: How often it opened.
    """

    def __init__(
        self,
        *,
        failures: int = 5,
        differences: int = 3,
        pause_s: float = 1.0,
        most_s: float = 60.0,
        jitter: Callable[[], float] = _CHANCE.random,
    ) -> None:
        """Open first for *pause_s*, later longer up to *most_s*; differences open it for *most_s* at once.

        *jitter* gives numbers from 0 to 1, so that many processes do not come back at one moment.
        """
        self._limit, self._most_differences = failures, differences
        self._pause_s, self._most_s, self._jitter = pause_s, most_s, jitter
        self._in_row = self._rounds = self._differences = 0
        self._newest = 0
        self._again_at: float | None = None
        self._lock = Lock()
        self.is_calm = True
        self.why = ""
        self.opened = 0

    @property
    def is_open(self) -> bool:
        """Whether reads stay with the store."""
        return self._again_at is not None

    def lets(self, now: float) -> bool:
        """Return whether to read the tables. Open, it lets one read try at the end of each pause."""
        again_at = self._again_at
        if again_at is None:
            return True
        with self._lock:
            again_at = self._again_at
            if again_at is None:
                return True
            if now < again_at:
                return False
            # The others wait for what this one finds; if it never says, the next pause ends all the same.
            self._again_at = now + self._pause()
            return True

    def succeeded(self) -> None:
        """Note a read that went well."""
        if not self.is_calm:
            with self._lock:
                self._in_row = 0
                self._newest = self._newest << 1 & (1 << WINDOW) - 1
                if self._again_at is not None:
                    self._again_at, self._rounds, self._newest, self._differences = None, 0, 0, 0
                self.is_calm = self._newest == 0

    def failed(self, now: float, why: str) -> bool:
        """Note one that did not; return whether that opened it."""
        with self._lock:
            self.is_calm = False
            self._in_row += 1
            self._newest = (self._newest << 1 | 1) & (1 << WINDOW) - 1
            if self._again_at is not None:
                self._rounds += 1
                self._again_at = now + self._pause()
                return False
            if self._in_row < self._limit and self._newest.bit_count() * 2 < WINDOW:
                return False
            return self._open(now, why)

    def differed(self, now: float) -> bool:
        """Note a confirmed difference between both sides; return whether that opened it."""
        with self._lock:
            self._differences += 1
            if self._differences < self._most_differences or self._again_at is not None:
                return False
            self._rounds = 16
            return self._open(now, f"{self._differences} confirmed differences")

    def matched(self) -> None:
        """Note that both sides said the same: differences count in a row."""
        self._differences = 0

    def close(self) -> None:
        """Begin anew: a person says that it is mended."""
        with self._lock:
            self._in_row = self._rounds = self._differences = self._newest = 0
            self._again_at = None
            self.is_calm = True

    def begin_anew(self) -> None:
        """Go on in a forked process: whoever held the lock at the fork is not here to let go."""
        self._lock = Lock()

    def _open(self, now: float, why: str) -> bool:
        self.is_calm = False
        self._again_at = now + self._pause()
        self._rounds += 1
        self.opened += 1
        self.why = why
        return True

    def _pause(self) -> float:
        longest: float = min(self._most_s, self._pause_s * 2 ** min(self._rounds, 16))
        return longest * (0.5 + 0.5 * self._jitter())
