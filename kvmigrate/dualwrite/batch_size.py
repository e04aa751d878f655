"""How many keys to look at in one step, so that large values do not fill the memory. Pure."""

from __future__ import annotations

MOST_KEYS = 1_000
"""Keys of one observation at most: enough to hide round trips, and a store answers nobody else meanwhile."""

MOST_BYTES = 8 * 1024 * 1024
"""Bytes of values that one observation should come to."""

FIRST_KEYS = 200
"""Before anything is known of the values."""

_GROWTH = 4


class BatchSize:
    """Follows the values that were met: few keys where they are large, many where they are small.

    Attributes:
        keys: How many to ask for next.
    """

    def __init__(self, *, most_keys: int = MOST_KEYS, most_bytes: int = MOST_BYTES) -> None:
        """Begin with a few."""
        self._most_keys, self._most_bytes = most_keys, most_bytes
        self.keys = min(FIRST_KEYS, most_keys)

    def met(self, keys: int, size_bytes: int) -> None:
        """Note that so many keys had values of so many bytes together."""
        if not keys:
            return
        fitting = self._most_bytes * keys // max(size_bytes, 1)
        self.keys = max(1, min(fitting, self.keys * _GROWTH, self._most_keys))
