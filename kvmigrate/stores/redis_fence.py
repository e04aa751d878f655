"""A Redis as the relay, the backfill and the controller see it: fences, marks, observations. The seam: `fence_base`."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import redis

from kvmigrate.errors import SourceError
from kvmigrate.model import Authority, Fence, Item, MarkedKey, Version
from kvmigrate.stores.fence_base import Seen, Swap
from kvmigrate.stores.redis_call import RedisCaller
from kvmigrate.stores.redis_change import (
    change_to,
    change_to_nothing,
    expiry_of,
    fence_fields,
    fence_in,
    item_at,
    place_of,
    swap_arguments,
    to_bytes,
    to_text,
)
from kvmigrate.stores.redis_clients import place_at
from kvmigrate.stores.redis_script import script
from kvmigrate.stores.redis_shards import ALONE, ShardKeys, shard_keys

_LIFE = re.compile(rb"^(run_id|master_replid):(\w+)", re.MULTILINE)
_SCAN_KEYS = 1000
_SLICE_S = 1.0
"""WAIT is asked in slices: the driver gives up a connection that says nothing for longer than its time-out."""


def _no_json(key: str) -> bool:
    del key
    return False


class RedisFencedStore:
    """One Redis, or the master that Sentinel names, with the fence of one scope: one shard.

    Every method is safe to repeat, and raises `SourceError` where the server refuses or does not answer.
    """

    def __init__(self, where: str | redis.Redis, *, scope: str, is_json: Callable[[str], bool] = _no_json) -> None:
        """Use the server behind a URL, or a client that stays open; nothing is connected yet.

        Args:
            where: As for `RedisWriter`.

            scope: The mapping's name.

            is_json: Whether a key that is not there is written as RedisJSON; a key that is stays what it is.

        Raises:
            ConfigError: the URL is wrong, or it is a cluster.
        """
        self._place = place_at(where)
        self._caller = RedisCaller(self._place)
        self._scope, self._is_json = scope, is_json

    @property
    def name(self) -> str:
        """The server without secrets."""
        return self._place.name

    def __repr__(self) -> str:
        return f"RedisFencedStore({self.name!r})"

    def shards(self) -> Sequence[str]:
        """Return the one shard."""
        return (ALONE,)

    def by_shard(self, keys: Sequence[str]) -> Mapping[str, list[str]]:
        """Return all under the one shard."""
        return {ALONE: list(keys)} if keys else {}

    def fences(self) -> Mapping[str, Fence | None]:
        """Return the fence of every shard; ``None`` where it, or its clock, is missing."""
        found = self._heads()
        return {shard: fence_in(head)[0] if head is not None else None for shard, head in found.items()}

    def clocks(self) -> Mapping[str, Version]:
        """Return what every shard's clock says; shards without fence or clock are left out."""
        return {shard: fence_in(head)[1] for shard, head in self._heads().items() if head is not None}

    def marked(self, shard: str, *, limit: int) -> Sequence[MarkedKey]:
        """Return the marks with the lowest n."""
        if limit < 1:
            return []
        found = self._caller.run(b"ZRANGE", self._keys(shard).marks, 0, limit - 1, b"WITHSCORES")
        # RESP3 has pairs, RESP2 a flat list.
        pairs = found if found and isinstance(found[0], list) else zip(found[::2], found[1::2], strict=True)
        return [MarkedKey(to_text(member), int(float(n))) for member, n in pairs]

    def marks(self) -> int:
        """Return how many marks there are."""
        return sum(self._marks_of(shard) for shard in self.shards())

    def shards_with_marks(self) -> Sequence[str]:
        """Return the shards that have any mark."""
        return [shard for shard in self.shards() if self._marks_of(shard)]

    def observe(self, shard: str, keys: Sequence[str]) -> Seen:
        """Return what stands under keys, with their expiries, fence, clock and marks, all at one moment.

        Raises:
            FenceMissingError: the shard has no fence.
        """
        places = [place_of(key) for key in keys]
        raw, parts = [key for key, _ in places], [part for _, part in places]
        found = self._caller.call(script("observe"), 3 + len(raw), *self._keys(shard)[:3], *raw, *parts)
        fence, version = fence_in(found)
        items = tuple(item_at(key, each) for key, each in zip(keys, found[7:], strict=True))
        return Seen(fence, version, items, tuple(each[3] or None for each in found[7:]))

    def ack(self, shard: str, mirrored: Collection[MarkedKey]) -> int:
        """Take away the marks that still have the n given; return how many. A newer mark stays."""
        if not mirrored:
            return 0
        flat = [part for key, n in mirrored for part in (to_bytes(key), n)]
        return int(self._caller.call(script("ack"), 1, self._keys(shard).marks, *flat))

    def touch(self, shard: str, keys: Sequence[str], *, epoch: int) -> int:
        """Mark keys with a fresh n, whether they exist or not; return that n. Raises `StaleError`."""
        members = map(to_bytes, keys)
        return int(self._caller.call(script("touch"), 3, *self._keys(shard)[:3], epoch, *members))

    def swap(
        self, shards: Sequence[str], *, epochs: Collection[int], authorities: Collection[Authority], to: Swap
    ) -> int:
        """Give each of *shards* the fence *to* if its fence has one of the *epochs* and *authorities* now.

        An incarnation of "" leaves the one that is noted, and what is owed stays owed: only `note` clears it.

        Returns:
            How many of *shards* have that epoch, authority and log afterwards.

        Raises:
            SourceError: the epoch would fall, or an open store would begin to log without a new one.
        """
        rest = swap_arguments(to, epochs=epochs, authorities=authorities)
        return sum(self._caller.call(script("swap"), 4, *self._keys(shard), *rest) for shard in shards)

    def create(self, shards: Sequence[str], fence: Fence) -> int:
        """Give the fence to those of *shards* that have none; return how many. Their clocks start at its epoch."""
        fields = fence_fields(fence)
        return sum(self._caller.call(script("create"), 2, *self._keys(shard)[:2], *fields) for shard in shards)

    def note(self, shards: Sequence[str], *, incarnation: str | None = None, owes_all: bool | None = None) -> None:
        """Write into the fences of *shards*, beside epoch and authority, what is given; a missing fence stays so."""
        noted: list[str | int] = [] if incarnation is None else ["inc", incarnation]
        noted += [] if owes_all is None else ["full", int(owes_all)]
        for shard in shards if noted else ():
            self._caller.call(script("note"), 1, self._keys(shard).fence, *noted)

    def drop_marks(self, shard: str, *, over: int) -> bool:
        """Drop all marks of a shard that has more than *over*, and note that it owes all; return whether it did."""
        keys = self._keys(shard)
        return bool(self._caller.call(script("drop_marks"), 2, keys.fence, keys.marks, over))

    def reverse(self, shard: str, key: str, version: Version, item: Item | None) -> bool:
        """Write what the tables hold of a key, unless the store was given that version or a later one already.

        Returns:
            ``True``.

        Raises:
            StaleError: the shard is not at the epoch of *version* with authority T; nothing was written.
        """
        if item is None:
            raw, change = change_to_nothing(key)
        else:
            raw, change = change_to(item, expiry_of(item, None, keep=False), is_json=self._is_json(key))
        keys = self._keys(shard)
        self._caller.call(script("reverse"), 3, keys.fence, keys.guard, raw, version.epoch, version.n, *change)
        return True

    def guarded(self, shard: str) -> Iterator[str]:
        """Yield the keys that the reverse mirror wrote since the tables opened; one may come twice."""
        cursor = -1
        while cursor:
            following, found = self._caller.run(b"HSCAN", self._keys(shard).guard, max(cursor, 0), b"COUNT", _SCAN_KEYS)
            cursor = int(following)
            yield from map(to_text, found[::2])

    def incarnation(self) -> str:
        """Return the process and the history of the server: another one after a restart, a failover or a restore."""
        found = dict(_LIFE.findall(self._info(b"server") + b"\n" + self._info(b"replication")))
        if len(found) != 2:
            raise SourceError(f"{self.name}: INFO does not tell run_id and master_replid", hint="allow INFO")
        return f"{found[b'run_id'].decode()} {found[b'master_replid'].decode()}"

    def confirm(self, *, replicas: int, timeout_s: float) -> bool:
        """Return whether so many replicas have all that the server accepted before this call (WAIT)."""
        end = time.monotonic() + timeout_s
        while replicas > 0:
            left_s = end - time.monotonic()
            if self._confirmed_by(replicas, min(left_s, _SLICE_S)) >= replicas:
                return True
            if left_s <= _SLICE_S:
                return False
        return True

    def mark_safe(self) -> Mapping[str, Version]:
        """Write into each shard's clock what it says, and return that."""
        clocks = self.clocks()
        for shard, version in clocks.items():
            self._caller.run(b"HSET", self._keys(shard).clock, b"safe", f"{version.epoch} {version.n}".encode())
        return clocks

    def safe(self) -> Mapping[str, Version]:
        """Return what `mark_safe` wrote last and the server still has."""
        found = {shard: self._caller.run(b"HGET", self._keys(shard).clock, b"safe") for shard in self.shards()}
        texts = {shard: to_text(text).split() for shard, text in found.items() if text is not None}
        return {shard: Version(int(epoch), int(n)) for shard, (epoch, n) in texts.items()}

    def close(self) -> None:
        """Close what this opened: a client that was passed stays open. Safe to call twice."""
        self._caller.close()

    def _keys(self, shard: str) -> ShardKeys:
        return shard_keys(shard, self._scope)

    def _heads(self) -> dict[str, Any]:
        return {shard: self._caller.call(script("fence"), 2, *self._keys(shard)[:2]) for shard in self.shards()}

    def _marks_of(self, shard: str) -> int:
        return int(self._caller.run(b"ZCARD", self._keys(shard).marks))

    def _confirmed_by(self, replicas: int, timeout_s: float) -> int:
        try:
            # WAIT is for the last write of its own connection, so there has to be one.
            with self._place.client.pipeline(transaction=False) as pipe:
                for shard in self.shards():
                    pipe.hincrby(self._keys(shard).clock, "waits", 1)
                pipe.wait(replicas, max(1, round(timeout_s * 1000)))
                *_, reached = pipe.execute()
        except redis.exceptions.RedisError as exc:
            raise SourceError(f"{self.name}: {self._place.scrub(exc)}") from exc
        return int(reached)

    def _info(self, section: bytes) -> bytes:
        found = self._caller.run(b"INFO", section)
        return found if isinstance(found, bytes) else str(found).encode()
