"""A first load into empty tables: its phases, and how it begins by taking away what would slow it."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import psycopg
from psycopg import errors, sql

from kvmigrate.target.attempt import Parts
from kvmigrate.target.layout import TablePlan
from kvmigrate.transform.tables.ddl import all_indexes

Connection = psycopg.Connection[Any]

_LOCK_TIMEOUT = "5s"


class Phase(enum.StrEnum):
    """Value of ``control.phase``: any later run finds it there and can finish the work."""

    NONE = ""
    LOADING = "first load"
    """The scope's ledger stands alone without keys, and the tables have none: batches are only COPY."""

    KEYS = "first load, keys"
    """Every batch is in and the ledger has its place; keys of the tables are being built."""


class PrimaryKey(NamedTuple):
    """A primary key that was taken away, kept in ``control.deferred`` so that exactly it comes back."""

    table: str
    name: str
    columns: tuple[str, ...]

    def to_text(self) -> str:
        """Return it as an element of ``control.deferred``."""
        return json.dumps({"table": self.table, "primary_key": self.name, "columns": self.columns})

    @classmethod
    def from_text(cls, text: str) -> Self | None:
        """Read an element of ``control.deferred``; ``None`` where it names something else."""
        if not text.startswith("{"):
            return None
        found = json.loads(text)
        return cls(found["table"], found["primary_key"], tuple(found["columns"]))


class FirstLoad:
    """Knows in which phase a scope is, and begins a first load where one is possible."""

    def __init__(self, parts: Parts) -> None:
        """Work on the tables of *parts*."""
        self._parts = parts
        self._scope = parts.scope

    def phase(self, connection: Connection) -> Phase:
        """Return the scope's phase; `Phase.NONE` also where a move between stages stands there."""
        found = self._written(connection)
        return Phase(found) if found in set(Phase) else Phase.NONE

    def begin(self, connection: Connection) -> Phase:
        """Take away every key, index and foreign key, if ledger and tables are empty; return the phase now.

        Where a lock, the right to alter the tables, or a partition of the ledger is not to
        be had, others depend on a key, or a table is partitioned, inherited or published,
        the load is an ordinary one.
        """
        if self._written(connection) != Phase.NONE:
            # Of a load that is open; or a move between stages, whose intent must stay.
            return self.phase(connection)
        try:
            with connection.transaction():
                connection.execute("SELECT set_config('lock_timeout', %s, true)", [_LOCK_TIMEOUT])
                if not (self._is_empty(connection) and self._has_own_ledger(connection) and self._is_plain(connection)):
                    return Phase.NONE
                taken = [
                    *self._drop_references(connection),
                    *self._drop_keys(connection),
                    *self._drop_indexes(connection),
                ]
                self._free_ledger(connection)
                connection.execute(
                    "UPDATE kvmigrate.control SET phase = %s, deferred = %s, updated_at = now() WHERE id = %s",
                    [Phase.LOADING, taken, self._scope],
                )
        except (errors.InsufficientPrivilege, errors.LockNotAvailable, errors.DependentObjectsStillExist):
            return Phase.NONE
        return Phase.LOADING

    def _written(self, connection: Connection) -> str:
        found = connection.execute("SELECT phase FROM kvmigrate.control WHERE id = %s", [self._scope]).fetchall()
        return str(found[0][0]) if found else Phase.NONE

    def taken_keys(self, connection: Connection) -> list[PrimaryKey]:
        """Return the primary keys that were taken away."""
        found = connection.execute("SELECT deferred FROM kvmigrate.control WHERE id = %s", [self._scope]).fetchall()
        keys = (PrimaryKey.from_text(text) for text in (found[0][0] if found else ()))
        return [key for key in keys if key is not None]

    def _is_empty(self, connection: Connection) -> bool:
        # Lookups keep their keys in a first load, so rows of an earlier one are not in its way.
        plans = (plan for plan in self._parts.layout.plans if not plan.lookup)
        questions = [sql.SQL("EXISTS (SELECT FROM {})").format(plan.name) for plan in plans]
        questions.append(
            sql.SQL("EXISTS (SELECT FROM kvmigrate.ledger WHERE scope = {})").format(sql.Literal(self._scope))
        )
        any_row = sql.SQL("SELECT {}").format(sql.SQL(" OR ").join(questions))
        return not connection.execute(any_row).fetchall()[0][0]

    def _has_own_ledger(self, connection: Connection) -> bool:
        found = connection.execute("SELECT to_regclass(%s) IS NOT NULL", [self._parts.ledger_table.as_string()])
        return bool(found.fetchall()[0][0])

    def _is_plain(self, connection: Connection) -> bool:
        """Whether rows can be told by their place alone, and may be deleted while there is no key."""
        tables = [plan.name.as_string() for plan in self._parts.layout.plans] + [self._parts.ledger_table.as_string()]
        [(odd,)] = connection.execute(
            "SELECT EXISTS (SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
            "WHERE c.oid = ANY(SELECT unnest(%s::text[])::regclass) AND (c.relkind <> 'r' OR c.relhassubclass "
            "OR EXISTS (SELECT FROM pg_publication_tables AS p "
            "WHERE p.schemaname = n.nspname AND p.tablename = c.relname)))",
            [tables],
        ).fetchall()
        return not odd

    def _free_ledger(self, connection: Connection) -> None:
        """Let the scope's part of the ledger stand alone, without its key."""
        own = self._parts.ledger_table
        connection.execute(sql.SQL("ALTER TABLE kvmigrate.ledger DETACH PARTITION {}").format(own))
        keys = "SELECT conname FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'p'"
        for (name,) in connection.execute(keys, [own.as_string()]).fetchall():
            connection.execute(sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(own, sql.Identifier(name)))
        indexes = (
            "SELECT c.relname FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid "
            "WHERE i.indrelid = %s::regclass"
        )
        for (name,) in connection.execute(indexes, [own.as_string()]).fetchall():
            connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier("kvmigrate", name)))

    def _drop_references(self, connection: Connection) -> Iterator[str]:
        for plan in self._parts.layout.plans:
            for key in plan.table.foreign_keys:
                if has_constraint(connection, plan.name, key.name):
                    _drop_constraint(connection, plan, key.name)
                    yield key.name

    def _drop_keys(self, connection: Connection) -> Iterator[str]:
        """Take away primary keys and uniques; not those of lookups, which many items feed at once."""
        for plan in self._parts.layout.plans:
            if plan.lookup:
                continue
            for unique in plan.table.uniques:
                if has_constraint(connection, plan.name, unique.name):
                    _drop_constraint(connection, plan, unique.name)
                    yield unique.name
            for name, columns in connection.execute(
                "SELECT c.conname, (SELECT array_agg(a.attname::text ORDER BY k.place) FROM unnest(c.conkey) "
                "WITH ORDINALITY AS k (number, place) "
                "JOIN pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = k.number) "
                "FROM pg_constraint AS c JOIN pg_index AS i ON i.indexrelid = c.conindid "
                # One with more to it than its columns stays: it could not be made again as it was.
                "WHERE c.conrelid = %s::regclass AND c.contype = 'p' AND NOT c.condeferrable "
                "AND i.indnatts = i.indnkeyatts AND NOT i.indisreplident",
                [plan.name.as_string()],
            ).fetchall():
                _drop_constraint(connection, plan, name)
                yield PrimaryKey(plan.table.name, name, tuple(columns)).to_text()

    def _drop_indexes(self, connection: Connection) -> Iterator[str]:
        layout = self._parts.layout
        for table, index in all_indexes(layout.mapping):
            name = sql.Identifier(layout.mapping.schema, index.name)
            if not layout.by_name[table.name].lookup and has_relation(connection, name):
                connection.execute(sql.SQL("DROP INDEX {}").format(name))
                yield index.name


def has_constraint(connection: Connection, table: sql.Identifier, name: str) -> bool:
    """Return whether the table has a constraint of this name."""
    found = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_constraint WHERE conrelid = to_regclass(%s) AND conname = %s)",
        [table.as_string(), name],
    )
    return bool(found.fetchall()[0][0])


def has_primary_key(connection: Connection, table: sql.Identifier) -> bool:
    """Return whether the table has a primary key."""
    found = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_constraint WHERE conrelid = to_regclass(%s) AND contype = 'p')",
        [table.as_string()],
    )
    return bool(found.fetchall()[0][0])


def has_relation(connection: Connection, name: sql.Identifier) -> bool:
    """Return whether there is an index or table of this name."""
    found = connection.execute("SELECT to_regclass(%s) IS NOT NULL", [name.as_string()])
    return bool(found.fetchall()[0][0])


def _drop_constraint(connection: Connection, plan: TablePlan, name: str) -> None:
    connection.execute(sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(plan.name, sql.Identifier(name)))
