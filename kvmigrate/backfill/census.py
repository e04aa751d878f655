"""Which keys a sweep saw, in eight bytes each: a scan may name a key twice, a report must not count it twice."""

from __future__ import annotations

import enum
from array import array
from collections.abc import Iterable, Sequence

from kvmigrate.backfill.names import Names, name_of, names_of, packed, with_contents


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
        self._seen = {place: Names() for place in Place}
        self._late: set[int] = set()
        self._gone: set[int] = set()

    def add(self, place: Place, keys: Iterable[str | bytes]) -> None:
        """Note keys of one place."""
        self.add_names(place, packed(map(name_of, keys)))

    def add_names(self, place: Place, names: bytes) -> None:
        """Note keys of one place by their names, as `packed` has them."""
        self._seen[place].add(names)

    def add_late(self, keys: Iterable[str]) -> None:
        """Note single keys as matched while others are looked up."""
        self._late.update(map(name_of, keys))

    def forget(self, keys: Iterable[str]) -> None:
        """Note that matched keys turned out to be gone: they count as vanished."""
        self._gone.update(map(name_of, keys))

    def is_matched(self, key: str) -> bool:
        """Return whether *key* was noted as matched."""
        name = name_of(key)
        return name in self._late or self._seen[Place.MATCHED].has_all([name])[0]

    def counts(self) -> dict[Place, int]:
        """Return the number of distinct keys of each place; each key is in one."""
        found = dict.fromkeys(Place, 0)
        self._seen[Place.MATCHED].add(packed(self._late))
        self._late = set()
        for parts in zip(*(self._seen[place].buckets() for place in Place), strict=True):
            known: set[int] = set()
            for place, part in zip(Place, parts, strict=True):
                here = set(part) - known
                known |= here
                found[place] += len(here)
                if place is Place.MATCHED:
                    gone = len(here & self._gone)
                    found[place] -= gone
                    found[Place.VANISHED] += gone
        return found


class KnownContents:
    """Items that the ledger holds with a certain content, so that a sweep passes over them.

    Eight bytes each, as in `Census`; a changed item is taken for a known one once in 10^12.
    """

    def __init__(self, names: bytes = b"", doubtful: Sequence[int] = ()) -> None:
        """Start with what another one's `to_bytes` and `doubtful` gave."""
        self._names = Names()
        self._names.add(names)
        self._doubtful: set[int] = set(doubtful)

    @property
    def doubtful(self) -> list[int]:
        """Names of the keys whose content is not known any more."""
        return list(self._doubtful)

    def add(self, items: Iterable[tuple[str, bytes]]) -> None:
        """Note pairs of key and content hash."""
        pairs = list(items)
        names = names_of([key for key, _ in pairs])
        self.add_names(packed(with_contents(names, [content for _, content in pairs])))

    def add_names(self, names: bytes) -> None:
        """Note names of keys with their contents, as `packed` has them."""
        self._names.add(names)

    def doubt(self, keys: Iterable[str]) -> None:
        """Note keys that were touched again: whatever was noted of them holds no more."""
        self._doubtful.update(map(name_of, keys))

    def doubt_names(self, names: bytes) -> None:
        """Note names of keys that were touched again, as `packed` has them."""
        self._doubtful.update(array("Q", names))

    def has_all(self, names: Sequence[int], contents: Iterable[bytes]) -> list[bool]:
        """Return for each key, by its name, whether the ledger holds the item with this content hash."""
        found = self._names.has_all(with_contents(names, contents))
        if not self._doubtful:
            return found
        return [is_known and name not in self._doubtful for is_known, name in zip(found, names, strict=True)]

    def to_bytes(self) -> bytes:
        """Return the names, for another process."""
        return self._names.to_bytes()
