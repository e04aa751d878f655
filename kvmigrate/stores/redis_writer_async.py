"""An application's own writes and reads of a Redis that is migrated meanwhile. The seam: `fence_base`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio import Redis, RedisCluster

from kvmigrate.errors import AmbiguousWriteError, SourceError
from kvmigrate.model import ADDRESS_SEPARATOR, Authority, Fence, Item, ItemKind, Logging, Version
from kvmigrate.stores.fence_base import KeyPage, Put, Seen, Swap
from kvmigrate.stores.redis_call_async import AsyncRedisCaller
from kvmigrate.stores.redis_change import (
    Argument,
    Arguments,
    absent,
    change_to,
    change_to_nothing,
    condition_of,
    escape_glob,
    expiry_of,
    fence_fields,
    fence_in,
    is_address,
    item_at,
    place_of,
    swap_arguments,
    to_bytes,
)
from kvmigrate.stores.redis_clients_async import cluster_at, place_at
from kvmigrate.stores.redis_cluster_call_async import AsyncClusterCaller
from kvmigrate.stores.redis_nodes_async import AsyncRedisNodes
from kvmigrate.stores.redis_script import script
from kvmigrate.stores.redis_shards import AloneKeys, ShardKeys, SlotKeys, is_own

_PUT, _DELETE, _PUT_MANY = script("put"), script("delete"), script("put_many")
_CREATE, _SWAP, _PASS = script("create"), script("swap"), script("pass_unfenced")
_FENCE, _OBSERVE, _READ, _WRITE = script("fence"), script("observe"), script("read"), script("write")
_LOGS = tuple(Logging)


def _no_json(key: str) -> bool:
    del key
    return False


class AsyncRedisWriter:
    """One Redis, the master that Sentinel names, or a cluster, with the fence of one scope.

    Safe to share between threads, tasks and forked processes, as the driver's pool is. A write is one round trip.
    """

    def __init__(
        self, where: str | Redis | RedisCluster, *, scope: str, is_json: Callable[[str], bool] = _no_json
    ) -> None:
        """Write to a URL, or through a client that stays open; nothing is connected yet.

        Args:
            where: ``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://``, ``redis+cluster://``, or a client.
                Of a client its pool, time-outs and protocol are used, but neither its retries nor its decoding; of a
                client of a cluster its addresses, login and time-outs, with connections of the writer's own.

            scope: The mapping's name.

            is_json: Whether a key is written as RedisJSON rather than as a string.

        Raises:
            ConfigError: the URL is wrong.
        """
        cluster = cluster_at(where)
        self._caller: AsyncRedisCaller | AsyncClusterCaller
        self._shards: AloneKeys | SlotKeys
        if cluster is not None:
            self._name, self._shards = cluster.name, SlotKeys(scope)
            self._caller = AsyncClusterCaller(AsyncRedisNodes(cluster))
        else:
            place = place_at(where)
            self._name, self._shards = place.name, AloneKeys(scope)
            self._caller = AsyncRedisCaller(place)
        self._is_json = None if is_json is _no_json else is_json

    @property
    def name(self) -> str:
        """The server without secrets."""
        return self._name

    @property
    def is_one_shard(self) -> bool:
        """Whether it is a server alone, and no cluster."""
        return isinstance(self._shards, AloneKeys)

    def __repr__(self) -> str:
        return f"AsyncRedisWriter({self.name!r})"

    async def fence(self, key: str) -> Fence | None:
        """Return the fence of the key's shard."""
        found = await self._caller.call(_FENCE, 2, *self._keys_of(key)[:2])
        return None if found is None else fence_in(found)[0]

    async def observe(self, keys: Sequence[str]) -> Sequence[Seen]:
        """Return one `Seen` per key, each for that key alone; those of one shard are of one moment."""
        places = [place_of(key) for key in keys]
        seen: dict[str, Seen] = {}
        for shard, numbers in self._by_shard([raw for raw, _ in places]).items():
            raw, parts = [places[number][0] for number in numbers], [places[number][1] for number in numbers]
            found = await self._caller.call(_OBSERVE, 3 + len(raw), *shard[:3], *raw, *parts)
            fence, version = fence_in(found)
            for number, each in zip(numbers, found[7:], strict=True):
                key = keys[number]
                seen[key] = Seen(fence, version, (item_at(key, each),), (each[3] or None,))
        return [seen[key] for key in keys]

    async def get(self, key: str) -> Item | None:
        """Return what stands under the key, as a plain read: no fence is looked at."""
        raw, part = place_of(key)
        [found] = await self._caller.call(_READ, 1, raw, part)
        return item_at(key, found)

    async def put(
        self,
        item: Item,
        *,
        epoch: int,
        ttl_ms: int | None = None,
        keep_ttl: bool = False,
        expect: Item | None = None,
    ) -> Put | None:
        """Write the item whole; as `AsyncFencedWriter.put` says.

        The expiry of a field is its hash's: a field leaves it as it is.
        """
        key, value, kind, expires_at_ms = item
        is_plain = expect is None and kind is ItemKind.JSON and ADDRESS_SEPARATOR not in key and self._is_json is None
        if is_plain and expires_at_ms is None and ttl_ms is None and not keep_ttl:
            change: Any = (b"SET", b"", b"", 1, value)
            raw = key.encode("utf-8", "surrogateescape")
        else:
            raw, change = self._change(item, expiry_of(item, ttl_ms, keep=keep_ttl))
            if expect is not None:
                change = (*change, *condition_of(expect))
        shard = self._shards.of(raw)[:3]
        return _put(epoch, await self._caller.call(_PUT, 4, *shard, raw, epoch, *change, is_write=True))

    async def create(self, item: Item, *, epoch: int, ttl_ms: int | None = None) -> Put | None:
        """Write the item only if nothing stands under its key; ``None`` if something does."""
        raw, change = self._change(item, expiry_of(item, ttl_ms, keep=False))
        rest = (4, *self._shards.of(raw)[:3], raw, epoch, *change, *absent(item.key))
        return _put(epoch, await self._caller.call(_PUT, *rest, is_write=True))

    async def delete(self, key: str, *, epoch: int, expect: Item | None = None) -> Put | None:
        """Delete the key, whether it exists or not; ``None`` where *expect* was not met."""
        raw, change = change_to_nothing(key)
        condition = () if expect is None else condition_of(expect)
        rest = (4, *self._shards.of(raw)[:3], raw, epoch, *change, *condition)
        return _put(epoch, await self._caller.call(_DELETE, *rest, is_write=True))

    async def put_many(self, items: Sequence[Item], *, epoch: int) -> Sequence[Put]:
        """Write items, those of one shard in one step with one n, each with its own expiry.

        Several shards one after the other. Where the fence of one refuses, those before it are written, and marked;
        `StaleError` and the like then say nothing of them.

        Raises:
            AmbiguousWriteError: a shard failed, or its answer was lost, after others had been written, too.
        """
        changes = [self._change(item, expiry_of(item, None, keep=False)) for item in items]
        puts: dict[int, Put] = {}
        for shard, numbers in self._by_shard([key for key, _ in changes]).items():
            keys = [changes[number][0] for number in numbers]
            flat = [part for number in numbers for part in changes[number][1]]
            try:
                n, log, *expiries = await self._caller.call(
                    _PUT_MANY, 3 + len(keys), *shard[:3], *keys, epoch, *flat, is_write=True
                )
            except SourceError as exc:
                if not puts:
                    raise
                hint = "read the keys, then decide which to write again"
                raise AmbiguousWriteError(f"some of the keys were written: {exc}", hint=hint) from exc
            for number, expires in zip(numbers, expiries, strict=True):
                puts[number] = _accepted(epoch, n, log, expires)
        return [puts[number] for number in range(len(items))]

    async def create_fence(self, key: str, fence: Fence) -> bool:
        """Give the key's shard the fence if it has none; return whether it did. Its clock starts at that epoch."""
        return bool(await self._caller.call(_CREATE, 2, *self._keys_of(key)[:2], *fence_fields(fence)))

    async def swap_fence(self, key: str, *, epoch: int, authority: Authority, to: Swap) -> bool:
        """Give the key's shard another fence if it is at *epoch* and *authority* now; return whether it has it."""
        rest = swap_arguments(to, epochs=[epoch], authorities=[authority])
        return bool(await self._caller.call(_SWAP, 4, *self._keys_of(key), *rest))

    async def pass_unfenced(self, item: Item | None, key: str, *, ttl_ms: int | None = None) -> bool:
        """Write the item, or delete the key (``None``), only where its shard has no fence at that very moment."""
        if item is None:
            raw, change = change_to_nothing(key)
        else:
            raw, change = self._change(item, expiry_of(item, ttl_ms, keep=False))
        return bool(await self._caller.call(_PASS, 3, *self._shards.of(raw)[:2], raw, *change, is_write=True))

    async def keys(self, *, prefix: str, position: str = "", limit: int = 500) -> KeyPage:
        """Return about *limit* of the store's own keys that begin with *prefix*; some may come twice."""
        pattern = escape_glob(prefix) + "*"
        following, found = await self._caller.scan(position, pattern, limit)
        # The tool's own keys are no data.
        return KeyPage([each.decode() for each in found if is_address(each) and not is_own(each)], following)

    async def fields(self, key: str, *, position: str = "", limit: int = 500) -> KeyPage:
        """Return about *limit* addresses of the fields of a hash; none where there is no hash under *key*."""
        try:
            following, found = await self._caller.run(b"HSCAN", key, position or 0, b"COUNT", limit)
        except SourceError as exc:
            if "WRONGTYPE" in str(exc):
                return KeyPage([], "")
            raise
        names = [each.decode() for each in found[::2] if is_address(each)]
        addresses = [key + ADDRESS_SEPARATOR + name for name in names]
        return KeyPage(addresses, "" if following == b"0" else following.decode())

    async def write(
        self, command: Sequence[Argument], *, keys: Sequence[str], marks: Sequence[str], epoch: int, resp: int = 2
    ) -> tuple[Put, Any]:
        """Run one command of the server in the step that marks what it changes; return its reply, too.

        Args:
            command: Its name and arguments, at most 7000.

            keys: The keys that it names, all of one shard.

            marks: The addresses that it changes.

            epoch: That the caller believes in.

            resp: The protocol whose shapes the reply has. Of 3, a list ends at its first null. Counters beyond 2^53
                come as text.

        Raises:
            SourceError: the command failed, too; then the marks may be there, which is harmless.
        """
        raw, members = [to_bytes(key) for key in keys], [to_bytes(address) for address in marks]
        shard = self._shards.of((raw or [place_of(marks[0])[0] if marks else b""])[0])[:3]
        rest = (3 + len(raw), *shard, *raw, epoch, resp, len(members), *members, *command)
        n, log, *reply = await self._caller.call(_WRITE, *rest, is_write=True)
        return _accepted(epoch, n, log, 0), reply[0] if reply else None

    async def close(self) -> None:
        """Close what this opened: a client that was passed stays open. Safe to call twice."""
        await self._caller.close()

    def _keys_of(self, address: str) -> ShardKeys:
        return self._shards.of(place_of(address)[0])

    def _by_shard(self, keys: Sequence[bytes]) -> dict[ShardKeys, list[int]]:
        """Return for each shard the places of its keys among *keys*."""
        found: dict[ShardKeys, list[int]] = {}
        for number, key in enumerate(keys):
            found.setdefault(self._shards.of(key), []).append(number)
        return found

    def _change(self, item: Item, expiry: Arguments) -> tuple[bytes, Arguments]:
        if item.kind not in {ItemKind.JSON, ItemKind.HASH}:
            raise SourceError(f"an item of the kind {item.kind} cannot be written", key=item.key)
        is_json = self._is_json is not None and self._is_json(item.key)
        return change_to(item, expiry, is_json=is_json)


def _put(epoch: int, reply: Any) -> Put | None:
    return None if reply is None else _accepted(epoch, *reply)


def _accepted(epoch: int, n: int, log: int, expires: int) -> Put:
    return Put(Version(epoch, n) if log else None, _LOGS[log], expires or None)
