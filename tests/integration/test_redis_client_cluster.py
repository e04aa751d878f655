"""An application's own client of a cluster: the replies of the bare one, every write marked in its own slot."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.crc import key_slot

from kvmigrate import AsyncMigration, Migration
from kvmigrate.errors import AmbiguousWriteError, ConfigError, NotAfterCutoverError
from kvmigrate.model import Authority, Fence, Logging, Stage
from kvmigrate.stores.fence_base import Swap
from tests.cut_line import CutLine
from tests.fix_cluster import SLOTS, Cluster
from tests.redis_client_acts import ACTS, Act, wrong_in_a_pipeline
from tests.store_world import CLIENTS, RealWorld

RESP3: dict[str, Any] = {"protocol": 3}
DECODED: dict[str, Any] = {"protocol": 2, "decode_responses": True}


def pipeline(client: Any) -> Any:
    """The replies of a pipeline over many slots, errors as texts."""
    pipe = client.pipeline()
    for number in range(20):
        pipe.set(f"client:{number}", number, ex=100).incr(f"client:{number}").get(f"client:{number}")
        pipe.incr(f"other:{number}").getdel(f"client:none{number}").lpush("client:0", "x")
    pipe.bitfield("client:bits").set("u8", 0, 97).execute()
    pipe.get("client:bits").set("client:bits", "x")
    return [repr(each) for each in pipe.execute(raise_on_error=False)]


def transaction(client: Any) -> Any:
    """The replies of a transaction in one slot, errors as texts."""
    pipe = client.pipeline(transaction=True)
    pipe.set("client:{a}1", "1").incr("client:{a}1").incr("{a}other").get("client:{a}1").lpush("client:{a}1", "x")
    return [repr(each) for each in pipe.execute(raise_on_error=False)]


def crossing(client: Any) -> Any:
    """A transaction of several slots."""
    return client.pipeline(transaction=True).set("client:1", "1").set("client:2", "1").execute()


def watched(client: Any) -> Any:
    """A transaction that watches."""

    def act(pipe: Any) -> None:
        found = pipe.get("client:{a}1")
        pipe.multi()
        pipe.set("client:{a}1", found + found)
        pipe.incr("{a}other")

    return client.transaction(act, "client:{a}1")


def disturbed(client: Any) -> Any:
    """A transaction whose keys are written meanwhile, by itself."""
    with client.pipeline(transaction=True) as pipe:
        pipe.watch("client:{a}1")
        pipe.set("client:{a}1", "x")
        pipe.multi()
        pipe.set("client:{a}1", "y")
        return pipe.execute()


def wrong_arguments(client: Any) -> Any:
    """What a transaction raises that the server does not take."""
    pipe = client.pipeline(transaction=True)
    return pipe.set("client:{a}1", "x").execute_command("HSET", "client:{a}2", "lonely").execute()


OF_CLUSTERS: list[Act] = [
    lambda c: c.mset_nonatomic({"client:1": 1, "client:2": 2, "other": 3, "client:{a}1": 4}),
    lambda c: c.mget_nonatomic("client:1", "other", "client:none"),
    lambda c: c.mset({"client:{a}1": 1, "client:{a}2": 2, "{a}other": 3}),
    lambda c: c.mset({"client:1": 1, "client:2": 2}),
    lambda c: c.rename("client:{a}1", "client:{a}3"),
    lambda c: c.rename("client:{a}3", "client:1"),
    lambda c: c.sunionstore("client:{a}4", "{a}x", "{a}y"),
    lambda c: c.exists("client:1", "client:2", "client:none"),
    lambda c: c.delete("client:1", "client:2", "client:none", "other"),
    lambda c: c.unlink("client:{a}3"),
    pipeline,
    transaction,
    crossing,
    watched,
    disturbed,
    wrong_arguments,
    wrong_in_a_pipeline,
    lambda c: c.pipeline().set("client:1", "x").lpush("client:1", "y").execute(),
    lambda c: c.pipeline().set("client:1", "x").mset({"client:1": 1}).execute(),
    lambda c: c.eval("return redis.call('SET', KEYS[1], ARGV[1])", 1, "client:1", "x"),
    lambda c: c.execute_command("SET", "client:1", "x", target_nodes=c.get_node_from_key("client:1")),
    lambda c: sorted(c.scan(match="client:*", count=1_000_000)[1]),
    lambda c: sorted(c.keys(target_nodes=c.PRIMARIES)),
]


@pytest.fixture
def world(cluster: Cluster, database: str, tmp_path: Path) -> Iterator[RealWorld]:
    """A cluster and a PostgreSQL in stage dualwrite."""
    made = RealWorld(CLIENTS, tmp_path, cluster.url, database)
    yield made
    made.close()


def marked(world: RealWorld) -> list[str]:
    """The keys that are marked, in order."""
    found = world.fenced.marked_in(world.fenced.shards_with_marks(), limit=1000)
    return sorted(mark.key for marks in found.values() for mark in marks)


def seal(world: RealWorld, authority: Authority, epoch: int) -> None:
    """Move all fences."""
    swap = Swap(Fence(epoch, authority, Logging.MIRROR), clock_epoch=None if authority is Authority.SEALED else epoch)
    world.fenced.swap(world.fenced.shards(), epochs=range(9), authorities=list(Authority), to=swap)


def told(client: Any, acts: list[Act]) -> list[Any]:
    """What each returns or raises."""
    found = []
    for act in acts:
        try:
            found.append(act(client))
        except Exception as exc:  # noqa: BLE001 - whatever the bare client raises
            found.append((type(exc), str(exc)))
    return found


def cleared(cluster: Cluster) -> dict[str, Any]:
    """All data that is there, which is deleted."""
    found = {}
    for node in cluster.masters:
        for key in node.client.scan_iter(count=10_000):
            if not key.startswith(b"kvm:"):
                kind = node.client.type(key)
                value = node.client.get(key) if kind == b"string" else None
                found[key.decode()] = kind, value, node.client.ttl(key) > 0
                node.client.delete(key)
    return found


def clients(cluster: Cluster, **settings: Any) -> dict[str, Any]:
    """What a client of the cluster is told."""
    return {"host": "127.0.0.1", "port": cluster.masters[0].port, "password": cluster.password, **settings}


@pytest.mark.filterwarnings("ignore:Call to deprecated")
def test_every_reply_is_the_bare_clients(cluster: Cluster, database: str, tmp_path: Path) -> None:
    """The same commands give the same replies, errors and types, and leave the same store behind; all are marked."""
    # Names of commands may be spelled in more ways, DBSIZE counts the tool's own keys, and chance says what is popped.
    odd, spelled = {"dbsize", "scan_iter", "spop"}, ACTS["strings"][32:35]
    acts_of = {
        subject: [act for act in acts if odd.isdisjoint(act.__code__.co_names) and act not in spelled]
        for subject, acts in {**ACTS, "clusters": OF_CLUSTERS}.items()
    }
    runs = [(RESP3, subject) for subject in acts_of] + [(DECODED, "strings"), (DECODED, "clusters")]
    bare = []
    for settings, subject in runs:
        with redis.RedisCluster(**clients(cluster, **settings)) as client:
            bare.append((told(client, acts_of[subject]), cleared(cluster)))
    world, written = RealWorld(CLIENTS, tmp_path, cluster.url, database), set[str]()
    with closing(world), Migration.open(world.settings) as migration:
        for (settings, subject), (expected, content) in zip(runs, bare, strict=True):
            with migration.redis(redis.RedisCluster(**clients(cluster, **settings))) as client:
                actual = told(client, acts_of[subject])
                assert [(each, type(each)) for each in expected] == [(each, type(each)) for each in actual]
            left = cleared(cluster)
            assert content == left
            written |= {key for key in left if key.startswith("client:")}
        assert set() == written - set(marked(world))


async def transaction_async(client: Any) -> Any:
    """A transaction that watches, with a write of its own meanwhile."""
    async with client.pipeline(transaction=True) as pipe:
        await pipe.watch("client:{a}1")
        found = await pipe.get("client:{a}1")
        pipe.multi()
        pipe.set("client:{a}1", found + found)
        pipe.incr("{a}other")
        return await pipe.execute()


async def pipeline_async(client: Any) -> Any:
    """The replies of a pipeline over many slots, errors as texts."""
    pipe = client.pipeline()
    for number in range(20):
        pipe.set(f"client:{number}", number).incr(f"client:{number}").get(f"client:{number}").incr(f"other:{number}")
        pipe.lpush("client:0", "x")
    pipe.mset_nonatomic({"client:1": 1, "other": 2}).delete("client:1", "client:2")
    return [repr(each) for each in await pipe.execute(raise_on_error=False)]


ACTS_ASYNC: list[Callable[[Any], Awaitable[Any]]] = [
    lambda c: c.set("client:{a}1", "1", ex=100),
    lambda c: c.incr("client:{a}1"),
    lambda c: c.get("client:{a}1"),
    transaction_async,
    pipeline_async,
    lambda c: c.mset_nonatomic({"client:1": 1, "client:2": 2, "other": 3}),
    lambda c: c.delete("client:1", "client:2", "client:none", "other"),
    lambda c: c.mset({"client:1": 1, "client:2": 2}),
    lambda c: c.pipeline(transaction=True).set("client:{a}1", 1).incr("client:{a}1").get("client:{a}1").execute(),
    lambda c: c.pipeline(transaction=True).set("client:1", 1).set("client:2", 1).execute(),
    lambda c: c.pipeline(transaction=True).set("client:{a}1", "x").execute_command("HSET", "client:{a}2").execute(),
    lambda c: c.pipeline().set("client:1", "x").lpush("client:1", "y").execute(),
    lambda c: c.eval("return redis.call('SET', KEYS[1], ARGV[1])", 1, "client:1", "x"),
    lambda c: c.zadd("client:4", {"a": 1.5}, incr=True),
    lambda c: c.bitfield("client:9").set("u8", 0, 97).execute(),
]


@pytest.mark.parametrize("settings", [RESP3, DECODED], ids=repr)
def test_every_reply_is_the_bare_clients_with_an_event_loop(
    cluster: Cluster, database: str, tmp_path: Path, settings: dict[str, Any]
) -> None:
    """As without one; closing it closes the client that it was made of."""

    async def outcomes(client: Any) -> list[Any]:
        found: list[Any] = []
        for act in ACTS_ASYNC:
            try:
                found.append(await act(client))
            except Exception as exc:  # noqa: BLE001 - whatever the bare client raises
                found.append((type(exc), str(exc)))
        await client.aclose()
        return found

    async def wrapped(world: RealWorld) -> list[Any]:
        async with AsyncMigration.open(world.settings) as migration:
            return await outcomes(migration.redis(redis.asyncio.RedisCluster(**clients(cluster, **settings))))

    expected = asyncio.run(outcomes(redis.asyncio.RedisCluster(**clients(cluster, **settings))))
    content = cleared(cluster)
    with closing(RealWorld(CLIENTS, tmp_path, cluster.url, database)) as world:
        assert expected == asyncio.run(wrapped(world))
        left = cleared(cluster)
        assert content == left
        assert set() == {key for key in left if key.startswith("client:")} - set(marked(world))


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


def test_writes_wait_for_a_seal_and_follow_a_new_epoch(world: RealWorld, client: Any) -> None:
    """Each slot refuses what is of an older epoch; a pipeline is done once, in the order of each slot."""
    client.set("client:1", 1)
    seal(world, Authority.SEALED, 2)
    timer = threading.Timer(0.2, seal, (world, Authority.STORE, 3))
    timer.start()

    assert 2 == client.incr("client:1")
    timer.join()
    seal(world, Authority.STORE, 4)
    pipe = client.pipeline()
    for number in range(1, 6):
        pipe.incr(f"client:{number}").get(f"client:{number}").incr("other")
    answers = pipe.execute()
    assert [3, b"3", 1, 1, b"1", 2] == answers[:6]
    seal(world, Authority.STORE, 5)
    assert [b"OK", 4] == client.pipeline(transaction=True).set("client:1", 3).incr("client:1").execute()
    assert [f"client:{number}" for number in range(1, 6)] == marked(world)


def test_after_the_cut_over_the_tables_answer(world: RealWorld, client: Any) -> None:
    """Single commands and pipelines of several slots; no transactions, and nothing that only the store can do."""
    client.mset_nonatomic({"client:1": '{"n": 1}', "client:2": '{"n": 2}', "other": "x"})
    world.move(Stage.RAMPDOWN)

    assert [True, b'{"n":3}', b"x", None] == (
        client.pipeline().set("client:3", '{"n": 3}').get("client:3").get("other").get("client:none").execute()
    )
    assert [b'{"n":1}', b'{"n":2}'] == [client.get("client:1"), client.get("client:2")]
    assert 2 == client.delete("client:1", "client:2", "client:none")
    with pytest.raises(NotAfterCutoverError, match="MULTI"):
        client.pipeline(transaction=True).set("client:3", 1).execute()
    with pytest.raises(NotAfterCutoverError, match="WATCH"):
        client.transaction(lambda pipe: pipe.multi(), "client:3")
    with pytest.raises(NotAfterCutoverError, match="APPEND"):
        client.append("client:3", "x")
    assert [NotAfterCutoverError] == [type(each) for each in refusals(client)]
    world.move(Stage.DUALWRITE)
    assert {"n": 3} == json.loads(client.get("client:3"))


def refusals(client: Any) -> list[Any]:
    """What a pipeline says of a command that only the store can do."""
    found: list[Any] = client.pipeline().append("client:3", "x").execute(raise_on_error=False)
    return found


def test_a_lost_answer_is_ambiguous_and_nothing_is_sent_twice(cluster: Cluster, migration: Migration) -> None:
    """Neither by itself nor in a pipeline, whose other nodes answer; it is also the driver's own error."""
    node = cluster.masters[0]
    keys = [f"client:{number}" for number in range(60)]
    at_node = [key for key in keys if key_slot(key.encode()) * 3 < SLOTS]
    with CutLine(node.port) as line:

        def remap(address: tuple[str, int]) -> tuple[str, int]:
            return (address[0], line.port) if address[1] == node.port else address

        port = cluster.masters[1].port
        plain = redis.RedisCluster(**clients(cluster, socket_timeout=2, address_remap=remap) | {"port": port})
        with migration.redis(plain) as client:
            client.mset_nonatomic(dict.fromkeys(keys, 0))
            line.answers = "hold"
            pipe = client.pipeline()
            for key in keys:
                pipe.incr(key)
            answers = pipe.execute(raise_on_error=False)
            # Now nothing can be sent at all.
            with pytest.raises(redis.TimeoutError):
                client.incr(at_node[0])
            unsent = client.pipeline().incr(keys[0]).incr(at_node[0]).incr(at_node[1]).execute(raise_on_error=False)
            line.answers = "pass"

            assert at_node == [key for key, each in zip(keys, answers, strict=True) if each != 1]
            assert [redis.TimeoutError] * 2 == [type(each) for each in unsent[1:]]
            for each in answers:
                assert each == 1 or isinstance(each, AmbiguousWriteError)
                assert each == 1 or isinstance(each, redis.TimeoutError)
            assert {1} == {int(client.get(key)) for key in at_node}


def test_slots_that_move_are_followed(own_cluster: Cluster, database: str, tmp_path: Path) -> None:
    """While a slot's keys are on their way, and behind that: commands, pipelines, and transactions once it arrived."""
    world = RealWorld(CLIENTS, tmp_path, own_cluster.url, database)
    old, new = own_cluster.masters[0], own_cluster.masters[1]
    tag = next(number for number in range(99) if key_slot(b"%d" % number) * 3 < SLOTS)
    slot, key, twin = key_slot(b"%d" % tag), f"client:{{{tag}}}a", f"client:{{{tag}}}b"
    with closing(world), Migration.open(world.settings) as migration, migration.redis(own_cluster.client()) as client:
        client.mset({key: 1, twin: 1})
        with client.pipeline(transaction=True) as pipe:
            pipe.watch(twin)
            own_cluster.begin_move(slot, old, new)
            own_cluster.move_keys(slot, old, new)
            assert 2 == client.incr(key)
            assert [3, b"3", 2, 1] == client.pipeline().incr(key).get(key).incr(twin).incr("client:x").execute()
            own_cluster.end_move(slot, new)
            pipe.multi()
            pipe.set(twin, 9)
            with pytest.raises(redis.WatchError):
                pipe.execute()
        # Its connection was given up, so that there was nothing to unwatch.
        assert "cmdstat_unwatch" not in old.client.info("commandstats")
        assert [4, b"4", 3] == client.pipeline().incr(key).get(key).incr(twin).execute()
        assert [5, 4] == client.pipeline(transaction=True).incr(key).incr(twin).execute()
        assert sorted([key, twin, "client:x"]) == marked(world)
        assert 1 == client.eval("return redis.call('DEL', KEYS[1])", 1, key)


def test_threads_and_forks_share_a_client(client: Any) -> None:
    """Counters are exact among them, in pipelines over all nodes, mapped or not."""

    def count() -> None:
        for _ in range(5):
            pipe = client.pipeline()
            for number in range(10):
                pipe.incr(f"client:{number}").incr(f"other:{number}")
            pipe.execute()

    count()
    workers = [threading.Thread(target=count) for _ in range(3)]
    child = multiprocessing.get_context("fork").Process(target=count)
    child.start()
    for each in workers:
        each.start()
    for each in workers:
        each.join(30)
    child.join(30)

    assert 0 == child.exitcode
    assert [b"25"] * 20 == client.mget_nonatomic(
        [f"{name}:{number}" for name in ("client", "other") for number in range(10)]
    )


def test_what_is_no_client_of_a_cluster_is_refused(cluster: Cluster, migration: Migration) -> None:
    """A pipeline, and a client that was wrapped before."""
    with cluster.client() as plain:
        for wrong in (plain.pipeline(), migration.redis(plain)):
            with pytest.raises(ConfigError):
                migration.redis(wrong)
