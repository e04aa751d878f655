"""Which keys a sweep saw, in eight bytes each: a scan may name a key twice, a report must not count it twice."""

from __future__ import annotations

import enum
from array import array
from bisect import bisect_left
from collections.abc import Iterable

import xxhash

_BUCKETS = 256


def _name(key: str | bytes) -> int:
    return xxhash.xxh3_64_intdigest(key.encode() if isinstance(key, str) else key)


class Place(enum.IntEnum):
    """Where a key belongs; of several places that a sweep found for one key the first counts."""

    MATCHED = 0
    LEFT = 1
    UNMATCHED = 2
    VANISHED = 3


class Census:
    """Distinct keys by place.

    A key is remembered as a 64-bit hash. Two keys fall together once in 10^5 runs of
    ten million keys each; then one key is counted less, and nothing is written wrongly:
    only a deletion may be noticed by the next run instead of this one.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._seen = {place: [array("Q") for _ in range(_BUCKETS)] for place in Place}
        self._is_sorted = False
        self._late: set[int] = set()
        self._gone: set[int] = set()

    def add(self, place: Place, keys: Iterable[str | bytes]) -> None:
        """Note keys of one place."""
        buckets = self._seen[place]
        for key in keys:
            name = _name(key)
            buckets[name % _BUCKETS].append(name)
            if self._is_sorted and place is Place.MATCHED:
                self._late.add(name)

    def forget(self, keys: Iterable[str]) -> None:
        """Note that matched keys turned out to be gone: they count as vanished."""
        self._gone.update(map(_name, keys))

    def is_matched(self, key: str) -> bool:
        """Return whether *key* was noted as matched. Sorts what is there on first use."""
        if not self._is_sorted:
            self._sort()
        name = _name(key)
        bucket = self._seen[Place.MATCHED][name % _BUCKETS]
        position = bisect_left(bucket, name)
        return (position < len(bucket) and bucket[position] == name) or name in self._late

    def counts(self) -> dict[Place, int]:
        """Return the number of distinct keys of each place; each key is in one."""
        found = dict.fromkeys(Place, 0)
        for number in range(_BUCKETS):
            known: set[int] = set()
            for place in Place:
                here = set(self._seen[place][number]) - known
                known |= here
                found[place] += len(here)
                if place is Place.MATCHED:
                    gone = len(here & self._gone)
                    found[place] -= gone
                    found[Place.VANISHED] += gone
        return found

    def _sort(self) -> None:
        for buckets in self._seen.values():
            for number, bucket in enumerate(buckets):
                buckets[number] = array("Q", sorted(bucket))
        self._is_sorted = True


class KnownContents:
    """Items that the ledger holds with a certain content, as this run itself wrote them.

    Lets a second sweep pass over them without asking the database. Eight bytes each,
    as in `Census`; a changed item is taken for a known one once in 10^12.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._names = [array("Q") for _ in range(_BUCKETS)]
        self._doubtful: set[int] = set()
        self._is_sorted = False

    def add(self, items: Iterable[tuple[str, bytes]]) -> None:
        """Note pairs of key and content hash."""
        self._is_sorted = False
        for key, content in items:
            name = _name(key.encode() + content)
            self._names[name % _BUCKETS].append(name)

    def doubt(self, keys: Iterable[str]) -> None:
        """Note keys that were touched again: whatever was noted of them holds no more."""
        self._doubtful.update(map(_name, keys))

    def has(self, key: str, content: bytes) -> bool:
        """Return whether the ledger holds the item with this content."""
        if not self._is_sorted:
            self._names = [array("Q", sorted(bucket)) for bucket in self._names]
            self._is_sorted = True
        name = _name(key.encode() + content)
        bucket = self._names[name % _BUCKETS]
        position = bisect_left(bucket, name)
        found = position < len(bucket) and bucket[position] == name
        return found and not (self._doubtful and _name(key) in self._doubtful)
