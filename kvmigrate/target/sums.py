"""Items and rows counted, with sums of hashes of their keys: tells cheaply that both sides have the same ones."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from kvmigrate.model import LedgerStatus
from kvmigrate.target.layout import Layout, TablePlan
from kvmigrate.transform.mapping import Mapping as Declared

Connection = psycopg.Connection[Any]

NAMED = "NOT deleted AND (entity = ANY(%s) OR (%s AND status <> 'ok'))"
"""Condition on the ledger's items that count, with `named_ids` and ``True`` for its values.

Items written for an entity that the mapping lost do not: they and their rows are left as
they are, so that the entity finds them when it comes back. The others of it have no rows.
"""


class ItemSum(NamedTuple):
    """Items of the ledger that have all of this in common.

    Attributes:
        total: Sum of the hashes of their keys; ``None`` where they have no rows.
    """

    entity: int
    status: str
    mapping: int
    items: int
    total: Decimal | None


class RowSum(NamedTuple):
    """A table's rows.

    Attributes:
        rest_bytes: Bytes of JSON text in its rest column, if it has one.

        total: Sum of the hashes of their items' keys; ``None`` where the rows are not one for each item.
    """

    rows: int
    rest_bytes: int
    total: Decimal | None


def new_seed() -> int:
    """Return a seed that nobody knows before: with it, other keys have the same sum once in 2^64."""
    return secrets.randbits(63)


def named_ids(mapping: Declared) -> list[int]:
    """Return the ids of the mapping's entities, and that of keys of several entities."""
    return [0, *(entity.id for entity in mapping.entities)]


def item_sums(connection: Connection, mapping: Declared, scope: int, seed: int) -> list[ItemSum]:
    """Return the sums of the items that count, by all that they can differ in. Reads the ledger once."""
    found = connection.execute(
        "SELECT entity, status, mapping, count(*), sum(hashtextextended(key, %s::bigint)) FILTER (WHERE status = 'ok') "  # noqa: S608 - a constant
        f"FROM kvmigrate.ledger WHERE scope = %s AND {NAMED} GROUP BY 1, 2, 3",
        [seed, scope, named_ids(mapping), True],
    )
    return [ItemSum(*row) for row in found.fetchall()]


def row_sum(connection: Connection, layout: Layout, plan: TablePlan, seed: int, *, rest: bool) -> RowSum:
    """Return the sums of a table's rows, those of the *rest* only where asked for. Reads the table once."""
    documents = sql.Identifier(plan.table.rest) if rest and plan.table.rest else sql.SQL("NULL::jsonb")
    total = sql.SQL("NULL::numeric").format()
    if plan.anchor and not plan.entity.rows_only:
        _, owner = layout.owner(plan, "t")
        total = sql.SQL("sum(hashtextextended({}, {}))").format(owner, sql.Literal(seed))
    statement = sql.SQL("SELECT count(*), coalesce(sum(octet_length(({})::text)), 0)::bigint, {} FROM {} AS t")
    return RowSum(*connection.execute(statement.format(documents, total, plan.name)).fetchall()[0])


def whole_entities(layout: Layout, items: Iterable[ItemSum], rows: Mapping[str, RowSum]) -> set[int]:
    """Return the ids of entities whose written items and root rows are surely the same ones.

    There are as many, and the hashes of their keys have the same sum: that joins nothing.
    """
    written = {
        each.entity: (each.items, each.total)
        for each in items
        if each.status == LedgerStatus.OK.value and each.mapping == layout.numbers.get(each.entity)
    }
    whole = set()
    for entity in layout.mapping.entities:
        if entity.rows_only:
            continue
        [plan] = layout.anchors(entity)
        found = rows[plan.table.name]
        if (found.rows, found.total) == written.get(entity.id, (0, None)):
            whole.add(entity.id)
    return whole
