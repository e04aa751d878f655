"""The script people write: SCAN, MGET, executemany; tables have their keys and indexes from the start."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
import redis
from psycopg import sql
from psycopg.types.json import Jsonb

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
JSON_COLUMNS = {"attributes", "shipping"}


def run_script(store_url: str, target_url: str) -> None:
    """Copy every kind, parents first."""
    client: Any = redis.Redis.from_url(store_url)
    with psycopg.connect(target_url) as connection:
        mapping = load_mapping(pathlib.Path(__file__).with_name("mapping.yaml"))
        for statement in create_statements(mapping):
            connection.execute(statement.sql.encode())
        connection.commit()
        for kind in ("site", "catalog", "client", "product", "order"):
            copy_kind(client, connection, kind)


def copy_kind(client: Any, connection: psycopg.Connection[Any], kind: str) -> None:
    """Copy one kind in batches, one transaction each."""
    table = "orders" if kind == "order" else kind
    rows: list[tuple[Any, ...]] = []
    lines: list[tuple[Any, ...]] = []
    for blob in values(client, kind):
        rows.append(tuple(column_value(blob, name) for name in COLUMNS[table]))
        lines += [
            (blob["id"], number, line["product_id"], line["sku"], line["qty"], line["unit_price"])
            for number, line in enumerate(blob.get("items", ()))
        ]
        if len(rows) >= BATCH:
            flush(connection, table, rows, lines)
    flush(connection, table, rows, lines)


def values(client: Any, kind: str) -> Iterator[dict[str, Any]]:
    """Yield the blobs of a kind, a page of keys at a time."""
    cursor = 0
    while True:
        cursor, keys = client.scan(cursor, match=f"{kind}:*", count=BATCH)
        for text in client.mget(keys) if keys else ():
            yield json.loads(text, parse_float=Decimal)
        if not cursor:
            return


def column_value(blob: dict[str, Any], name: str) -> Any:
    """Return what the script puts into a column."""
    value = blob[name]
    if name in JSON_COLUMNS:
        return Jsonb(value)
    if name == "updated_at":
        return datetime.fromtimestamp(value / 1000, UTC)
    return value


def flush(
    connection: psycopg.Connection[Any], table: str, rows: list[tuple[Any, ...]], lines: list[tuple[Any, ...]]
) -> None:
    """Insert what was collected and commit."""
    with connection.cursor() as cursor:
        for name, batch in ((table, rows), ("order_items", lines)):
            if batch:
                statement = sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT DO NOTHING").format(
                    sql.Identifier(name),
                    sql.SQL(", ").join(map(sql.Identifier, COLUMNS[name])),
                    sql.SQL(", ").join(sql.Placeholder() * len(COLUMNS[name])),
                )
                cursor.executemany(statement, batch)
    connection.commit()
    rows.clear()
    lines.clear()
