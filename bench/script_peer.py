"""The scripts people write; their tables have keys and indexes from the start.

By batch: SCAN, MGET, executemany of a thousand rows, a transaction each. By row: scan_iter,
GET, an INSERT per row, autocommit. Both skip what the tables would refuse, keep no ledger, drop
members that no column takes, and look at the store once.

Usage: python -m bench.script_peer STORE_URL TARGET_URL batch|row
"""

from __future__ import annotations

import json
import pathlib
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from bench.shop import KINDS
from bench.stored_values import single_values, value_pages
from kvmigrate.transform.declaration.mapping_file import load_mapping
from kvmigrate.transform.tables.ddl import create_statements

BATCH = 1_000
COLUMNS = {
    "site": ("id", "name", "domain", "created_at"),
    "catalog": ("id", "site_id", "name", "created_at"),
    "client": ("id", "email", "name", "created_at"),
    "product": (
        *("id", "catalog_id", "name", "description", "price", "currency", "sku", "tags", "attributes", "active"),
        *("created_at", "updated_at"),
    ),
    "orders": ("id", "site_id", "client_id", "status", "currency", "total", "shipping", "created_at", "updated_at"),
    "order_items": ("order_id", "line_no", "product_id", "sku", "qty", "unit_price"),
}
PARENTS = {"site_id": "site", "catalog_id": "catalog", "client_id": "client"}

Rows = list[tuple[Any, ...]]


def run_script(store_url: str, target_url: str, *, by_row: bool) -> int:
    """Copy every kind, parents first; return how many items were skipped."""
    with psycopg.connect(target_url, autocommit=by_row) as connection:
        create_tables(connection)
        script = Script(connection)
        for kind in KINDS:
            if by_row:
                script.copy_by_row(kind, map(loads, single_values(store_url, kind)))
            else:
                pages = value_pages(store_url, kind, BATCH)
                script.copy_by_batch(kind, (loads(text) for page in pages for text in page))
        return script.skipped


def create_tables(connection: psycopg.Connection[Any]) -> None:
    """Create the mapping's tables, unless an earlier run did."""
    if connection.execute("SELECT to_regclass('orders')").fetchall()[0][0]:
        return
    for statement in create_statements(load_mapping(pathlib.Path(__file__).with_name("mapping.yaml"))):
        connection.execute(statement.sql.encode())
    connection.commit()


def loads(text: bytes) -> dict[str, Any]:
    """Parse a blob, amounts exactly."""
    blob: dict[str, Any] = json.loads(text, parse_float=Decimal)
    return blob


class Script:
    """One run: the connection, and which parents there are."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        """Begin with no parent."""
        self.connection = connection
        self.known: dict[str, set[str]] = {kind: set() for kind in KINDS}
        self.inserts = {table: insert(table) for table in COLUMNS}
        self.skipped = 0

    def copy_by_batch(self, kind: str, blobs: Iterator[dict[str, Any]]) -> None:
        """Copy one kind, a thousand items at a time."""
        rows: Rows = []
        lines: Rows = []
        for blob in blobs:
            row, items = self.rows(kind, blob)
            rows += row
            lines += items
            if len(rows) >= BATCH:
                self.flush(kind, rows, lines)
        self.flush(kind, rows, lines)

    def copy_by_row(self, kind: str, blobs: Iterator[dict[str, Any]]) -> None:
        """Copy one kind, a statement for each row."""
        for blob in blobs:
            row, lines = self.rows(kind, blob)
            for table, values in ((table_of(kind), row), ("order_items", lines)):
                for each in values:
                    self.connection.execute(self.inserts[table], each)

    def rows(self, kind: str, blob: dict[str, Any]) -> tuple[Rows, Rows]:
        """Return an item's row and those of its lines; none if the tables would refuse it."""
        try:
            row = tuple(column_value(blob, name) for name in COLUMNS[table_of(kind)])
            lines = [
                (row[0], at, as_uuid(line["product_id"]), line["sku"], line["qty"], line["unit_price"])
                for at, line in enumerate(blob.get("items", ()))
            ]
        except InvalidOperation:
            self.skipped += 1
            return [], []
        parents = all(blob[name] in self.known[parent] for name, parent in PARENTS.items() if name in blob)
        if not parents or not all(line[2] in self.known["product"] for line in lines):
            self.skipped += 1
            return [], []
        self.known[kind].add(row[0])
        return [row], lines

    def flush(self, kind: str, rows: Rows, lines: Rows) -> None:
        """Insert what was collected and commit."""
        with self.connection.cursor() as cursor:
            for table, batch in ((table_of(kind), rows), ("order_items", lines)):
                if batch:
                    cursor.executemany(self.inserts[table], batch)
        self.connection.commit()
        rows.clear()
        lines.clear()


def table_of(kind: str) -> str:
    """Return a kind's table."""
    return "orders" if kind == "order" else kind


def column_value(blob: dict[str, Any], name: str) -> Any:
    """Return what the script puts into a column."""
    value = blob[name]
    if name == "id":
        return as_uuid(value)
    if name in {"price", "total"}:
        return Decimal(value)
    if name in {"attributes", "shipping"}:
        return None if value is None else Jsonb(value)
    if name == "updated_at":
        return datetime.fromtimestamp(value / 1000, UTC)
    return value


def as_uuid(text: str) -> str:
    """Return an id as the column takes it."""
    return text if len(text) == 36 else str(uuid.uuid5(uuid.NAMESPACE_URL, text))


def insert(table: str) -> sql.Composed:
    """Return the statement that inserts a row."""
    return sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT DO NOTHING").format(
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, COLUMNS[table])),
        sql.SQL(", ").join(sql.Placeholder() * len(COLUMNS[table])),
    )


if __name__ == "__main__":
    print(run_script(sys.argv[1], sys.argv[2], by_row=sys.argv[3] == "row"), "items skipped")
