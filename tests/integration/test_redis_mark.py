from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
import redis

from kvmigrate.embedded.binaries import find_redis
from kvmigrate.embedded.redis import RedisServer
from kvmigrate.stores.base import ScanRequest
from kvmigrate.stores.open import open_source
from kvmigrate.stores.redis_mark import _CLEARLY_S
from tests.need import need

Change = Callable[[redis.Redis], object]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A server of this module's own, which saves when it is told to only."""
    if find_redis() is None:
        need("Redis (a program to start)")
    with RedisServer.start() as started:
        yield started


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    """A client of the server, which has something of every kind."""
    with redis.Redis.from_url(server.url) as made:
        made.flushall()
        made.set("a", "1")
        made.hset("h", "f", "1")
        made.rpush("l", "1", "2")
        made.sadd("s", "a")
        made.zadd("z", {"a": 1})
        made.xadd("x", {"a": "1"})
        made.xgroup_create("x", "g", "0")
        yield made


def mark_of(url: str) -> str | None:
    """Return the mark as a new process sees it."""
    with closing(open_source(url)) as source:
        return source.change_mark()


def settled_mark(url: str, wait_s: float = 30) -> str:
    """Return the mark as soon as there is one."""
    end = time.monotonic() + wait_s
    while (mark := mark_of(url)) is None:
        assert time.monotonic() < end, "there is no mark"
        time.sleep(0.05)
    return mark


CHANGES: dict[str, Change] = {
    "SET": lambda client: client.set("a", "1"),
    "APPEND": lambda client: client.append("a", "2"),
    "INCR": lambda client: client.incr("a"),
    "SETBIT": lambda client: client.setbit("a", 1, 1),
    "GETDEL": lambda client: client.getdel("a"),
    "DEL": lambda client: client.delete("a"),
    "UNLINK": lambda client: client.unlink("a"),
    "RENAME": lambda client: client.rename("a", "b"),
    "COPY": lambda client: client.copy("a", "b"),
    "MOVE": lambda client: client.move("a", 1),
    "SWAPDB": lambda client: client.swapdb(0, 1),
    "RESTORE": lambda client: client.restore("b", 0, client.dump("a") or b""),
    "HSET": lambda client: client.hset("h", "f", "2"),
    "HDEL": lambda client: client.hdel("h", "f"),
    "LPUSH": lambda client: client.lpush("l", "0"),
    "LPOP": lambda client: client.lpop("l"),
    "LTRIM": lambda client: client.ltrim("l", 0, 0),
    "SADD": lambda client: client.sadd("s", "b"),
    "SPOP": lambda client: client.spop("s"),
    "ZADD": lambda client: client.zadd("z", {"a": 2}),
    "XADD": lambda client: client.xadd("x", {"a": "2"}),
    "XREADGROUP": lambda client: client.xreadgroup("g", "me", {"x": ">"}),
    "PFADD": lambda client: client.pfadd("p", "a"),
    "EVAL": lambda client: client.eval("return redis.call('set', KEYS[1], '2')", 1, "a"),
    "EXPIRE": lambda client: client.expire("a", 1000),
    "EXPIRE at once": lambda client: client.expire("a", -1),
    "FLUSHDB": lambda client: client.flushdb(),
    "FLUSHALL": lambda client: client.flushall(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_kind_of_write_changes_the_mark(server: RedisServer, client: redis.Redis, name: str) -> None:
    """Whatever changes what is stored, or when it expires, is a change."""
    before = settled_mark(server.url)

    CHANGES[name](client)

    assert mark_of(server.url) != before


def test_reading_and_waiting_do_not_change_the_mark(server: RedisServer, client: redis.Redis) -> None:
    """Two sweeps of a store that rests have the same mark before and after."""
    before = settled_mark(server.url)

    client.get("a")
    client.hgetall("h")
    client.lrange("l", 0, -1)
    client.xread({"x": "0"})
    list(client.scan_iter())
    client.object("encoding", "a")
    client.info()
    client.eval("return redis.call('get', KEYS[1])", 1, "a")
    with closing(open_source(server.url)) as source:
        assert source.change_mark() == before
        list(source.scan_sorted(ScanRequest()))
        time.sleep(1.1)
        assert source.change_mark() == before


def test_a_write_in_another_database_changes_the_mark(server: RedisServer, client: redis.Redis) -> None:
    """The server counts for all of them together: it is never taken for nothing."""
    before = settled_mark(server.url)
    with redis.Redis.from_url(urlunsplit(urlsplit(server.url)._replace(path="/3"))) as other:
        other.set("a", "1")

    assert client.get("a") == b"1"
    assert mark_of(server.url) != before


def test_while_a_key_may_expire_there_is_no_mark(server: RedisServer, client: redis.Redis) -> None:
    """A key is gone for readers before the server counts it; afterwards the count of keys differs."""
    before = settled_mark(server.url)
    client.set("b", "1", ex=600)
    assert mark_of(server.url) is None
    client.pexpire("b", 1)
    time.sleep(0.01)
    assert client.get("b") is None

    assert settled_mark(server.url) != before


def test_expired_keys_are_a_change_even_if_their_count_was_reset(server: RedisServer, client: redis.Redis) -> None:
    """Statistics can be set to zero by anybody; the number of keys cannot."""
    client.set("b", "1")
    client.expire("b", 1)
    client.persist("b")
    before = settled_mark(server.url)
    client.expire("b", -1)
    client.config_resetstat()

    assert mark_of(server.url) != before


@pytest.mark.parametrize("save", ["SAVE", "BGSAVE"])
def test_a_save_resets_the_count_and_is_seen(server: RedisServer, client: redis.Redis, save: str) -> None:
    """Right after it there is no mark, and then another one."""
    before = settled_mark(server.url)

    if save == "SAVE":
        client.save()
    else:
        last = client.lastsave()
        client.bgsave()
        while client.info("persistence")["rdb_bgsave_in_progress"] or client.lastsave() == last:
            time.sleep(0.02)
    assert mark_of(server.url) is None
    client.set("a", "2")

    assert settled_mark(server.url) != before


def test_a_restart_changes_the_mark(tmp_path: Path) -> None:
    """What was written and lost in between is not known: another process is another mark."""
    if find_redis() is None:
        need("Redis (a program to start)")
    with RedisServer.start(tmp_path) as first, redis.Redis.from_url(first.url) as client:
        client.set("a", "1")
        before = settled_mark(first.url)
    with RedisServer.start(tmp_path) as second, redis.Redis.from_url(second.url) as client:
        assert client.get("a") == b"1"
        assert settled_mark(second.url) != before


def test_a_replica_has_no_mark(server: RedisServer, client: redis.Redis) -> None:
    """What its master has and it has not yet is no part of its counts."""
    parts = urlsplit(server.url)
    settings = {"masterauth": str(parts.password), "replicaof": f"127.0.0.1 {parts.port}"}
    before = settled_mark(server.url)
    with RedisServer.start(settings=settings) as replica, redis.Redis.from_url(replica.url) as reader:
        end = time.monotonic() + 20
        while reader.get("a") != b"1" and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(_CLEARLY_S + 0.5)

        assert reader.get("a") == client.get("a")
        assert mark_of(replica.url) is None
        reader.replicaof("NO", "ONE")
        assert settled_mark(replica.url) != before


def test_a_server_that_refuses_info_has_no_mark(server: RedisServer, client: redis.Redis) -> None:
    """Nothing is assumed of what it does not tell."""
    client.acl_setuser("blind", enabled=True, passwords=["+pw"], keys=["*"], commands=["+@all", "-info"])
    assert settled_mark(server.url)
    parts = urlsplit(server.url)
    url = urlunsplit(parts._replace(netloc=f"blind:pw@127.0.0.1:{parts.port}"))

    assert mark_of(url) is None
    client.acl_deluser("blind")
