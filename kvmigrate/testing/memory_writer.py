# This file is generated from memory_writer_async.py by tools/async_to_sync.py.
# Change that one instead.
"""Writers over a store and tables in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kvmigrate.errors import TargetError
from kvmigrate.model import Authority, Fence, Item, Version
from kvmigrate.stores.fence_base import KeyPage, Put, Seen, Swap
from kvmigrate.target.keyset_base import Keyset
from kvmigrate.target.live_base import Control
from kvmigrate.testing.memory_store import SHARD, MemoryStore
from kvmigrate.testing.memory_tables import MemoryTables


class MemoryWriter:
    """An `FencedWriter` over a `MemoryStore`."""

    def __init__(self, store: MemoryStore) -> None:
        """Write into *store*."""
        self._store = store

    @property
    def name(self) -> str:
        """The store's."""
        return self._store.name

    @property
    def is_one_shard(self) -> bool:
        """It is."""
        return True

    def __repr__(self) -> str:
        return f"MemoryWriter({self.name!r})"

    def fence(self, key: str) -> Fence | None:
        """As the seam."""
        return self._store.fences()[next(iter(self._store.by_shard([key])))]

    def observe(self, keys: Sequence[str]) -> Sequence[Seen]:
        """As the seam."""
        return [self._store.observe(SHARD, [key]) for key in keys]

    def get(self, key: str) -> Item | None:
        """As the seam."""
        return self._store.get(key)

    def put(
        self,
        item: Item,
        *,
        epoch: int,
        ttl_ms: int | None = None,
        keep_ttl: bool = False,
        expect: Item | None = None,
    ) -> Put | None:
        """As the seam."""
        return self._store.write(item.key, item, epoch=epoch, ttl_ms=ttl_ms, keep_ttl=keep_ttl, expect=expect)

    def create(self, item: Item, *, epoch: int, ttl_ms: int | None = None) -> Put | None:
        """As the seam."""
        return self._store.write(item.key, item, epoch=epoch, ttl_ms=ttl_ms, only_new=True)

    def delete(self, key: str, *, epoch: int, expect: Item | None = None) -> Put | None:
        """As the seam."""
        return self._store.write(key, None, epoch=epoch, expect=expect)

    def put_many(self, items: Sequence[Item], *, epoch: int) -> Sequence[Put]:
        """As the seam."""
        return self._store.write_many(items, epoch=epoch)

    def create_fence(self, key: str, fence: Fence) -> bool:
        """As the seam."""
        return self._store.create(list(self._store.by_shard([key])), fence) > 0

    def swap_fence(self, key: str, *, epoch: int, authority: Authority, to: Swap) -> bool:
        """As the seam."""
        shards = list(self._store.by_shard([key]))
        return self._store.swap(shards, epochs=[epoch], authorities=[authority], to=to) > 0

    def pass_unfenced(self, item: Item | None, key: str, *, ttl_ms: int | None = None) -> bool:
        """As the seam."""
        return self._store.write_unfenced(key, item, ttl_ms)

    def keys(self, *, prefix: str, position: str = "", limit: int = 500) -> KeyPage:
        """As the seam."""
        return KeyPage(*self._store.key_page(prefix=prefix, position=position, limit=limit))

    def fields(self, key: str, *, position: str = "", limit: int = 500) -> KeyPage:
        """As the seam."""
        every = [address for address in self._store.field_page(key) if address > position][: limit + 1]
        return KeyPage(every[:-1], every[-2]) if len(every) > limit else KeyPage(every, "")

    def close(self) -> None:
        """Nothing is open."""


class MemoryLiveWriter:
    """An `LiveWriter` over `MemoryTables`."""

    def __init__(self, tables: MemoryTables) -> None:
        """Write into *tables*."""
        self._tables = tables

    def control(self) -> Control | None:
        """As the seam."""
        return self._tables.control()

    def mirror(self, item: Item | None, key: str, version: Version, *, deadline_s: float) -> bool:
        """As the seam."""
        return self._tables.mirror(item, key, version, deadline_s)

    def put(
        self,
        item: Item | None,
        key: str,
        *,
        epoch: int,
        expect: Item | None = None,
        only_new: bool = False,
        deadline_s: float,
    ) -> Version | None:
        """As the seam."""
        return self._tables.put(item, key, epoch=epoch, expect=expect, only_new=only_new, deadline_s=deadline_s)

    def get(self, keys: Sequence[str], *, deadline_s: float) -> Sequence[Item | None]:
        """As the seam."""
        return self._tables.get(keys, deadline_s)

    def keys(self, *, after: str, limit: int) -> Sequence[str]:
        """As the seam."""
        return self._tables.keys(after=after, limit=limit)

    def now_ms(self, *, deadline_s: float) -> int:
        """The tables' clock."""
        self._tables.before("now_ms", deadline_s)
        return self._tables.now_ms()

    def version(self, key: str, *, deadline_s: float = 5.0) -> Version | None:
        """As the seam."""
        del deadline_s
        return self._tables.version(key)

    def begin_epoch(self) -> Control:
        """As the seam."""
        return self._tables.begin_epoch()

    def paid(self, key: str, version: Version) -> None:
        """As the seam."""
        self._tables.paid([(key, version)])

    def close(self) -> None:
        """Nothing is open."""


class MemoryRowQuery:
    """An `RowQuery` over nothing: tables in memory know no SQL."""

    def fetch(self, sql: str, values: Sequence[Any], *, deadline_s: float) -> Sequence[Mapping[str, Any]]:
        """Raise `TargetError`: the store answers, in stage live."""
        del values, deadline_s
        raise TargetError(
            f"tables in memory know no SQL: {sql[:60]!r}", hint="test readers by SQL with a PostgreSQL, or replace them"
        )

    def page(
        self, sql: str, values: Sequence[Any], keyset: Keyset, *, deadline_s: float
    ) -> Sequence[Mapping[str, Any]]:
        """As `fetch`."""
        del keyset
        return self.fetch(sql, values, deadline_s=deadline_s)

    def position(self, *, deadline_s: float) -> int:
        """As `fetch`."""
        self.fetch("its log", (), deadline_s=deadline_s)
        return 0

    def close(self) -> None:
        """Nothing is open."""
