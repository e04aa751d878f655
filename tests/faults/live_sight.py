"""What stands in both stores of a migration under test, read past all proxies."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import redis

from tests.faults.live_servers import LiveServers

_FENCE, _MARKS = "kvm:f:{kvm}:live", "kvm:d:{kvm}:live"
_CONTROL = "SELECT stage, authority, epoch, phase, owes_all, redis_inc FROM kvmigrate.control WHERE scope = 'live'"
_MOVES = "SELECT what, before, after FROM kvmigrate.change_log ORDER BY id"


class Place(NamedTuple):
    """Where the control row is."""

    stage: str
    authority: str
    epoch: int
    phase: str
    owes_all: bool
    store_life: str


class LiveSight:
    """Looks into both stores."""

    def __init__(self, servers: LiveServers) -> None:
        """Look into these."""
        self.servers = servers

    def held_by_store(self) -> dict[str, Any]:
        """Return what Redis holds of the mapping's keys."""
        with redis.Redis.from_url(self.servers.redis.url) as client:
            keys = [key for key in client.scan_iter(count=1000) if not key.startswith(b"kvm:")]
            values = client.mget(keys) if keys else []
            return {
                key.decode(): json.loads(value) for key, value in zip(keys, values, strict=True) if value is not None
            }

    def place(self) -> Place:
        """Return where the control row is."""
        with self.servers.connection() as connection:
            [row] = connection.execute(_CONTROL).fetchall()
            return Place._make(row)

    def fence(self) -> dict[str, str]:
        """Return the fields of the store's fence; none where it is not there."""
        with redis.Redis.from_url(self.servers.redis.url, decode_responses=True) as client:
            found: dict[str, str] = client.hgetall(_FENCE)
            return found

    def marks(self) -> int:
        """Return how many marks the store has."""
        with redis.Redis.from_url(self.servers.redis.url) as client:
            return int(client.zcard(_MARKS))

    def bytes_of_marks(self) -> int:
        """Return how much memory the marks take."""
        with redis.Redis.from_url(self.servers.redis.url) as client:
            return client.memory_usage(_MARKS, samples=0) or 0

    def moves(self) -> list[tuple[str, str, str]]:
        """Return what the change log says: what, from, to."""
        with self.servers.connection() as connection:
            return [(str(what), str(before), str(after)) for what, before, after in connection.execute(_MOVES)]

    def flips(self) -> tuple[int, int]:
        """Return how often the authority went to the tables, and how often back to the store."""
        ways = [(before.split()[0], after.split()[0]) for what, before, after in self.moves() if what == "stage"]
        return ways.count(("live", "rampdown")), ways.count(("rampdown", "live"))

    def table_epochs(self) -> set[int]:
        """Return the epochs at which the tables led."""
        return {int(epoch) for _, _, after in self.moves() for epoch in re.findall(r"\bT at (\d+)", after)}

    def owes_nothing(self) -> bool:
        """Whether nothing has to be compared again, no move is under way, and the store's life is the one known."""
        # Whoever clears the fence's note has written it into the control row before.
        fence, place = self.fence(), self.place()
        if place.owes_all or place.phase or fence.get("full") != "0":
            return False
        with redis.Redis.from_url(self.servers.redis.url, decode_responses=True) as client:
            told = client.info()
        return place.store_life == f"{told['run_id']} {told['master_replid']}"
