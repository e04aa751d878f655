"""An application's own Redis client while its data move: the same replies, and every write of a mapped key marked."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
import redis
from redis.cache import CacheConfig
from redis.connection import CacheProxyConnection

from kvmigrate import Migration
from kvmigrate.cutover.gate import Verdict
from kvmigrate.dualwrite.write import Patience
from kvmigrate.errors import (
    AmbiguousWriteError,
    CommandRefusedError,
    ConfigError,
    NotAfterCutoverError,
    SealedError,
    SourceError,
    WriteRefusedError,
)
from kvmigrate.model import Authority, Fence, Logging, Stage
from kvmigrate.stores.fence_base import Swap
from kvmigrate.stores.redis_writer import RedisWriter
from tests.proxy import Proxy
from tests.redis_client_acts import ACTS, Act, outcomes
from tests.store_world import CLIENTS, RealWorld, held

PROTOCOLS = [{"protocol": 2}, {"protocol": 3}, {"decode_responses": True}, {"protocol": 3, "decode_responses": True}]


@pytest.fixture
def world(redis_url: str, database: str, tmp_path: Path) -> Iterator[RealWorld]:
    """A Redis and a PostgreSQL in stage dualwrite."""
    made = RealWorld(CLIENTS, tmp_path, redis_url, database)
    yield made
    made.close()


@pytest.fixture
def migration(world: RealWorld) -> Iterator[Migration]:
    """The migration as a service opens it."""
    with Migration.open(world.settings) as opened:
        yield opened


@pytest.fixture
def plain(world: RealWorld) -> Iterator[Any]:
    """A client as the service has it."""
    with redis.Redis.from_url(world.settings.source) as client:
        yield client


@pytest.fixture
def client(plain: Any, migration: Migration) -> Any:
    """The same after the one line."""
    return migration.redis(plain)


def marked(world: RealWorld) -> list[str]:
    """The keys that are marked, in order."""
    [shard] = world.fenced.shards()
    return sorted(mark.key for mark in world.fenced.marked(shard, limit=1000))


def seal(world: RealWorld, authority: Authority = Authority.SEALED, epoch: int = 2) -> None:
    """Move the fence alone."""
    fence = Fence(epoch, authority, Logging.MIRROR)
    swap = Swap(fence, clock_epoch=None if authority is Authority.SEALED else epoch)
    shards = world.fenced.shards()
    assert 1 == world.fenced.swap(shards, epochs=range(9), authorities=list(Authority), to=swap)


def content(client: Any) -> dict[bytes, Any]:
    """All keys but the tool's own, as they are stored, and whether they expire."""
    found = {}
    keys: list[bytes] = client.keys()
    for key in keys:
        if not key.startswith(b"kvm:"):
            # What is taken out of a set is left to chance; streams remember when their groups read.
            kind = client.type(key)
            value = client.scard(key) if kind == b"set" else client.xlen(key) if kind == b"stream" else client.dump(key)
            found[key] = value, client.ttl(key) > 0
    return found


@pytest.mark.filterwarnings("ignore:Call to deprecated")
@pytest.mark.parametrize("settings", PROTOCOLS, ids=repr)
def test_every_reply_is_the_bare_clients(
    world: RealWorld, migration: Migration, plain: Any, settings: dict[str, Any]
) -> None:
    """The same commands give the same replies, errors and types, and leave the same store behind; all are marked."""
    other = world.settings.source.rsplit("/", 1)[0] + "/9"
    with (
        redis.Redis.from_url(other, **settings) as bare,
        redis.Redis.from_url(other) as look,
        redis.Redis.from_url(world.settings.source, **settings) as own,
    ):
        client = migration.redis(own)
        for subject, acts in ACTS.items():
            look.flushdb()
            for key in content(plain):
                plain.delete(key)
            expected, actual = outcomes(bare, acts), outcomes(client, acts)
            assert [(subject, each, type(each)) for each in expected] == [
                (subject, each, type(each)) for each in actual
            ]
            assert content(look) == content(plain)
            keys = {key.decode() for key in content(plain) if key.startswith(b"client:")}
            assert set() == keys - set(marked(world))
        look.flushdb()


def test_what_is_not_mapped_is_not_marked(world: RealWorld, client: Any) -> None:
    """The client is a redis.Redis, and other keys are written as ever."""
    assert isinstance(client, redis.Redis)
    client.set("other", 1)
    pipe = client.pipeline()
    pipe.incr("other")
    pipe.incr("client")
    pipe.execute()
    client.eval("return redis.call('INCR', KEYS[1])", 1, "other")
    client.rpush("work", "a")
    assert (b"work", b"a") == client.blpop("work", 1)
    client.mset({"a": 1, "client:1": 2})

    assert ["client:1"] == marked(world)
    assert b"3" == client.get("other")


def test_a_seal_is_waited_for(world: RealWorld, client: Any) -> None:
    """While the authority moves nothing is written; when the store opens again the write goes through, once."""
    client.set("client:1", 1)
    seal(world)
    threading.Timer(0.3, seal, (world, Authority.STORE, 3)).start()
    begun = time.monotonic()

    assert 2 == client.incr("client:1")
    assert 0.2 < time.monotonic() - begun < 4
    seal(world, epoch=4)
    threading.Timer(0.2, seal, (world, Authority.STORE, 5)).start()
    assert [3, b"3", 1] == client.pipeline(transaction=False).incr("client:1").get("client:1").incr("other").execute()
    seal(world, epoch=6)
    threading.Timer(0.2, seal, (world, Authority.STORE, 7)).start()
    assert [4, 2] == client.pipeline().incr("client:1").incr("other").execute()
    seal(world, Authority.STORE, 8)
    assert 5 == client.eval("return redis.call('INCR', KEYS[1])", 1, "client:1")
    seal(world, Authority.STORE, 9)
    pipe = client.pipeline(transaction=False).incr("client:1").incr("client:1").incr("other").incr("client:1")
    assert [6, 7, 3, 8] == pipe.execute()


def test_a_seal_that_stays_is_told(world: RealWorld, migration: Migration, client: Any) -> None:
    """Nothing is written, and the error says so."""
    migration.store._patience = Patience(wait_s=0.1)
    client.set("client:1", 1)
    # At the epoch of the control row such a seal would be one that was left behind.
    seal(world, epoch=3)

    with pytest.raises(SealedError):
        client.set("client:1", 2)
    with pytest.raises(SealedError):
        client.pipeline().set("client:1", 2).execute()
    assert b"1" == client.get("client:1")


def test_a_seal_in_the_midst_of_a_pipeline_leaves_the_other_replies(
    world: RealWorld, migration: Migration, client: Any
) -> None:
    """What is refused says that others were done; reads keep the answers that they have."""
    migration.store._patience = Patience(wait_s=0.1)
    client.mset({"client:1": 1, "client:2": 1})

    def close() -> None:
        with redis.Redis.from_url(world.settings.need_source()) as other:
            while not any("b" in each["flags"] for each in other.client_list()):
                time.sleep(0.02)
            seal(world, epoch=3)
            other.lpush("gate", "x")

    thread = threading.Thread(target=close)
    thread.start()
    pipe = client.pipeline(transaction=False).incr("client:1").blpop("gate", 30)
    pipe.incr("client:2").get("client:1").incr("client:1").incr("other")
    answers = pipe.execute(raise_on_error=False)
    thread.join(30)

    refused = answers[2]
    assert [2, b"2", refused, 1] == [answers[number] for number in (0, 3, 4, 5)]
    assert isinstance(refused, SealedError)
    assert "other commands of it were done" in str(refused)
    assert "raise_on_error=False" in refused.hint


def test_a_transaction_that_watches_begins_anew_when_the_authority_moves(world: RealWorld, client: Any) -> None:
    """As with any change of what is watched: the loop of the driver runs its function again."""
    client.set("client:1", 1)
    seen = []

    def act(pipe: Any) -> None:
        seen.append(pipe.get("client:1"))
        if len(seen) == 1:
            seal(world, Authority.STORE, 2)
        pipe.multi()
        pipe.set("client:1", 2)

    assert [True] == client.transaction(act, "client:1")
    assert 1 <= len(seen) <= 2
    assert b"2" == client.get("client:1")


def test_somebody_elses_write_breaks_a_watch(client: Any) -> None:
    """Also one that is made through the fence, and one of the watching pipeline itself."""
    with client.pipeline() as pipe:
        pipe.watch("client:1")
        client.set("client:1", 1)
        pipe.multi()
        pipe.set("client:1", 2)
        with pytest.raises(redis.WatchError):
            pipe.execute()
    with client.pipeline() as pipe:
        pipe.watch("client:1")
        pipe.set("client:1", 3)
        pipe.multi()
        pipe.set("client:1", 4)
        with pytest.raises(redis.WatchError):
            pipe.execute()
    assert b"3" == client.get("client:1")


REFUSED: list[tuple[Any, ...]] = [
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("SWAPDB", 0, 1),
    ("SELECT", 1),
    ("MIGRATE", "host", 1, "client:1", 0, 10),
    ("MIGRATE", "host", 1, "", 0, 10, "KEYS", "client:1"),
    ("BRANDNEW.ADD", "client:1", "x"),
]


def test_what_cannot_be_fenced_is_refused(plain: Any, client: Any) -> None:
    """With its name, and before anything is sent."""
    plain.set("client:1", "x")
    for command in REFUSED:
        with pytest.raises(CommandRefusedError, match=command[0]) as caught:
            client.execute_command(*command)
        assert command[0] == caught.value.command
        with pytest.raises(CommandRefusedError, match=command[0]):
            client.pipeline().execute_command(*command).execute()

    assert b"x" == plain.get("client:1")


def test_a_lost_answer_is_told_and_not_sent_again(
    redis_url: str, redis_proxy: Proxy, plain: Any, migration: Migration
) -> None:
    """The client's own error, which is also an `AmbiguousWriteError`; its retries stay away from mapped keys."""
    with redis.Redis.from_url(redis_proxy.url(redis_url)) as own:
        client: Any = migration.redis(own)
        for act, sight in LOST:
            client.set("client:1", 0)
            cut = redis_proxy.cut_reply(sight)
            with pytest.raises(redis.ConnectionError) as caught:
                act(client)
            assert cut.happened.is_set()
            assert isinstance(caught.value, AmbiguousWriteError)
            assert b"1" == plain.get("client:1")


LOST: list[tuple[Act, bytes]] = [
    (lambda c: c.incr("client:1"), b"INCR"),
    (lambda c: c.pipeline(transaction=False).incr("client:1").execute(), b"INCR"),
    (lambda c: c.pipeline(transaction=False).set("client:2", 0).incr("client:1").execute(), b"INCR"),
    (lambda c: c.pipeline().incr("client:1").execute(), b"EXEC"),
    (lambda c: c.eval("return redis.call('INCR', KEYS[1])", 1, "client:1"), b"EXEC"),
]


SERVED: list[Act] = [
    lambda c: c.set("client:1", b'{"n":1}'),
    lambda c: c.get("client:1"),
    lambda c: c.get("client:none"),
    lambda c: c.set("client:1", b'{"n":2}', nx=True),
    lambda c: c.set("client:2", b'{"n":2}', xx=True),
    lambda c: c.set("client:2", b'{"n":2}', nx=True, ex=100),
    lambda c: c.set("client:2", b'{"n":3}', keepttl=True, get=True),
    lambda c: c.set("client:2", b'{"n":4}', xx=True, px=100_000),
    lambda c: c.set("client:3", b'{"n":5}', exat=99_999_999_999),
    lambda c: c.set("client:3", b'{"n":5}', nx=True, get=True),
    lambda c: c.set("client:none", b'{"n":5}', xx=True, get=True),
    lambda c: c.execute_command("SETNX", "client:4", b'{"n":6}'),
    lambda c: c.execute_command("SETNX", "client:4", b'{"n":6}'),
    lambda c: c.execute_command("GETSET", "client:4", b'{"n":7}'),
    lambda c: c.execute_command("SETEX", "client:5", 100, b'{"n":8}'),
    lambda c: c.execute_command("PSETEX", "client:5", 100_000, b'{"n":9}'),
    lambda c: c.mget("client:1", "client:none", "client:2"),
    lambda c: c.exists("client:1", "client:1", "client:none"),
    lambda c: c.getdel("client:5"),
    lambda c: c.getdel("client:5"),
    lambda c: c.delete("client:3", "client:none"),
    lambda c: c.unlink("client:4"),
    lambda c: c.pipeline(transaction=False).get("client:1").incr("other").delete("client:1").get("client:1").execute(),
    lambda c: c.get("other"),
    lambda c: c.set("client:1", b'{"n":10}'),
]


@pytest.mark.parametrize("settings", [{"protocol": 2}, {"decode_responses": True}], ids=repr)
def test_the_tables_answer_as_the_store_would(
    world: RealWorld, migration: Migration, plain: Any, settings: dict[str, Any]
) -> None:
    """Once they are the authority; what they hold goes back to the store, and reads never look there."""
    other = world.settings.source.rsplit("/", 1)[0] + "/9"
    with (
        redis.Redis.from_url(other, **settings) as bare,
        redis.Redis.from_url(world.settings.source, **settings) as own,
    ):
        bare.flushdb()
        client = migration.redis(own)
        client.set("other", 0)
        world.move(Stage.RAMPDOWN)
        bare.set("other", 0)
        expected, actual = outcomes(bare, SERVED), outcomes(client, SERVED)
        bare.flushdb()

    assert [(each, type(each)) for each in expected] == [(each, type(each)) for each in actual]
    assert {"n": 10} == held(world.tables("client:1"))
    assert b'{"n":10}' == plain.get("client:1")
    world.move(Stage.COMPLETE)
    plain.set("client:1", "not read")
    assert b'{"n":10}' == migration.redis(plain).get("client:1")


def test_the_authority_moves_under_a_client(world: RealWorld, client: Any) -> None:
    """There and back: what it wrote is read on both sides, and the first write that is refused finds the way."""
    client.set("client:1", b'{"n":1}')
    world.move(Stage.RAMPDOWN)
    client.set("client:1", b'{"n":2}')
    assert b'{"n":2}' == client.get("client:1")
    pipe = client.pipeline(transaction=False)
    assert [True, b'{"n":3}'] == pipe.set("client:1", b'{"n":3}').get("client:1").execute()
    world.move(Stage.LIVE)
    client.set("client:1", b'{"n":4}')
    assert b'{"n":4}' == client.get("client:1")
    assert ["client:1"] == marked(world)


def test_a_pipeline_reads_where_the_authority_is(
    world: RealWorld, migration: Migration, plain: Any, client: Any
) -> None:
    """What this process heard long ago is confirmed first, as for a read alone."""
    client.set("client:1", b'{"n":1}')
    view = migration.store.way().view
    old = view.known
    world.move(Stage.RAMPDOWN)
    plain.set("client:1", "not read")

    view.known, view._confirmed = old, 0.0
    assert [b'{"n":1}', None] == client.pipeline(transaction=False).get("client:1").get("other").execute()
    view.known, view._confirmed = old, 0.0
    assert [b'{"n":1}', True] == client.pipeline(transaction=False).get("client:1").set("client:2", "{}").execute()


def test_writes_that_are_refused_together_are_not_lost(plain: Any, client: Any) -> None:
    """Each has the server's own error, where it says that nothing was done."""
    plain.config_set("min-replicas-to-write", 1)
    try:
        pipe = client.pipeline(transaction=False).set("client:1", 1).incr("client:1")
        answers = pipe.execute(raise_on_error=False)
    finally:
        plain.config_set("min-replicas-to-write", 0)

    assert ["NOREPLICAS Not enough good replicas to write."] * 2 == [str(each) for each in answers]
    assert [redis.ResponseError] * 2 == [type(each) for each in answers]


def test_one_connection_is_enough(world: RealWorld, migration: Migration) -> None:
    """Also where a pipeline has to be done again."""
    with redis.Redis.from_url(world.settings.source, max_connections=1) as own:
        client: Any = migration.redis(own)
        client.set("client:1", 1)
        seal(world, Authority.STORE, 2)
        assert [2, 3] == client.pipeline(transaction=False).incr("client:1").incr("client:1").execute()


def test_keys_of_the_tool_are_not_told(plain: Any, client: Any) -> None:
    """Neither the number of them nor one by chance, those of another migration neither."""
    plain.hset("kvm:k:{kvm}:shop", "orders", "{}")
    assert (0, None) == (client.dbsize(), client.randomkey())
    plain.hset("kvm:f:{kvm}:other", "e", 1)
    assert client.randomkey() is None
    plain.set("other", 1)
    assert b"other" == client.randomkey()


AFTER: dict[str, Act] = {
    "APPEND": lambda c: c.append("client:1", "x"),
    "STRLEN": lambda c: c.strlen("client:1"),
    "RENAME": lambda c: c.rename("client:1", "client:2"),
    "EVAL": lambda c: c.eval("return 1", 1, "client:1"),
    "MULTI": lambda c: c.pipeline().set("client:1", "1").execute(),
    "WATCH": lambda c: c.pipeline().watch("client:1"),
    "MGET": lambda c: c.mget("client:1", "other"),
    "MSETNX": lambda c: c.msetnx({"client:1": "1"}),
}


def test_what_the_tables_do_not_know_is_refused(world: RealWorld, plain: Any, client: Any) -> None:
    """With the command's name and what to do; nothing is written, and other keys are as ever."""
    client.set("client:1", b'{"n":1}')
    world.move(Stage.RAMPDOWN)

    for name, act in AFTER.items():
        with pytest.raises(NotAfterCutoverError, match=name) as caught:
            act(client)
        assert name == caught.value.command
        assert "Migration.store" in caught.value.hint
        assert b'{"n":1}' == plain.get("client:1") == client.get("client:1")
    assert 1 == client.incr("other")


def test_a_refused_command_stops_no_pipeline(world: RealWorld, client: Any) -> None:
    """The others are done, and the first refusal is raised, or stands in its place."""
    world.move(Stage.RAMPDOWN)

    def pipeline() -> Any:
        pipe = client.pipeline(transaction=False)
        return pipe.append("client:1", "a").set("client:2", "no JSON").incr("other")

    with pytest.raises(NotAfterCutoverError, match="APPEND"):
        pipeline().execute()
    answers = pipeline().execute(raise_on_error=False)
    assert [NotAfterCutoverError, WriteRefusedError, int] == [type(each) for each in answers]
    assert 2 == answers[2]


def test_a_pipeline_does_no_command_twice(world: RealWorld, plain: Any, migration: Migration) -> None:
    """Not even where the server refuses one before it: by rights that its user lacks inside of scripts."""
    plain.acl_setuser("app", enabled=True, nopass=True, keys="*", categories=["+@all"], commands=["-append"])
    url = urlsplit(world.settings.source)
    with redis.Redis.from_url(urlunsplit(url._replace(netloc=f"app:x@{url.hostname}:{url.port}"))) as own:
        client = migration.redis(own)
        pipe = (
            client.pipeline(transaction=False)
            .set("client:2", 1)
            .append("client:1", "x")
            .incr("client:2")
            .get("client:2")
        )
        _, refused, *done = pipe.execute(raise_on_error=False)
    plain.acl_deluser("app")

    assert isinstance(refused, redis.exceptions.NoPermissionError)
    assert [2, b"2"] == done


@pytest.mark.parametrize("fixture", ["redis_url", "redis6_url"])
def test_a_server_without_memory_takes_what_frees_some(
    fixture: str, request: pytest.FixtureRequest, database: str, tmp_path: Path
) -> None:
    """As on the bare client; what would need memory is refused with the server's own error."""
    with closing(RealWorld(CLIENTS, tmp_path, request.getfixturevalue(fixture), database)) as world:
        with Migration.open(world.settings) as migration, redis.Redis.from_url(world.settings.source) as plain:
            client: Any = migration.redis(plain)
            client.set("client:1", 1)
            client.rpush("client:2", "a", "b")
            plain.config_set("maxmemory", 1)
            try:
                found = outcomes(client, [lambda c: c.expire("client:1", 100), lambda c: c.lpop("client:2")])
                pipe = client.pipeline(transaction=False).set("client:1", 2).delete("client:1", "client:2")
                *refused, gone = pipe.execute(raise_on_error=False)
                found += [gone, *map(type, refused)]
                with pytest.raises(redis.exceptions.OutOfMemoryError):
                    client.set("client:1", 1)
            finally:
                plain.config_set("maxmemory", 0)

        assert [True, b"a", 2, redis.exceptions.OutOfMemoryError] == found
        assert ["client:1", "client:2"] == marked(world)


OLD: list[Act] = [
    lambda c: c.set("client:1", 1),
    lambda c: c.incrbyfloat("client:1", 0.5),
    lambda c: c.execute_command("SET", "client:1"),
    lambda c: (
        c.pipeline(transaction=False).zmpop(1, ["client:2"], min=True).incr("client:3").execute(raise_on_error=False)
    ),
    lambda c: c.zadd("client:4", {"a": 1}, incr=True),
    lambda c: c.get("client:3"),
]


def test_older_servers_reply_as_ever(redis6_url: str, database: str, tmp_path: Path) -> None:
    """What they refuse to scripts, in words of their own, is done or refused outside of one."""
    with closing(RealWorld(CLIENTS, tmp_path, redis6_url, database)) as world:
        with (
            Migration.open(world.settings) as migration,
            redis.Redis.from_url(redis6_url) as plain,
            redis.Redis.from_url(redis6_url.rsplit("/", 1)[0] + "/9") as bare,
        ):
            expected, actual = outcomes(bare, OLD), outcomes(migration.redis(plain), OLD)
        assert [repr(each) for each in expected] == [repr(each) for each in actual]
        assert ["client:1", "client:2", "client:3", "client:4"] == marked(world)


@pytest.mark.parametrize("fixture", ["redis_url", "redis6_url"])
def test_a_pipeline_may_be_the_first_that_meets_a_server_without_functions(
    fixture: str, request: pytest.FixtureRequest, database: str, tmp_path: Path
) -> None:
    """Whose user must not call them, or which has none: it goes by scripts, each command once."""
    url = request.getfixturevalue(fixture)
    with closing(RealWorld(CLIENTS, tmp_path, url, database)) as world, redis.Redis.from_url(url) as plain:
        plain.acl_setuser(
            "app", enabled=True, nopass=True, keys="*", categories=["+@all"], commands=["-fcall"] * (fixture[5] == "_")
        )
        parts = urlsplit(url)
        with (
            redis.Redis.from_url(urlunsplit(parts._replace(netloc=f"app:x@{parts.hostname}:{parts.port}"))) as own,
            Migration.open(world.settings) as migration,
        ):
            client: Any = migration.redis(own)
            for number in (1, 3):
                pipe = client.pipeline(transaction=False).incr("client:1").incr("client:1").get("client:1")
                assert [number, number + 1, str(number + 1).encode()] == pipe.execute()
        plain.acl_deluser("app")
        assert ["client:1"] == marked(world)


@pytest.mark.parametrize("fixture", ["redis_url", "redis6_url"])
def test_a_pipeline_keeps_its_order(
    fixture: str, request: pytest.FixtureRequest, database: str, tmp_path: Path
) -> None:
    """Whatever the server does not do at the first attempt: no write comes behind a later one of its key."""
    with (
        closing(RealWorld(CLIENTS, tmp_path, request.getfixturevalue(fixture), database)) as world,
        Migration.open(world.settings) as migration,
        redis.Redis.from_url(world.settings.source) as plain,
    ):
        client: Any = migration.redis(plain)
        client.set("client:1", 1)
        plain.script_flush()
        pipe = client.pipeline(transaction=False)
        pipe.delete("client:1").get("other").set("client:1", 2).expire("client:1", 100)
        assert [1, None, True, True] == pipe.execute()
        assert b"2" == plain.get("client:1")
        pipe = client.pipeline(transaction=False).incrbyfloat("client:1", 1.5).set("client:1", 0)
        assert [3.5, True] == pipe.execute()
        assert b"0" == plain.get("client:1")
        plain.set("client:1", bytes(8_000_000))
        plain.config_set("maxmemory", plain.info("memory")["used_memory"] - 4_000_000)
        try:
            pipe = client.pipeline(transaction=False).set("client:1", 3).get("other").delete("client:1")
            refused, *done = pipe.execute(raise_on_error=False)
        finally:
            plain.config_set("maxmemory", 0)
        assert isinstance(refused, redis.exceptions.OutOfMemoryError)
        assert [None, 1, 0] == [*done, plain.exists("client:1")]


def test_a_fence_of_a_later_protocol_is_told(plain: Any, client: Any) -> None:
    """With what to do about it, whatever way the command goes."""
    client.set("client:1", 1)
    plain.hset("kvm:f:{kvm}:shop", "proto", 2)
    acts: list[Act] = [
        lambda c: c.set("client:1", 2),
        lambda c: c.pipeline().set("client:1", 2).execute(),
        lambda c: c.pipeline(transaction=False).set("client:1", 2).execute(),
    ]
    for act in acts:
        with pytest.raises(SourceError, match="the fence is of protocol 2") as caught:
            act(client)
        assert "upgrade" in caught.value.hint
    plain.hset("kvm:f:{kvm}:shop", "proto", 1)
    assert b"1" == client.get("client:1")


def test_pipelines_of_modules_are_fenced(world: RealWorld, client: Any) -> None:
    """Those that the commands of the server's modules make, with their own replies."""
    for number, module in enumerate((client.json(), client.ts(), client.ft())):
        pipe = module.pipeline()
        pipe.execute_command("SET", f"client:{number}", 1)
        assert pipe.execute() in ([True], [b"OK"])

    assert ["client:0", "client:1", "client:2"] == marked(world)


def test_texts_go_as_those_of_the_bare_client(world: RealWorld, migration: Migration, plain: Any) -> None:
    """As UTF-8, whatever encoding the client has: the driver packs so."""
    with redis.Redis.from_url(world.settings.source, encoding="utf-16") as own:
        client: Any = migration.redis(own)
        for one, number in ((own, 1), (client, 2)):
            one.set(f"client:\u00fc{number}", "\u00fc")
            one.pipeline().append(f"client:\u00fc{number}", "x").execute()
    assert ["client:\u00fc2"] == marked(world)
    assert "\u00fcx".encode() == plain.get("client:\u00fc1") == plain.get("client:\u00fc2")


def test_a_cache_of_the_client_sees_its_writes(
    world: RealWorld, migration: Migration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the driver caches, the server takes back when it is written through the fence."""
    # The driver trusts no older server with this, and they can do it.
    monkeypatch.setattr(CacheProxyConnection, "MIN_ALLOWED_VERSION", "6.0.0")
    with redis.Redis.from_url(world.settings.source, protocol=3, cache_config=CacheConfig()) as own:
        client: Any = migration.redis(own)
        for number in range(3):
            client.set("client:1", number)
            assert str(number).encode() == client.get("client:1") == client.get("client:1")
        client.pipeline().set("client:1", 5).execute()
        assert b"5" == client.get("client:1")
        assert own.get_cache().size > 0


def test_a_client_of_another_kind_is_refused(migration: Migration, client: Any) -> None:
    """At once, with what to pass."""
    for wrong in (object(), client, redis.Redis().pipeline(), redis.asyncio.Redis()):
        with pytest.raises(ConfigError):
            migration.redis(wrong)


def test_a_forked_process_writes_on(world: RealWorld, client: Any) -> None:
    """A client that was used before the fork is used behind it, on connections of the child's own."""
    client.set("client:1", 0)
    child = multiprocessing.get_context("fork").Process(target=client.incr, args=("client:1",))
    child.start()
    child.join(20)

    assert 0 == child.exitcode
    assert 2 == client.incr("client:1")
    assert ["client:1"] == marked(world)


def test_threads_share_a_client(world: RealWorld, client: Any) -> None:
    """A counter is exact among them, in scripts, pipelines and transactions, while the fence moves, too."""

    def work(number: int) -> None:
        if number == 20:
            seal(world, Authority.STORE, 2)
        client.incr("client:1")
        client.pipeline().incr("client:1").execute()
        client.pipeline(transaction=False).incr("client:1").execute()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(40)))
    assert b"120" == client.get("client:1")


def test_commands_that_will_not_work_are_counted(migration: Migration, client: Any) -> None:
    """Those that a client used on mapped keys stand in `stage show` and hold the gate, until they are waived."""
    client.set("client:1", b'{"n":1}')
    client.get("client:1")
    client.incr("other")
    client.rename("client:1", "client:2")
    client.strlen("client:1")
    client.mget("client:1", "client:2")
    client.mget("client:1", "other")
    client.pipeline().append("client:1", " ").strlen("client:1").execute()
    with migration.stages() as stages:
        migration.store.close()
        seen = {(each.command, each.entity, each.uses) for each in stages.show().commands}
        report = stages.gate(Stage.RAMPDOWN, {"commands": "known"})

    assert {
        ("RENAME", "client", 2),
        ("STRLEN", "client", 2),
        ("MGET", "client", 1),
        ("APPEND", "client", 1),
        ("MULTI", "client", 1),
    } == seen
    assert report is not None
    [check] = [check for check in report.checks if check.name == "commands"]
    assert (Verdict.FAIL, 5) == (check.verdict, check.value)
    assert "RENAME of client" in check.reason


def test_a_write_and_its_mark_are_one_step(world: RealWorld, client: Any) -> None:
    """Whoever looks in between sees both or neither: each value has one n, and each n one value."""
    writer = RedisWriter(world.settings.source, scope="shop")
    client.set("client:1", 0)
    ended = threading.Event()

    def write() -> None:
        for _ in range(100):
            client.incr("client:1")
            client.pipeline().incr("client:1").get("other").execute()
            client.eval("return redis.call('INCR', KEYS[1])", 1, "client:1")
        ended.set()

    thread = threading.Thread(target=write)
    thread.start()
    pairs = set()
    while not ended.is_set():
        [seen] = writer.observe(["client:1"])
        [item] = seen.items
        assert item is not None
        pairs.add((item.value, seen.marks[0]))
    thread.join()
    writer.close()

    values, marks = {value for value, _ in pairs}, {mark for _, mark in pairs}
    assert len(pairs) == len(values) == len(marks)
    assert len(pairs) > 10


def test_a_pop_waits_for_what_comes(client: Any, plain: Any, world: RealWorld) -> None:
    """As long as it is told; what comes meanwhile is taken in one step with its mark."""
    threading.Timer(0.2, plain.rpush, ("client:1", "a")).start()

    assert (b"client:1", b"a") == client.blpop("client:1", 5)
    assert ["client:1"] == marked(world)
    assert client.blpop("client:1", 0.05) is None
