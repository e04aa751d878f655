"""A migration of the celebration shop in one call, for acceptance tests."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg
import redis

from kvmigrate.backfill.progress import Progress
from kvmigrate.backfill.quarantine import QuarantineStore
from kvmigrate.backfill.runner import run_backfill
from kvmigrate.consistency.json_exact import loads_column
from kvmigrate.consistency.report import VerifyReport
from kvmigrate.consistency.verify import run_verify
from kvmigrate.demo.celebration import mapping_path
from kvmigrate.stores.export_format import write_item
from kvmigrate.stores.open import open_source
from kvmigrate.target.postgres import PostgresTarget
from kvmigrate.target.rows_postgres import PostgresRowReader
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.lens import compile_mapping

CLIENT_ID = "6b0f5a0e-9d1c-4f0b-8f60-0a4c6a1d2e01"
CATALOG_ID = "6b0f5a0e-9d1c-4f0b-8f60-0a4c6a1d2e02"
GIFT_ID = "6b0f5a0e-9d1c-4f0b-8f60-0a4c6a1d2e03"
ORDER_ID = "6b0f5a0e-9d1c-4f0b-8f60-0a4c6a1d2e04"


class ShopRun(NamedTuple):
    """A Redis with a shop, an empty database, and what one does with them."""

    client: "redis.Redis"
    source: str
    target: str

    def put(self, items: Mapping[str, Any]) -> None:
        """Store each value as JSON; bytes as they are."""
        for key, value in items.items():
            self.client.set(key, value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False))

    def backfill(self, *, limit_keys: int | None = None, progress: Progress | None = None) -> dict[str, Any]:
        """Run the backfill and return its report as the command prints it."""
        lens = compile_mapping(load_mapping(mapping_path()))
        source = open_source(self.source)
        try:
            with PostgresTarget.connect(self.target, lens) as target:
                report = run_backfill(source, target, lens, limit_keys=limit_keys, progress=progress)
        finally:
            source.close()
        assert report.ok, report.to_json()
        return report.to_json()

    def verify(self) -> VerifyReport:
        """Compare store and tables."""
        mapping = load_mapping(mapping_path())
        source = open_source(self.source)
        try:
            with PostgresRowReader.open(self.target, mapping, json_loads=loads_column) as reader:
                return run_verify(source, reader, mapping)
        finally:
            source.close()

    @contextmanager
    def quarantine(self) -> Iterator[QuarantineStore]:
        """Open the quarantine."""
        lens = compile_mapping(load_mapping(mapping_path()))
        with PostgresTarget.connect(self.target, lens) as target:
            yield QuarantineStore(target, lens, write_item)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query that a test has written out."""
        with psycopg.connect(self.target, autocommit=True) as connection:
            return connection.execute(query.encode()).fetchall()

    def execute(self, statement: str) -> None:
        """Run a statement that a test has written out."""
        with psycopg.connect(self.target, autocommit=True) as connection:
            connection.execute(statement.encode())

    def table_count(self, table: str) -> int:
        """Count the rows of a table."""
        [(count,)] = self.rows(f'SELECT count(*) FROM "{table}"')  # noqa: S608 - the test names the table
        return int(count)


def client(**members: Any) -> dict[str, Any]:
    """Return a client that the mapping takes as it is."""
    return {"id": CLIENT_ID, "name": "Fjord Optics 12", "status": "active", **members}


def catalog(**members: Any) -> dict[str, Any]:
    """Return a catalog that the mapping takes as it is."""
    return {"id": CATALOG_ID, "name": "Spring", "type": "manual", **members}


def gift(**members: Any) -> dict[str, Any]:
    """Return a gift of `catalog`."""
    return {"catalogId": CATALOG_ID, "sku": "NAV-1", "name": "Oak watch", "price": 19.5, "status": "active", **members}


def order(**members: Any) -> dict[str, Any]:
    """Return an order of `client`, without lines."""
    return {"client_id": CLIENT_ID, "order_number": "CEL-1", "status": "pending", **members}


def parents() -> dict[str, Any]:
    """Return the items that gifts and orders need."""
    return {f"client:{CLIENT_ID}": client(), f"catalogs:{CATALOG_ID}": catalog()}
