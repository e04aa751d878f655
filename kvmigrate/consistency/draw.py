"""Which keys are drawn for a sample: each with the same chance, and the same ones again from the same seed. Pure.

No store gives its keys at random: RANDOMKEY of a Redis prefers keys in thinly filled parts of its table, and a SCAN
from anywhere returns neighbours. So every name is passed by once (names only, no values), and the keys with the lowest
keyed hash are drawn. Whether a key is drawn then depends on its name and the seed alone: not on its place, its age, its
value, how often a scan names it, nor which side knows it. In the order of their hashes the keys are a random
permutation, so that any beginning of it is a fair sample, too, and more can be drawn later without starting anew.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

import xxhash


def place_of(key: str, seed: int) -> int:
    """Return where *key* stands in the random order of *seed*: a number of 64 bits."""
    return xxhash.xxh3_64_intdigest(key.encode(), seed)


class Draw:
    """Draws keys from a stream of names. Memory grows with *size*, not with the stream.

    Attributes:
        seed: What decides which keys are drawn.
    """

    def __init__(self, size: int, seed: int) -> None:
        """Draw *size* keys at most; *seed* has up to 64 bits."""
        self.seed, self._size = seed, size
        # Negative, as the heap has the lowest first, and the highest hash is the first to go.
        self._heap: list[tuple[int, str]] = []
        self._keys: set[str] = set()

    def offer(self, keys: Iterable[str]) -> None:
        """Pass names by; a name that comes twice counts once."""
        heap, drawn, size, seed = self._heap, self._keys, self._size, self.seed
        for key in keys:
            place = -place_of(key, seed)
            if len(heap) < size:
                if key not in drawn:
                    heapq.heappush(heap, (place, key))
                    drawn.add(key)
            elif place > heap[0][0] and key not in drawn:
                drawn.add(key)
                drawn.discard(heapq.heapreplace(heap, (place, key))[1])

    def keys(self) -> list[str]:
        """Return the keys drawn so far, in a random order that the seed decides."""
        return [key for _, key in sorted(self._heap, reverse=True)]
