"""What the store holds under some keys now, and whether the tables could have it already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from kvmigrate.model import Item
from kvmigrate.stores.base import KVSource
from kvmigrate.stores.fence_base import FencedStore


class Glimpse(NamedTuple):
    """One key at one moment.

    Attributes:
        item: ``None`` where the store has nothing.

        is_marked: Its newest write was not in the tables yet.
    """

    item: Item | None
    is_marked: bool = False


class Sight(Protocol):
    """Looks at keys of the store. Every method may raise `SourceError`; one thread at a time.

    Attributes:
        is_live: The store tells which keys are marked; otherwise none ever is.
    """

    is_live: bool

    def look(self, keys: Sequence[str]) -> list[Glimpse]:
        """Return what stands under *keys*, in their order; each with its mark, as of one moment."""
        ...


class StoreSight:
    """A store that is not migrated while it is written. Implements `Sight`."""

    is_live = False

    def __init__(self, source: KVSource) -> None:
        self._source = source

    def look(self, keys: Sequence[str]) -> list[Glimpse]:
        """Return what stands under *keys*."""
        return [Glimpse(item) for item in self._source.get_many(keys)]


class FencedSight:
    """A store with fence and marks. Implements `Sight`."""

    is_live = True

    def __init__(self, store: FencedStore) -> None:
        self._store = store

    def look(self, keys: Sequence[str]) -> list[Glimpse]:
        """Return what stands under *keys*, and which of them are marked. Raises `FenceMissingError`, too."""
        found: dict[str, Glimpse] = {}
        for shard, own in self._store.by_shard(keys).items():
            seen = self._store.observe(shard, own)
            for key, item, mark in zip(own, seen.items, seen.marks, strict=True):
                found[key] = Glimpse(item, mark is not None)
        return [found[key] for key in keys]

    def marks(self) -> int:
        """Return how many keys are marked."""
        return self._store.marks()
