"""What a fenced Redis does when the server, the line or the user's rights get in the way."""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from kvmigrate.embedded.process import free_port
from kvmigrate.embedded.redis import RedisServer
from kvmigrate.errors import AmbiguousWriteError, ConfigError, FenceMissingError, SourceError, StaleError
from kvmigrate.model import ADDRESS_SEPARATOR, Authority, Fence, Item, ItemKind, Logging, MarkedKey, Version
from kvmigrate.stores.fence_base import Swap
from kvmigrate.stores.redis_fence import RedisFencedStore
from kvmigrate.stores.redis_wire import RedisWire
from kvmigrate.stores.redis_writer import RedisWriter
from kvmigrate.stores.redis_writer_async import AsyncRedisWriter
from tests.cut_line import CutLine
from tests.fenced_stand import OPEN, text_item
from tests.fix_cluster import Cluster
from tests.fix_redis import redis_json

SERVERS = ["redis_url", "redis6_url", "valkey_url"]
Rights = Callable[..., str]


@pytest.fixture(params=SERVERS)
def url(request: pytest.FixtureRequest) -> str:
    """Each server, with an open fence of the scope ``shop``."""
    found: str = request.getfixturevalue(request.param)
    return begun(found)


@pytest.fixture
def seven(redis_url: str) -> str:
    """Redis 7, with an open fence of the scope ``shop``."""
    return begun(redis_url)


@pytest.fixture
def own_server() -> Iterator[str]:
    """A server of this test's own, with an open fence."""
    with RedisServer.start() as server:
        yield begun(server.url)


@pytest.fixture
def user(seven: str) -> Iterator[Rights]:
    """A function that makes a user with some rights and returns their URL."""
    with redis.Redis.from_url(seven) as client:
        admin: Any = client

        def make(*rights: str) -> str:
            password = secrets.token_hex(8)
            admin.execute_command("ACL", "SETUSER", "shop", "reset", "on", f">{password}", *rights)
            parts = urlsplit(seven)
            return f"redis://shop:{password}@{parts.hostname}:{parts.port}{parts.path}"

        yield make
        admin.execute_command("ACL", "DELUSER", "shop")


def begun(url: str) -> str:
    """Give the store its first fence."""
    with closing(RedisFencedStore(url, scope="shop")) as store:
        assert 1 == store.create(store.shards(), OPEN)
    return url


def port_of(url: str) -> int:
    """Return the port in a URL."""
    return int(urlsplit(url).port or 0)


def through(url: str, port: int, **options: float) -> str:
    """Return the URL with another port, and options of the driver."""
    asked = "&".join(f"{name}={value}" for name, value in options.items())
    return url.replace(f":{port_of(url)}", f":{port}") + (f"?{asked}" if asked else "")


def calls(client: redis.Redis) -> int:
    """Return how many functions and scripts the server was asked for."""
    told: Any = client.info("commandstats")
    return sum(told.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("fcall", "evalsha", "eval"))


def test_a_server_that_forgot_its_functions_is_given_them_again(url: str) -> None:
    """By a flush, a restart or a failover; a write that found none did nothing, and is made once."""
    with (
        redis.Redis.from_url(url) as client,
        closing(RedisWriter(url, scope="shop")) as writer,
        closing(RedisFencedStore(url, scope="shop")) as store,
    ):
        admin: Any = client
        first = writer.put(text_item("a"), epoch=1)
        for command in (("SCRIPT", "FLUSH"), ("FUNCTION", "FLUSH")):
            if command[0] == "SCRIPT" or client.info("server")["redis_version"] >= "7":
                admin.execute_command(*command)
            second = writer.put(text_item("a"), epoch=1)
            assert first is not None
            assert second is not None
            assert (first.version or (0,)) < (second.version or (0,))
            first = second

        assert 1 == store.marks()


def test_a_clock_that_goes_back_does_not(url: str) -> None:
    """The next n is one more than the last, until time has caught up; whole numbers stay whole."""
    ahead = 4_000_000_000_000_000
    with redis.Redis.from_url(url) as client, closing(RedisWriter(url, scope="shop")) as writer:
        client.hset("kvm:c:{kvm}:shop", "v", ahead)

        puts = [writer.put(text_item("a"), epoch=1) for _ in range(3)]

        assert [Version(1, ahead + n) for n in (1, 2, 3)] == [put.version for put in puts if put]
        assert b"4000000000000003" == client.hget("kvm:c:{kvm}:shop", "v")
        with closing(RedisFencedStore(url, scope="shop")) as store:
            mark = MarkedKey("a", ahead + 3)
            assert [mark] == list(store.marked("kvm", limit=1))
            assert 0 == store.ack("kvm", [mark._replace(n=ahead + 2)])
            assert 1 == store.ack("kvm", [mark])


@pytest.mark.parametrize("answers", ["drop", "hold"])
def test_a_lost_answer_is_ambiguous_and_nothing_is_sent_twice(url: str, answers: str) -> None:
    """Also where the application's client would try again: the second write would be a new one."""
    retry: Any = Retry(NoBackoff(), 3)
    with CutLine(port_of(url)) as line, redis.Redis.from_url(url) as direct:
        near = through(url, line.port, socket_timeout=1.0)
        with redis.Redis.from_url(near, retry=retry, retry_on_timeout=True) as client:
            writer = RedisWriter(client, scope="shop")
            writer.put(text_item("a", b"old"), epoch=1)
            before = calls(direct)
            line.answers = answers

            with pytest.raises(AmbiguousWriteError, match="may have happened"):
                writer.put(text_item("a", b"new"), epoch=1)

            assert 1 == calls(direct) - before
            assert b"new" == direct.get("a")
            line.answers = "pass"
            assert text_item("a", b"new") == writer.get("a")


def test_a_lost_answer_to_a_read_is_no_ambiguous_write(url: str) -> None:
    """It may be asked again, and so may a touch."""
    with CutLine(port_of(url)) as line, closing(RedisFencedStore(through(url, line.port), scope="shop")) as store:
        for call in (store.marks, store.fences, lambda: store.touch("kvm", ["a"], epoch=1)):
            line.answers = "pass"
            store.touch("kvm", [], epoch=1)  # the server knows the script
            assert 0 == store.marks()
            line.answers = "drop"
            with pytest.raises(SourceError):
                call()
        line.answers = "pass"
        assert 1 == store.marks()


def arrives(direct: redis.Redis, value: bytes) -> None:
    """Wait until the server has a value under ``a``, of which its writer does not hear."""
    end = time.monotonic() + 20
    while direct.get("a") != value:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_async_write_that_is_lost_or_given_up_leaves_the_connection_clean(url: str) -> None:
    """Nobody reads an answer that belongs to somebody else."""

    async def run() -> None:
        with CutLine(port_of(url)) as line, redis.Redis.from_url(url) as direct:
            writer = AsyncRedisWriter(through(url, line.port, socket_timeout=1.0), scope="shop")
            await writer.put(text_item("a", b"1"), epoch=1)
            line.answers = "hold"
            with pytest.raises(AmbiguousWriteError):
                await writer.put(text_item("a", b"2"), epoch=1)
            line.answers = "pass"
            await writer.put(text_item("b", b"4"), epoch=1)
            line.answers = "hold"
            task = asyncio.create_task(writer.put(text_item("a", b"3"), epoch=1))
            await asyncio.to_thread(arrives, direct, b"3")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            line.answers = "pass"
            found = await asyncio.gather(*(writer.get(key) for key in "abababab"))
            assert [text_item("a", b"3"), text_item("b", b"4")] * 4 == found
            await writer.close()

    asyncio.run(run())


def test_a_refused_connection_is_not_ambiguous() -> None:
    """Nothing was sent, so a retry is the first write."""
    url = f"redis://:secret-word@127.0.0.1:{free_port()}/0"
    with closing(RedisWriter(url, scope="shop")) as writer, pytest.raises(SourceError) as caught:
        writer.put(text_item("a"), epoch=1)
    assert not isinstance(caught.value, AmbiguousWriteError)
    assert "secret-word" not in str(caught.value)


def test_an_idle_connection_that_the_server_closed_is_replaced(url: str) -> None:
    """That is seen before anything is sent."""
    with redis.Redis.from_url(url) as client, closing(RedisWriter(url, scope="shop")) as writer:
        writer.put(text_item("a"), epoch=1)
        client.client_kill_filter(_type="normal", skipme=True)

        assert writer.put(text_item("a", b"2"), epoch=1) is not None


def test_a_replica_refuses_and_that_is_certain(own_server: str) -> None:
    """A master that was demoted answers, so the write did not happen."""
    with redis.Redis.from_url(own_server) as client, closing(RedisWriter(own_server, scope="shop")) as writer:
        writer.put(text_item("a", b"1"), epoch=1)
        client.replicaof("127.0.0.1", "1")

        with pytest.raises(SourceError):
            writer.put(text_item("a", b"2"), epoch=1)

        client.replicaof("NO", "ONE")
        assert text_item("a", b"1") == writer.get("a")
        assert writer.put(text_item("a", b"2"), epoch=1) is not None


@pytest.mark.parametrize("fixture", SERVERS)
def test_a_full_server_still_deletes_and_drains(fixture: str, request: pytest.FixtureRequest) -> None:
    """What takes memory is refused with nothing changed; deletions, acks and flips go on."""
    url = begun(request.getfixturevalue(fixture))
    with (
        redis.Redis.from_url(url) as client,
        closing(RedisWriter(url, scope="shop")) as writer,
        closing(RedisFencedStore(url, scope="shop")) as store,
    ):
        put = writer.put(text_item("a"), epoch=1)
        writer.put(text_item(f"h{ADDRESS_SEPARATOR}f"), epoch=1)
        before = store.observe("kvm", ["a", "b"])
        client.config_set("maxmemory", 1)
        try:
            with pytest.raises(SourceError):
                writer.put(text_item("b"), epoch=1)
            assert before == store.observe("kvm", ["a", "b"])
            gone = writer.delete("a", epoch=1)
            assert writer.delete(f"h{ADDRESS_SEPARATOR}f", epoch=1) is not None
            assert writer.get("a") is None
            assert put is not None
            assert gone is not None
            assert gone.version is not None
            assert 1 == store.ack("kvm", [MarkedKey("a", gone.version.n)])
        finally:
            client.config_set("maxmemory", 0)


def test_threads_share_a_writer(url: str) -> None:
    """No two writes have one version, and each key's mark is its last one."""
    with closing(RedisWriter(url, scope="shop")) as writer, closing(RedisFencedStore(url, scope="shop")) as store:
        found: list[tuple[str, Version]] = []

        def work(number: int) -> None:
            for n in range(50):
                put = writer.put(text_item(f"k{n % 5}", b"%d" % number), epoch=1)
                assert put is not None
                assert put.version is not None
                found.append((f"k{n % 5}", put.version))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert 300 == len({version for _, version in found})
        newest = {key: max(version.n for each, version in found if each == key) for key, _ in found}
        assert newest == {mark.key: mark.n for mark in store.marked("kvm", limit=10)}


def test_a_writer_survives_a_fork(url: str) -> None:
    """Parent and child go on with connections of their own."""
    with closing(RedisWriter(url, scope="shop")) as writer:
        writer.put(text_item("parent", b"1"), epoch=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer Pythons warn of threads; this child only writes
            child = os.fork()
        if child == 0:
            code = 1
            try:
                for n in range(100):
                    writer.put(text_item("child", b"%d" % n), epoch=1)
                code = 0
            finally:
                os._exit(code)
        for n in range(100):
            writer.put(text_item("parent", b"%d" % n), epoch=1)

        assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert (text_item("parent", b"99"), text_item("child", b"99")) == (writer.get("parent"), writer.get("child"))


def test_tasks_share_a_writer(url: str) -> None:
    """And so do writes of several keys at once."""

    async def run() -> None:
        writer = AsyncRedisWriter(url, scope="shop")
        puts = await asyncio.gather(*(writer.put(text_item(f"k{n}"), epoch=1) for n in range(60)))
        assert 60 == len({put.version for put in puts if put})
        await writer.close()

    asyncio.run(run())


def test_a_fence_of_another_protocol_is_not_understood(url: str) -> None:
    """Nothing is done, by nobody, and the error says what to upgrade."""
    with (
        redis.Redis.from_url(url) as client,
        closing(RedisWriter(url, scope="shop")) as writer,
        closing(RedisFencedStore(url, scope="shop")) as store,
    ):
        client.hset("kvm:f:{kvm}:shop", "proto", "2")
        for call in (
            lambda: writer.put(text_item("a"), epoch=1),
            lambda: writer.write(("SET", "a", "1"), keys=["a"], marks=["a"], epoch=1),
            lambda: writer.fence("a"),
            lambda: store.observe("kvm", ["a"]),
            lambda: store.touch("kvm", ["a"], epoch=1),
        ):
            with pytest.raises(SourceError, match="protocol 2"):
                call()
        assert client.get("a") is None


def test_a_fence_without_a_clock_is_none(url: str) -> None:
    """A part of the store was lost: its next positions could be older than what the tables have."""
    with (
        redis.Redis.from_url(url) as client,
        closing(RedisWriter(url, scope="shop")) as writer,
        closing(RedisFencedStore(url, scope="shop")) as store,
    ):
        client.delete("kvm:c:{kvm}:shop")
        for call in (
            lambda: writer.put(text_item("a"), epoch=1),
            lambda: writer.delete("a", epoch=1),
            lambda: writer.put_many([text_item("a")], epoch=1),
            lambda: store.observe("kvm", ["a"]),
        ):
            with pytest.raises(FenceMissingError):
                call()

        assert {"kvm": None} == store.fences()
        sealed = Swap(Fence(2, Authority.SEALED), clock_epoch=2)
        assert 0 == store.swap(["kvm"], epochs=[1], authorities=[Authority.STORE], to=sealed)
        assert {"kvm": None} == store.fences()
        assert 1 == store.create(["kvm"], Fence(2, Authority.STORE, Logging.MIRROR))
        assert writer.put(text_item("a"), epoch=2) is not None


def test_a_clock_without_a_fence_goes_on(url: str) -> None:
    """What is left of a store says how far it was; marks that are left stay."""
    ahead = 4_000_000_000_000_000
    with redis.Redis.from_url(url) as client, closing(RedisFencedStore(url, scope="shop")) as store:
        store.touch("kvm", ["a"], epoch=1)
        client.hset("kvm:c:{kvm}:shop", "v", ahead)
        client.delete("kvm:f:{kvm}:shop")

        assert 1 == store.create(["kvm"], Fence(2, Authority.STORE, Logging.MIRROR))

        assert {"kvm": Version(2, ahead)} == store.clocks()
        assert ahead + 1 == store.touch("kvm", ["b"], epoch=2)
        assert ["a", "b"] == [mark.key for mark in store.marked("kvm", limit=10)]


REPLIES: list[tuple[Any, ...]] = [
    ("SET", "s", "1"),
    ("GET", "s"),
    ("GET", "none"),
    ("INCR", "s"),
    ("SET", "s", "x", "EX", "100"),
    ("APPEND", "s", b"\xff"),
    ("HSET", "h", "a", "1", "b", b"\0"),
    ("HMGET", "h", "a", "none", "b"),
    ("HGETALL", "h"),
    ("RPUSH", "l", "1", "2"),
    ("LRANGE", "l", 0, -1),
    ("LPOP", "none"),
    ("SADD", "m", "x"),
    ("SMEMBERS", "m"),
    ("ZADD", "z", "1.5", "x"),
    ("ZSCORE", "z", "x"),
    ("ZRANGE", "z", 0, -1, "WITHSCORES"),
    ("TYPE", "h"),
    ("EXISTS", "h", "none"),
]


def test_any_command_is_written_with_its_marks(url: str) -> None:
    """The reply is what the bare server says, in the same shapes; the marks are those that were named."""
    with (
        redis.Redis.from_url(url, protocol=2) as client,
        closing(RedisWriter(url, scope="shop")) as writer,
        closing(RedisFencedStore(url, scope="shop")) as store,
    ):
        plain = RedisWire(client)
        for command in REPLIES:
            [expected] = plain.run([(command[0], f"plain:{command[1]}", *command[2:])])
            key = f"ours:{command[1]}"

            put, reply = writer.write((command[0], key, *command[2:]), keys=[key], marks=[key, "list"], epoch=1)

            assert expected == reply, command
            marks = {mark.key: mark.n for mark in store.marked("kvm", limit=100)}
            assert put.version is not None
            assert put.version.n == marks[key] == marks["list"]


def test_replies_have_the_shapes_that_are_asked_for(url: str) -> None:
    """A client of RESP3 may have its maps."""
    with closing(RedisWriter(f"{url}?protocol=3", scope="shop")) as writer:
        writer.put(Item("h", {b"a": b"1"}, ItemKind.HASH), epoch=1)
        command = ("HGETALL", "h")

        assert [b"a", b"1"] == writer.write(command, keys=["h"], marks=["h"], epoch=1)[1]
        assert {b"a": b"1"} == writer.write(command, keys=["h"], marks=["h"], epoch=1, resp=3)[1]
        assert writer.write(("GET", "none"), keys=["none"], marks=[], epoch=1, resp=3)[1] is None


def test_a_command_that_crashes_old_servers_is_not_sent(redis6_url: str, seven: str) -> None:
    """Redis 6 may lose its memory over INCRBYFLOAT in a script; newer ones take it."""
    command = ("incrbyfloat", "f", "1.5")
    with closing(RedisWriter(begun(redis6_url), scope="shop")) as writer, pytest.raises(SourceError, match="Redis 7"):
        writer.write(command, keys=["f"], marks=["f"], epoch=1)
    with closing(RedisWriter(seven, scope="shop")) as writer:
        assert b"1.5" == writer.write(command, keys=["f"], marks=["f"], epoch=1)[1]


def test_a_command_that_fails_says_what_the_server_says(url: str) -> None:
    """As it would without a script around it."""
    with redis.Redis.from_url(url) as client, closing(RedisWriter(url, scope="shop")) as writer:
        client.set("s", "x")
        with pytest.raises(SourceError, match=r"WRONGTYPE [\w ]+$"):
            writer.write(("LPUSH", "s", "1"), keys=["s"], marks=["s"], epoch=1)
        with pytest.raises(StaleError):
            writer.write(("SET", "s", "y"), keys=["s"], marks=["s"], epoch=2)
        assert b"x" == client.get("s")


def test_many_writes_of_one_shard_are_all_made_or_none(url: str) -> None:
    """Also where a key that comes late holds another type of value."""
    field = Item(f"basket:1{ADDRESS_SEPARATOR}sku", b"1")
    with (
        redis.Redis.from_url(url) as client,
        closing(RedisWriter(url, scope="shop")) as writer,
        closing(RedisFencedStore(url, scope="shop")) as store,
    ):
        client.set("basket:1", "no hash")

        with pytest.raises(SourceError, match=r"WRONGTYPE nothing was written: .* stands under basket:1$"):
            writer.put_many([text_item("a"), field], epoch=1)

        assert (None, 0) == (client.get("a"), store.marks())


def test_without_log_a_command_marks_nothing(seven: str) -> None:
    """But is fenced."""
    with (
        closing(RedisWriter(seven, scope="other")) as writer,
        closing(RedisFencedStore(seven, scope="other")) as store,
    ):
        store.create(["kvm"], Fence(1, Authority.STORE, Logging.NONE))

        put, reply = writer.write(("SET", "s", "1"), keys=["s"], marks=["s"], epoch=1)

        assert (None, Logging.NONE, b"OK") == (put.version, put.log, reply)
        assert 0 == store.marks()


def test_lists_and_sets_are_observed_and_written_back(url: str) -> None:
    """Types that no mapping reads are named."""
    with redis.Redis.from_url(url) as client, closing(RedisFencedStore(url, scope="shop")) as store:
        client.rpush("l", b"b", b"\xff", b"a")
        client.sadd("m", b"b", b"a")
        client.zadd("z", {"x": 1})
        store.touch("kvm", ["l"], epoch=1)
        items = (
            Item("l", (b"b", b"\xff", b"a"), ItemKind.LIST),
            Item("m", (b"a", b"b"), ItemKind.SET),
            Item("z", "zset", ItemKind.OTHER),
        )
        assert items == store.observe("kvm", ["l", "m", "z"]).items
        client.hset("kvm:f:{kvm}:shop", "a", "T")
        client.delete("l", "m")

        for item in items[:2]:
            store.reverse("kvm", item.key, Version(1, 1), item)

        assert items == store.observe("kvm", ["l", "m", "z"]).items


def test_redis_json_stays_what_it_is(repository: Path) -> None:
    """Written whole and compared as JSON, given back as JSON, with its expiry; what is no JSON is refused."""
    with RedisServer.start(settings={"loadmodule": redis_json(repository)}) as server:
        url = begun(server.url)
        with (
            closing(RedisWriter(url, scope="shop", is_json=lambda key: key.startswith("doc"))) as writer,
            closing(RedisFencedStore(url, scope="shop", is_json=lambda key: key == "doc:2")) as store,
            redis.Redis.from_url(url) as client,
        ):
            moment = 4_000_000_000_000
            old = text_item("doc", b'{"a":1}', moment)
            writer.put(old, epoch=1)
            assert old == writer.get("doc") == store.observe("kvm", ["doc"]).items[0]
            assert writer.put(text_item("doc", b"2"), epoch=1, expect=text_item("doc", b"1")) is None
            assert writer.put(text_item("doc", b"[2]"), epoch=1, keep_ttl=True, expect=old) is not None
            assert text_item("doc", b"[2]", moment) == writer.get("doc")
            writer.put(text_item("doc", b"[3]"), epoch=1)
            assert text_item("doc", b"[3]") == writer.get("doc")
            with pytest.raises(SourceError):
                writer.put(text_item("doc", b"{"), epoch=1)
            assert text_item("doc", b"[3]") == writer.get("doc")

            client.hset("kvm:f:{kvm}:shop", "a", "T")
            for key in ("doc", "doc:2", "text"):
                store.reverse("kvm", key, Version(1, 1), text_item(key, b"[4]", moment))
                assert text_item(key, b"[4]", moment) == writer.get(key)
            assert [b"ReJSON-RL", b"ReJSON-RL", b"string"] == RedisWire(client).run(
                [("TYPE", key) for key in ("doc", "doc:2", "text")]
            )


def test_a_mark_of_any_bytes_can_be_taken_away(url: str) -> None:
    """A writer in another language may name a key that is not UTF-8: it must not hold up the drain."""
    with redis.Redis.from_url(url) as client, closing(RedisFencedStore(url, scope="shop")) as store:
        client.set(b"\xff", "1")
        client.zadd("kvm:d:{kvm}:shop", {b"\xff": 7})

        [mark] = store.marked("kvm", limit=10)
        [item] = store.observe("kvm", [mark.key]).items

        assert item == Item(mark.key, b"1")
        assert 1 == store.ack("kvm", [mark])


def test_a_user_needs_few_rights(user: Rights) -> None:
    """Those that the reference names; without functions, scripts do."""
    for allowed in (("+fcall", "+function|load"), ("+evalsha", "+eval")):
        with closing(RedisWriter(user("~*", "+@read", "+@write", "+time", *allowed), scope="shop")) as writer:
            assert writer.put(text_item("a"), epoch=1, ttl_ms=60_000) is not None
            assert writer.get("a") is not None


@pytest.mark.parametrize(
    "rights", [("~*", "+@read"), ("~a", "+@all"), ("~*", "+@all", "-zadd"), ("~*", "+@all", "-hset")]
)
def test_a_user_without_rights_is_told_which(seven: str, user: Rights, rights: tuple[str, ...]) -> None:
    """A write without its mark does not happen."""
    with closing(RedisWriter(user(*rights), scope="shop")) as writer:
        with pytest.raises(SourceError) as caught:
            writer.put(text_item("a"), epoch=1)
        assert "+fcall" in caught.value.hint
    with redis.Redis.from_url(seven) as client:
        assert client.get("a") is None


def test_a_node_of_a_cluster_is_refused(cluster: Cluster) -> None:
    """Its keys are of many shards; the URL of the whole cluster is what helps."""
    url = f"redis://:{cluster.password}@127.0.0.1:{cluster.masters[0].port}"
    with closing(RedisWriter(url, scope="shop")) as writer:
        for n in range(4):
            with pytest.raises(ConfigError, match="node of a cluster"):
                writer.put(text_item(f"k{n}"), epoch=1)


def test_replicas_confirm_what_they_have(own_server: str) -> None:
    """Also through a connection that never wrote."""
    with RedisServer.start() as replica, redis.Redis.from_url(replica.url) as client:
        client.config_set("masterauth", str(urlsplit(own_server).password))
        client.replicaof("127.0.0.1", str(port_of(own_server)))
        with closing(RedisFencedStore(own_server, scope="shop")) as store:
            assert any(store.confirm(replicas=1, timeout_s=2) for _ in range(20))
        with closing(RedisFencedStore(own_server, scope="shop")) as store:
            assert store.confirm(replicas=1, timeout_s=10)
            assert not store.confirm(replicas=2, timeout_s=0.05)
            client.replicaof("NO", "ONE")
            assert not store.confirm(replicas=1, timeout_s=0.05)


def test_a_restart_is_another_life(tmp_path: Path) -> None:
    """Data, fence and functions are the same; the controller has to know all the same."""
    lives = []
    for _ in range(2):
        with RedisServer.start(tmp_path) as server, closing(RedisFencedStore(server.url, scope="shop")) as store:
            lives.append(store.incarnation())
            store.create(["kvm"], OPEN)
            store.touch("kvm", ["a"], epoch=1)
            assert 1 == store.marks()

    assert lives[0] != lives[1]


@pytest.mark.parametrize("is_decoding", [False, True])
def test_a_client_that_was_passed_stays_open(seven: str, is_decoding: bool) -> None:  # noqa: FBT001 - of the list above
    """And answers as before."""
    with redis.Redis.from_url(seven, decode_responses=is_decoding) as client:
        writer, store = RedisWriter(client, scope="shop"), RedisFencedStore(client, scope="shop")
        writer.put(text_item("a", b"x"), epoch=1)
        writer.close()
        store.close()

        assert ("x" if is_decoding else b"x") == client.get("a")
        assert f"redis://127.0.0.1:{port_of(seven)}/0" == writer.name


def test_an_async_client_that_was_passed_stays_open(seven: str) -> None:
    """The async writer takes the async client, and a sync one says what it wants."""

    async def run() -> None:
        async with redis.asyncio.Redis.from_url(seven, decode_responses=True) as client:
            writer = AsyncRedisWriter(client, scope="shop")
            await writer.put(text_item("a", b"x"), epoch=1)
            assert text_item("a", b"x") == await writer.get("a")
            await writer.close()
            assert "x" == await client.get("a")

    asyncio.run(run())
