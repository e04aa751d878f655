"""The tool's own schema ``kvmigrate``: numbered SQL files, applied once, checked for ever."""

from __future__ import annotations

import hashlib
import random
import re
import time
from collections.abc import Callable
from importlib.resources import files
from typing import Any, NamedTuple, TypeVar, cast

import psycopg
from psycopg import errors, sql

from kvmigrate.errors import SchemaError, TargetError

T = TypeVar("T")

INSTALL_LOCK = 0x6B766D6967726174
"""Key of the advisory lock that makes installers take turns ("kvmigrat" in ASCII)."""

LOCK_TIMEOUT = "200ms"
"""How long a change waits for its locks, and so makes others wait behind it: less than a mirror's deadline."""

PATIENCE_S = 60.0
"""How long transactions that stand in the way of a change are given by default."""

_HOLDERS = """
SELECT l.pid, a.application_name, COALESCE(EXTRACT(epoch FROM now() - a.xact_start), 0)::float8,
       array_agg(DISTINCT c.relname::text ORDER BY c.relname::text)
FROM pg_catalog.pg_locks AS l
JOIN pg_catalog.pg_class AS c ON c.oid = l.relation AND c.relnamespace = 'kvmigrate'::regnamespace
LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
WHERE l.granted AND l.pid <> pg_catalog.pg_backend_pid() AND c.relkind IN ('r', 'p')
    AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())
GROUP BY 1, 2, 3 ORDER BY 3 DESC
"""

_INSTALLED = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = 'kvmigrate' AND c.relname = 'migration')
"""

_FILE = re.compile(r"(\d\d)_([a-z0-9_]+)\.sql")
_EVERY_TIME = "lock_down.sql"

Connection = psycopg.Connection[Any]


class ControlMigration(NamedTuple):
    """One numbered file. *checksum* is the SHA-256 (hex) of its text."""

    number: int
    name: str
    text: str
    checksum: str


def control_migrations() -> list[ControlMigration]:
    """Return the control schema's migrations in order."""
    found = []
    for file in files("kvmigrate._sql").joinpath("control").iterdir():
        matched = _FILE.fullmatch(file.name)
        if matched:
            text = file.read_text(encoding="utf-8")
            checksum = hashlib.sha256(text.encode()).hexdigest()
            found.append(ControlMigration(int(matched[1]), file.name.removesuffix(".sql"), text, checksum))
    return sorted(found)


def install_control(connection: Connection, *, patience_s: float = PATIENCE_S) -> list[str]:
    """Apply what is missing, each file in a transaction of its own; return the names of what was applied.

    Safe to repeat and to run from several processes at once, also under programs that
    write meanwhile: a change waits for its locks for so short a time that those who queue
    behind it hardly notice, gives up, and tries again. A newer schema than this version
    knows is left as it is.

    Args:
        connection: In autocommit mode and in no transaction.

        patience_s: How long transactions that stand in the way are given, for each file.

    Raises:
        SchemaError: an applied migration's text is not the one that this version has, or
            the role may not make what is missing.

        TargetError: others held locks for the whole time; the message names them.
    """
    if is_current(connection):
        return []
    applied_now: list[str] = []
    try:
        while name := _patiently(connection, patience_s):
            applied_now.append(name)
    except errors.InsufficientPrivilege as exc:
        lacks = ", ".join(_missing(connection)) or "its lock-down"
        raise SchemaError(
            f"schema kvmigrate lacks {lacks}, and this role may not make that: {exc.diag.message_primary}",
            hint="its owner runs `kvmigrate control install --target URL`",
        ) from exc
    return applied_now


def lock_down(connection: Connection) -> None:
    """Keep the roles of a data API out of everything in the control schema. Safe to repeat."""
    _execute(connection, files("kvmigrate._sql").joinpath("control", _EVERY_TIME).read_text(encoding="utf-8"))


def is_installed(connection: Connection) -> bool:
    """Return whether the schema is there at all. Needs no right to it."""
    # The catalog may be read by every role; to_regclass refuses one that may not use the schema.
    return bool(connection.execute(_INSTALLED).fetchall()[0][0])


def is_current(connection: Connection) -> bool:
    """Return whether nothing is missing: then the role needs no right to create anything."""
    if not is_installed(connection):
        return False
    known = _applied(connection)
    return all(known.get(migration.number) == migration.checksum for migration in control_migrations())


def _missing(connection: Connection) -> list[str]:
    known = _applied(connection) if is_installed(connection) else {}
    return [migration.name for migration in control_migrations() if migration.number not in known]


def _patiently(connection: Connection, patience_s: float) -> str:
    """Apply the next file, however often that takes; return its name, or "" if none is missing."""

    def held() -> TargetError:
        return TargetError(
            f"schema kvmigrate cannot be upgraded: {_holders(connection)}",
            hint="let those transactions end, then run `kvmigrate control upgrade` again; "
            "what was applied before stays, and what runs goes on",
        )

    return patiently(lambda: _apply_next(connection), patience_s, held)


def patiently(change: Callable[[], T], patience_s: float, held: Callable[[], TargetError]) -> T:
    """Make a change that gives up where its locks are held, again and again; in the end raise what *held* makes."""
    end, pause_s = time.monotonic() + patience_s, 0.1
    while True:
        try:
            return change()
        except errors.LockNotAvailable as exc:
            if time.monotonic() + pause_s > end:
                raise held() from exc
        # Not all who try do so at the same moment, and those who queued get their turn.
        time.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311 - jitter, not a secret
        pause_s = min(2 * pause_s, 2.0)


def _apply_next(connection: Connection) -> str:
    migrations = control_migrations()
    with connection.transaction():
        # Installers wait for each other as long as it takes: nobody queues behind them.
        connection.execute("SELECT set_config('lock_timeout', '0', true)")
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [INSTALL_LOCK])
        connection.execute("SELECT set_config('lock_timeout', %s, true)", [LOCK_TIMEOUT])
        _make_ground(connection)
        known = _applied(connection)
        for migration in migrations:
            if migration.number in known:
                _check(migration, known[migration.number])
        pending = next((each for each in migrations if each.number not in known), None)
        if pending:
            _apply(connection, pending)
        lock_down(connection)
    return pending.name if pending else ""


def _holders(connection: Connection) -> str:
    """Return who holds locks on what is in the schema, in words."""
    held = connection.execute(_HOLDERS).fetchall()
    if not held:
        return f"a transaction kept a lock on it for longer than {LOCK_TIMEOUT} at every attempt"
    return "; ".join(
        f"process {pid} ({name or 'without a name'}) holds {', '.join(relations)} for {seconds:,.0f} s"
        for pid, name, seconds, relations in held
    )


def _make_ground(connection: Connection) -> None:
    # Not IF NOT EXISTS: PostgreSQL asks for the right to create a schema even where it exists.
    if not connection.execute("SELECT to_regnamespace('kvmigrate') IS NOT NULL").fetchall()[0][0]:
        connection.execute("CREATE SCHEMA kvmigrate")
        connection.execute("COMMENT ON SCHEMA kvmigrate IS 'state of kvmigrate: see its documentation'")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS kvmigrate.migration ("
        "number int PRIMARY KEY, name text NOT NULL, checksum text NOT NULL, "
        "applied_at timestamptz NOT NULL DEFAULT now())"
    )


def _applied(connection: Connection) -> dict[int, str]:
    return dict(connection.execute("SELECT number, checksum FROM kvmigrate.migration").fetchall())


def _apply(connection: Connection, migration: ControlMigration) -> None:
    _execute(connection, migration.text)
    connection.execute(
        "INSERT INTO kvmigrate.migration (number, name, checksum) VALUES (%s, %s, %s)",
        [migration.number, migration.name, migration.checksum],
    )


def _check(migration: ControlMigration, checksum: str) -> None:
    if checksum != migration.checksum:
        raise SchemaError(
            f"control migration {migration.name} was applied from another text than this version has",
            hint="use the version of kvmigrate that installed this schema, or one released after it",
        )


def _execute(connection: Connection, text: str) -> None:
    # The text is a file of this package, never input.
    connection.execute(sql.SQL(cast("Any", text)))
