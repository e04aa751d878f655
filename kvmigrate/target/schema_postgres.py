"""A mapping's tables in a live database: make them, compare them, drop them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import errors, sql

from kvmigrate.errors import SchemaError, TargetError
from kvmigrate.target.address import connect
from kvmigrate.target.schema_catalog import Connection, has_rows, is_supabase_like, read_live_schema
from kvmigrate.target.session import LOGIN_HINT, is_refusal, patience
from kvmigrate.transform.mapping import Mapping
from kvmigrate.transform.tables.ddl import (
    TRIGRAM_EXTENSION,
    Kind,
    Statement,
    create_statements,
    drop_statements,
    joined_views,
)
from kvmigrate.transform.tables.difference import Difference, Level
from kvmigrate.transform.tables.live_schema import LiveSchema
from kvmigrate.transform.tables.schema_diff import differences

LOCK_TIMEOUT = "5s"
"""How long a statement waits for a lock: behind a waiting one, every query of the table waits too."""

_LOCK_CLASS = 0x6B766D73  # "kvms": two runs of apply or drop never interleave
_REFUSED_BY_ROWS = (
    errors.UniqueViolation,
    errors.ForeignKeyViolation,
    errors.CheckViolation,
    errors.NotNullViolation,
)


@dataclass(frozen=True, slots=True)
class AppliedSchema:
    """What `apply_schema` made and what was there before; names as ``table public.orders``.

    Attributes:
        supabase: The database has the roles of a Supabase data API, so every created
            table has row-level security on and grants to these roles revoked.

        notes: Sentences for the operator.
    """

    created: list[str] = field(default_factory=list)
    existed: list[str] = field(default_factory=list)
    supabase: bool = False
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the result as the command line prints it."""
        return {
            "created": self.created,
            "existed": self.existed,
            "supabase": self.supabase,
            "notes": self.notes,
        }


def apply_schema(url: str, mapping: Mapping, *, keys_later: bool = False) -> AppliedSchema:
    """Make what is missing of the mapping's tables, in one transaction; safe to run again.

    Adds tables, columns, constraints, indexes, views and the extension that searches
    need. Changes nothing that exists.

    Args:
        url: The target.

        mapping: Whose tables.

        keys_later: Neither make nor miss keys, indexes and foreign keys: a first load is open.

    Raises:
        SchemaError: a table differs in a way that adding cannot mend, existing rows
            break a new constraint, or the extension is not available. Nothing is changed.

        TargetError: the server cannot be reached, or refused.
    """
    with _transaction(url, mapping) as conn:
        live = read_live_schema(conn, mapping)
        found = differences(mapping, live)
        if keys_later:
            found = [each for each in found if not each.is_key]
        _refuse_what_adding_cannot_mend(found)
        done = AppliedSchema(existed=_existing(mapping, live), supabase=live.supabase)
        _search_in_extension(conn)
        for statement in _wanted(mapping, live, found):
            if keys_later and statement.kind in {Kind.UNIQUE, Kind.INDEX, Kind.FOREIGN_KEY}:
                continue
            if statement.kind is Kind.EXTENSION:
                _make_extension(conn, statement)
                _search_in_extension(conn)
            else:
                _execute(conn, statement)
            if statement.kind not in {Kind.COMMENT, Kind.RLS}:
                done.created.append(_called(mapping, statement))
        if live.supabase and done.created:
            done.notes.append(
                "this is a Supabase-like database: row-level security is on for every created table, "
                "and anon and authenticated have no rights on it"
            )
        return done


def diff_schema(url: str, mapping: Mapping) -> list[Difference]:
    """Return how the database differs from what the mapping wants; empty when it does not. Reads only.

    Raises:
        TargetError: the server cannot be reached, or refused.
    """
    with _session(url, read_only=True) as conn:
        return differences(mapping, read_live_schema(conn, mapping))


def drop_schema(url: str, mapping: Mapping, *, force: bool = False) -> list[str]:
    """Drop the mapping's views and tables in one transaction; return their names, children first.

    The schema, the extension and everything of others stay.

    Args:
        url: The target.

        mapping: Whose tables.

        force: Drop tables that hold rows, too.

    Raises:
        SchemaError: a table holds rows and *force* is false, or something of others
            depends on one. Nothing is dropped.

        TargetError: the server cannot be reached, or refused.
    """
    with _transaction(url, mapping) as conn:
        live = read_live_schema(conn, mapping)
        tables = [name for name, relation in live.relations.items() if relation.is_plain]
        for name in tables:
            # Before looking for rows, so that none comes between the look and the drop.
            conn.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(mapping.schema, name)))
        filled = [f"{mapping.schema}.{name}" for name in tables if has_rows(conn, mapping.schema, name)]
        if filled and not force:
            raise SchemaError(
                f"tables hold rows: {', '.join(sorted(filled))}",
                hint="kvmigrate schema --drop --yes drops them with their rows",
            )
        statements = [each for each in drop_statements(mapping) if (each.table or each.name) in live.relations]
        for statement in statements:
            _execute(conn, statement)
        return [_called(mapping, each) for each in statements if each.kind is not Kind.FOREIGN_KEY]


def is_supabase(url: str) -> bool:
    """Return whether the roles ``anon`` and ``authenticated`` exist.

    Raises:
        TargetError: the server cannot be reached.
    """
    with _session(url) as conn:
        return is_supabase_like(conn)


@contextmanager
def _session(url: str, *, read_only: bool = False) -> Iterator[Connection]:
    """Yield a connection whose failures become errors of the house; commit at the end, roll back on an error."""
    try:
        with connect(url, application_name="kvmigrate:schema", client_encoding="UTF8", **patience(url)) as conn:
            conn.read_only = read_only
            # The catalog's text is compared, so it must not follow the role's habits. All is one transaction.
            conn.execute("SET LOCAL standard_conforming_strings = on; SET LOCAL quote_all_identifiers = off")
            yield conn
    except errors.LockNotAvailable as exc:
        hint = "another transaction holds the table; nothing was changed, try again"
        raise TargetError(f"no lock within {LOCK_TIMEOUT}: {_told(exc)}", hint=hint) from exc
    except errors.InsufficientPrivilege as exc:
        hint = "use a role that owns the tables and may create in the schema; nothing was changed"
        raise TargetError(_told(exc), hint=hint) from exc
    except errors.DependentObjectsStillExist as exc:
        hint = "drop what depends on the table first; nothing was changed"
        raise SchemaError(f"{_told(exc)}: {exc.diag.message_detail}", hint=hint) from exc
    except psycopg.Error as exc:
        if isinstance(exc, psycopg.OperationalError) and is_refusal(exc):
            raise TargetError(_told(exc), hint=LOGIN_HINT) from exc
        raise TargetError(_told(exc), hint="nothing was changed; check --target and the server's log") from exc


@contextmanager
def _transaction(url: str, mapping: Mapping) -> Iterator[Connection]:
    with _session(url) as conn:
        conn.execute("SELECT set_config('lock_timeout', %s, true)", (LOCK_TIMEOUT,))
        conn.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (_LOCK_CLASS, mapping.schema))
        yield conn


def _refuse_what_adding_cannot_mend(found: Sequence[Difference]) -> None:
    stuck = [each for each in found if each.level is Level.ERROR and each.statement is None]
    if stuck:
        raise SchemaError(
            "the tables differ from what the mapping wants: "
            + "; ".join(f"{each.object} {each.what}" for each in stuck),
            hint="kvmigrate schema --diff shows each difference and the SQL that mends it",
        )


def _existing(mapping: Mapping, live: LiveSchema) -> list[str]:
    views = joined_views(mapping)
    names = [*(table.name for _, table in mapping.tables()), *views]
    return [
        f"{'view' if name in views else 'table'} {mapping.schema}.{name}" for name in names if name in live.relations
    ]


def _wanted(mapping: Mapping, live: LiveSchema, found: Sequence[Difference]) -> Iterator[Statement]:
    """Yield what makes the missing objects, in an order that works."""
    missing = [each.statement for each in found if each.statement is not None]
    mending = [each for each in missing if each.kind in {Kind.COLUMN, Kind.CHECK}]
    new_columns = {(each.table, each.name) for each in mending if each.kind is Kind.COLUMN}
    yield from mending
    for statement in create_statements(mapping, supabase=live.supabase):
        if statement.kind in {Kind.SCHEMA, Kind.EXTENSION}:
            wanted = statement in missing
        elif (statement.table or statement.name) in live.relations:
            of_new_column = statement.kind is Kind.COMMENT and (statement.table, statement.name) in new_columns
            wanted = statement in missing or of_new_column
        else:
            wanted = True
        if wanted:
            yield statement


def _make_extension(conn: Connection, statement: Statement) -> None:
    # Supabase keeps a schema for extensions; a database that only has its roles may lack it.
    has_schema = conn.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'extensions'").fetchone() is not None
    where = sql.SQL("WITH SCHEMA extensions") if has_schema and "extensions" in statement.sql else sql.SQL("")
    try:
        conn.execute(sql.SQL("CREATE EXTENSION {} {}").format(sql.Identifier(statement.name), where))
    except (errors.FeatureNotSupported, errors.UndefinedFile) as exc:
        raise SchemaError(
            f"the server does not have the extension {statement.name}: {_told(exc)}",
            hint="install PostgreSQL's contrib package on the server, or take `search: trigram` out of the mapping",
        ) from exc


def _execute(conn: Connection, statement: Statement) -> None:
    try:
        # Literal text without parameters: ring 1 composed it from the mapping's names and constants,
        # each quoted by `identifiers`, and no data is in it.
        conn.execute(sql.SQL(statement.sql))
    except _REFUSED_BY_ROWS as exc:
        raise SchemaError(
            f"existing rows break {statement.kind.replace('_', ' ')} {statement.name}: {_told(exc)}",
            hint=f"mend those rows, or empty {statement.table}: a backfill writes lost rows again; nothing was changed",
        ) from exc


def _search_in_extension(conn: Connection) -> None:
    """Make the extension's operator class visible, wherever it was installed before."""
    conn.execute(
        "SELECT set_config('search_path', quote_ident(n.nspname), true) "
        "FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = %s",
        (TRIGRAM_EXTENSION,),
    )


def _called(mapping: Mapping, statement: Statement) -> str:
    kind = statement.kind.replace("_", " ")
    if statement.kind in {Kind.SCHEMA, Kind.EXTENSION}:
        return f"{kind} {statement.name}"
    if statement.kind in {Kind.TABLE, Kind.VIEW}:
        return f"{kind} {mapping.schema}.{statement.name}"
    separator = "." if statement.kind is Kind.COLUMN else ": "
    return f"{kind} {mapping.schema}.{statement.table}{separator}{statement.name}"


def _told(exc: psycopg.Error) -> str:
    return exc.diag.message_primary or str(exc).strip().partition("\n")[0] or type(exc).__name__
