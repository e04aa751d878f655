"""A Redis as the relay, the backfill and the controller see it: fences, marks, observations. The seam: `fence_base`."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from redis.exceptions import ResponseError

from kvmigrate.model import Authority, Fence, Item, MarkedKey, Version
from kvmigrate.stores.fence_base import Seen, Swap
from kvmigrate.stores.redis_change import (
    Arguments,
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
from kvmigrate.stores.redis_refusal import refusal
from kvmigrate.stores.redis_script import PROTO, script
from kvmigrate.stores.redis_shards import ShardKeys, shard_keys
from kvmigrate.stores.redis_way import Where, way_to_shards

_FENCE_FIELDS = (b"e", b"a", b"log", b"inc", b"full", b"proto")
_PROTO = str(PROTO).encode()
_SCAN_KEYS = 1000
_SLICE_S = 1.0
"""WAIT is asked in slices: the driver gives up a connection that says nothing for longer than its time-out."""


def _no_json(key: str) -> bool:
    del key
    return False


class RedisFencedStore:
    """One Redis, the master that Sentinel names, or a cluster, with the fence of one scope.

    A server alone is one shard; of a cluster each of the 16384 slots is one. Every method is safe to repeat, and raises
    `SourceError` where a server refuses or does not answer.
    """

    def __init__(
        self,
        where: Where,
        *,
        scope: str,
        is_json: Callable[[str], bool] = _no_json,
    ) -> None:
        """Use the server or cluster behind a URL, or a client or way that stays open; nothing is connected yet.

        Args:
            where: As for `RedisWriter`.

            scope: The mapping's name.

            is_json: Whether a key that is not there is written as RedisJSON; a key that is stays what it is.

        Raises:
            ConfigError: the URL is wrong.
        """
        self._way = way_to_shards(where, scope)
        self._scope, self._is_json = scope, is_json

    @property
    def name(self) -> str:
        """The store without secrets."""
        return self._way.name

    def __repr__(self) -> str:
        return f"RedisFencedStore({self.name!r})"

    def shards(self) -> Sequence[str]:
        """Return the tags of all shards."""
        return self._way.shards()

    def by_shard(self, keys: Sequence[str]) -> Mapping[str, list[str]]:
        """Group addresses by shard, in their order."""
        found: dict[str, list[str]] = {}
        for key in keys:
            found.setdefault(self._way.tag(place_of(key)[0]), []).append(key)
        return found

    def fences(self, shards: Sequence[str] | None = None) -> Mapping[str, Fence | None]:
        """Return the fence of each of *shards*, or of every one; ``None`` where it, or its clock, is missing."""
        shards = self.shards() if shards is None else shards
        if len(shards) < 2:
            return {shard: None if head is None else fence_in(head)[0] for shard, head in self._heads(shards).items()}
        # For all slots of a cluster plain commands cost the servers a third of what the function does.
        found = self._way.same(None, shards, lambda keys: (b"HMGET", keys.fence, *_FENCE_FIELDS))
        clocks = self._way.same(None, shards, lambda keys: (b"HEXISTS", keys.clock, b"v"))
        # Nearly all of them are the same.
        known: dict[tuple[bytes | None, ...], Fence | None] = {}
        fences: dict[str, Fence | None] = {}
        for shard, fields, has_clock in zip(shards, found, clocks, strict=True):
            said = tuple(fields)
            if said not in known:
                known[said] = self._fence_of(fields)
            fences[shard] = known[said] if has_clock else None
        return fences

    def clocks(self) -> Mapping[str, Version]:
        """Return what every shard's clock says; shards without fence or clock are left out."""
        shards = self.shards()
        if len(shards) < 2:
            return {shard: fence_in(head)[1] for shard, head in self._heads(shards).items() if head is not None}
        clocks = self._way.same(None, shards, lambda keys: (b"HMGET", keys.clock, b"we", b"v"))
        fenced = self._way.same(None, shards, lambda keys: (b"HEXISTS", keys.fence, b"e"))
        return {
            shard: Version(int(epoch), int(n))
            for shard, (epoch, n), has_fence in zip(shards, clocks, fenced, strict=True)
            if has_fence and epoch is not None and n is not None
        }

    def marked(self, shard: str, *, limit: int) -> Sequence[MarkedKey]:
        """Return the marks with the lowest n."""
        return self.marked_in([shard], limit=limit)[shard]

    def marked_in(self, shards: Sequence[str], *, limit: int) -> Mapping[str, Sequence[MarkedKey]]:
        """Return the marks with the lowest n of each of *shards*, at most *limit* of each."""
        if limit < 1:
            return {shard: [] for shard in shards}
        found = self._way.same(None, shards, lambda keys: (b"ZRANGE", keys.marks, 0, limit - 1, b"WITHSCORES"))
        return {shard: _marks_in(each) for shard, each in zip(shards, found, strict=True)}

    def marks(self) -> int:
        """Return how many marks there are."""
        return sum(self._counts(self.shards()))

    def shards_with_marks(self, among: Sequence[str] | None = None) -> Sequence[str]:
        """Return the shards that have any mark, of all or *among* some."""
        shards = self.shards() if among is None else among
        return [shard for shard, count in zip(shards, self._counts(shards), strict=True) if count]

    def observe(self, shard: str, keys: Sequence[str]) -> Seen:
        """Return what stands under keys, with their expiries, fence, clock and marks, all at one moment.

        Raises:
            FenceMissingError: the shard has no fence.
        """
        raw, parts = _places_of(keys)
        found = self._way.call(script("observe"), 3 + len(raw), *self._keys(shard)[:3], *raw, *parts)
        return _seen(keys, found)

    def observe_together(self, keys: Mapping[str, Sequence[str]]) -> Mapping[str, Seen]:
        """Return the same for keys of several shards, where nobody writes meanwhile all as of one version.

        Raises:
            FenceMissingError: a shard has no fence.
        """
        if len(keys) < 2:
            return {shard: self.observe(shard, some) for shard, some in keys.items()}
        clocks = self._way.same(None, list(keys), lambda own: (b"HGET", own.clock, b"v"))
        furthest = max(int(n or 0) for n in clocks)
        calls: list[Arguments] = []
        for shard, some in keys.items():
            raw, parts = _places_of(some)
            calls.append((3 + len(raw), *self._keys(shard)[:3], *raw, furthest, *parts))
        found = self._way.many(script("observe_at"), calls)
        return {shard: _seen(keys[shard], each) for shard, each in zip(keys, found, strict=True)}

    def ack(self, shard: str, mirrored: Collection[MarkedKey]) -> int:
        """Take away the marks that still have the n given; return how many. A newer mark stays."""
        return self.ack_all({shard: mirrored})

    def ack_all(self, mirrored: Mapping[str, Collection[MarkedKey]]) -> int:
        """Take away the marks of several shards that still have the n given; return how many."""
        calls: list[Arguments] = []
        for shard, marks in mirrored.items():
            if marks:
                flat = [part for key, n in marks for part in (to_bytes(key), n)]
                calls.append((1, self._keys(shard).marks, *flat))
        return sum(map(int, self._way.many(script("ack"), calls)))

    def touch(self, shard: str, keys: Sequence[str], *, epoch: int) -> int:
        """Mark keys with a fresh n, whether they exist or not; return that n. Raises `StaleError`."""
        return int(self._way.call(script("touch"), *self._touch(shard, keys, epoch)))

    def touch_all(self, keys: Mapping[str, Sequence[str]], *, epoch: int) -> None:
        """Mark keys of several shards, each with a fresh n of its shard. Raises `StaleError`; others may be marked."""
        self._way.many(script("touch"), [self._touch(shard, some, epoch) for shard, some in keys.items()])

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
        return sum(self._way.same(script("swap"), shards, lambda keys: (4, *keys, *rest)))

    def create(self, shards: Sequence[str], fence: Fence) -> int:
        """Give the fence to those of *shards* that have none; return how many. Their clocks start at its epoch."""
        fields = fence_fields(fence)
        return sum(self._way.same(script("create"), shards, lambda keys: (2, *keys[:2], *fields)))

    def note(self, shards: Sequence[str], *, incarnation: str | None = None, owes_all: bool | None = None) -> None:
        """Write into the fences of *shards*, beside epoch and authority, what is given; a missing fence stays so."""
        noted: list[str | int] = [] if incarnation is None else ["inc", incarnation]
        noted += [] if owes_all is None else ["full", int(owes_all)]
        if noted:
            self._way.same(script("note"), shards, lambda keys: (1, keys.fence, *noted))

    def drop_marks(self, shard: str, *, over: int) -> bool:
        """Drop all marks of a shard that has more than *over*, and note that it owes all; return whether it did."""
        keys = self._keys(shard)
        return bool(self._way.call(script("drop_marks"), 2, keys.fence, keys.marks, over))

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
        self._way.call(script("reverse"), 3, keys.fence, keys.guard, raw, version.epoch, version.n, *change)
        return True

    def guarded(self, shard: str) -> Iterator[str]:
        """Yield the keys that the reverse mirror wrote since the tables opened; one may come twice."""
        cursor = -1
        while cursor:
            following, found = self._way.run(b"HSCAN", self._keys(shard).guard, max(cursor, 0), b"COUNT", _SCAN_KEYS)
            cursor = int(following)
            yield from map(to_text, found[::2])

    def shards_with_guard(self) -> Sequence[str]:
        """Return the shards of which `guarded` yields anything."""
        shards = self.shards()
        found = self._way.same(None, shards, lambda keys: (b"HLEN", keys.guard))
        return [shard for shard, count in zip(shards, found, strict=True) if count]

    def incarnation(self) -> str:
        """Return the process and the history of the server, or a digest of those of all masters of a cluster."""
        return self._way.life()

    def confirm(self, *, replicas: int, timeout_s: float) -> bool:
        """Return whether so many replicas of every server have all that it accepted before this call (WAIT)."""
        end = time.monotonic() + timeout_s
        while replicas > 0:
            left_s = end - time.monotonic()
            if self._way.confirmed(replicas, min(left_s, _SLICE_S)):
                return True
            if left_s <= _SLICE_S:
                return False
        return True

    def mark_safe(self) -> Mapping[str, Version]:
        """Write into each shard's clock what it says, and return that."""
        clocks = self.clocks()
        # Most of a cluster's shards rest between two calls.
        told = self.safe()
        moved = [(self._keys(shard).clock, at) for shard, at in clocks.items() if told.get(shard) != at]
        self._way.many(None, [(b"HSET", clock, b"safe", f"{at.epoch} {at.n}".encode()) for clock, at in moved])
        return clocks

    def safe(self) -> Mapping[str, Version]:
        """Return what `mark_safe` wrote last and the server still has."""
        shards = self.shards()
        found = self._way.same(None, shards, lambda keys: (b"HGET", keys.clock, b"safe"))
        texts = {shard: to_text(text).split() for shard, text in zip(shards, found, strict=True) if text is not None}
        return {shard: Version(int(epoch), int(n)) for shard, (epoch, n) in texts.items()}

    def close(self) -> None:
        """Close what this opened: a client that was passed stays open. Safe to call twice."""
        self._way.close()

    def _keys(self, shard: str) -> ShardKeys:
        return shard_keys(shard, self._scope)

    def _touch(self, shard: str, keys: Sequence[str], epoch: int) -> Arguments:
        return (3, *self._keys(shard)[:3], epoch, *map(to_bytes, keys))

    def _heads(self, shards: Sequence[str]) -> dict[str, Any]:
        found = self._way.same(script("fence"), shards, lambda keys: (2, *keys[:2]))
        return dict(zip(shards, found, strict=True))

    def _fence_of(self, fields: Sequence[Any]) -> Fence | None:
        epoch, authority, log, incarnation, full, proto = fields
        if epoch is None:
            return None
        if proto != _PROTO:
            raise refusal(self.name, ResponseError(f"KVMPROTO {to_text(proto or b'nil')} {PROTO}"))
        return fence_in((epoch, authority, log, incarnation or b"", full or b"0", b"0", b"0"))[0]

    def _counts(self, shards: Sequence[str]) -> list[int]:
        return list(map(int, self._way.same(None, shards, lambda keys: (b"ZCARD", keys.marks))))


def _places_of(keys: Sequence[str]) -> tuple[list[bytes], list[bytes]]:
    places = [place_of(key) for key in keys]
    return [key for key, _ in places], [part for _, part in places]


def _seen(keys: Sequence[str], found: Sequence[Any]) -> Seen:
    fence, version = fence_in(found)
    items = tuple(item_at(key, each) for key, each in zip(keys, found[7:], strict=True))
    return Seen(fence, version, items, tuple(each[3] or None for each in found[7:]))


def _marks_in(found: Sequence[Any]) -> list[MarkedKey]:
    # RESP3 has pairs, RESP2 a flat list.
    pairs = found if found and isinstance(found[0], list) else zip(found[::2], found[1::2], strict=True)
    return [MarkedKey(to_text(member), int(float(n))) for member, n in pairs]
