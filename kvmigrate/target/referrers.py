"""Who refers to the rows of items: rows of other items, and rows of tables that are not the mapping's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from kvmigrate.target.attempt import Parts
from kvmigrate.target.layout import TablePlan, equal_pairs, owner_key
from kvmigrate.transform.mapping import Entity

Connection = psycopg.Connection[Any]

_FOREIGN = """
SELECT n.nspname, r.relname, t.relname,
    (SELECT array_agg(a.attname::text ORDER BY k.place) FROM unnest(c.conkey) WITH ORDINALITY AS k (number, place)
        JOIN pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = k.number),
    (SELECT array_agg(a.attname::text ORDER BY k.place) FROM unnest(c.confkey) WITH ORDINALITY AS k (number, place)
        JOIN pg_attribute AS a ON a.attrelid = c.confrelid AND a.attnum = k.number)
FROM pg_constraint AS c
JOIN pg_class AS r ON r.oid = c.conrelid JOIN pg_namespace AS n ON n.oid = r.relnamespace
JOIN pg_class AS t ON t.oid = c.confrelid
WHERE c.contype = 'f' AND c.conparentid = 0
    AND c.confrelid = ANY(%(tables)s::regclass[]) AND c.conrelid <> ALL(%(tables)s::regclass[])
ORDER BY c.conname
"""


@dataclass(frozen=True, slots=True)
class Link:
    """A foreign key as a join: row ``p`` of one item, and row ``r`` that refers to it.

    Attributes:
        plan: Of the table referred to.

        joined: ``p`` and what stands above it, ``r`` and what stands above that.

        anchor: Alias of the row that names the item of ``p``.

        owner: The key of the item of ``p``.

        by: The key of the item of ``r``, or the name of a foreign table.

        within: ``r`` belongs to an item, too.
    """

    plan: TablePlan
    joined: sql.Composed
    anchor: str
    owner: sql.Composed
    by: sql.Composable
    within: bool


class Chosen(NamedTuple):
    """Items as a relation ``k``, to be joined with the rows that name them.

    Attributes:
        relation: With `values` for its parameters.

        by_primary_key: Whether it has, beside ``key``, the root's primary key as ``v0``, ``v1`` and so on.
    """

    relation: sql.Composed
    values: list[list[Any]]
    by_primary_key: bool

    def matches(self, entity: Entity, alias: str) -> sql.Composed:
        """Return the condition that row *alias*, which names its item, is of ``k``. It can use an index."""
        if not self.by_primary_key and entity.owned_by_source_key:
            return sql.SQL("{} = k.key").format(sql.Identifier(alias, entity.owner_column))
        named = sql.SQL("{} = k.key").format(owner_key(entity, alias))
        if not self.by_primary_key:
            return named
        pairs = ((name, f"v{place}") for place, name in enumerate(entity.root.primary_key))
        return sql.SQL("{} AND {}").format(equal_pairs(alias, "k", pairs), named)


def choose(parts: Parts, entity: Entity, keys: Sequence[str]) -> Iterator[Chosen]:
    """Yield relations that together hold these items of *entity*: those found by primary key, and others."""
    found = [(key, *values) for key in keys if (values := parts.lens.primary_key(entity, key))]
    if found:
        types = [_array_type(entity, name) for name in entity.root.primary_key]
        relation = sql.SQL("unnest({}) AS k (key, {})").format(
            sql.SQL(", ").join([sql.SQL("%s::text[]"), *types]),
            sql.SQL(", ").join(sql.Identifier(f"v{place}") for place in range(len(types))),
        )
        yield Chosen(relation, [list(column) for column in zip(*found, strict=True)], by_primary_key=True)
    named = {row[0] for row in found}
    if rest := [key for key in keys if key not in named]:
        yield Chosen(sql.SQL("unnest(%s::text[]) AS k (key)").format(), [rest], by_primary_key=False)


def links(connection: Connection, parts: Parts) -> list[Link]:
    """Return all foreign keys by which a row of an item may be referred to from outside the item."""
    layout, found = parts.layout, []
    for plan in layout.plans:
        for key in plan.references:
            joins, owner = layout.owner(plan, "r")
            target = layout.by_name[key.target_table]
            pairs = zip(key.columns, key.target_columns, strict=True)
            found.append(_link(parts, target, sql.SQL("{}").format(plan.name), pairs, (joins, owner), within=True))
    tables = [plan.name.as_string(connection) for plan in layout.plans if not plan.lookup]
    for schema, table, target_name, columns, target_columns in connection.execute(
        _FOREIGN, {"tables": tables}
    ).fetchall():
        name = sql.SQL("{}").format(sql.Identifier(schema, table))
        label = (sql.Composed([]), sql.Literal(f"{schema}.{table}"))
        pairs = zip(columns, target_columns, strict=True)
        found.append(_link(parts, layout.by_name[target_name], name, pairs, label, within=False))
    return found


def _link(
    parts: Parts,
    target: TablePlan,
    table: sql.Composed,
    pairs: Iterator[tuple[str, str]],
    label: tuple[sql.Composed, sql.Composable],
    *,
    within: bool,
) -> Link:
    up, owner = parts.layout.owner(target, "p")
    joins, by = label
    joined = sql.SQL("{} AS p{} JOIN {} AS r ON {}{}").format(
        target.name, up, table, equal_pairs("r", "p", pairs), joins
    )
    return Link(target, joined, "p" + "_up" * depth(parts, target), owner, by, within)


def depth(parts: Parts, plan: TablePlan) -> int:
    """Return how many tables stand above this one, up to the one whose rows name their item."""
    return 0 if plan.anchor or plan.parent is None else 1 + depth(parts, parts.layout.by_name[plan.parent.name])


def _array_type(entity: Entity, name: str) -> sql.Composed:
    # A column's checked type name; numeric(p,s) would be rounded by a cast to it.
    base = entity.root.column(name).type.sql
    known: Any = "numeric" if base.startswith("numeric") else base
    return sql.SQL("%s::{}[]").format(sql.SQL(known))
