"""The whole store, item by item."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from kvmigrate.demo.celebration import beside, goods, people, sales
from kvmigrate.demo.celebration.manifest import Manifest
from kvmigrate.demo.celebration.shop import Shop
from kvmigrate.model import Item

MIN_SIZE = 500
"""Below this not every defect has a place."""

NOW_MS = 2_082_758_400_000
"""2036-01-01 UTC: the shop's "now", far ahead, so that no TTL has passed when it is loaded."""


class Celebration:
    """The shop's store as an iterable of items, with the books of what is wrong in it.

    The same *seed*, *size* and *now_ms* make the same items in the same order. Memory
    grows with the ids that later items name (about 100 bytes per gift and employee),
    not with the items. Iterate once; *manifest* is complete at the end.

    Args:
        size: Keys in all, at least `MIN_SIZE`.

        jsonb: Leave out values that a jsonb column refuses (not JSON, U+0000, half a
            surrogate pair); more analytics events take their place.

        now_ms: The shop's present; expiries lie behind it, all other times before it.

    Raises:
        ValueError: *size* is below `MIN_SIZE`.
    """

    def __init__(self, seed: int, size: int, *, jsonb: bool = False, now_ms: int = NOW_MS) -> None:
        if size < MIN_SIZE:
            raise ValueError(f"a shop has at least {MIN_SIZE} keys, so that every defect has a place; got {size}")
        self._shop = Shop(seed, size, jsonb=jsonb, now_ms=now_ms)
        self._size = size

    @property
    def manifest(self) -> Manifest:
        """The books; complete when the iteration has ended."""
        return self._shop.manifest

    def __iter__(self) -> Iterator[Item]:
        """Yield the items, parents first; a real store gives them back in any order."""
        shop = self._shop
        yield from people.clients(shop)
        yield from people.sites(shop)
        yield from goods.catalogs(shop)
        yield from goods.gifts(shop)
        yield from people.employees(shop)
        yield from sales.orders(shop)
        yield from sales.exclusions(shop)
        yield from sales.mails(shop)
        yield from beside.id_lists(shop)
        yield from beside.left_in_kv(shop)
        yield from beside.unmatched(shop)
        yield from sales.events(shop, self._size - self.manifest.scanned)


def generate(seed: int, size: int, *, jsonb: bool = False) -> Iterator[Item]:
    """Yield the items of the shop *seed* with *size* keys. See `Celebration`."""
    return iter(Celebration(seed, size, jsonb=jsonb))


def manifest(seed: int, size: int, *, jsonb: bool = False) -> Manifest:
    """Return the books of the shop *seed* with *size* keys, made without keeping its items."""
    shop = Celebration(seed, size, jsonb=jsonb)
    deque(shop, maxlen=0)
    return shop.manifest
