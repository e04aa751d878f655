"""A live shop with both its sides: a fenced Redis that is written, tables that follow, and what brings them there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest
import redis

from kvmigrate.dualwrite.applier import Applier
from kvmigrate.model import Authority, Fence, Item, Logging, Version
from kvmigrate.stores.fence_base import Swap
from kvmigrate.stores.redis_fence import RedisFencedStore
from kvmigrate.stores.redis_writer import RedisWriter
from kvmigrate.target.live_postgres import PostgresLiveTarget
from tests.fix_live import Live
from tests.fix_migration import item

ALL_TIME_S = 60.0
"""Long enough for a busy machine."""


class Follow:
    """A store with a fence, and the tables of `Live`.

    Attributes:
        url: Of the store.

        live: The tables.

        store, writer: The store for the relay, and for an application.

        client: The store as one who knows nothing of any of this.

        stack: Closes what a test opens.
    """

    def __init__(self, url: str, live: Live, stack: ExitStack) -> None:
        self.url, self.live, self.lens, self.stack = url, live, live.lens, stack
        self.scope = self.lens.mapping.name
        self.store, self.writer = self.open_store(), RedisWriter(url, scope=self.scope)
        stack.callback(self.writer.close)
        self.client = stack.enter_context(redis.Redis.from_url(url))
        self.begin(Fence(1, Authority.STORE, Logging.MIRROR))

    @property
    def shard(self) -> str:
        """The one shard."""
        [shard] = self.store.shards()
        return shard

    def open_store(self) -> RedisFencedStore:
        """One more store for another part."""
        store = RedisFencedStore(self.url, scope=self.scope)
        self.stack.callback(store.close)
        return store

    def open_target(self) -> PostgresLiveTarget:
        """One more target for another part."""
        target = PostgresLiveTarget(self.live.url, self.lens)
        self.stack.callback(target.close)
        return target

    def applier(self, *, grace_s: float = 0.0) -> Applier:
        """An applier that leaves nobody time, unless told to."""
        return Applier(self.open_store(), self.open_store(), self.open_target(), self.lens, grace_s=grace_s)

    def begin(self, fence: Fence) -> None:
        """Give the store this fence, whatever it had, and the control row the same place."""
        self.store.create(self.store.shards(), fence)
        self.go(fence)
        self.live.open(fence.epoch, Authority.STORE if fence.authority is Authority.SEALED else fence.authority)

    def go(self, fence: Fence, *, clock_epoch: int | None = None) -> None:
        """Move the store's fence alone; by default its clock goes along unless it is sealed."""
        if clock_epoch is None and fence.authority is not Authority.SEALED:
            clock_epoch = fence.epoch
        done = self.store.swap(
            self.store.shards(), epochs=range(10), authorities=list(Authority), to=Swap(fence, clock_epoch)
        )
        assert len(self.store.shards()) == done

    def put(self, *items: Item, epoch: int = 1) -> Version:
        """Write items as the application does; nobody mirrors. Return the last version."""
        version = None
        for each in items:
            done = self.writer.put(each, epoch=epoch)
            assert done is not None
            version = done.version
        assert version is not None
        return version

    def set(self, values: Mapping[str, object], *, epoch: int = 1) -> Version:
        """As `put`, from keys and JSON values."""
        return self.put(*(item(key, value) for key, value in values.items()), epoch=epoch)

    def delete(self, *keys: str, epoch: int = 1) -> None:
        """Delete keys as the application does."""
        for key in keys:
            self.writer.delete(key, epoch=epoch)

    def marked(self) -> list[str]:
        """The keys that are marked, in order."""
        return sorted(mark.key for mark in self.store.marked(self.shard, limit=100_000))

    def stored(self, key: str) -> Any:
        """The JSON value under a key; ``None`` where there is none."""
        found = self.writer.get(key)
        return None if found is None or not isinstance(found.value, bytes) else json.loads(found.value)


@pytest.fixture
def follow(redis_url: str, live: Live) -> Iterator[Follow]:
    """The shop at epoch 1: the store open and logged, the tables empty."""
    with ExitStack() as stack:
        yield Follow(redis_url, live, stack)
