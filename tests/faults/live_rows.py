"""The tables against the books, without any code of the tool: rows are read and put together by hand."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import psycopg

from tests.faults.live_books import ABSENT, Written, disagreements

Connection = psycopg.Connection[Any]

_LEDGER = """
SELECT key, status FROM kvmigrate.ledger AS l JOIN kvmigrate.control AS c ON c.id = l.scope
WHERE c.scope = 'live' AND NOT l.deleted
"""
_KEPT = """
SELECT key, value FROM kvmigrate.kept AS k JOIN kvmigrate.control AS c ON c.id = k.scope WHERE c.scope = 'live'
"""
_TABLES = {
    "clients": "SELECT id, name, email FROM clients",
    "orders": "SELECT id, client_id, writer, lines FROM orders",
    "visits": "SELECT id, writer FROM visits",
    "counters": "SELECT id, hits FROM counters",
}
_LINES = "SELECT order_id, writer FROM order_lines ORDER BY order_id, position"
_TABLE_OF = {"client": "clients", "clients": "clients", "order": "orders", "visit": "visits", "counter": "counters"}

TORN = """
SELECT count(*) FROM orders AS o
WHERE length(o.id) < 4 AND (o.lines <> (SELECT count(*) FROM order_lines AS l WHERE l.order_id = o.id)
    OR EXISTS (SELECT FROM order_lines AS l WHERE l.order_id = o.id AND l.writer <> o.writer))
"""
"""Counts orders whose rows come from two writes, among those that are written again and again."""


class HeldByTables(NamedTuple):
    """What the tables say, by key.

    Attributes:
        values: Of rows, and of items that are kept whole.

        unsettled: Keys that wait or are quarantined: their rows, if any, are of an earlier version.

        ownerless: Rows that belong to no key.
    """

    values: Mapping[str, Any]
    unsettled: frozenset[str]
    ownerless: tuple[str, ...]


def read_rows(connection: Connection) -> HeldByTables:
    """Read all of it in one snapshot."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        status: dict[str, str] = dict(connection.execute(_LEDGER).fetchall())
        kept = {key: json.loads(bytes(value)) for key, value in connection.execute(_KEPT).fetchall()}
        rows = {name: {row[0]: row for row in connection.execute(query)} for name, query in _TABLES.items()}
        lines: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
        for order, writer in connection.execute(_LINES).fetchall():
            lines[order].append({"writer": writer})
    values, owned = dict(kept), set[tuple[str, str]]()
    unsettled = {key for key, found in status.items() if found not in {"ok", "kept"}}
    for key, found in status.items():
        kind, _, number = key.partition(":")
        table = _TABLE_OF[kind]
        if found != "kept":
            owned.add((table, number))
        if found == "ok":
            row = rows[table].get(number)
            values[key] = ABSENT if row is None else _value(table, row, lines[number])
    ownerless = tuple(f"{table} {number}" for table in rows for number in rows[table] if (table, number) not in owned)
    return HeldByTables(values, frozenset(unsettled), ownerless)


def rows_against_books(writes: Iterable[Written], held: HeldByTables) -> list[str]:
    """Return, in words, every key whose rows no acknowledged write explains."""
    ownerless = [f"rows without an item: {name}" for name in held.ownerless]
    settled = [write for write in writes if write.key not in held.unsettled]
    return ownerless + [f"rows: {each}" for each in disagreements(settled, held.values)]


def _value(table: str, row: tuple[Any, ...], lines: list[dict[str, str]]) -> Any:
    match table:
        case "clients":
            return {"name": row[1], "email": row[2]}
        case "orders":
            return {"client": row[1], "writer": row[2], "lines": row[3], "items": lines}
        case "visits":
            return {"writer": row[1]}
        case _:
            return {"hits": row[1]}
