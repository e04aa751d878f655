"""The tool's own schema ``kvmigrate``: numbered SQL files, applied once, checked for ever."""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files
from typing import Any, NamedTuple, cast

import psycopg
from psycopg import sql

from kvmigrate.errors import SchemaError

INSTALL_LOCK = 0x6B766D6967726174
"""Key of the advisory lock that makes installers take turns ("kvmigrat" in ASCII)."""

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


def install_control(connection: Connection) -> list[str]:
    """Apply what is missing, in one transaction; return the names of what was applied.

    Safe to repeat and to run from several processes at once. A newer schema than
    this version knows is left as it is.

    Raises:
        SchemaError: an applied migration's text is not the one that this version has.
    """
    applied_now = []
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [INSTALL_LOCK])
        if not _is_current(connection):
            _make_ground(connection)
            known = _applied(connection)
            for migration in control_migrations():
                if migration.number not in known:
                    _apply(connection, migration)
                    applied_now.append(migration.name)
                else:
                    _check(migration, known[migration.number])
            lock_down(connection)
    return applied_now


def lock_down(connection: Connection) -> None:
    """Keep the roles of a data API out of everything in the control schema. Safe to repeat."""
    _execute(connection, files("kvmigrate._sql").joinpath("control", _EVERY_TIME).read_text(encoding="utf-8"))


def _is_current(connection: Connection) -> bool:
    """Whether nothing is missing: then the role needs no right to create anything."""
    if not connection.execute("SELECT to_regclass('kvmigrate.migration') IS NOT NULL").fetchall()[0][0]:
        return False
    known = _applied(connection)
    return all(known.get(migration.number) == migration.checksum for migration in control_migrations())


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
