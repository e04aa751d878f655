"""A client of a cluster in bad moments, and by the ways past its pipelines' `execute_command`."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.crc import key_slot

from kvmigrate import AsyncMigration, Migration
from kvmigrate.dualwrite.write import Patience
from kvmigrate.errors import AmbiguousWriteError, SealedError
from kvmigrate.model import Authority, Fence, Logging
from kvmigrate.stores.fence_base import Swap
from tests.fix_cluster import Cluster, Node
from tests.store_world import CLIENTS, RealWorld


@pytest.fixture
def world(cluster: Cluster, database: str, tmp_path: Path) -> Iterator[RealWorld]:
    """A cluster and a PostgreSQL in stage dualwrite."""
    made = RealWorld(CLIENTS, tmp_path, cluster.url, database)
    yield made
    made.close()


@pytest.fixture
def migration(world: RealWorld) -> Iterator[Migration]:
    """The migration as a service opens it."""
    with Migration.open(world.settings) as opened:
        yield opened


@pytest.fixture
def client(cluster: Cluster, migration: Migration) -> Iterator[Any]:
    """A client after the one line."""
    with migration.redis(cluster.client()) as made:
        yield made


def marked(world: RealWorld) -> list[str]:
    """The keys that are marked, in order."""
    found = world.fenced.marked_in(world.fenced.shards_with_marks(), limit=1000)
    return sorted(mark.key for marks in found.values() for mark in marks)


def node_of(cluster: Cluster, key: str) -> Node:
    """The master that has a key."""
    slot = key_slot(key.encode())
    [first, *_] = [
        node
        for node in cluster.masters
        for low, high, owner in node.owners()
        if owner == node.id.encode() and low <= slot <= high
    ]
    return first


def waiting(node: Node) -> list[dict[str, str]]:
    """The connections of a node whose command waits inside the server."""
    return [each for each in node.client.client_list() if "b" in each["flags"]]


def some_wait(node: Node) -> list[dict[str, str]]:
    """The same, once there are any."""
    end = time.monotonic() + 30
    while not (found := waiting(node)):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


@pytest.mark.filterwarnings("ignore:Call to '__init__' function with deprecated")
def test_pipelines_of_modules_are_fenced(world: RealWorld, client: Any) -> None:
    """Those of json() and ts(), which take every command beside their own."""
    assert [True] == client.json().pipeline().execute_command("SET", "client:1", "x").execute()
    assert [True] == client.ts().pipeline().execute_command("SET", "client:2", "x").execute()

    assert ["client:1", "client:2"] == marked(world)


def test_what_a_watching_pipeline_deletes_is_marked(cluster: Cluster, world: RealWorld, client: Any) -> None:
    """By the methods that the driver leads past `execute_command`, and by its other name."""
    with cluster.client() as bare:
        bare.mset({f"client:{{a}}{number}": number for number in range(4)})

    with client.pipeline(transaction=True) as pipe:
        pipe.watch("client:{a}9")
        assert 1 == pipe.exists("client:{a}1")
        pipe.delete("client:{a}1")
        pipe.unlink("client:{a}2")
        assert 1 == pipe.pipeline_execute_command("DEL", "client:{a}3")
        assert 0 == pipe.exists("client:{a}1", "client:{a}2", "client:{a}3")
    assert [f"client:{{a}}{number}" for number in (1, 2, 3)] == marked(world)


@pytest.mark.parametrize("is_piped", [False, True])
def test_the_drivers_recovery_leaves_writes_alone(cluster: Cluster, world: RealWorld, *, is_piped: bool) -> None:
    """With an event loop the driver closes its client by itself, to learn anew where slots are."""

    async def run() -> None:
        known: Any = {"port": cluster.masters[0].port, "password": cluster.password, "reinitialize_steps": 1}
        plain = redis.asyncio.RedisCluster("127.0.0.1", **known)
        async with AsyncMigration.open(world.settings) as migration:
            client: Any = migration.redis(plain)
            await client.set("client:1", 1)
            assert await client.get("other") is None
            node = node_of(cluster, "client:1")
            known_slots: Any = plain.nodes_manager.slots_cache
            wrong = next(slot for slot, [at, *_] in known_slots.items() if at.port != node_of(cluster, "other").port)
            node.client.client_pause(60_000, all=False)
            try:
                write = asyncio.create_task(client.incr("client:1"))
                await asyncio.to_thread(some_wait, node)
                known_slots[key_slot(b"other")] = known_slots[wrong]
                # The driver may not find its way back at once.
                with suppress(redis.exceptions.ClusterError):
                    await (client.pipeline().get("other").execute() if is_piped else client.get("other"))
            finally:
                node.client.client_unpause()
            assert 2 == await write
            await client.aclose()
            # What it opened after it had closed itself it forgets.
            await plain.nodes_manager.aclose()

    asyncio.run(run())


def test_what_was_sent_beside_a_write_is_not_sent_again(cluster: Cluster, client: Any) -> None:
    """Neither what was answered before the connection broke, nor what was not; reads are."""
    node, killed = node_of(cluster, "{a}"), []

    def cut() -> None:
        killed.extend(some_wait(node))
        node.client.client_kill_filter(_id=killed[0]["id"])

    client.set("client:{a}1", 1)
    client.set("{a}text", "x")
    thread = threading.Thread(target=cut)
    thread.start()
    pipe = client.pipeline().incr("{a}other").get("{a}text").blpop("{a}none", 5).incr("{a}later").get("{a}text")
    answers = pipe.incr("client:{a}1").execute(raise_on_error=False)
    thread.join(30)

    assert [1, b"x", b"x"] == [answers[0], answers[1], answers[4]]
    assert [redis.ConnectionError] * 2 == [type(answers[2]), type(answers[3])]
    assert isinstance(answers[5], AmbiguousWriteError)
    assert [b"1", None, b"1"] == [client.get(key) for key in ("{a}other", "{a}later", "client:{a}1")]


def test_a_refused_slot_leaves_the_others_their_replies(world: RealWorld, migration: Migration, client: Any) -> None:
    """Nobody waits for the seal twice; what is raised says that others were done."""
    migration.store._patience = Patience(wait_s=0.1)
    client.mset_nonatomic({"client:1": 1, "client:{a}2": 1, "client:{a}3": 1})
    [shard] = world.fenced.by_shard(["client:{a}2"])
    swap = Swap(Fence(3, Authority.SEALED, Logging.MIRROR), clock_epoch=None)
    world.fenced.swap([shard], epochs=range(9), authorities=list(Authority), to=swap)

    pipe = client.pipeline().incr("client:1").incr("client:{a}2").get("client:{a}3").incr("client:{a}3").incr("other")
    answers = pipe.execute(raise_on_error=False)
    assert [2, b"1", 1] == [answers[0], answers[2], answers[4]]
    assert [SealedError] * 2 == [type(answers[1]), type(answers[3])]
    with pytest.raises(SealedError, match="other commands of it were done") as told:
        client.pipeline().incr("client:1").incr("client:{a}2").execute()
    assert "raise_on_error=False" in told.value.hint
    with pytest.raises(SealedError) as alone:
        client.pipeline().incr("client:{a}2").get("client:1").execute()
    assert "other commands" not in str(alone.value)
    assert [b"3", b"1", b"1"] == client.mget_nonatomic("client:1", "client:{a}2", "client:{a}3")


def test_the_limit_of_connections_is_the_clients(cluster: Cluster, migration: Migration) -> None:
    """It holds for what writes mapped keys, too; who meets it does not ask anew where slots are."""
    plain = redis.RedisCluster("127.0.0.1", cluster.masters[0].port, password=cluster.password, max_connections=7)
    with migration.redis(plain) as client:
        client.set("client:1", 1)
        calls: Any = client
        nodes = calls._kvmigrate.calls.nodes
        known = nodes._known
        node = node_of(cluster, "client:1")
        pool: Any = nodes.client(("127.0.0.1", node.port)).connection_pool
        assert 7 == pool.max_connections
        taken = [pool.get_connection() for _ in range(7)]
        with pytest.raises(redis.exceptions.MaxConnectionsError):
            client.pipeline(transaction=True).incr("client:1").execute()
        assert known is nodes._known
        for each in taken:
            pool.release(each)
        assert [2] == client.pipeline(transaction=True).incr("client:1").execute()
