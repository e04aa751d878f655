"""Which waiting items may be tried again: those whose obstacle is gone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import sql

from kvmigrate.target.attempt import Parts
from kvmigrate.target.layout import Key, TablePlan, value_part
from kvmigrate.transform.mapping import ForeignKey

Connection = psycopg.Connection[Any]

_VALUE = sql.SQL("w.on_value")


class Waiting:
    """Questions and marks on the waiting items of one scope."""

    def __init__(self, parts: Parts) -> None:
        """Compose one statement for each constraint that an item may wait for."""
        self._parts = parts
        self._scope = parts.scope
        self._resolved: dict[str, sql.Composed] = {}
        for plan in parts.layout.plans:
            for reference in plan.references:
                self._resolved[reference.name] = self._parent_came(plan, reference)
            for key in plan.keys:
                self._resolved[key.name] = self._value_free(plan, key)

    def mark_due(self, connection: Connection) -> int:
        """Mark the items whose obstacle is gone; return how many are due."""
        found = connection.execute(
            "SELECT DISTINCT on_constraint FROM kvmigrate.waiting WHERE scope = %s AND NOT due", [self._scope]
        ).fetchall()
        for (constraint,) in found:
            gone = self._resolved.get(constraint, sql.Composed([sql.SQL("true")]))
            connection.execute(
                sql.SQL(
                    "UPDATE kvmigrate.waiting AS w SET due = true "
                    "WHERE w.scope = %s AND w.on_constraint = %s AND NOT w.due AND ({})"
                ).format(gone),
                [self._scope, constraint],
            )
        due = connection.execute(
            "SELECT count(DISTINCT key) FROM kvmigrate.waiting WHERE scope = %s AND due", [self._scope]
        )
        return int(due.fetchall()[0][0])

    def due_keys(self, connection: Connection, *, after: str, limit: int) -> list[str]:
        """Return the next due keys behind *after*."""
        found = connection.execute(
            "SELECT DISTINCT key FROM kvmigrate.waiting WHERE scope = %s AND due AND key > %s ORDER BY key LIMIT %s",
            [self._scope, after, limit],
        )
        return [key for (key,) in found.fetchall()]

    def obstacles(self, connection: Connection) -> int:
        """Return how many obstacles all items together wait for."""
        found = connection.execute("SELECT count(*) FROM kvmigrate.waiting WHERE scope = %s", [self._scope])
        return int(found.fetchall()[0][0])

    def _parent_came(self, plan: TablePlan, key: ForeignKey) -> sql.Composed:
        target = self._parts.layout.by_name[key.target_table]
        mine = [plan.table.column(name) for name in key.columns]
        pairs: Iterator[sql.Composable] = (
            sql.SQL("{} = {}").format(sql.Identifier("p", name), value_part(_VALUE, mine, position))
            for position, name in enumerate(key.target_columns)
        )
        return sql.SQL("EXISTS (SELECT FROM {} AS p WHERE {})").format(target.name, sql.SQL(" AND ").join(pairs))

    def _value_free(self, plan: TablePlan, key: Key) -> sql.Composed:
        """A value is free, too, when its holder only waits: then its rows yield."""
        joins, owner = self._parts.layout.owner(plan, "t")
        columns = [plan.table.column(name) for name in key.columns]
        pairs = (
            sql.SQL("{} = {}").format(sql.Identifier("t", name), value_part(_VALUE, columns, position))
            for position, name in enumerate(key.columns)
        )
        return sql.SQL(
            "NOT EXISTS (SELECT FROM {table} AS t{joins} "
            "LEFT JOIN kvmigrate.ledger AS l ON l.scope = {scope} AND l.key = {owner} AND NOT l.deleted "
            "WHERE {match} AND l.status IS DISTINCT FROM 'waiting')"
        ).format(
            table=plan.name,
            joins=joins,
            scope=sql.Literal(self._scope),
            owner=owner,
            match=sql.SQL(" AND ").join(pairs),
        )
