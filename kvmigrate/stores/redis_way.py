"""The two ways to the shards of a fenced Redis: one server, which is one shard, and a cluster, where each slot is."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from typing import Any, Protocol

import redis
from hiredis import pack_command
from redis.exceptions import RedisError, ResponseError

from kvmigrate.errors import SourceError
from kvmigrate.stores.redis_bulk import Build, Bulk
from kvmigrate.stores.redis_call import RedisCaller
from kvmigrate.stores.redis_change import Argument, Arguments
from kvmigrate.stores.redis_clients import Address, ClusterPlace, RedisPlace, cluster_at, place_at
from kvmigrate.stores.redis_cluster_call import ClusterCaller
from kvmigrate.stores.redis_line import Line
from kvmigrate.stores.redis_nodes import RedisNodes
from kvmigrate.stores.redis_refusal import ELSEWHERE, refusal
from kvmigrate.stores.redis_script import Script
from kvmigrate.stores.redis_shards import ALONE, shard_keys, slot_tags, tag_of

_LIFE = re.compile(rb"^(run_id|master_replid):(\w+)", re.MULTILINE)
_AGREE_PAUSES_S = (0.05, 0.1, 0.2, 0.5, 1.0, 1.0)


class Way(Protocol):
    """How the shards are reached. Everything raises as `RedisCaller.call` says; for one thread at a time."""

    @property
    def name(self) -> str:
        """The store without secrets."""
        ...

    def shards(self) -> Sequence[str]:
        """Return the tags of all shards."""
        ...

    def tag(self, key: bytes) -> str:
        """Return the tag of the shard of a key."""
        ...

    def call(self, script: Script, *rest: Argument) -> Any:
        """Call a function for one shard: number of keys, keys, arguments."""
        ...

    def run(self, *command: Argument) -> Any:
        """Run a plain command for one shard; its second word is a key."""
        ...

    def same(self, script: Script | None, shards: Sequence[str], build: Build) -> list[Any]:
        """Make the same call, or plain command, for shards; see `Bulk.same`."""
        ...

    def many(self, script: Script | None, calls: Sequence[Arguments]) -> list[Any]:
        """Make different calls, or plain commands; see `Bulk.many`."""
        ...

    def life(self) -> str:
        """Return in which life all servers are that have the shards."""
        ...

    def confirmed(self, replicas: int, timeout_s: float) -> bool:
        """Return whether so many replicas of each server have what it accepted before."""
        ...

    def close(self) -> None:
        """Close what was opened."""
        ...


Where = str | redis.Redis | redis.RedisCluster | Way
"""A URL, a client that stays open, or a way that somebody else has, and closes."""


def way_to_shards(where: Where, scope: str) -> Way:
    """Return the way to a store; nothing is connected yet. Raises `ConfigError`."""
    if not isinstance(where, str | redis.Redis | redis.RedisCluster):
        return where
    cluster = cluster_at(where)
    return SlotsWay(cluster, scope) if cluster is not None else AloneWay(place_at(where), scope)


class AloneWay:
    """One server, or the master that Sentinel names: one shard."""

    def __init__(self, place: RedisPlace, scope: str) -> None:
        """Connect to nothing yet."""
        self._place, self._scope = place, scope
        self._caller = RedisCaller(place)
        self.call, self.run, self.close = self._caller.call, self._caller.run, self._caller.close

    @property
    def name(self) -> str:
        """The server without secrets."""
        return self._place.name

    def shards(self) -> Sequence[str]:
        """Return the one shard."""
        return (ALONE,)

    def tag(self, key: bytes) -> str:
        """Return the one shard."""
        del key
        return ALONE

    def same(self, script: Script | None, shards: Sequence[str], build: Build) -> list[Any]:
        """Make the call for the one shard, if it is among *shards*."""
        return self.many(script, [build(shard_keys(shard, self._scope)) for shard in shards])

    def many(self, script: Script | None, calls: Sequence[Arguments]) -> list[Any]:
        """Make calls one after the other."""
        return [self.run(*call) if script is None else self.call(script, *call) for call in calls]

    def life(self) -> str:
        """Return process and history of the server."""
        return _life(self._caller, self.name)

    def confirmed(self, replicas: int, timeout_s: float) -> bool:
        """Ask the server."""
        key = shard_keys(ALONE, self._scope).clock
        try:
            return _reached(self._place.client, key, replicas, timeout_s) >= replicas
        except ResponseError as exc:
            raise refusal(self.name, exc) from exc
        except (RedisError, OSError) as exc:
            raise SourceError(f"{self.name}: {self._place.scrub(exc)}") from exc


class SlotsWay:
    """A cluster: a shard for each slot, at whichever master has it."""

    def __init__(self, place: ClusterPlace, scope: str) -> None:
        """Connect to nothing yet."""
        self._nodes, self._scope = RedisNodes(place), scope
        self._caller = ClusterCaller(self._nodes)
        self._bulk = Bulk(self._nodes, self._caller, scope)
        self.call, self.run, self.close = self._caller.call, self._caller.run, self._caller.close
        self.same, self.many = self._bulk.same, self._bulk.many

    @property
    def name(self) -> str:
        """The cluster without secrets."""
        return self._nodes.name

    def shards(self) -> Sequence[str]:
        """Return the tags of all slots."""
        return slot_tags()

    def tag(self, key: bytes) -> str:
        """Return the tag of the slot of a key."""
        return tag_of(key)

    def life(self) -> str:
        """Return a digest of process and history of every master that has slots.

        Slots that move between them do not change it; a failover does, and so does a master that joins or leaves.
        """
        lives = sorted(_life(self._nodes.caller(master), self.name) for master in self._masters())
        return f"{len(lives)} masters {hashlib.sha256(' '.join(lives).encode()).hexdigest()[:32]}"

    def confirmed(self, replicas: int, timeout_s: float) -> bool:
        """Ask every master."""
        end = time.monotonic() + timeout_s
        for master in self._masters():
            left_s = max(end - time.monotonic(), 0.001)
            if self._reached_by(master, replicas, left_s) < replicas:
                return False
        return True

    def _masters(self) -> Sequence[Address]:
        """Return the masters once all of them name the same: in a failover some know it later than others."""
        for pause in (*_AGREE_PAUSES_S, None):
            slots = self._nodes.learn()
            told = {tuple(self._nodes.told_by(master).masters) for master in slots.masters}
            if told == {tuple(slots.masters)} and None not in slots.owners:
                return slots.masters
            if pause is not None:
                time.sleep(pause)
        raise SourceError(
            f"{self.name}: the nodes of the cluster do not agree who has its slots",
            hint="see CLUSTER INFO and CLUSTER SLOTS on its nodes",
        )

    def _reached_by(self, master: Address, replicas: int, timeout_s: float) -> int:
        slots = [slot for slot, owner in enumerate(self._nodes.slots().owners) if owner == master]
        last: ResponseError | None = None
        # A slot may be on its way to another master; three of them hardly are.
        for slot in (slots[0], slots[len(slots) // 2], slots[-1]):
            key = shard_keys(slot_tags()[slot], self._scope).clock
            try:
                return _reached(self._nodes.client(master), key, replicas, timeout_s)
            except ELSEWHERE as exc:
                last = exc
            except ResponseError as exc:
                raise refusal(self.name, exc, of_cluster=True) from exc
            except (RedisError, OSError) as exc:
                raise SourceError(f"{self.name}: {self._nodes.place.scrub(exc)}") from exc
        raise refusal(self.name, last or ResponseError("no slot"), of_cluster=True) from last


def _life(caller: RedisCaller, name: str) -> str:
    told = [caller.run(b"INFO", section) for section in (b"server", b"replication")]
    text = b"\n".join(part if isinstance(part, bytes) else str(part).encode() for part in told)
    found = dict(_LIFE.findall(text))
    if len(found) != 2:
        raise SourceError(f"{name}: INFO does not tell run_id and master_replid", hint="allow INFO")
    return f"{found[b'run_id'].decode()} {found[b'master_replid'].decode()}"


def _reached(client: redis.Redis, key: bytes, replicas: int, timeout_s: float) -> int:
    """Return how many replicas have all that the server accepted before. Raises the driver's own errors."""
    # WAIT is for the last write of its own connection, so there has to be one.
    write: Any = (b"HINCRBY", key, b"waits", 1)
    wait: Any = (b"WAIT", replicas, max(1, round(timeout_s * 1000)))
    with Line(client) as line:
        line.send(pack_command(write) + pack_command(wait), commands=2)
        answers = [line.read(), line.read()]
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return int(answers[1])
