"""The two servers, a store that holds the workload, and fresh databases to fill."""

from __future__ import annotations

import compileall
import pathlib
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import psycopg
from psycopg import sql

import kvmigrate
from bench.contestants import Contestant, Task
from bench.fill import change, fill, is_redis
from bench.machine import describe_machine
from bench.meter import Meter, Ran
from bench.workload import Workload
from kvmigrate.embedded.postgres import PostgresServer
from kvmigrate.embedded.redis import RedisServer

SOURCES = ("redis", "kv_store")
SETTINGS = {
    "shared_buffers": "2GB",
    "maintenance_work_mem": "512MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "wal_level": "replica",
}
_TABLES = b"""
SELECT schemaname, tablename FROM pg_tables
WHERE schemaname IN ('public', 'dlt_peer') AND NOT starts_with(tablename, '_dlt') AND tablename <> 'kv_store'
"""


@dataclass
class Stand:
    """Where contestants run.

    Attributes:
        workload: What the store holds now.

        store_url: The store.
    """

    postgres: PostgresServer
    workload: Workload
    store_url: str
    meter: Meter
    folder: pathlib.Path
    fresh_names: int = 0

    @classmethod
    @contextmanager
    def start(cls, workload: Workload, source: str) -> Iterator[Stand]:
        """Start the servers and fill the store."""
        # As an installation does: else every process would compile the modules that it imports.
        compileall.compile_dir(pathlib.Path(kvmigrate.__file__).parent, quiet=2)
        with ExitStack() as stack:
            postgres = stack.enter_context(PostgresServer.start(settings=SETTINGS))
            redis_url = stack.enter_context(RedisServer.start()).url if source == "redis" else None
            store_url = redis_url or postgres.create_database("store") + "?table=kv_store"
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="kvmigrate-bench-"))
            stand = cls(postgres, workload, store_url, Meter(postgres.url, redis_url), pathlib.Path(folder))
            stand.refill(workload)
            yield stand

    def describe(self) -> str:
        """Return two lines: the machine, and the servers with their settings."""
        store = f", Redis {RedisServer.at(self.store_url).version}" if is_redis(self.store_url) else ""
        settings = ", ".join(f"{name} {value}" for name, value in SETTINGS.items())
        return f"{describe_machine()}\nPostgreSQL {self.postgres.version} ({settings}, fsync on){store}"

    def refill(self, workload: Workload) -> None:
        """Put another workload into the store."""
        self.workload = workload
        fill(workload, self.store_url)

    def change(self, generation: int) -> None:
        """Change one item of five."""
        self.workload = replace(self.workload, generation=generation)
        change(self.workload, self.store_url)

    def part(self, scale: float) -> Stand:
        """Return a stand on the same servers with a small store of its own."""
        if is_redis(self.store_url):
            url = self.store_url.removesuffix("/0") + "/1"
        else:
            self.postgres.drop_database("part")
            url = self.postgres.create_database("part") + "?table=kv_store"
        small = replace(self, workload=replace(self.workload, scale=scale), store_url=url)
        small.refill(small.workload)
        return small

    @contextmanager
    def fresh(self) -> Iterator[Task]:
        """A new database and a new folder; both are gone afterwards."""
        self.fresh_names += 1
        name = f"target_{id(self)}_{self.fresh_names}"
        url = self.postgres.create_database(name)
        with tempfile.TemporaryDirectory(dir=self.folder) as home:
            yield Task(self.store_url, url, pathlib.Path(home))
        self.postgres.drop_database(name)

    def run(self, contestant: Contestant, task: Task) -> Ran:
        """Run a contestant and return its cost."""
        return self.meter.run(contestant.command(task))


def rows_in(target_url: str) -> int:
    """Count the rows that a contestant made, without its own records."""
    with psycopg.connect(target_url) as connection:
        counts = [
            sql.SQL("SELECT count(*) AS n FROM {}").format(sql.Identifier(schema, table))
            for schema, table in connection.execute(_TABLES).fetchall()
        ]
        if not counts:
            return 0
        query = sql.SQL("SELECT sum(n)::int8 FROM ({}) AS counts").format(sql.SQL(" UNION ALL ").join(counts))
        return int(connection.execute(query).fetchall()[0][0])
