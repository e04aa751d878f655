"""Whatever an application's client is told of its connections goes on behind the one line."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
import redis.asyncio
import uvloop
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.retry import Retry

from kvmigrate import AsyncMigration, Migration
from kvmigrate.embedded.process import free_port
from kvmigrate.embedded.redis import RedisServer
from kvmigrate.errors import AmbiguousWriteError
from tests.cut_line import CutLine
from tests.fix_cluster import Cluster, start_node
from tests.need import need
from tests.store_world import CLIENTS, RealWorld


@pytest.fixture
def world(redis_url: str, database: str, tmp_path: Path) -> Iterator[RealWorld]:
    """A Redis and a PostgreSQL in stage dualwrite."""
    with closing(RealWorld(CLIENTS, tmp_path, redis_url, database)) as made:
        yield made


def marked(world: RealWorld) -> list[str]:
    """The keys that are marked, in order."""
    [shard] = world.fenced.shards()
    return sorted(mark.key for mark in world.fenced.marked(shard, limit=1000))


def used(client: Any) -> None:
    """A command of each form, a pipeline and a transaction."""
    assert client.set("client:1", "1")
    assert 2 == client.eval("return redis.call('INCR', KEYS[1])", 1, "client:1")
    assert [3, b"3"] == client.pipeline(transaction=False).incr("client:1").get("client:1").execute()
    assert [True, 1] == client.pipeline().set("client:2", "1").incr("other").execute()


async def used_async(client: Any) -> None:
    """As `used`."""
    assert await client.set("client:1", "1")
    assert 2 == await client.eval("return redis.call('INCR', KEYS[1])", 1, "client:1")
    assert [3, b"3"] == await client.pipeline(transaction=False).incr("client:1").get("client:1").execute()
    assert [True, 1] == await client.pipeline().set("client:2", "1").incr("other").execute()
    await client.aclose()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that signed itself, in a folder with its key."""
    program = shutil.which("openssl")
    if program is None:
        need("openssl")
    folder = tmp_path_factory.mktemp("tls")
    made = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    named = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1")
    files = ("-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem"))
    subprocess.run([program, *made, *named, *files], check=True, capture_output=True)
    return folder / "certificate.pem"


def with_tls(port: int, certificate: Path) -> dict[str, str]:
    """Settings of a server that takes TLS on another port, too."""
    return {
        "tls-port": str(port),
        "tls-auth-clients": "no",
        "tls-ca-cert-file": str(certificate),
        "tls-cert-file": str(certificate),
        "tls-key-file": str(certificate.with_name("key.pem")),
    }


def test_tls(certificate: Path, database: str, tmp_path: Path) -> None:
    """On the client's own connections and on those of the migration, with a certificate that is checked."""
    port = free_port()
    settings = with_tls(port, certificate)
    with RedisServer.start(settings=settings) as server:
        password = urlsplit(server.url).password
        url = f"rediss://:{password}@127.0.0.1:{port}/0?ssl_ca_certs={certificate}"
        with closing(RealWorld(CLIENTS, tmp_path, url, database)) as world:
            with Migration.open(world.settings) as migration, migration.redis(redis.Redis.from_url(url)) as client:
                used(client)

            async def run() -> None:
                async with AsyncMigration.open(world.settings) as opened:
                    await used_async(opened.redis(redis.asyncio.Redis.from_url(url)))

            redis.Redis.from_url(url).delete("other")
            asyncio.run(run())
            assert ["client:1", "client:2"] == marked(world)


def test_tls_of_a_cluster(certificate: Path, database: str, tmp_path: Path) -> None:
    """Every node is spoken to by TLS, also one that only another node names."""
    ports, password = [free_port(), free_port()], "pw"
    with ExitStack() as stack:
        more = [{**with_tls(port, certificate), "tls-cluster": "yes"} for port in ports]
        cluster = Cluster([start_node(stack, password, each) for each in more], password)
        for node in cluster.masters:
            # Whoever comes without TLS is told nothing.
            node.client.config_set("port", 0)
        url = f"rediss+cluster://:{password}@127.0.0.1:{ports[0]}?ssl_ca_certs={certificate}"
        known: Any = {"host": "127.0.0.1", "port": ports[1], "password": password, "ssl": True}
        known["ssl_ca_certs"] = str(certificate)
        world = stack.enter_context(closing(RealWorld(CLIENTS, tmp_path, url, database)))
        migration = stack.enter_context(Migration.open(world.settings))
        client = stack.enter_context(migration.redis(redis.RedisCluster(**known)))
        keys = [f"client:{number}" for number in range(20)]
        pipe = client.pipeline()
        for key in keys:
            pipe.set(key, "1").incr(key)
        assert [True, 2] * len(keys) == pipe.execute()
        assert 3 == client.eval("return redis.call('INCR', KEYS[1])", 1, keys[0])
        assert [4, b"4"] == client.pipeline(transaction=True).incr(keys[0]).get(keys[0]).execute()

        async def run() -> None:
            async with AsyncMigration.open(world.settings) as opened:
                own = opened.redis(redis.asyncio.RedisCluster(**known))
                assert [3] * 19 == [await own.incr(key) for key in keys[1:]]
                await own.aclose()

        asyncio.run(run())
        found = world.fenced.marked_in(world.fenced.shards_with_marks(), limit=1000)
        assert sorted(keys) == sorted(mark.key for marks in found.values() for mark in marks)


class Provider(CredentialProvider):
    """Gives the login of a user of few rights, and counts."""

    asked = 0

    def get_credentials(self) -> tuple[str, str]:
        """Return user and password."""
        self.asked += 1
        return "shopper", "pw"


def test_credentials_come_from_a_provider(world: RealWorld) -> None:
    """Whose user may use the keys of the data and those of the tool; the rest is refused in the server's own words."""
    rights = "+fcall +function|load +evalsha +eval +info +wait +@read +@write +@fast +@transaction".split()
    with redis.Redis.from_url(world.settings.need_source()) as owner:
        keys = ["client:*", "kvm:*", "other"]
        owner.acl_setuser("shopper", enabled=True, passwords=["+pw"], keys=keys, commands=rights)
    parts, provider = urlsplit(world.settings.need_source()), Provider()
    known: Any = {"host": parts.hostname, "port": parts.port, "credential_provider": provider}
    with Migration.open(world.settings) as migration, migration.redis(redis.Redis(**known)) as client:
        used(client)
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.rename("client:1", "elsewhere")
    assert provider.asked > 0
    assert ["client:1", "client:2"] == marked(world)


def test_retries_of_the_client_send_no_write_twice(world: RealWorld) -> None:
    """A read goes out again, as the client was told; a write of a mapped key is told to be ambiguous."""
    parts = urlsplit(world.settings.need_source())
    with CutLine(parts.port or 0) as line, Migration.open(world.settings) as migration:
        retry = Retry(NoBackoff(), 20, (redis.TimeoutError, redis.ConnectionError))
        known: Any = {"port": line.port, "password": parts.password, "socket_timeout": 0.5, "retry": retry}
        with migration.redis(redis.Redis(**known)) as client:
            client.set("client:1", 1)
            line.answers = "hold"
            for act in (client.incr, lambda key: client.pipeline(transaction=False).incr(key).execute()):
                with pytest.raises(AmbiguousWriteError) as lost:
                    act("client:1")
                assert isinstance(lost.value, redis.TimeoutError | redis.ConnectionError)
                line.answers = "pass"
                count = int(client.get("client:1"))
                assert count <= 3
                line.answers = "hold"
            threading.Timer(0.6, setattr, (line, "answers", "pass")).start()
            assert count == int(client.get("client:1"))


@pytest.mark.parametrize("protocol", [2, 3])
def test_messages_come_while_it_writes(world: RealWorld, protocol: int) -> None:
    """Published by itself, and keyspace notifications of what it writes."""
    with redis.Redis.from_url(world.settings.need_source(), protocol=protocol) as plain:
        plain.config_set("notify-keyspace-events", "K$")
        with Migration.open(world.settings) as migration, migration.redis(plain) as client:
            with client.pubsub(ignore_subscribe_messages=True) as heard:
                heard.subscribe("news")
                heard.psubscribe("__keyspace@*:client:*")
                client.set("client:1", 1)
                client.publish("news", "x")
                found: list[Any] = []
                while len(found) < 2:
                    found += filter(None, [heard.get_message(timeout=10)])
            plain.config_set("notify-keyspace-events", "")
    assert [b"set", b"x"] == sorted(each["data"] for each in found)


def test_uvloop(world: RealWorld) -> None:
    """Another event loop, with tasks that share the client, and messages."""

    async def run() -> None:
        async with AsyncMigration.open(world.settings) as migration:
            client = migration.redis(redis.asyncio.Redis.from_url(world.settings.need_source()))
            assert list(range(1, 31)) == sorted(await asyncio.gather(*(client.incr("client:1") for _ in range(30))))
            async with client.pubsub(ignore_subscribe_messages=True) as heard:
                await heard.subscribe("news")
                await client.publish("news", "x")
                while (found := await heard.get_message(timeout=10)) is None:
                    pass
            assert b"x" == found["data"]
            await used_async(client)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
    assert ["client:1", "client:2"] == marked(world)
