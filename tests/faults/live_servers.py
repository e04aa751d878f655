"""A Redis and a PostgreSQL that can be restarted, frozen and replaced, each behind a proxy with a port of its own."""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import psycopg
import redis

from kvmigrate.embedded.binaries import find_redis
from kvmigrate.embedded.postgres import PostgresServer
from kvmigrate.embedded.process import GuardedProcess, free_port
from kvmigrate.errors import ServerError
from tests.need import need
from tests.proxy import Proxy

_UP_S = 30.0


class OwnRedis:
    """A Redis with an append-only file, always on the same port, that keeps its data over restarts."""

    def __init__(self, folder: Path) -> None:
        """Start it, empty."""
        program = find_redis()
        if program is None:
            need("Redis")
        self._program, self._folder = program, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self.password = free_port(), secrets.token_hex(16)
        self.url = f"redis://:{self.password}@127.0.0.1:{self.port}/0"
        self._process = self._start()

    def client(self) -> redis.Redis:
        """Return a client of its own."""
        return redis.Redis.from_url(self.url)

    def follow(self, other: OwnRedis) -> None:
        """Become a replica of another one, and wait until it has all of it."""
        with self.client() as client:
            client.config_set("masterauth", other.password)
            client.execute_command("REPLICAOF", "127.0.0.1", other.port)
            end = time.monotonic() + _UP_S
            while client.info("replication").get("master_link_status") != "up":
                assert time.monotonic() < end, "the replica does not come up"
                time.sleep(0.05)

    def caught_up(self, other: OwnRedis) -> None:
        """Wait until this replica has everything that *other* accepted."""
        with other.client() as client:
            # Every connection waits for its own writes only: this one makes one that is behind all others.
            client.set("kvm-test:caught-up", secrets.token_hex(8))
            assert client.wait(1, int(_UP_S * 1000)) >= 1, "the replica does not catch up"
            client.delete("kvm-test:caught-up")
            client.wait(1, int(_UP_S * 1000))

    def promote(self) -> None:
        """Follow nobody any more."""
        with self.client() as client:
            client.execute_command("REPLICAOF", "NO", "ONE")

    def kill(self) -> None:
        """End it without a farewell."""
        self._process.signal(signal.SIGKILL) if hasattr(self._process, "signal") else self._process.stop()

    def restart(self) -> None:
        """Stop it, and start it again with what its append-only file has."""
        self._process.stop()
        self._process = self._start()

    def close(self) -> None:
        """Stop it."""
        self._process.stop()

    def _start(self) -> GuardedProcess:
        config = self._folder / "redis.conf"
        config.touch(mode=0o600)
        config.write_text(
            f'bind 127.0.0.1\nport {self.port}\ndir "{self._folder}"\nrequirepass {self.password}\n'
            'save ""\nappendonly yes\nappendfsync always\nprotected-mode no\n'
        )
        process = GuardedProcess(
            [str(self._program), str(config)], log=self._folder / "server.log", stop=signal.SIGTERM, junk=None
        )
        end = time.monotonic() + _UP_S
        while True:
            try:
                with redis.Redis.from_url(self.url, socket_timeout=2) as client:
                    client.ping()
            except redis.RedisError:
                assert time.monotonic() < end, "Redis does not start"
                time.sleep(0.02)
            else:
                return process


class LiveServers:
    """Both stores, and proxies before them: programs are given the proxies' URLs, checks the servers' own."""

    def __init__(self, folder: Path) -> None:
        """Start everything."""
        self._folder = folder
        self.redis = OwnRedis(folder / "redis")
        self.postgres = PostgresServer.start(folder / "postgres", settings={"shared_buffers": "64MB"})
        self.redis_proxy, self.postgres_proxy = Proxy.before(self.redis.url), Proxy.before(self.postgres.url)

    @property
    def source(self) -> str:
        """The URL of Redis behind its proxy."""
        parts = urlsplit(self.redis.url)
        return f"redis://:{parts.password}@127.0.0.1:{self.redis_proxy.port}/0"

    @property
    def target(self) -> str:
        """The URL of PostgreSQL behind its proxy."""
        return self.postgres_proxy.url(self.postgres.url)

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to find both."""
        return {**os.environ, "KVMIGRATE_SOURCE": self.source, "KVMIGRATE_TARGET": self.target}

    def restart_postgres(self, *, down_s: float = 0.0) -> None:
        """Stop PostgreSQL, and start it again with the same data after a while."""
        self.postgres.close()
        self.postgres_proxy.drop()
        time.sleep(down_s)
        self.postgres = PostgresServer.start(self._folder / "postgres", settings={"shared_buffers": "64MB"})
        self.postgres_proxy.move(self.postgres.url)

    def crash_postgres(self) -> None:
        """Kill PostgreSQL's first process with SIGKILL, and start it again: it recovers from its log."""
        data = self._folder / "postgres" / "data"
        first = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
        os.kill(first, signal.SIGKILL)
        end = time.monotonic() + _UP_S
        while True:
            try:
                self.restart_postgres()
            except ServerError:
                # Its other processes end when they notice; until then no new server may begin.
                assert time.monotonic() < end, "PostgreSQL does not start"
                time.sleep(0.2)
            else:
                return

    def restart_redis(self) -> None:
        """Restart Redis from its append-only file."""
        self.redis.restart()
        self.redis_proxy.drop()

    def redis_replica(self) -> OwnRedis:
        """Start a replica with the same password; whoever starts it closes it, or fails over to it."""
        replica = OwnRedis(self._folder / f"replica-{secrets.token_hex(4)}")
        replica.password, password = self.redis.password, replica.password
        with redis.Redis.from_url(f"redis://:{password}@127.0.0.1:{replica.port}/0") as client:
            client.config_set("requirepass", replica.password)
        replica.url = f"redis://:{replica.password}@127.0.0.1:{replica.port}/0"
        replica.follow(self.redis)
        return replica

    def fail_over_to(self, replica: OwnRedis) -> None:
        """Let a replica take the place of Redis with what it has: less, if it was promoted before."""
        with self.redis_proxy.paused():
            self._replace_redis(replica)

    def fail_over_redis(self) -> None:
        """Let a replica that has everything take the place of Redis."""
        replica = self.redis_replica()
        with self.redis_proxy.paused():
            replica.caught_up(self.redis)
            self._replace_redis(replica)

    def _replace_redis(self, replica: OwnRedis) -> None:
        replica.promote()
        before, self.redis = self.redis, replica
        self.redis_proxy.move(replica.url)
        self.redis_proxy.drop()
        before.close()

    @contextmanager
    def postgres_frozen(self) -> Iterator[None]:
        """Keep PostgreSQL from answering anything for a while: neither refused nor closed."""
        with self.postgres_proxy.paused():
            yield

    def connection(self) -> psycopg.Connection[tuple[object, ...]]:
        """Return a connection to PostgreSQL that no proxy disturbs."""
        return psycopg.connect(self.postgres.url, autocommit=True)

    def close(self) -> None:
        """Stop everything."""
        self.redis_proxy.close()
        self.postgres_proxy.close()
        self.postgres.close()
        self.redis.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
