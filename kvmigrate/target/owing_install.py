"""Puts the triggers that owe plain SQL to the store on the tables, and takes them away; see `owing_function`."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg import errors, sql

from kvmigrate.errors import NotSupportedError, SchemaError, TargetError
from kvmigrate.target.control_schema import INSTALL_LOCK, LOCK_TIMEOUT, PATIENCE_S, is_installed, patiently
from kvmigrate.target.layout import Layout
from kvmigrate.target.owing_function import EVENTS, Owing, owing, trigger_name
from kvmigrate.target.session import never_migrated
from kvmigrate.transform.mapping import Mapping

Connection = psycopg.Connection[Any]
T = TypeVar("T")

_FOUND = """
SELECT n.nspname::text, c.relname::text, p.proname::text, t.tgname::text, t.tgenabled IN ('O', 'A'),
    obj_description(p.oid, 'pg_proc')
FROM pg_catalog.pg_proc AS p
LEFT JOIN pg_catalog.pg_trigger AS t ON t.tgfoid = p.oid
LEFT JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid
LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE p.pronamespace = 'kvmigrate'::regnamespace AND p.proname ~ %s
ORDER BY 1, 2, 3, 4
"""

_NEEDED = "SELECT to_regprocedure('kvmigrate.owing(integer)') IS NOT NULL"


class WatchState(enum.StrEnum):
    """Whether plain SQL into a table is owed to the store while the tables lead."""

    WATCHED = "watched"
    OUTDATED = "outdated"
    """A trigger is missing or disabled, or made for another mapping or by another version."""

    MISSING = "missing"


class WatchedTable(NamedTuple):
    """One table of the mapping; *statements* make its triggers, and may be repeated."""

    table: str
    state: WatchState
    statements: tuple[str, ...]


class Leaving(NamedTuple):
    """What drops the triggers of one *table* ("" where it is gone) and their function."""

    table: str
    statements: tuple[sql.Composed, ...]

    @property
    def texts(self) -> list[str]:
        """The statements, to be read."""
        return [statement.as_string() for statement in self.statements]


_READABLE = """
SELECT has_table_privilege(c.oid, 'SELECT') AND NOT row_security_active(c.oid)
FROM pg_class AS c WHERE c.oid = to_regclass(%s)
"""


class _Found(NamedTuple):
    """A trigger as the catalog has it; a function without any has no table."""

    schema: str | None
    table: str | None
    function: str
    trigger: str | None
    is_enabled: bool | None
    digest: str | None


def look_at_watch(connection: Connection, mapping: Mapping, database: str) -> list[WatchedTable]:
    """Return each table of the mapping that can be watched, and whether it is. Nothing is changed.

    Raises:
        SchemaError: the scope is not known in *database*, or its control schema is older than this version.

        NotSupportedError: an entity's key cannot be told from its rows in SQL.
    """
    with connection.transaction():
        scope = _scope(connection, mapping, database)
        found = _found(connection, scope)
        return [_state(each, mapping.schema, found) for each in _wanted(mapping, scope)]


def watch_tables(
    connection: Connection, mapping: Mapping, database: str, *, patience_s: float = PATIENCE_S
) -> list[str]:
    """Make what is missing of the triggers, table by table; return the tables that it was made for.

    Triggers that an earlier mapping had on other tables go. What was made stays if a later table is refused.

    Raises:
        SchemaError, NotSupportedError: as `look_at_watch`; or a table is not there.

        TargetError: the role may not make triggers on a table, or others held it for the whole time.
    """
    scope = _scope(connection, mapping, database)
    wanted = _wanted(mapping, scope)
    functions = {each.function for each in wanted}
    found = _found(connection, scope)
    _drop(connection, _leaving([each for each in found if each.function not in functions]), patience_s)
    made = []
    for each in wanted:
        if _state(each, mapping.schema, found).state is not WatchState.WATCHED:
            table = f"{mapping.schema}.{each.plan.table.name}"
            _check_readable(connection, table, each)
            _patiently(connection, table, patience_s, each.statements)
            made.append(each.plan.table.name)
    return made


def _check_readable(connection: Connection, table: str, wanted: Owing) -> None:
    """Check that what this role makes can read the whole table; else every statement on it would fail."""
    name = wanted.plan.name.as_string(connection)
    found = connection.execute(_READABLE, [name]).fetchall()
    if found == [(False,)]:
        raise TargetError(
            f"{table}: the triggers of this role could not read all of its rows",
            hint="grant it SELECT on the table, and BYPASSRLS where row-level security hides rows from it; or a "
            "superuser executes what `kvmigrate control watch --dry-run` prints",
        )


def plan_unwatch(connection: Connection, mapping: Mapping, database: str) -> list[Leaving]:
    """Return what drops every trigger that owes for this mapping, and its function. Raises as `look_at_watch`."""
    with connection.transaction():
        return _leaving(_found(connection, _scope(connection, mapping, database)))


def unwatch_tables(
    connection: Connection, mapping: Mapping, database: str, *, patience_s: float = PATIENCE_S
) -> list[str]:
    """Execute that plan, function by function; return the tables. Raises as `watch_tables`."""
    return _drop(connection, plan_unwatch(connection, mapping, database), patience_s)


def _scope(connection: Connection, mapping: Mapping, database: str) -> int:
    if not is_installed(connection):
        raise never_migrated(database, mapping.name)
    found = connection.execute("SELECT id FROM kvmigrate.control WHERE scope = %s", [mapping.name]).fetchall()
    if not found:
        raise never_migrated(database, mapping.name)
    if not connection.execute(_NEEDED).fetchall()[0][0]:
        raise SchemaError(
            f"the control schema in {database} is older than this version of kvmigrate",
            hint="`kvmigrate control upgrade`, as its owner, brings it up to date",
        )
    return int(found[0][0])


def _wanted(mapping: Mapping, scope: int) -> list[Owing]:
    try:
        return owing(Layout(mapping), scope)
    except NotSupportedError as exc:
        raise NotSupportedError(f"plain SQL cannot be watched: {exc}", hint=exc.hint) from exc


def _found(connection: Connection, scope: int) -> list[_Found]:
    return [_Found(*row) for row in connection.execute(_FOUND, [rf"^owe_{scope}_[0-9a-f]{{12}}$"]).fetchall()]


def _state(wanted: Owing, schema: str, found: Sequence[_Found]) -> WatchedTable:
    table = wanted.plan.table.name
    ours = [each for each in found if each.function == wanted.function]
    sound = {
        each.trigger
        for each in ours
        if (each.schema, each.table, each.digest) == (schema, table, wanted.digest) and each.is_enabled
    }
    state = WatchState.OUTDATED if ours else WatchState.MISSING
    if sound == {trigger_name(event) for event in EVENTS}:
        state = WatchState.WATCHED
    return WatchedTable(table, state, tuple(statement.as_string().strip() for statement in wanted.statements))


def _leaving(found: Sequence[_Found]) -> list[Leaving]:
    """What drops these functions, and before them their triggers."""
    plans = []
    for function in dict.fromkeys(each.function for each in found):
        triggers = [
            (each.schema, each.table, each.trigger)
            for each in found
            if each.function == function and each.schema and each.table and each.trigger
        ]
        statements = [
            sql.SQL("DROP TRIGGER {} ON {}").format(sql.Identifier(trigger), sql.Identifier(schema, table))
            for schema, table, trigger in triggers
        ]
        statements.append(sql.SQL("DROP FUNCTION {}()").format(sql.Identifier("kvmigrate", function)))
        tables = dict.fromkeys(table for _, table, _ in triggers)
        plans.append(Leaving(", ".join(tables), tuple(statements)))
    return plans


def _drop(connection: Connection, plans: Sequence[Leaving], patience_s: float) -> list[str]:
    for each in plans:
        _patiently(connection, each.table or "a trigger's function", patience_s, each.statements)
    return [each.table for each in plans if each.table]


def _patiently(connection: Connection, table: str, patience_s: float, statements: Sequence[sql.Composed]) -> None:
    """Execute the statements in one transaction, however often its locks take. Raises as `watch_tables`."""

    def held() -> TargetError:
        return TargetError(
            f"{table}: a transaction kept a lock on it for longer than {LOCK_TIMEOUT} at every attempt",
            hint="let it end, then type the same command again; what was done before stays",
        )

    patiently(lambda: _refused(table, lambda: _execute(connection, statements)), patience_s, held)


def _execute(connection: Connection, statements: Sequence[sql.Composed]) -> None:
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [INSTALL_LOCK])
        connection.execute("SELECT set_config('lock_timeout', %s, true)", [LOCK_TIMEOUT])
        for statement in statements:
            connection.execute(statement)


def _refused(table: str, work: Callable[[], T]) -> T:
    try:
        return work()
    except errors.InsufficientPrivilege as exc:
        raise TargetError(
            f"{table}: this role may not change its triggers: {exc.diag.message_primary}",
            hint="the owner of schema kvmigrate does it, and needs TRIGGER on the table; or a superuser executes what "
            "`kvmigrate control watch --dry-run` prints",
        ) from exc
    except errors.UndefinedTable as exc:
        raise SchemaError(
            f"{table} is not there: {exc.diag.message_primary}", hint="`kvmigrate schema --apply` makes it"
        ) from exc
