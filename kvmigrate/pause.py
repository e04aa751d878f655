"""How long something that failed is left alone: a pause that grows. Pure: whoever asks says what time it is."""

from __future__ import annotations

from collections.abc import Callable
from random import SystemRandom

_CHANCE = SystemRandom()
"""Not the program's own, whose numbers it may want to have again."""


class GrowingPause:
    """Ends with one try; where that fails, the next pause is twice as long.

    For one thread at a time, but for `until`, which any thread may read.

    Attributes:
        until: When the next try may pass; ``None`` while nothing is left alone.
    """

    def __init__(self, pause_s: float, most_s: float, jitter: Callable[[], float] | None = None) -> None:
        """Pause for *pause_s* first, later up to *most_s*.

        *jitter* gives numbers from 0 to 1, so that many processes do not come back at one moment.
        """
        self._pause_s, self._most_s, self._jitter = pause_s, most_s, jitter or _CHANCE.random
        self._rounds = 0
        self._is_trying = False
        self.until: float | None = None

    def begin(self, now: float) -> None:
        """Leave it alone from now on."""
        self.until = now + self._length()
        self._rounds, self._is_trying = self._rounds + 1, False

    def lets(self, now: float) -> bool:
        """Return whether to ask: always while nothing is left alone, else once at the end of each pause."""
        if self.until is None:
            return True
        if now < self.until:
            return False
        # The others wait for what this one finds; if it never says, the next pause ends all the same.
        self.until, self._is_trying = now + self._length(), True
        return True

    def failed(self, now: float) -> None:
        """Note that the try failed. What was under way before the pause began says nothing new."""
        if self._is_trying:
            self.begin(now)

    def succeeded(self) -> bool:
        """Note that the try went well; return whether it is left alone no longer. What was under way says nothing."""
        if self._is_trying:
            self.end()
        return self.until is None

    def end(self) -> None:
        """Leave it alone no longer."""
        self.until, self._rounds, self._is_trying = None, 0, False

    def _length(self) -> float:
        longest: float = min(self._most_s, self._pause_s * 2 ** min(self._rounds, 16))
        return longest * (0.5 + 0.5 * self._jitter())
