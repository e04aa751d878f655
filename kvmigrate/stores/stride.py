"""How many keys to read at once, so that large values do not fill the memory."""

from __future__ import annotations

from collections.abc import Sequence

PAGE_BYTES = 16 * 1024 * 1024
"""What the values of one read, and of one page, may weigh where the store's values are about equally large."""

_FIRST_KEYS = 16
_GROWTH = 4


class Stride:
    """Learns from what was read how many keys to ask for next.

    Begins small and grows while values are small; one read may weigh more than
    `PAGE_BYTES` where values suddenly become much larger, and no second one does.

    Attributes:
        keys: Keys to read at once.

        page_keys: Never more than these.
    """

    def __init__(self, page_keys: int) -> None:
        """Begin; never read more than *page_keys* at once."""
        self.page_keys = page_keys
        self.keys = min(_FIRST_KEYS, page_keys)

    def saw(self, largest_bytes: int) -> None:
        """Note the largest value of the last read, in bytes."""
        fitting = PAGE_BYTES // max(largest_bytes, 1)
        self.keys = max(1, min(self.keys * _GROWTH, fitting, self.page_keys))


def largest_bytes(values: Sequence[object]) -> int:
    """Return the length of the longest of these values that are bytes."""
    return max((len(value) for value in values if isinstance(value, bytes)), default=0)
