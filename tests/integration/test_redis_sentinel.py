from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from kvmigrate.embedded.binaries import find_redis
from kvmigrate.embedded.process import GuardedProcess, free_port
from kvmigrate.embedded.redis import RedisServer
from kvmigrate.errors import ConfigError, SourceError
from kvmigrate.model import Item
from kvmigrate.stores.base import ScanRequest
from kvmigrate.stores.open import open_source
from kvmigrate.stores.redis_wire import RedisWire
from tests.need import need

PASSWORD = "hunter2hunter2"


class Watched(NamedTuple):
    """A master, its replica, and a Sentinel that watches both.

    Attributes:
        sentinel: A client of the Sentinel.
    """

    url: str
    master: RedisServer
    replica: RedisServer
    sentinel: redis.Redis


def client_at(port: int, password: str | None) -> redis.Redis:
    """Return a patient client."""
    return redis.Redis(port=port, password=password, retry=Retry(ConstantBackoff(0.1), 100))


def with_password(server: RedisServer) -> int:
    """Give a server the password of all, and return its port."""
    with redis.Redis.from_url(server.url) as client:
        client.config_set("masterauth", PASSWORD)
        client.config_set("requirepass", PASSWORD)
    return int(urlsplit(server.url).port or 0)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """Two servers under a Sentinel that asks for a password of its own."""
    program = find_redis()
    if program is None:
        need("Redis (a program to start)")
    with ExitStack() as stack:
        master, replica = (stack.enter_context(RedisServer.start()) for _ in range(2))
        port, other = with_password(master), with_password(replica)
        stack.enter_context(client_at(other, PASSWORD)).replicaof("127.0.0.1", str(port))
        sentinel_port = free_port()
        config = tmp_path / "sentinel.conf"
        config.write_text(
            f"port {sentinel_port}\nbind 127.0.0.1\ndir {tmp_path}\nrequirepass of-sentinel\n"
            f"sentinel monitor shop 127.0.0.1 {port} 1\nsentinel auth-pass shop {PASSWORD}\n"
            "sentinel down-after-milliseconds shop 1000\nsentinel failover-timeout shop 10000\n"
        )
        command = [str(program), str(config), "--sentinel"]
        process = GuardedProcess(command, log=tmp_path / "sentinel.log", stop=signal.SIGTERM)
        stack.callback(process.close)
        sentinel = stack.enter_context(client_at(sentinel_port, "of-sentinel"))
        sentinel.ping()
        hosts = f"127.0.0.1:1,127.0.0.1:{sentinel_port}"
        url = f"redis+sentinel://:{PASSWORD}@{hosts}/shop/0?sentinel_password=of-sentinel"
        yield Watched(url, master, replica, sentinel)


def fail_over(watched: Watched) -> None:
    """Let Sentinel make the replica the master, as soon as it knows it."""
    wire, before = RedisWire(watched.sentinel), master_port(watched)
    end = time.monotonic() + 60
    while master_port(watched) == before:
        assert time.monotonic() < end, "no failover"
        try:
            wire.run([("SENTINEL", "FAILOVER", "shop")])
        except redis.exceptions.ResponseError:  # no replica is known yet, or it is under way
            time.sleep(0.2)


def master_port(watched: Watched) -> int:
    """Return where the master is, as Sentinel says."""
    [(_, port)] = RedisWire(watched.sentinel).run([("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "shop")])
    return int(port)


def test_reads_follow_the_master_over_a_failover(watched: Watched) -> None:
    """The first named Sentinel is down, the master changes between two reads: everything is read, and the newest."""
    keys = {f"k{n}" for n in range(3000)}
    with client_at(int(urlsplit(watched.master.url).port or 0), PASSWORD) as master:
        master.mset(dict.fromkeys(keys, "1"))
        assert master.wait(1, 20_000) == 1
        with closing(open_source(watched.url)) as source:
            pages = source.scan(ScanRequest(page_keys=100))
            seen = [next(pages) for _ in range(10)]
            fail_over(watched)
            with client_at(master_port(watched), PASSWORD) as promoted:
                end = time.monotonic() + 30
                while promoted.info("replication")["role"] != "master":
                    assert time.monotonic() < end
                    time.sleep(0.1)
                promoted.set("k1", "2")
            master.shutdown(nosave=True)
            seen += pages

            assert keys == {item.key for page in seen for item in page.items}
            assert [Item("k1", b"2")] == source.get_many(["k1"])
            assert 3000 == source.count()
            assert PASSWORD not in source.name
            assert "of-sentinel" not in source.name


def test_an_unknown_master_is_an_error_at_once(watched: Watched) -> None:
    """Sentinel knows no such name: no retry helps."""
    with closing(open_source(watched.url.replace("/shop/", "/no-such/"))) as source:
        started = time.monotonic()
        with pytest.raises(SourceError, match="no-such") as caught:
            source.count()

    assert time.monotonic() - started < 5
    assert PASSWORD not in f"{caught.value}{caught.value.hint}"


@pytest.mark.parametrize("path", ["", "/", "/shop/x"])
def test_a_wrong_sentinel_url_is_told(path: str) -> None:
    """The name of the master is a part of it, and the database is a number."""
    with pytest.raises(ConfigError) as caught:
        open_source(f"redis+sentinel://:hunter2@h1,h2{path}")

    assert "name-of-the-master" in caught.value.hint
