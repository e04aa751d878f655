"""When an endpoint stops to read the tables by itself, and when it tries again. Pure: whoever asks says the time."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from kvmigrate.pause import GrowingPause

WINDOW = 20
"""Of so many newest reads it looks at the failed ones, and of so many newest comparisons at those that differed."""

_ALL = (1 << WINDOW) - 1


class Demotion:
    """A breaker of one endpoint's table reads.

    After *failures* in a row, or where half of the last `WINDOW` reads failed, it lets one read try after a pause that
    grows. After confirmed differences no read may try, as one that is wrong looks well: reads return when *most_s* is
    over and the last `WINDOW` comparisons found nothing. While all is well nothing is locked.

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
        jitter: Callable[[], float] | None = None,
    ) -> None:
        """Open after so many failures in a row, or so many *differences* of the last `WINDOW` comparisons.

        The rest is as of `GrowingPause`.
        """
        self._limit, self._most_differences, self._most_s = failures, differences, most_s
        self._pause = GrowingPause(pause_s, most_s, jitter)
        self._in_row = self._failed = self._differed = 0
        self._wrong_until: float | None = None
        self._lock = Lock()
        self.is_calm = True
        self.why = ""
        self.opened = 0

    @property
    def is_open(self) -> bool:
        """Whether reads stay with the store."""
        return self._pause.until is not None or self._wrong_until is not None

    def lets(self, now: float) -> bool:
        """Return whether to read the tables. Open after failures, it lets one read try at the end of each pause."""
        if not self.is_open:
            return True
        with self._lock:
            return self._wrong_until is None and self._pause.lets(now)

    def succeeded(self) -> None:
        """Note a read that went well."""
        if not self.is_calm:
            with self._lock:
                self._in_row = 0
                self._failed = self._failed << 1 & _ALL
                if self._pause.until is not None and self._pause.succeeded():
                    self._failed = 0
                self._settle()

    def failed(self, now: float, why: str) -> bool:
        """Note one that did not; return whether that opened it."""
        with self._lock:
            self.is_calm = False
            self._in_row += 1
            self._failed = (self._failed << 1 | 1) & _ALL
            if self._pause.until is not None:
                self._pause.failed(now)
                return False
            if self._in_row < self._limit and self._failed.bit_count() * 2 < WINDOW:
                return False
            self._pause.begin(now)
            return self._opened(why)

    def differed(self, now: float) -> bool:
        """Note a confirmed difference between both sides; return whether that opened it."""
        with self._lock:
            self._differed = (self._differed << 1 | 1) & _ALL
            if self._differed.bit_count() < self._most_differences or self._wrong_until is not None:
                return False
            self._wrong_until = now + self._most_s
            return self._opened(f"{self._differed.bit_count()} of the last {WINDOW} comparisons found a difference")

    def matched(self, now: float) -> None:
        """Note that both sides said the same."""
        if self._differed or self._wrong_until is not None:
            with self._lock:
                self._differed = self._differed << 1 & _ALL
                if self._wrong_until is not None and not self._differed and now >= self._wrong_until:
                    self._wrong_until = None
                    self._settle()

    def close(self) -> None:
        """Begin anew: a person says that it is mended."""
        with self._lock:
            self._in_row = self._failed = self._differed = 0
            self._wrong_until = None
            self._pause.end()
            self._settle()

    def begin_anew(self) -> None:
        """Go on in a forked process: whoever held the lock at the fork is not here to let go."""
        self._lock = Lock()

    def _opened(self, why: str) -> bool:
        self.is_calm = False
        self.opened += 1
        self.why = why
        return True

    def _settle(self) -> None:
        self.is_calm = not self._failed and not self.is_open
