"""What the control schema of a database is like: its migrations, and the adapters that use it."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any, NamedTuple

import psycopg

from kvmigrate.target.control_schema import control_migrations, is_installed

ALIVE_S = 30.0
"""A process that has not told of itself for longer is taken for ended."""

Connection = psycopg.Connection[Any]

_ADAPTERS = """
SELECT p.adapter_version, p.kind,
       count(*) FILTER (WHERE p.heartbeat > now() - %(alive)s * interval '1 second')::int,
       count(*) FILTER (WHERE p.heartbeat <= now() - %(alive)s * interval '1 second')::int,
       EXTRACT(epoch FROM now() - max(p.heartbeat))::float8,
       array_agg(DISTINCT c.scope ORDER BY c.scope) FILTER (WHERE c.scope IS NOT NULL)
FROM kvmigrate.process AS p LEFT JOIN kvmigrate.control AS c ON c.id = p.scope
GROUP BY 1, 2 ORDER BY 1, 2
"""

# Who has rights that were given, not those of an owner.
_GRANTED = """
SELECT r.rolname::text FROM pg_catalog.pg_namespace AS n
CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) AS a
JOIN pg_catalog.pg_roles AS r ON r.oid = a.grantee
WHERE n.nspname = 'kvmigrate' AND a.grantee <> n.nspowner
GROUP BY 1 ORDER BY 1
"""


class State(enum.StrEnum):
    """How a migration stands in a database."""

    APPLIED = "applied"
    MISSING = "missing"
    CHANGED = "changed"
    """It was applied from another text than this version has."""

    NEWER = "newer"
    """This version does not know it: a later one applied it."""


class MigrationState(NamedTuple):
    """One migration; *applied_at* is ``None`` where it is missing."""

    number: int
    name: str
    state: State
    applied_at: datetime | None


class Adapters(NamedTuple):
    """The processes of one kind and version that told of themselves.

    Attributes:
        alive: How many did within `ALIVE_S`.

        silent: How many did before, and not since.

        last_seen_s: Seconds since any of them last did.

        scopes: Names of their mappings.
    """

    version: str
    kind: str
    alive: int
    silent: int
    last_seen_s: float
    scopes: tuple[str, ...]


class ControlStatus(NamedTuple):
    """The control schema of a database.

    Attributes:
        installed: Whether there is any.

        roles: That were granted rights in it.
    """

    installed: bool
    migrations: tuple[MigrationState, ...]
    adapters: tuple[Adapters, ...]
    roles: tuple[str, ...]

    @property
    def current(self) -> bool:
        """Whether all that this version needs is applied, from its own texts."""
        return not {State.MISSING, State.CHANGED} & {each.state for each in self.migrations}


def read_control_status(connection: Connection) -> ControlStatus:
    """Return it, in one transaction; nothing is changed. Raises psycopg's errors."""
    with connection.transaction():
        installed = is_installed(connection)
        migrations = tuple(_migrations(connection, installed=installed))
        adapters: list[Adapters] = []
        if installed and connection.execute("SELECT to_regclass('kvmigrate.process') IS NOT NULL").fetchall()[0][0]:
            found = connection.execute(_ADAPTERS, {"alive": ALIVE_S}).fetchall()
            adapters = [
                Adapters(version, kind, alive, silent, last_seen_s, tuple(scopes or ()))
                for version, kind, alive, silent, last_seen_s, scopes in found
            ]
        roles = tuple(role for (role,) in connection.execute(_GRANTED).fetchall())
        return ControlStatus(installed, migrations, tuple(adapters), roles)


def _migrations(connection: Connection, *, installed: bool) -> list[MigrationState]:
    query = "SELECT number, name, checksum, applied_at FROM kvmigrate.migration ORDER BY number"
    applied = {row[0]: row for row in connection.execute(query).fetchall()} if installed else {}
    found = []
    for migration in control_migrations():
        _, name, checksum, at = applied.pop(migration.number, (0, migration.name, "", None))
        state = State.MISSING if at is None else State.APPLIED if checksum == migration.checksum else State.CHANGED
        found.append(MigrationState(migration.number, name, state, at))
    newer = [MigrationState(number, name, State.NEWER, at) for number, name, _, at in applied.values()]
    return sorted(found + newer)
