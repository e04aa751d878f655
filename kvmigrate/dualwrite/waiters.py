"""When to ask again for waiting items whose obstacle is gone. Pure: the clock's value is given."""

from __future__ import annotations

SHORTEST_S = 0.5
LONGEST_S = 5.0
_GROWTH = 1.6


class Patience:
    """A pause that grows while nothing becomes due, and is short again when something might have."""

    def __init__(self) -> None:
        """The first question is asked at once."""
        self._pause_s, self._next = SHORTEST_S, 0.0

    def is_over(self, now: float) -> bool:
        """Whether it is time to ask."""
        return now >= self._next

    @property
    def is_long(self) -> bool:
        """Whether nothing became due for a while: time for dearer questions."""
        return self._pause_s >= LONGEST_S

    def asked(self, now: float, *, helped: bool) -> None:
        """Note that it was asked, and whether an item was settled by it."""
        self._pause_s = SHORTEST_S if helped else min(self._pause_s * _GROWTH, LONGEST_S)
        self._next = now + self._pause_s

    def stirred(self, now: float) -> None:
        """Note that rows came or went while something waits: that may be what it waits for."""
        self._pause_s = SHORTEST_S
        self._next = min(self._next, now + SHORTEST_S)
