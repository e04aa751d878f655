"""One batch into the tables: whole items with their ledger rows, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import errors

from kvmigrate.model import Item, Reason, Refusal
from kvmigrate.target.attempt import Attempt, Parts
from kvmigrate.target.base import Applied, Batch, Label
from kvmigrate.target.ledger import Wait
from kvmigrate.target.session import is_data_error
from kvmigrate.transform.lens import PageRows

Connection = psycopg.Connection[Any]

_RACES = 3
"""Tries at an item that loses a value to a writer which was not there when it was looked for."""

_ON_OTHERS = (errors.ForeignKeyViolation, errors.UniqueViolation, errors.ExclusionViolation)


class Applier:
    """Applies batches. Each method is called inside a transaction that holds the fence."""

    def __init__(self, parts: Parts) -> None:
        """The staging tables of *parts* must have been ensured in the transaction."""
        self._parts = parts

    def apply(self, connection: Connection, batch: Batch) -> Applied:
        """Apply all items of the batch at once; where the data are at fault, ever smaller parts of it.

        So one poison item costs its batch a few more rounds, and never its other items.
        """
        return self._apply_or_split(connection, batch.items, batch.rows, batch.label)

    def _apply_or_split(
        self, connection: Connection, items: Sequence[Item], rows: PageRows, label: Label, *, races: int = _RACES
    ) -> Applied:
        try:
            with connection.transaction():
                return Attempt(self._parts, connection, items, label).run(rows)
        except psycopg.Error as exc:
            if not is_data_error(exc):
                raise
            self._parts.staging.clear(connection)
            left = concerned(items, rows)
            if not left:
                raise
            if len(left) == 1 and races > 1 and self._is_race(exc):
                return self._apply_or_split(connection, left, self._parts.lens.page(left), label, races=races - 1)
            if len(left) == 1:
                return self._set_aside(connection, left[0], exc, label)
        middle = len(left) // 2
        applied = Applied()
        for half in (left[:middle], left[middle:]):
            part = self._apply_or_split(connection, half, self._parts.lens.page(half), label)
            self._parts.staging.clear(connection)
            applied = applied.plus(part)
        return applied

    def _set_aside(self, connection: Connection, item: Item, exc: psycopg.Error, label: Label) -> Applied:
        """Let one item wait or be quarantined that the database refuses although the mapping accepts it."""
        attempt = Attempt(self._parts, connection, [item], label)
        if isinstance(exc, _ON_OTHERS):
            constraint = exc.diag.constraint_name or ""
            kind = Reason.MISSING_PARENT if isinstance(exc, errors.ForeignKeyViolation) else Reason.SAME_ROW
            message = f"the database refuses it for another row: {constraint} on {exc.diag.table_name}"
            # Which value it is has to be found out, by trying again, where that could be told.
            wait = Wait(constraint, self._parts.entity_id(item.key), "", kind.value, message, due=self._is_race(exc))
            return attempt.set_aside(wait)
        return attempt.set_aside(Refusal(item.key, "$", Reason.DATABASE, self._told(item.key, exc)))

    def _is_race(self, exc: psycopg.Error) -> bool:
        """Whether what refuses is of the mapping: then it would have been found, had it been there before."""
        return isinstance(exc, _ON_OTHERS) and exc.diag.constraint_name in self._parts.conflicts.constraints

    def _told(self, key: str, exc: psycopg.Error) -> str:
        """The server's message; only its class where the item has personal columns, since it may quote a value."""
        entity = self._parts.lens.route(key).entity
        tables = (*entity.tables, *entity.derive) if entity is not None else ()
        if any(column.personal for table in tables for column in table.columns):
            where = ".".join(filter(None, (exc.diag.table_name, exc.diag.column_name or exc.diag.constraint_name)))
            return f"PostgreSQL error {exc.sqlstate} ({type(exc).__name__})" + (f" at {where}" if where else "")
        return (exc.diag.message_primary or str(exc)).strip()


def concerned(items: Sequence[Item], rows: PageRows) -> list[Item]:
    """Return the items of a batch that reach the tables or the ledger, in their order."""
    keys = {accepted.key for accepted in rows.accepted} | {item.key for item, _ in rows.refused}
    return [item for item in items if item.key in keys]
