"""A Redis and a PostgreSQL that are killed, frozen, restored and replaced, each behind a proxy with its own port."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

import psycopg
import redis

from kvmigrate.embedded.binaries import find_postgres, find_redis, readable_by_all
from kvmigrate.embedded.postgres import NOBODY_UID, PostgresServer
from kvmigrate.embedded.process import GuardedProcess, free_port, plain_environment
from kvmigrate.errors import ServerError
from tests.need import need
from tests.proxy import Proxy

_UP_S = 60.0
_POLL_S = 0.02
_SETTINGS = {"shared_buffers": "64MB"}


class OwnRedis:
    """A Redis with an append-only file, always on the same port, that keeps its data over restarts."""

    def __init__(self, folder: Path, *, password: str | None = None) -> None:
        """Start it, empty."""
        program = find_redis()
        if program is None:
            need("Redis")
        self._program, self._folder = program, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self.password = free_port(), password or secrets.token_hex(16)
        self.url = f"redis://:{self.password}@127.0.0.1:{self.port}/0"
        self._process = self._start(appendonly=True)

    def client(self) -> redis.Redis:
        """Return a client of its own."""
        return redis.Redis.from_url(self.url)

    def follow(self, other: OwnRedis) -> None:
        """Become a replica of another one with the same password, and wait until it has all of it."""
        with self.client() as client:
            client.config_set("masterauth", other.password)
            client.execute_command("REPLICAOF", "127.0.0.1", other.port)
            end = time.monotonic() + _UP_S
            # Until its file of what it was given is written it would not end when it is asked to.
            while (
                client.info("replication").get("master_link_status") != "up"
                or client.info("persistence")["aof_rewrite_in_progress"]
            ):
                assert time.monotonic() < end, "the replica does not come up"
                time.sleep(_POLL_S)

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
        with self.client() as client:
            process = int(client.info("server")["process_id"])
        os.kill(process, signal.SIGKILL)
        self._process.stop()

    def restart(self) -> None:
        """Kill it, and start it again with what its append-only file has."""
        self.kill()
        self._process = self._start(appendonly=True)

    def snapshot(self) -> bytes:
        """Return all that it holds, as a backup has it."""
        with self.client() as client:
            client.save()
        return (self._folder / "dump.rdb").read_bytes()

    def restore(self, snapshot: bytes) -> None:
        """Let it hold what it held when a backup was made."""
        self.kill()
        shutil.rmtree(self._folder / "appendonlydir", ignore_errors=True)
        (self._folder / "dump.rdb").write_bytes(snapshot)
        self._process = self._start(appendonly=False)
        with self.client() as client:
            client.config_set("appendonly", "yes")
            while client.info("persistence")["aof_rewrite_in_progress"]:
                time.sleep(_POLL_S)

    def close(self) -> None:
        """Stop it."""
        self._process.stop()

    def _start(self, *, appendonly: bool) -> GuardedProcess:
        config = self._folder / "redis.conf"
        config.touch(mode=0o600)
        config.write_text(
            f'bind 127.0.0.1\nport {self.port}\ndir "{self._folder}"\nrequirepass {self.password}\n'
            f'save ""\nappendonly {"yes" if appendonly else "no"}\nappendfsync always\nprotected-mode no\n'
            "repl-diskless-sync-delay 0\n"
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
                time.sleep(_POLL_S)
            else:
                return process


class LiveServers:
    """Both stores, and proxies before them: programs are given the proxies' URLs, checks the servers' own.

    Attributes:
        database: The URL of the database in use, past the proxy.
    """

    def __init__(self, folder: Path) -> None:
        """Start everything."""
        self._folder = folder
        self._opened = ExitStack()
        self.redis = OwnRedis(folder / "redis")
        self._postgres_folder = folder / "postgres"
        self.postgres = PostgresServer.start(self._postgres_folder, settings=_SETTINGS)
        self.redis_proxy, self.postgres_proxy = Proxy.before(self.redis.url), Proxy.before(self.postgres.url)
        self.database = self.postgres.url

    def renew(self) -> None:
        """Begin anew: an empty Redis, an empty database, healthy networks."""
        self.redis_proxy.heal()
        self.postgres_proxy.heal()
        with self.redis.client() as client:
            client.flushall()
        self.database = self.postgres.create_database(f"live_{secrets.token_hex(6)}", template="template0")

    @property
    def source(self) -> str:
        """The URL of Redis behind its proxy."""
        return f"redis://:{self.redis.password}@127.0.0.1:{self.redis_proxy.port}/0"

    @property
    def target(self) -> str:
        """The URL of the database behind its proxy."""
        return self.postgres_proxy.url(self.database)

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to find both."""
        return {**os.environ, "KVMIGRATE_SOURCE": self.source, "KVMIGRATE_TARGET": self.target}

    def stop_postgres(self, *, kill: bool = False) -> None:
        """Stop PostgreSQL, or kill its first process, so that it recovers when it comes back."""
        if kill:
            process = int((self._postgres_folder / "data" / "postmaster.pid").read_text().split()[0])
            os.kill(process, signal.SIGKILL)
        self.postgres.close()
        self.postgres_proxy.drop()

    def start_postgres(self) -> None:
        """Start PostgreSQL again with the data that it had."""
        end = time.monotonic() + _UP_S
        while True:
            try:
                self._now_on(PostgresServer.start(self._postgres_folder, settings=_SETTINGS))
            except ServerError:
                # Sessions of a server that was killed may not have noticed yet.
                assert time.monotonic() < end, "PostgreSQL does not start"
                time.sleep(0.2)
            else:
                return

    def crash_postgres(self) -> None:
        """Kill PostgreSQL's first process with SIGKILL, and start it again: it recovers from its log."""
        self.stop_postgres(kill=True)
        self.start_postgres()

    def restart_redis(self) -> None:
        """Kill Redis, and start it again from its append-only file."""
        self.redis.restart()
        self.redis_proxy.drop()

    def restore_redis(self, snapshot: bytes) -> None:
        """Let Redis hold what it held when a backup was made."""
        self.redis.restore(snapshot)
        self.redis_proxy.drop()

    def redis_replica(self) -> OwnRedis:
        """Start a replica with the same password; whoever starts it closes it, or fails over to it."""
        replica = OwnRedis(self._folder / f"replica-{secrets.token_hex(4)}", password=self.redis.password)
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

    def standby(self) -> Standby:
        """Return a standby that follows PostgreSQL; it is stopped when all is."""
        return self._opened.enter_context(Standby(self._folder / f"standby-{secrets.token_hex(4)}", self.postgres.url))

    def fail_over_postgres(self, standby: Standby) -> None:
        """Let a standby take the place of PostgreSQL, with whatever it has."""
        self.stop_postgres(kill=True)
        standby.promote()
        self._postgres_folder = standby.folder
        self._now_on(standby.server)

    def connection(self) -> psycopg.Connection[tuple[object, ...]]:
        """Return a connection to the database that no proxy disturbs."""
        return psycopg.connect(self.database, autocommit=True)

    def close(self) -> None:
        """Stop everything."""
        self.redis_proxy.close()
        self.postgres_proxy.close()
        self.postgres.close()
        self._opened.close()
        self.redis.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _now_on(self, server: PostgresServer) -> None:
        self.postgres = server
        self.database = urlunsplit(urlsplit(server.url)._replace(path=urlsplit(self.database).path))
        self.postgres_proxy.move(server.url)
        self.postgres_proxy.drop()


class Standby:
    """A PostgreSQL that follows another one. A context manager."""

    def __init__(self, folder: Path, primary: str) -> None:
        """Copy the primary, and follow it."""
        self.folder = folder
        uid = None if os.geteuid() else NOBODY_UID
        folder.mkdir(mode=0o700, parents=True)
        if uid is not None:
            os.chown(folder, uid, uid)
        try:
            binaries = find_postgres()
        except ServerError as exc:
            need(f"PostgreSQL ({exc.hint})")
        program = Path((binaries if uid is None else readable_by_all(binaries)).program("pg_basebackup"))
        if not program.exists():
            need("pg_basebackup")
        subprocess.run(
            [str(program), "-D", str(folder / "data"), "-R", "-X", "stream", "-c", "fast", "-d", primary],
            check=True,
            cwd="/",
            env=plain_environment(),
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
        )
        (folder / "password").write_text(urlsplit(primary).password or "")
        self.server = PostgresServer.start(folder, settings=_SETTINGS)

    def has_replayed(self, position: str) -> None:
        """Wait until it has all up to a position of its primary's log."""
        with psycopg.connect(self.server.url, autocommit=True) as connection:
            asked = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
            while connection.execute(asked, [position]).fetchall() != [(True,)]:
                time.sleep(_POLL_S)

    def cut_off(self) -> None:
        """Let it hear nothing more of its primary."""
        with psycopg.connect(self.server.url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET primary_conninfo = ''")
            connection.execute("SELECT pg_reload_conf()")
            while connection.execute("SELECT FROM pg_stat_wal_receiver").fetchall():
                time.sleep(_POLL_S)

    def promote(self) -> None:
        """Follow nobody any more."""
        with psycopg.connect(self.server.url, autocommit=True) as connection:
            connection.execute("SELECT pg_promote()")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.close()
