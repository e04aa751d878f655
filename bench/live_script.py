"""The dual write that people write: SET, then the order's rows in one transaction; no ledger, no marks, no versions."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql

from bench.live_shop import LiveShop
from bench.script_peer import COLUMNS, Rows, Script, create_tables, loads
from bench.shop import KINDS

_GONE = "DELETE FROM order_items WHERE order_id = ANY(%s::uuid[])"


class LiveScript:
    """Tables of its own in a database of its own, with the mapping's keys and indexes. A context manager."""

    def __init__(self, target_url: str, shop: LiveShop) -> None:
        """Create the tables, and fill in what orders refer to."""
        self.connection = psycopg.connect(target_url)
        create_tables(self.connection)
        self._script = Script(self.connection)
        parents = [(key.partition(":")[0], loads(value)) for key, value in shop.parents().items()]
        for kind in KINDS:
            self._script.copy_by_batch(kind, (blob for each, blob in parents if each == kind))
        self._upsert = _upsert("orders", "id")
        self._insert = self._script.inserts["order_items"]

    def write(self, orders: Mapping[str, bytes]) -> None:
        """Write orders in one transaction: upserts, and their lines anew."""
        heads: Rows = []
        lines: Rows = []
        for value in orders.values():
            row, items = self._script.rows("order", loads(value))
            heads += row
            lines += items
        with self.connection.cursor() as cursor:
            cursor.executemany(self._upsert, heads)
            cursor.execute(_GONE, [[row[0] for row in heads]])
            cursor.executemany(self._insert, lines)
        self.connection.commit()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.connection.close()


def _upsert(table: str, key: str) -> sql.Composed:
    columns: Any = COLUMNS[table]
    pairs = [sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in columns if name != key]
    return sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT ({}) DO UPDATE SET {}").format(
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.SQL(", ").join(sql.Placeholder() * len(columns)),
        sql.Identifier(key),
        sql.SQL(", ").join(pairs),
    )
