"""The servers of the live benchmarks, and migrations that are brought to stage live on them by the real commands."""

from __future__ import annotations

import json
import logging
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import psycopg
import redis
import structlog
from psycopg import sql

from bench.contestants import MAPPING
from bench.live_script import LiveScript
from bench.live_shop import LiveShop
from bench.machine import describe_machine
from bench.meter import Meter
from kvmigrate.config import Settings
from kvmigrate.dualwrite.companion import Companion
from kvmigrate.dualwrite.store import Store
from kvmigrate.dualwrite.store_async import AsyncStore
from kvmigrate.dualwrite.way import Connections
from kvmigrate.dualwrite.way_async import AsyncConnections
from kvmigrate.dualwrite.write import Patience
from kvmigrate.embedded.postgres import PostgresServer
from kvmigrate.embedded.redis import RedisServer
from kvmigrate.migration import Migration
from kvmigrate.model import Stage
from kvmigrate.relaying import Opener
from kvmigrate.stores.open import open_async_writer, open_fenced, open_writer
from kvmigrate.stores.redis_clients import cluster_at
from kvmigrate.target.live_writer import LiveWriter
from kvmigrate.target.live_writer_async import AsyncLiveWriter
from kvmigrate.target.process_row import PostgresProcessRow, process_id
from kvmigrate.transform.lens import Lens

SETTINGS = {
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "wal_level": "replica",
    "synchronous_commit": "on",
    "fsync": "on",
}
MARK_ONLY = Patience(mirror_s=0.0)
"""No time for an inline mirror: a write only leaves its mark, as it does behind an open breaker."""

_WAIT_S = 120.0
_POLL_S = 0.01


def client_of(url: str) -> Any:
    """Return a bare client of a server, or of a cluster by the first node that its URL names."""
    if cluster_at(url) is None:
        return redis.Redis.from_url(url)
    first = urlsplit(url.split(",", maxsplit=1)[0])
    return redis.RedisCluster(host=first.hostname or "", port=first.port or 6379, password=first.password)


def quiet() -> None:
    """Let this process print tables alone: what a service would log of an outage is no news here."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)


@dataclass
class LiveStand:
    """A PostgreSQL and a Redis for migrations, one after the other.

    Attributes:
        meter: Looks at the two servers.
    """

    postgres: PostgresServer
    redis_url: str
    meter: Meter
    folder: pathlib.Path
    names: int = 0

    @classmethod
    @contextmanager
    def start(cls, store: str | None = None) -> Iterator[LiveStand]:
        """Start the servers, but for the *store* where a URL is given."""
        quiet()
        with ExitStack() as stack:
            postgres = stack.enter_context(PostgresServer.start(settings=SETTINGS))
            url = store or stack.enter_context(RedisServer.start()).url
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="kvmigrate-bench-"))
            meter = Meter(postgres.url, None if cluster_at(url) else url)
            yield cls(postgres, url, meter, pathlib.Path(folder))

    def describe(self) -> str:
        """Return two lines: the machine, and the servers with their settings."""
        settings = ", ".join(f"{name} {value}" for name, value in SETTINGS.items())
        with _closing(client_of(self.redis_url)) as client:
            told = client.info("server")
        # A cluster answers for each of its nodes.
        nodes = [told] if "redis_version" in told else list(told.values())
        store = f"Redis {nodes[0]['redis_version']}" + (f", a cluster of {len(nodes)}" if len(nodes) > 1 else "")
        return f"{describe_machine()}\nPostgreSQL {self.postgres.version} ({settings}), {store}"

    def checkpoint(self) -> None:
        """Write everything out, so that nobody pays for what came before."""
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            connection.execute("CHECKPOINT")

    @contextmanager
    def script(self, shop: LiveShop) -> Iterator[LiveScript]:
        """The script that writes the same orders, into a database of its own."""
        self.names += 1
        name = f"script_{self.names}"
        with LiveScript(self.postgres.create_database(name), shop) as script:
            yield script
        self.postgres.drop_database(name)

    @contextmanager
    def live(self, shop: LiveShop) -> Iterator[Live]:
        """A migration of *shop* at stage live, on an emptied Redis and a database of its own."""
        self.names += 1
        name = f"live_{self.names}"
        url = self.postgres.create_database(name)
        with _closing(client_of(self.redis_url)) as client:
            put = client.mset_nonatomic if isinstance(client, redis.RedisCluster) else client.mset
            client.flushall()
            put(shop.parents())
            for page in shop.pages():
                put(page)
        live = Live(self, Settings(self.redis_url, url, MAPPING), name)
        try:
            live.reach_live()
            yield live
        finally:
            live.close()
            self.postgres.drop_database(name)


class Live:
    """A migration at stage live.

    Attributes:
        client: A bare client of the store.

        pg: A connection that looks.
    """

    def __init__(self, stand: LiveStand, settings: Settings, name: str) -> None:
        """Connect what looks."""
        self.stand, self.settings, self.name = stand, settings, name
        self._stack = ExitStack()
        self.migration = self._stack.enter_context(Migration.open(settings))
        self.client: Any = self._stack.enter_context(_closing(client_of(self.source)))
        self.fenced = self._stack.enter_context(_closing(open_fenced(self.source, scope=self.scope)))

    @property
    def source(self) -> str:
        """URL of the store."""
        return self.settings.need_source()

    @property
    def target(self) -> str:
        """URL of the database."""
        return self.settings.need_target()

    @property
    def lens(self) -> Lens:
        """The compiled mapping."""
        return self.migration.lens

    @property
    def scope(self) -> str:
        """The mapping's name."""
        return self.migration.mapping.name

    def opener(self) -> Opener:
        """Return what opens both sides, as a relay does."""
        return Opener(self.source, self.target, self.lens)

    def reach_live(self) -> None:
        """Go there stage by stage from off; the store is copied while its writes are marked."""
        with self.migration.stages() as stages:
            stages.advance(Stage.DUALWRITE, why="", overrides={})
            self.migration.backfill(processes=1)
            for stage in (Stage.SHADOW, Stage.LIVE):
                stages.advance(stage, why="", overrides={})
        self.query("VACUUM ANALYZE")

    @contextmanager
    def store(
        self, patience: Patience | None = None, tables: Callable[[str, Lens], LiveWriter] = LiveWriter
    ) -> Iterator[Store]:
        """The application's store."""

        def connect() -> Connections:
            writer = open_writer(self.source, scope=self.scope)
            return Connections(writer, tables(self.target, self.lens), self._companion())

        with _closing(Store(self.lens, connect, patience)) as store:
            yield store

    def async_store(self, patience: Patience | None = None) -> AsyncStore:
        """Return the application's store for an event loop; close it there."""
        return AsyncStore(self.lens, self._async_connections, patience)

    def mark(self, pages: Iterator[dict[str, bytes]]) -> int:
        """Write pages of orders that leave only marks; return how many."""
        count = 0
        with self.store(MARK_ONLY) as store:
            for page in pages:
                count += len(store.put_many(page))
        return count

    @contextmanager
    def relay(self) -> Iterator[subprocess.Popen[bytes]]:
        """``kvmigrate relay`` as a process of its own."""
        program = str(pathlib.Path(sys.executable).with_name("kvmigrate"))
        command = [program, "relay", "--mapping", str(MAPPING), "--source", self.source, "--target", self.target]
        with (self.stand.folder / "relay.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
            try:
                yield process
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(_WAIT_S)

    def wait_for_marks(self, most: int = 0, seconds: float = _WAIT_S) -> float:
        """Wait until at most so many marks are left; return after how many seconds.

        Raises:
            SystemExit: they did not become so few in time.
        """
        begun = time.perf_counter()
        while (left := self.fenced.marks()) > most:
            if time.perf_counter() - begun > seconds:
                raise SystemExit(f"{left:,} marks are left after {seconds:g} s")
            time.sleep(_POLL_S)
        return time.perf_counter() - begun

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement in the database and return its rows."""
        with psycopg.connect(self.target, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def outage(self) -> Iterator[None]:
        """The database takes no connections, and all that there are end."""
        with psycopg.connect(self.stand.postgres.url, autocommit=True) as connection:
            change = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
            connection.execute(change.format(sql.Identifier(self.name), sql.SQL("false")))
            try:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [self.name]
                )
                yield
            finally:
                connection.execute(change.format(sql.Identifier(self.name), sql.SQL("true")))

    def marks_bytes(self) -> int:
        """Return the memory that the marks take in Redis."""
        return sum(int(self.client.memory_usage(key, samples=0)) for key in self.client.scan_iter("kvm:d:*"))

    def check(self, wanted: Mapping[str, bytes]) -> None:
        """Look whether the tables hold these values.

        Raises:
            SystemExit: they do not.
        """
        with _closing(LiveWriter(self.target, self.lens)) as tables:
            for key, item in zip(wanted, tables.get(list(wanted), deadline_s=_WAIT_S), strict=True):
                found = None if item is None else json.loads(item.value)
                if found != json.loads(wanted[key]):
                    raise SystemExit(f"{key}: the tables do not hold what was written")

    def close(self) -> None:
        """Close what looks."""
        self._stack.close()

    def _companion(self) -> Companion:
        return Companion(
            lambda: open_fenced(self.source, scope=self.scope),
            lambda: PostgresProcessRow(
                self.target,
                self.scope,
                kind="adapter",
                name=process_id("adapter"),
                mapping=self.lens.mapping.fingerprint,
            ),
        )

    def _async_connections(self) -> AsyncConnections:
        writer = open_async_writer(self.source, scope=self.scope)
        return AsyncConnections(writer, AsyncLiveWriter(self.target, self.lens), self._companion())


@contextmanager
def _closing(opened: Any) -> Iterator[Any]:
    try:
        yield opened
    finally:
        opened.close()
