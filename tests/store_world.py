"""Where the stores under test write: memory, or a Redis and a PostgreSQL, moved as the controller and a relay do."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import redis

from kvmigrate.config import Settings
from kvmigrate.dualwrite.plan import PLANS
from kvmigrate.dualwrite.store import Store
from kvmigrate.dualwrite.store_async import AsyncStore
from kvmigrate.dualwrite.write import Patience
from kvmigrate.migration import Migration
from kvmigrate.migration_async import AsyncMigration
from kvmigrate.model import Authority, Fence, Item, Stage
from kvmigrate.stores.fence_base import FencedStore, Swap
from kvmigrate.stores.redis_fence import RedisFencedStore
from kvmigrate.target.base import Batch, Label
from kvmigrate.target.live_base import LIVE_RUN
from kvmigrate.target.live_install import install_live
from kvmigrate.target.live_postgres import PostgresLiveTarget
from kvmigrate.target.live_writer import LiveWriter
from kvmigrate.target.postgres import PostgresTarget
from kvmigrate.testing import MemoryMigration

CLIENTS = """
version: 1
name: shop
entities:
  client:
    keys: ["client:{id}"]
    table: clients
    expires: column
    columns:
      id: {key: id, type: text}
      n:  {path: n, type: bigint}
    primary_key: [id]
"""
"""One entity with an expiry, for whoever needs no more."""

PARTS = """
version: 1
name: shop
entities:
  client:
    keys: ["client:{id}"]
    table: clients
    columns:
      id: {key: id, type: text}
      n:  {path: n, type: bigint}
    primary_key: [id]
    children:
      parts:
        each: parts
        parent: {client_id: id}
        columns: {position: {ordinal: true}, n: {value: true, type: bigint}}
"""
"""One entity with children."""


class MemoryWorld:
    """The world of stores in memory."""

    def __init__(self, mapping: str) -> None:
        self.migration = MemoryMigration(mapping, Stage.DUALWRITE)
        self.fenced: FencedStore = self.migration.memory

    def open_store(self) -> Store:
        """As `World.open_store`."""
        return Store(self.migration.lens, self.migration.connect)

    def open_async_store(self) -> AsyncStore:
        """As `World.open_async_store`."""
        return AsyncStore(self.migration.lens, self.migration.connect_async)

    def move(self, stage: Stage) -> None:
        """As `World.move`."""
        self.migration.move(stage)

    def tables(self, key: str) -> Item | None:
        """As `World.tables`."""
        return self.migration.tables.get([key], 1)[0]

    def owed(self) -> int:
        """As `World.owed`."""
        return len(self.migration.tables.owed_keys())

    def flush(self) -> None:
        """As `World.flush`."""
        self.migration.memory.lose_all()

    def close(self) -> None:
        """Nothing is open."""


PATIENT = Patience(mirror_s=10.0)
"""The contract is no matter of time, and a machine may be busy."""


class RealWorld:
    """The world of stores over a Redis and a PostgreSQL."""

    def __init__(self, mapping: str, folder: Path, redis_url: str, database: str) -> None:
        file = folder / "mapping.yaml"
        file.write_text(mapping)
        self.settings = Settings(redis_url, database, file)
        self._stack = ExitStack()
        migration = self._stack.enter_context(Migration.open(self.settings))
        self._lens, scope = migration.lens, migration.mapping.name
        with PostgresTarget.connect(database, self._lens) as target:
            target.install()
            target.ensure_tables()
        install_live(database, self._lens)
        self._pg = self._stack.enter_context(psycopg.connect(database, autocommit=True))
        self._url = redis_url
        self._target = PostgresLiveTarget(database, self._lens)
        self._stack.callback(self._target.close)
        self._reader = LiveWriter(database, self._lens)
        self._stack.callback(self._reader.close)
        self.fenced: FencedStore = RedisFencedStore(redis_url, scope=scope)
        self._stack.callback(self.fenced.close)
        self._shards = self.fenced.shards()
        self._control(epoch=1, authority=Authority.STORE, stage=Stage.DUALWRITE)
        self.fenced.create(self._shards, Fence(1, Authority.STORE, PLANS[Stage.DUALWRITE].log))

    def open_store(self) -> Store:
        """As `World.open_store`."""
        store = Migration.open(self.settings).store
        store._patience = PATIENT
        return store

    def open_async_store(self) -> AsyncStore:
        """As `World.open_async_store`."""
        store = AsyncMigration.open(self.settings).store
        store._patience = PATIENT
        return store

    def move(self, stage: Stage) -> None:
        """As `World.move`."""
        control = self._target.control()
        epoch, before, after = control.epoch, PLANS[control.stage].authority, PLANS[stage].authority
        if control.stage is Stage.COMPLETE:
            self._swap(Fence(epoch, Authority.TABLES))
        if before is not after and after is Authority.TABLES:
            self._swap(Fence(epoch + 1, Authority.SEALED))
        if before is not after and after is Authority.STORE:
            self._control(epoch=epoch + 1, authority=Authority.SEALED, stage=control.stage)
        self._settle()
        self._control(epoch=epoch + 1, authority=after, stage=stage)
        authority = Authority.RETIRED if stage is Stage.COMPLETE else after
        self._swap(Fence(epoch + 1, authority, PLANS[stage].log), clears=True)

    def tables(self, key: str) -> Item | None:
        """As `World.tables`."""
        return self._reader.get([key], deadline_s=10)[0]

    def owed(self) -> int:
        """As `World.owed`."""
        return self._target.owes()

    def keep(self, key: str) -> int:
        """Waive a quarantined item; return how many that were."""
        return self._target.waive([key], epoch=self._target.control().epoch)

    def flush(self) -> None:
        """As `World.flush`."""
        with redis.Redis.from_url(self._url) as client:
            client.flushdb()

    def close(self) -> None:
        """Close all connections."""
        self._stack.close()

    def _control(self, *, epoch: int, authority: Authority, stage: Stage) -> None:
        self._pg.execute(
            "UPDATE kvmigrate.control SET epoch = %s, authority = %s, stage = %s", [epoch, authority.value, stage.value]
        )

    def _swap(self, fence: Fence, *, clears: bool = False) -> None:
        now = self.fenced.fences()[self._shards[0]]
        assert now is not None
        opens_store = clears and fence.authority is Authority.STORE
        if fence.authority is Authority.SEALED:
            fence = fence._replace(log=now.log)
        swap = Swap(
            fence,
            clock_epoch=fence.epoch if opens_store else None,
            clear_marks=clears and fence.authority is Authority.TABLES,
            clear_guard=opens_store,
        )
        assert len(self._shards) == self.fenced.swap(
            self._shards, epochs=[now.epoch], authorities=[now.authority], to=swap
        )

    def _settle(self) -> None:
        """Do what a relay does, once: the tests leave nothing that waits."""
        for shard in self.fenced.shards_with_marks():
            marks = self.fenced.marked(shard, limit=10_000)
            seen = self.fenced.observe(shard, [mark.key for mark in marks])
            items = tuple(item for item in seen.items if item is not None)
            self._target.apply(Batch(items, self._lens.page(items), Label(LIVE_RUN, seen.version)))
            gone = [mark.key for mark, item in zip(marks, seen.items, strict=True) if item is None]
            self._target.remove(gone, seen.version)
            self.fenced.ack(shard, marks)
        for key, version, item in self._target.owed(limit=10_000):
            [shard] = self.fenced.by_shard([key])
            self.fenced.reverse(shard, key, version, item)
            self._target.paid([(key, version)])


def held(item: Item | None) -> Any:
    """Return what an item says, as JSON or as fields; ``None`` for none."""
    if item is None:
        return None
    return json.loads(item.value) if isinstance(item.value, bytes) else item.value
