"""Keys and values in memory, addressed as the tool does: whole keys, and fields of hashes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from kvmigrate.errors import SourceError
from kvmigrate.model import ADDRESS_SEPARATOR, Item, ItemKind

_WRITTEN = frozenset({ItemKind.JSON, ItemKind.HASH})
_LATEST_MS = 2**53 - 1


class MemoryItems:
    """Not for several threads at once.

    Attributes:
        now_ms: The clock, in milliseconds since 1970.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
        self._by_key: dict[str, Item] = {}

    def at(self, address: str) -> Item | None:
        """Return what stands at an address; a field expires with its hash."""
        key, separator, field = address.partition(ADDRESS_SEPARATOR)
        item = self._live(key)
        if not separator or item is None:
            return item
        value = fields_of(item).get(field.encode())
        return None if value is None else Item(address, value, ItemKind.JSON, item.expires_at_ms)

    def put(self, item: Item) -> Item:
        """Write an item whole, or a field of a hash; return it with its expiry.

        Raises:
            SourceError: its kind is not written, or its hash is none.
        """
        key, separator, field = item.key.partition(ADDRESS_SEPARATOR)
        if item.kind not in _WRITTEN:
            raise SourceError(f"an item of the kind {item.kind} cannot be written", key=item.key)
        if (item.expires_at_ms or 0) > _LATEST_MS:
            raise SourceError("no expiry is so late", key=item.key)
        if separator:
            held = self._live(key) or Item(key, {}, ItemKind.HASH)
            value = item.value
            if held.kind is not ItemKind.HASH or not isinstance(value, bytes):
                raise SourceError(f"{key!r} is no hash", key=item.key)
            item = item._replace(expires_at_ms=held.expires_at_ms)
            fields = dict(fields_of(held))
            fields[field.encode()] = value
            self._by_key[key] = held._replace(value=fields)
        else:
            self._by_key[key] = item
        return item

    def delete(self, address: str) -> None:
        """Delete a key, or a field; a hash without fields is gone."""
        key, separator, field = address.partition(ADDRESS_SEPARATOR)
        held = self._live(key)
        if held is None or not separator:
            self._by_key.pop(key, None)
            return
        left = {name: value for name, value in fields_of(held).items() if name != field.encode()}
        if left:
            self._by_key[key] = held._replace(value=left)
        elif held.kind is ItemKind.HASH:
            del self._by_key[key]

    def keys(self) -> Iterator[str]:
        """Yield the keys that there are, sorted."""
        for key in sorted(self._by_key):
            if self._live(key) is not None:
                yield key

    def clear(self) -> None:
        """Lose all."""
        self._by_key.clear()

    def _live(self, key: str) -> Item | None:
        item = self._by_key.get(key)
        if item is not None and item.expires_at_ms is not None and item.expires_at_ms <= self.now_ms():
            del self._by_key[key]
            return None
        return item


def fields_of(item: Item) -> Mapping[bytes, bytes]:
    """Return a hash's fields; none of anything else."""
    return item.value if item.kind is ItemKind.HASH and isinstance(item.value, Mapping) else {}
