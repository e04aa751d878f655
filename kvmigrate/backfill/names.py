"""Keys and contents in eight bytes each: what a run remembers of millions of items, and sends between processes."""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator

import xxhash

NAME_BYTES = 8
"""Of each name in `packed`."""

_BITS = 6
_BUCKETS = 1 << _BITS
_SHIFT = 64 - _BITS
_ENDS = [number << _SHIFT for number in range(1, _BUCKETS)]


def name_of(key: str | bytes) -> int:
    """Return the 64-bit hash by which a key is remembered."""
    return xxhash.xxh3_64_intdigest(key.encode() if isinstance(key, str) else key)


def names_of(keys: Iterable[str]) -> list[int]:
    """Return what `name_of` returns for each key."""
    return list(map(xxhash.xxh3_64_intdigest, map(str.encode, keys)))


def with_contents(names: Iterable[int], contents: Iterable[bytes]) -> list[int]:
    """Return the 64-bit hash of each key with its content: of the key's name and a content hash."""
    eights = _EIGHT_BYTES.iter_unpack(b"".join(contents))
    return [name ^ eight for name, (eight,) in zip(names, eights, strict=True)]


_EIGHT_BYTES = struct.Struct("<Q8x")


def packed(names: Iterable[int]) -> bytes:
    """Return names in order, as `Names.add` takes them."""
    return array("Q", sorted(names)).tobytes()


class Names:
    """A bag of names, in buckets, so that sorting them needs little memory beside them."""

    def __init__(self) -> None:
        """Start empty."""
        self._buckets = [array("Q") for _ in range(_BUCKETS)]
        self._is_sorted = True

    def __len__(self) -> int:
        return sum(map(len, self._buckets))

    def add(self, names: bytes) -> None:
        """Add names that `packed` made."""
        if not names:
            return
        self._is_sorted = False
        found, start = array("Q"), 0
        found.frombytes(names)
        for bucket, end in zip(self._buckets, _ENDS, strict=False):
            stop = bisect_left(found, end, start)
            if stop > start:
                bucket.extend(found[start:stop])
                start = stop
        self._buckets[-1].extend(found[start:])

    def has_all(self, names: Iterable[int]) -> list[bool]:
        """Return for each of *names* whether it was added. Sorts what is there on first use."""
        if not self._is_sorted:
            self.sort()
        buckets, found = self._buckets, list[bool]()
        for name in names:
            bucket = buckets[name >> _SHIFT]
            position = bisect_left(bucket, name)
            found.append(position < len(bucket) and bucket[position] == name)
        return found

    def sort(self) -> None:
        """Put the names in order, so that looking one up is fast."""
        self._buckets = [array("Q", sorted(bucket)) for bucket in self._buckets]
        self._is_sorted = True

    def buckets(self) -> Iterator[array[int]]:
        """Yield the names in parts that no name is in two of, in order of the parts."""
        yield from self._buckets

    def to_bytes(self) -> bytes:
        """Return all names as `add` takes them."""
        if not self._is_sorted:
            self.sort()
        return b"".join(bucket.tobytes() for bucket in self._buckets)
