"""A first load into empty tables: without what slows it, and whole again at its end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import errors, sql

from kvmigrate.errors import SchemaError
from kvmigrate.model import Reason
from kvmigrate.target.attempt import Parts
from kvmigrate.target.index_limits import owners_refused_by
from kvmigrate.target.layout import TablePlan
from kvmigrate.target.ledger import Wait
from kvmigrate.target.session import is_data_error
from kvmigrate.transform.mapping import ForeignKey, Index
from kvmigrate.transform.tables.ddl import Kind, Statement, all_indexes, create_statements

Connection = psycopg.Connection[Any]

FIRST_LOAD = "first load"
"""Value of ``control.phase`` while constraints are away, so that any later run can finish the work."""

ORPHANS_AT_ONCE = 5000
"""Items displaced per transaction; bounds memory and the length of locks."""

_LOCK_TIMEOUT = "5s"


class _RefusedError(Exception):
    """Rows do not fit an index."""

    def __init__(self, statement: Statement) -> None:
        super().__init__(statement.name)
        self.statement = statement


class FirstLoad:
    """Takes constraints away, settles what they would have refused, and brings them back."""

    def __init__(self, parts: Parts) -> None:
        """Work on the tables of *parts*."""
        self._parts = parts
        self._scope = parts.scope

    def is_open(self, connection: Connection) -> bool:
        """Return whether a first load has begun and its constraints are not back yet."""
        found = connection.execute("SELECT phase FROM kvmigrate.control WHERE id = %s", [self._scope]).fetchall()
        return bool(found and found[0][0] == FIRST_LOAD)

    def begin(self, connection: Connection) -> bool:
        """Take away what can wait, if ledger and tables are empty; return whether a first load is open now.

        Where a lock or the right to alter the tables is not to be had, the load is an ordinary one.
        """
        if self.is_open(connection):
            return True
        try:
            with connection.transaction():
                connection.execute("SELECT set_config('lock_timeout', %s, true)", [_LOCK_TIMEOUT])
                if not self._is_empty(connection):
                    return False
                taken = [*self._drop_references(connection), *self._drop_indexes(connection)]
                connection.execute(
                    "UPDATE kvmigrate.control SET phase = %s, deferred = %s, updated_at = now() WHERE id = %s",
                    [FIRST_LOAD, taken, self._scope],
                )
        except (errors.InsufficientPrivilege, errors.LockNotAvailable):
            return False
        return True

    def held_back(self) -> frozenset[str]:
        """Return the names of the foreign keys and indexes that are away while a first load is open."""
        mapping, plans = self._parts.layout.mapping, self._parts.layout.by_name
        indexes = (index.name for table, index in all_indexes(mapping) if not _is_needed(plans[table.name], index))
        return frozenset([*(key.name for _, key in self._references()), *indexes])

    def settle_orphans(self, connection: Connection) -> int:
        """Displace up to `ORPHANS_AT_ONCE` items of each reference that lead nowhere; return how many.

        Called until nothing is left: a displaced item may have been another one's parent.
        """
        displaced = 0
        for plan, key in self._references():
            waits = self._parts.removal.orphans(connection, plan, key, limit=ORPHANS_AT_ONCE)
            moved = self._parts.removal.displace(connection, waits) if waits else []
            if len(moved) < len(waits):
                strange = next(owner for owner in waits if owner not in set(moved))
                raise SchemaError(
                    f"rows of {plan.table.name} refer to no {key.entity} and belong to no item of the ledger",
                    hint=f"mend or remove them first; the first belongs to key {strange!r}",
                )
            displaced += len(moved)
        return displaced

    def restore(self, connection: Connection) -> Statement | None:
        """Make every foreign key and index of the mapping, and refresh the planner's statistics.

        All in one transaction, and of the mapping as it is now: it may have been edited
        since `begin` took away those of an earlier one.
        Where rows do not fit an index nothing is brought back, and that index is
        returned; `displace_unfit` makes room for another try.
        """
        try:
            with connection.transaction():
                self._restore(connection)
        except _RefusedError as refused:
            return refused.statement
        for plan in self._parts.layout.plans:
            connection.execute(sql.SQL("ANALYZE {}").format(plan.name))
        connection.execute("ANALYZE kvmigrate.ledger")
        return None

    def displace_unfit(self, connection: Connection, index: Statement) -> int:
        """Displace the items with rows that *index* refuses, to be tried again at once; return how many.

        The next try writes them as any later load would, and so quarantines them.

        Raises:
            SchemaError: no item of the ledger owns such a row.
        """
        parts = self._parts
        plan = parts.layout.by_name[index.table]
        _search_in_extensions(connection)
        owners = [] if plan.lookup else owners_refused_by(connection, parts.layout, plan, index.name)
        message = f"a row of {index.table} does not fit index {index.name}"
        wait = Wait(index.name, plan.entity.id, "", Reason.DATABASE.value, message, due=True)
        moved = parts.removal.displace(connection, {owner: [wait] for owner in owners})
        if not moved:
            raise SchemaError(
                f"rows of {index.table} do not fit index {index.name}, and no item of the ledger is at fault",
                hint="take the index out of the mapping, or mend the rows, and run this again",
            )
        return len(moved)

    def _restore(self, connection: Connection) -> None:
        connection.execute("SELECT FROM kvmigrate.control WHERE id = %s FOR UPDATE", [self._scope])
        _search_in_extensions(connection)
        statements = create_statements(self._parts.layout.mapping)
        # Indexes first: rows may not fit them, and then all else was in vain.
        for kind in (Kind.INDEX, Kind.FOREIGN_KEY):
            for statement in statements:
                if statement.kind is kind:
                    self._make(connection, statement)
        connection.execute(
            "UPDATE kvmigrate.control SET phase = '', deferred = '{}', updated_at = now() WHERE id = %s",
            [self._scope],
        )

    def _is_empty(self, connection: Connection) -> bool:
        questions = [sql.SQL("EXISTS (SELECT FROM {})").format(plan.name) for plan in self._parts.layout.plans]
        questions.append(
            sql.SQL("EXISTS (SELECT FROM kvmigrate.ledger WHERE scope = {})").format(sql.Literal(self._scope))
        )
        any_row = sql.SQL("SELECT {}").format(sql.SQL(" OR ").join(questions))
        return not connection.execute(any_row).fetchall()[0][0]

    def _references(self) -> Iterator[tuple[TablePlan, ForeignKey]]:
        for plan in self._parts.layout.plans:
            for key in plan.references:
                yield plan, key

    def _drop_references(self, connection: Connection) -> Iterator[str]:
        for plan, key in self._references():
            if _has_constraint(connection, plan, key.name):
                connection.execute(
                    sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(plan.name, sql.Identifier(key.name))
                )
                yield key.name

    def _drop_indexes(self, connection: Connection) -> Iterator[str]:
        layout = self._parts.layout
        for table, index in all_indexes(layout.mapping):
            plan = layout.by_name[table.name]
            name = sql.Identifier(layout.mapping.schema, index.name)
            if not _is_needed(plan, index) and _has_index(connection, name):
                connection.execute(sql.SQL("DROP INDEX {}").format(name))
                yield index.name

    def _make(self, connection: Connection, statement: Statement) -> None:
        plan = self._parts.layout.by_name[statement.table]
        name = sql.Identifier(self._parts.layout.mapping.schema, statement.name)
        there = (
            _has_index(connection, name)
            if statement.kind is Kind.INDEX
            else _has_constraint(connection, plan, statement.name)
        )
        if there:
            return
        try:
            # Text that the mapping's names were quoted into; no value is in it.
            connection.execute(sql.SQL(statement.sql))
        except psycopg.Error as exc:
            if statement.kind is Kind.INDEX and is_data_error(exc):
                raise _RefusedError(statement) from exc
            raise


def _is_needed(plan: TablePlan, index: Index) -> bool:
    """Whether deleting an item's rows would have to read the whole table without it."""
    first = index.parts[0][0]
    owned = {key.columns[0] for key in plan.table.foreign_keys if key.owned}
    return not index.method and (first in owned or (plan.anchor and first == plan.entity.owner_column))


def _has_constraint(connection: Connection, plan: TablePlan, name: str) -> bool:
    found = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_constraint WHERE conrelid = to_regclass(%s) AND conname = %s)",
        [plan.name.as_string(connection), name],
    )
    return bool(found.fetchall()[0][0])


def _has_index(connection: Connection, name: sql.Identifier) -> bool:
    found = connection.execute("SELECT to_regclass(%s) IS NOT NULL", [name.as_string(connection)])
    return bool(found.fetchall()[0][0])


def _search_in_extensions(connection: Connection) -> None:
    """Make operator classes visible that extensions brought, wherever these were installed."""
    connection.execute(
        "SELECT set_config('search_path', string_agg(DISTINCT quote_ident(n.nspname), ', '), true) "
        "FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace"
    )
