"""Rollbacks of reads in the Redis that is migrated, beside the fence: they need no PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Mapping

from kvmigrate.intent import Rollback, rollback_of
from kvmigrate.stores.fence_base import FencedStore
from kvmigrate.stores.redis_fence import RedisFencedStore
from kvmigrate.stores.redis_shards import rollback_key
from kvmigrate.stores.redis_way import Where, way_to_shards


class RedisRollbacks:
    """Implements `kvmigrate.flags.base.RollbackPlace` as one hash: endpoint to who, when, why. One thread at a time.

    Attributes:
        fenced: The same store with its fences, on the same connection.
    """

    def __init__(self, where: Where, *, scope: str) -> None:
        """Connect to nothing yet; arguments as of `RedisFencedStore`. Raises `ConfigError` where the URL is wrong."""
        self._way = way_to_shards(where, scope)
        self._key = rollback_key(scope)
        self.fenced: FencedStore = RedisFencedStore(self._way, scope=scope)

    @property
    def name(self) -> str:
        """The store without secrets."""
        return self._way.name

    def rollbacks(self) -> Mapping[str, Rollback]:
        """Return what is rolled back, as `rollback_of`. Raises `SourceError` where the store does not answer."""
        found = self._way.run(b"HGETALL", self._key)
        pairs = found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)
        return {slug.decode(errors="replace"): _read(value) for slug, value in pairs}

    def roll_back(self, slug: str, rollback: Rollback) -> None:
        """Keep a rollback."""
        self._way.run(b"HSET", self._key, slug.encode(), json.dumps(rollback._asdict()).encode())

    def clear(self, slug: str) -> bool:
        """Take a rollback away; return whether there was one."""
        return bool(self._way.run(b"HDEL", self._key, slug.encode()))

    def close(self) -> None:
        """Close what was opened."""
        self._way.close()


def _read(value: bytes) -> Rollback:
    try:
        members: object = json.loads(value)
    except ValueError:
        members = None
    return rollback_of(members)
