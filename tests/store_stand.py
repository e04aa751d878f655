"""A store under test, over memory or real servers, with or without await: one way to speak to all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from kvmigrate.dualwrite.store import Store
from kvmigrate.dualwrite.store_async import AsyncStore
from kvmigrate.model import Item, Stage, WriteResult
from kvmigrate.stores.fence_base import FencedStore


class World(Protocol):
    """Where a store writes, moved and looked at from outside.

    Attributes:
        fenced: The store's own face.
    """

    fenced: FencedStore

    def open_store(self) -> Store:
        """Open a store of its own connections."""
        ...

    def open_async_store(self) -> AsyncStore:
        """As `open_store`."""
        ...

    def move(self, stage: Stage) -> None:
        """Go to a stage, as the controller does."""
        ...

    def tables(self, key: str) -> Item | None:
        """Return what the tables hold."""
        ...

    def owed(self) -> int:
        """Return how many keys the store is owed."""
        ...

    def flush(self) -> None:
        """Empty the store, fence and all."""
        ...

    def close(self) -> None:
        """Close what looks at it."""
        ...


class Plain:
    """A `Store`, or an `AsyncStore` in an event loop of its own, called without await."""

    def __init__(self, store: Store | AsyncStore) -> None:
        self._store: Any = store
        self._runner = asyncio.Runner() if isinstance(store, AsyncStore) else None

    def _call(self, method: Callable[..., Any], *args: Any) -> Any:
        return self._runner.run(method(*args)) if self._runner else method(*args)

    def get(self, key: str) -> Any:
        """As the store's."""
        return self._call(self._store.get, key)

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """As the store's."""
        found: dict[str, Any] = self._call(self._store.get_many, keys)
        return found

    def has_reached_tables(self, key: str) -> bool:
        """As the store's."""
        found: bool = self._call(self._store.has_reached_tables, key)
        return found

    def get_raw(self, key: str) -> Any:
        """As the store's."""
        return self._call(self._store.get_raw, key)

    def put(self, key: str, value: Any, ttl: Any = None) -> WriteResult:
        """As the store's."""
        result: WriteResult = self._call(self._store.put, key, value, ttl)
        return result

    def update(self, key: str, fn: Callable[[Any], Any]) -> WriteResult:
        """As the store's."""
        result: WriteResult = self._call(self._store.update, key, fn)
        return result

    def delete(self, key: str) -> WriteResult:
        """As the store's."""
        result: WriteResult = self._call(self._store.delete, key)
        return result

    def put_many(self, mapping: Mapping[str, Any]) -> dict[str, WriteResult]:
        """As the store's."""
        results: dict[str, WriteResult] = self._call(self._store.put_many, mapping)
        return results

    def scan(self, prefix: str = "") -> list[str]:
        """Every key that the store's scan yields."""
        if self._runner is None:
            return list(self._store.scan(prefix))

        async def collect() -> list[str]:
            return [key async for key in self._store.scan(prefix)]

        return self._runner.run(collect())

    def drained(self) -> bool:
        """Whether the companion did all that it was given."""
        return all(way.companion.flush() for way in self._store._by_process.values())

    def forget_nothing(self) -> None:
        """Keep what the store believes from being corrected by its companion: only refusals may."""
        for way in self._store._by_process.values():
            way.companion.heard = lambda _: None

    def close(self) -> None:
        """Close the store and its loop."""
        self._call(self._store.close)
        if self._runner:
            self._runner.close()
