"""The keys, indexes and foreign keys that a first load left for later: what is missing, and building it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from queue import Empty, SimpleQueue
from typing import Any, cast

import psycopg
from psycopg import errors, sql

from kvmigrate.target.attempt import Parts
from kvmigrate.target.first_load import PrimaryKey, has_constraint, has_primary_key, has_relation
from kvmigrate.target.layout import TablePlan, names
from kvmigrate.target.session import Session, is_data_error
from kvmigrate.transform.mapping import Column, ForeignKey
from kvmigrate.transform.tables.ddl import Kind, Statement, create_statements

Connection = psycopg.Connection[Any]

_COMPARED_OF_LEDGER = ["scope", "key", "entity", "mapping", "run", "epoch", "n", "deleted", "status"]

_INDEXES = """
SELECT c.relname, split_part(pg_get_indexdef(i.indexrelid), ' USING ', 2)
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE i.indrelid = to_regclass(%s) AND NOT i.indisunique ORDER BY c.relname
"""

_SETTINGS = """
SELECT set_config(name, CASE name WHEN 'maintenance_work_mem' THEN '128MB' ELSE '30' END, true) FROM pg_settings
WHERE (name = 'maintenance_work_mem' AND setting::bigint < 131072)
    OR (name = 'default_statistics_target' AND setting::int > 30)
"""
"""Enough memory to sort in, and a third of the usual sample of rows: autovacuum takes the usual one soon."""


def _is_compared(column: Column) -> bool:
    return not column.type.array and column.type.base not in {"jsonb", "json"}


@dataclass(frozen=True, slots=True)
class Build:
    """One thing to build.

    Attributes:
        what: What it is called in messages.

        statements: Run one by one, each in a transaction of its own.

        plan: Its table; ``None`` for the ledger.

        columns: Whose values must be unique; none for others than keys and uniques.

        index: Name of an index that rows may be too large for; else "".

        reference: The foreign key.
    """

    what: str
    statements: tuple[sql.SQL | sql.Composed, ...]
    plan: TablePlan | None = None
    columns: tuple[str, ...] = ()
    index: str = ""
    reference: ForeignKey | None = None


class KeyBuild:
    """Finds out what is missing, and builds it on several connections at once."""

    def __init__(self, parts: Parts, url: str, *, sessions: int) -> None:
        """Nothing is connected yet; *sessions* is how many connections build at the same time."""
        self._parts = parts
        self._sessions = [Session(url, application_name="kvmigrate:backfill") for _ in range(sessions)]

    def close(self) -> None:
        """Close the connections."""
        for session in self._sessions:
            session.close()

    def missing_keys(self, connection: Connection, taken: Sequence[PrimaryKey]) -> list[Build]:
        """Return what comes first: the ledger's key, primary keys, uniques and then indexes, large tables first.

        An index of a table waits for the table's key anyway, so all keys stand before all indexes.
        """
        parts, found = self._parts, list[Build]()
        if not has_primary_key(connection, parts.ledger_table):
            key = sql.SQL("ALTER TABLE {} ADD PRIMARY KEY (scope, key)").format(parts.ledger_table)
            found.append(Build("the ledger's key", (key,), columns=("key",)))
        by_table = {key.table: key for key in taken}
        plans = self._by_size(connection)
        statements = create_statements(parts.layout.mapping)
        for plan in plans:
            if not has_primary_key(connection, plan.name):
                found.append(_primary_key(plan, by_table.get(plan.table.name)))
            found += [
                Build(f"unique {each.name}", (_written(each),), plan, unique.columns)
                for unique in plan.table.uniques
                for each in _named(statements, Kind.UNIQUE, unique.name)
                if not _is_unique(connection, plan.name, unique.columns)
            ]
        schema = parts.layout.mapping.schema
        for plan in plans:
            found += [
                Build(f"index {each.name}", (_written(each),), plan, index=each.name)
                for each in statements
                if each.kind is Kind.INDEX and each.table == plan.table.name
                if not has_relation(connection, sql.Identifier(schema, each.name))
            ]
        return [*found, *self._missing_of_ledger(connection)]

    def _missing_of_ledger(self, connection: Connection) -> Iterator[Build]:
        """Yield the other indexes of the whole ledger: when it takes its part it would build them one by one."""
        own = self._parts.ledger_table
        mine = {text for _, text in _indexes(connection, own)}
        for name, text in _indexes(connection, sql.Identifier("kvmigrate", "ledger")):
            if text not in mine:
                # A name of its own, so that what was done unheard is not done twice.
                index = sql.Identifier(f"ledger_{self._parts.scope}{name.removeprefix('ledger')}")
                # The server's own words; no value is in them.
                made = sql.SQL("CREATE INDEX {} ON {} USING {}").format(index, own, sql.SQL(cast("Any", text)))
                yield Build(f"the ledger's {name}", (made,))

    def forsaken_keys(self, connection: Connection, taken: Sequence[PrimaryKey]) -> list[Build]:
        """Return the primary keys of tables that the mapping lost while their keys were away."""
        layout, found = self._parts.layout, list[Build]()
        for key in taken:
            table = sql.Identifier(layout.mapping.schema, key.table)
            if key.table in layout.by_name or not has_relation(connection, table):
                continue
            if not has_primary_key(connection, table):
                statement = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} PRIMARY KEY ({})")
                made = statement.format(table, sql.Identifier(key.name), names(key.columns))
                found.append(Build(f"primary key of {key.table}", (made,)))
        return found

    def missing_references(self, connection: Connection) -> list[Build]:
        """Return the foreign keys that are not there, to be made without a look at the rows."""
        statements, found = create_statements(self._parts.layout.mapping), list[Build]()
        for plan, key in self._references():
            if not has_constraint(connection, plan.name, key.name):
                [made] = _named(statements, Kind.FOREIGN_KEY, key.name)
                later = sql.Composed([_written(made), sql.SQL(" NOT VALID")])
                found.append(Build(f"foreign key {key.name}", (later,), plan, reference=key))
        return found

    def unproven_references(self, connection: Connection) -> list[Build]:
        """Return the foreign keys whose rows were not looked at, those of one table apart from each other.

        That reads the whole table and lets others write meanwhile, but only one at a time for each table.
        """
        by_table: dict[str, list[Build]] = {}
        for plan, key in self._references():
            if not _is_valid(connection, plan.name, key.name):
                statement = sql.SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}").format(plan.name, sql.Identifier(key.name))
                build = Build(f"proof of foreign key {key.name}", (statement,), plan, reference=key)
                by_table.setdefault(plan.table.name, []).append(build)
        rounds = zip_longest(*by_table.values())
        return [build for each in rounds for build in each if build is not None]

    def statistics(self) -> list[Build]:
        """Return the refreshing of the planner's statistics, of what it joins and filters by.

        Documents and arrays cost more than all else together. Where columns are named, a table stays one that changed
        for autovacuum, which sees to the others when it is its turn, and to more rows of these.
        """
        # The ledger has no foreign keys, so it is not waited for where these are being proven.
        tables = [("the ledger", self._parts.ledger_table, _COMPARED_OF_LEDGER)]
        tables += [
            (plan.table.name, plan.name, [column.name for column in plan.table.columns if _is_compared(column)])
            for plan in self._parts.layout.plans
        ]
        statement = sql.SQL("ANALYZE {} ({})")
        return [
            Build(f"statistics of {name}", (statement.format(table, names(columns)),))
            for name, table, columns in tables
        ]

    def run(self, builds: Sequence[Build], told: Callable[[], None]) -> list[Build]:
        """Build; return those that rows stand in the way of.

        Raises:
            TargetError: the server failed; what was built stays.
        """
        waiting: SimpleQueue[Build] = SimpleQueue()
        for build in builds:
            waiting.put(build)
        refused: list[Build] = []
        failures: list[BaseException] = []

        def work(session: Session) -> None:
            while not failures and (build := _next(waiting)) is not None:
                try:
                    if not session.run(partial(_build, build=build)):
                        refused.append(build)
                    told()
                except BaseException as exc:  # noqa: BLE001 - raised again by the thread that waits
                    failures.append(exc)

        threads = [threading.Thread(target=work, args=(session,), daemon=True) for session in self._sessions]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(timeout=0.5)
        if failures:
            raise failures[0]
        return refused

    def _references(self) -> Iterator[tuple[TablePlan, ForeignKey]]:
        for plan in self._parts.layout.plans:
            for key in plan.table.foreign_keys:
                yield plan, key

    def _by_size(self, connection: Connection) -> list[TablePlan]:
        sizes = {
            plan.table.name: connection.execute(
                "SELECT pg_relation_size(to_regclass(%s))", [plan.name.as_string()]
            ).fetchall()[0][0]
            for plan in self._parts.layout.plans
        }
        return sorted(self._parts.layout.plans, key=lambda plan: -(sizes[plan.table.name] or 0))


def _next(waiting: SimpleQueue[Build]) -> Build | None:
    try:
        return waiting.get_nowait()
    except Empty:
        return None


def _build(connection: Connection, build: Build) -> bool:
    """Run the statements of *build*; return false where rows do not allow it."""
    try:
        for statement in build.statements:
            with connection.transaction():
                connection.execute(_SETTINGS)
                _search_in_extensions(connection)
                try:
                    with connection.transaction():
                        connection.execute(statement)
                except (errors.DuplicateObject, errors.DuplicateTable, errors.InvalidTableDefinition):
                    # A connection that was lost had done it, unheard.
                    continue
    except psycopg.Error as exc:
        if is_data_error(exc):
            return False
        raise
    return True


def _indexes(connection: Connection, table: sql.Identifier) -> list[tuple[str, str]]:
    """Return names of a table's indexes that are no keys, with the method and all that is behind it."""
    found = connection.execute(_INDEXES, [table.as_string(connection)]).fetchall()
    return [(str(name), str(text)) for name, text in found]


def _primary_key(plan: TablePlan, taken: PrimaryKey | None) -> Build:
    columns = plan.table.primary_key
    if taken is not None and set(taken.columns) == set(columns):
        name = sql.SQL("CONSTRAINT {} ").format(sql.Identifier(taken.name))
        columns = taken.columns
    else:
        name = sql.SQL("").format()
    statement = sql.SQL("ALTER TABLE {} ADD {}PRIMARY KEY ({})").format(plan.name, name, names(columns))
    return Build(f"primary key of {plan.table.name}", (statement,), plan, columns)


def _is_unique(connection: Connection, table: sql.Identifier, columns: Sequence[str]) -> bool:
    """Whether a constraint or an index, whatever its name, lets no two rows have the same of these columns."""
    found = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_index AS i "
        "WHERE i.indrelid = to_regclass(%s) AND i.indisunique AND i.indisvalid AND i.indpred IS NULL "
        "AND (SELECT array_agg(a.attname::text ORDER BY a.attname) FROM pg_attribute AS a "
        "WHERE a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey[0:i.indnkeyatts - 1])) = %s)",
        [table.as_string(), sorted(columns)],
    )
    return bool(found.fetchall()[0][0])


def _is_valid(connection: Connection, table: sql.Identifier, name: str) -> bool:
    found = connection.execute(
        "SELECT convalidated FROM pg_constraint WHERE conrelid = to_regclass(%s) AND conname = %s",
        [table.as_string(), name],
    ).fetchall()
    return bool(found and found[0][0])


def _named(statements: Sequence[Statement], kind: Kind, name: str) -> Iterator[Statement]:
    return (each for each in statements if each.kind is kind and each.name == name)


def _written(statement: Statement) -> sql.SQL:
    # Text that the mapping's names were quoted into; no value is in it.
    return sql.SQL(statement.sql)


def _search_in_extensions(connection: Connection) -> None:
    """Make operator classes visible that extensions brought, wherever these were installed."""
    connection.execute(
        "SELECT set_config('search_path', string_agg(DISTINCT quote_ident(n.nspname), ', '), true) "
        "FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace"
    )
