"""How fast a sampler may go: a budget of keys a second, and less of it where the servers become slow. Pure."""

from __future__ import annotations

BATCH_S = 0.25
"""A batch is about so much of the budget, so that no second gets much more than its share."""

MOST_KEYS = 200
SLOW = 3.0
"""Answers that take so many times what they usually take say that somebody else needs the servers."""

_LEAST_SHARE = 1 / 16
_SLACK_S = 0.000_5
_DRIFT = 1.02
_RECOVERY = 1.25
_FIRST_WAIT_S, _LAST_WAIT_S = 1.0, 60.0


class Budget:
    """Tells how many keys come next and how long to pause after them.

    Attributes:
        share: Of the budget that is used now, as a fraction of 1.
    """

    def __init__(self, rate: float) -> None:
        """Allow *rate* keys a second."""
        self._rate, self.share = rate, 1.0
        self._usual_s: float | None = None
        self._failures = 0

    @property
    def keys(self) -> int:
        """How many keys the next batch may have."""
        return max(1, min(MOST_KEYS, int(self._rate * self.share * BATCH_S)))

    def pause_s(self, keys: int, took_s: float) -> float:
        """Return how long to pause after a batch of *keys* that took so long."""
        self._failures = 0
        each_s = took_s / max(1, keys)
        # What is usual may grow, but so slowly that a crowded minute does not become usual.
        usual_s = each_s if self._usual_s is None else min(each_s, self._usual_s * _DRIFT)
        is_slow = each_s > SLOW * usual_s + _SLACK_S
        self._usual_s = usual_s
        self.share = max(_LEAST_SHARE, self.share / 2) if is_slow else min(1.0, self.share * _RECOVERY)
        return max(0.0, keys / (self._rate * self.share) - took_s)

    def failed_s(self) -> float:
        """Return how long to wait after a side failed: twice as long each time in a row."""
        self._failures += 1
        return float(min(_LAST_WAIT_S, _FIRST_WAIT_S * 2 ** (self._failures - 1)))
