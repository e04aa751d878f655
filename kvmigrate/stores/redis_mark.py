"""Whether anything changed in a Redis since it was last asked: told by what INFO counts anyway."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import redis

from kvmigrate.stores.redis_wire import call

# Every write of any database is a change since the last save. Expiry and eviction are none, and take keys away.
_COUNTED = (
    "run_id",
    "master_replid",
    "rdb_last_save_time",
    "rdb_changes_since_last_save",
    "expired_keys",
    "evicted_keys",
)
# Newer servers only.
_COUNTED_IF_THERE = ("rdb_saves", "expired_subkeys")
_CLEARLY_S = 2
"""A save sets the count of changes to zero, and its time has a resolution of one second."""


def change_mark(client: redis.Redis, database: int) -> str | None:
    """Return a text that stays equal only while nothing in the server changes; reading does not change it.

    ``None`` where that is not certain: on a replica, where INFO is refused or lacks a count, during
    and right after a save, and while any key of the *database* may expire, as a key is gone for
    readers some time before the server counts it.
    """
    with client.pipeline(transaction=True) as pipe:
        call(pipe, "INFO")
        call(pipe, "TIME")
        try:
            told, (now_s, _) = pipe.execute()
        except redis.exceptions.ResponseError:
            return None
    keyspace = told.get(f"db{database}", {"keys": 0, "expires": 0})
    if any(name not in told for name in _COUNTED) or not _is_settled(told, int(now_s)) or keyspace["expires"]:
        return None
    counts = [str(told[name]) for name in _COUNTED]
    counts += [f"{name}={told[name]}" for name in _COUNTED_IF_THERE if name in told]
    return " ".join([*counts, f"keys={keyspace['keys']}"])


def _is_settled(told: Mapping[str, Any], now_s: int) -> bool:
    """Whether the counts belong to a master with all its data, which saves nothing and saved nothing just now."""
    return (
        told.get("role") == "master"
        and told.get("loading") == 0
        and told.get("rdb_bgsave_in_progress") == 0
        and now_s - told["rdb_last_save_time"] >= _CLEARLY_S
    )
