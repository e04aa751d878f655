"""Fenced stores for tests, one way to open each, so that one contract suite runs over all of them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Collection
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest
import redis
import redis.asyncio

from kvmigrate.model import Authority, Fence, Item, ItemKind, Logging
from kvmigrate.stores.fence_base import FencedStore, Swap
from kvmigrate.stores.redis_fence import RedisFencedStore
from kvmigrate.stores.redis_writer import RedisWriter
from kvmigrate.stores.redis_writer_async import AsyncRedisWriter
from kvmigrate.stores.url import parse_source_url
from kvmigrate.testing.memory_store import MemoryStore
from kvmigrate.testing.memory_writer import MemoryWriter
from kvmigrate.testing.memory_writer_async import AsyncMemoryWriter
from tests.fix_cluster import Cluster, only_shards

KINDS = (
    "redis",
    "redis-resp3",
    "redis-decoding",
    "redis-async",
    "redis-scripts",
    "redis6",
    "redis6-resp3",
    "valkey",
    "cluster",
    "cluster-async",
    "memory",
    "memory-async",
)
"""To add a store: a kind here, and what opens it in `open_stand`."""

ODD_KEYS = ("", " ", "a b", "a\nb", "é", "日本", "😀", "k" * 2000, "{tag}x", "x{")
WALKED_KEYS = tuple(f"{head}:{number}" for head in ("a", "a*", "a[b]", "a?", "a\\b") for number in range(20))
_KEYS = (*ODD_KEYS, *WALKED_KEYS, *"abcdfgh", *(f"k{n}" for n in range(60)), "basket:1", "kvm:1", "text", "gone", "key")
"""Whatever the contract writes. A cluster has a fence in the slots of these alone: in all of them is for others."""

OPEN = Fence(1, Authority.STORE, Logging.MIRROR)


class Blocking:
    """An async writer that is called without ``await``: each call runs on a loop of this object's own."""

    def __init__(self, writer: Any) -> None:
        """Call *writer*."""
        self._writer, self._loop = writer, asyncio.new_event_loop()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._writer, name)
        return lambda *args, **named: self._loop.run_until_complete(method(*args, **named))

    def __repr__(self) -> str:
        return repr(self._writer)

    @property
    def name(self) -> str:
        """The writer's."""
        return str(self._writer.name)

    def close(self) -> None:
        """Close the writer and the loop."""
        if not self._loop.is_closed():
            self._loop.run_until_complete(self._writer.close())
            self._loop.close()


class Fenced(NamedTuple):
    """One store, without any fence yet.

    Attributes:
        open_store: Of a scope.

        open_writer: Of a scope, without ``await``.
    """

    kind: str
    open_store: Callable[[str], FencedStore]
    open_writer: Callable[[str], Any]


class Stand:
    """A fenced store and its writer of one scope."""

    def __init__(self, fenced: Fenced, stack: ExitStack) -> None:
        """Open both; they close with *stack*."""
        self.fenced, self._stack = fenced, stack
        self.store, self.writer = self.scope("shop")

    def scope(self, name: str) -> tuple[FencedStore, Any]:
        """Open store and writer of another scope."""
        store, writer = self.fenced.open_store(name), self.fenced.open_writer(name)
        self._stack.callback(store.close)
        self._stack.callback(writer.close)
        return store, writer

    def begin(self, fence: Fence = OPEN) -> None:
        """Give every shard a fence."""
        shards = self.store.shards()
        assert len(shards) == self.store.create(shards, fence)

    def go(
        self,
        fence: Fence,
        *,
        epochs: Collection[int] = (1,),
        authorities: Collection[Authority] = (Authority.STORE,),
        **more: Any,
    ) -> int:
        """Swap the fence of all shards."""
        return self.store.swap(self.store.shards(), epochs=epochs, authorities=authorities, to=Swap(fence, **more))

    def shard(self, key: str) -> str:
        """Return the shard of a key."""
        [shard] = self.store.by_shard([key])
        return shard

    def seen(self, key: str) -> Any:
        """Observe one key."""
        return self.store.observe(self.shard(key), [key])

    def item(self, key: str) -> Item | None:
        """Return what stands under a key."""
        found: Item | None = self.seen(key).items[0]
        return found

    def mark(self, key: str) -> int | None:
        """Return the mark of a key."""
        found: int | None = self.seen(key).marks[0]
        return found


def text_item(key: str, value: bytes = b"1", expires_at_ms: int | None = None) -> Item:
    """Return a JSON item."""
    return Item(key, value, ItemKind.JSON, expires_at_ms)


def open_stand(kind: str, request: pytest.FixtureRequest, stack: ExitStack) -> Stand:
    """Open the stand of a kind, with the fixture that it needs."""
    if kind.startswith("memory"):
        return Stand(_in_memory(kind), stack)
    if kind.startswith("cluster"):
        return Stand(_of_cluster(kind, request.getfixturevalue("cluster"), stack), stack)
    fixture = {"redis6": "redis6_url", "redis6-resp3": "redis6_url", "valkey": "valkey_url"}.get(kind, "redis_url")
    url: str = request.getfixturevalue(fixture)
    if kind.endswith("resp3"):
        url += "?protocol=3"
    if kind == "redis-scripts":
        url = _without_functions(url, stack)
    if kind == "redis-decoding":
        return Stand(Fenced(kind, *_decoding(url, stack)), stack)

    def open_writer(scope: str) -> Any:
        return Blocking(AsyncRedisWriter(url, scope=scope)) if kind == "redis-async" else RedisWriter(url, scope=scope)

    return Stand(Fenced(kind, lambda scope: RedisFencedStore(url, scope=scope), open_writer), stack)


def _of_cluster(kind: str, cluster: Cluster, stack: ExitStack) -> Fenced:
    """Open everything by URL, or around clients of an application."""
    stack.enter_context(only_shards(_KEYS))
    if kind == "cluster":
        url = cluster.url
        return Fenced(
            kind, lambda scope: RedisFencedStore(url, scope=scope), lambda scope: RedisWriter(url, scope=scope)
        )
    client = stack.enter_context(cluster.client())

    def open_writer(scope: str) -> Any:
        port, password = cluster.masters[1].port, cluster.password
        known = redis.asyncio.RedisCluster(host="127.0.0.1", port=port, password=password, decode_responses=True)
        return Blocking(AsyncRedisWriter(known, scope=scope))

    return Fenced(kind, lambda scope: RedisFencedStore(client, scope=scope), open_writer)


def _in_memory(kind: str) -> Fenced:
    stores: dict[str, MemoryStore] = {}

    def open_store(scope: str) -> MemoryStore:
        return stores.setdefault(scope, MemoryStore())

    def open_writer(scope: str) -> Any:
        store = open_store(scope)
        return Blocking(AsyncMemoryWriter(store)) if kind == "memory-async" else MemoryWriter(store)

    return Fenced(kind, open_store, open_writer)


def _decoding(url: str, stack: ExitStack) -> tuple[Callable[[str], FencedStore], Callable[[str], Any]]:
    """Open everything around one client of an application, which decodes."""
    client = stack.enter_context(redis.Redis.from_url(url, decode_responses=True, protocol=3))
    return lambda scope: RedisFencedStore(client, scope=scope), lambda scope: RedisWriter(client, scope=scope)


def _without_functions(url: str, stack: ExitStack) -> str:
    """Return the URL of a user who must not use functions."""
    admin: Any = stack.enter_context(redis.Redis.from_url(url))
    password = secrets.token_hex(8)
    rights: Any = ["on", f">{password}", "~*", "+@all", "-function", "-fcall", "-fcall_ro"]
    admin.execute_command("ACL", "SETUSER", "plain", *rights)
    stack.callback(admin.execute_command, "ACL", "DELUSER", "plain")
    parsed = parse_source_url(url)
    return f"redis://plain:{password}@{parsed.host}{parsed.path}"
