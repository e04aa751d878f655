"""A master, its replica and a Sentinel that watches both, for tests."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
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
