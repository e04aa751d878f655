"""Asks a PostgreSQL what it is like. Nothing is changed."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

import psycopg
from psycopg.rows import dict_row

from kvmigrate.target.control_status import read_control_status
from kvmigrate.target.facts_base import TableFacts, TargetFacts
from kvmigrate.target.grants import CONTROL_RIGHTS
from kvmigrate.target.part import Part
from kvmigrate.target.session import Session
from kvmigrate.transform.mapping import Mapping as MappingFile

Connection = psycopg.Connection[Any]

# As the connection came, before any setting of ours: what the application's own connections would have.
_SERVER = """
SELECT current_user::text AS role, current_setting('server_version') AS version,
    current_setting('server_version_num')::int AS version_number,
    pg_catalog.pg_encoding_to_char(d.encoding)::text AS encoding,
    pg_catalog.pg_is_in_recovery() AS is_standby,
    COALESCE((SELECT s.setting = 'on' FROM pg_catalog.pg_settings AS s WHERE s.name = 'default_transaction_read_only'),
        false) AS read_only,
    current_setting('max_connections')::int AS max_connections,
    (SELECT sum(s.setting::int)::int FROM pg_catalog.pg_settings AS s
        WHERE s.name IN ('superuser_reserved_connections', 'reserved_connections')) AS reserved,
    (SELECT sum(numbackends)::int FROM pg_catalog.pg_stat_database) AS connected,
    r.rolconnlimit AS role_limit,
    (SELECT s.reset_val FROM pg_catalog.pg_settings AS s WHERE s.name = 'default_transaction_isolation') AS isolation,
    current_setting('synchronous_commit') AS synchronous_commit,
    current_setting('synchronous_standby_names') AS synchronous_standbys,
    current_setting('fsync') = 'on' AS fsync,
    pg_catalog.pg_database_size(d.oid) AS size_bytes
FROM pg_catalog.pg_database AS d, pg_catalog.pg_roles AS r
WHERE d.datname = current_database() AND r.rolname = current_user
"""

_STANDBYS = """
SELECT COALESCE(application_name, '')::text, state::text, sync_state::text
FROM pg_catalog.pg_stat_replication ORDER BY 1
"""

# Of sessions that the role may not see, even the kind is hidden.
_OLDEST = """
SELECT EXTRACT(epoch FROM clock_timestamp() - xact_start)::float8,
    'process ' || pid || COALESCE(' (' || NULLIF(application_name, '') || ')', '')
FROM pg_catalog.pg_stat_activity
WHERE pid <> pg_catalog.pg_backend_pid() AND backend_type = 'client backend' AND xact_start IS NOT NULL
ORDER BY xact_start LIMIT 1
"""
_HIDDEN = "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE usesysid IS NOT NULL AND backend_type IS NULL"

_TABLES = """
SELECT w.name, c.oid IS NOT NULL AS known,
    ARRAY(SELECT p FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p
        WHERE c.oid IS NOT NULL AND NOT pg_catalog.has_table_privilege(c.oid, p)) AS lacks,
    COALESCE(pg_catalog.row_security_active(c.oid), false) AS hides
FROM unnest(%(names)s::text[]) WITH ORDINALITY AS w (name, place)
LEFT JOIN pg_catalog.pg_class AS c ON c.relname = w.name AND c.relkind IN ('r', 'p')
    AND c.relnamespace = (SELECT n.oid FROM pg_catalog.pg_namespace AS n WHERE n.nspname = %(schema)s)
ORDER BY w.place
"""

_CONTROL = """
SELECT c.relname::text || ': ' || string_agg(p, ', ')
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname = 'kvmigrate'
JOIN unnest(%(names)s::text[], %(rights)s::text[]) AS w (name, rights) ON w.name = c.relname
CROSS JOIN LATERAL unnest(string_to_array(w.rights, ', ')) AS p
WHERE c.relkind IN ('r', 'p') AND NOT pg_catalog.has_table_privilege(c.oid, p) GROUP BY c.relname ORDER BY 1
"""

_MAY_INSTALL = """
SELECT COALESCE((SELECT pg_catalog.pg_has_role(n.nspowner, 'USAGE') FROM pg_catalog.pg_namespace AS n
    WHERE n.nspname = 'kvmigrate'), pg_catalog.has_database_privilege(current_database(), 'CREATE'))
"""

_FUNCTIONS = """
SELECT count(*)::int FROM pg_catalog.pg_proc AS p
JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace AND n.nspname = 'kvmigrate'
JOIN kvmigrate.control AS c ON c.scope = %s
WHERE p.proname LIKE 'mirror\\_' || c.id || '\\_%%'
"""


def read_target_facts(url: str, mapping: MappingFile) -> TargetFacts:
    """Return what the database is like for the role of *url*.

    Raises:
        TargetError: it cannot be reached, refuses the login, or its encoding is none that can be used.
    """
    session, other = (Session(url, application_name="kvmigrate:doctor") for _ in range(2))
    with closing(session), closing(other):
        pooler = _pooler(session, other) if session.is_pooled else ""
        return session.run(lambda connection: _facts(connection, session.name, pooler, mapping))


def _pooler(first: Session, second: Session) -> str:
    """Tell by the server's process which kind of pooler it is: does it stay the same while another one is at work?"""

    def process(connection: Connection) -> int:
        return int(connection.execute("SELECT pg_catalog.pg_backend_pid()").fetchall()[0][0])

    found = set()
    for _ in range(4):
        found.add(first.run(process))
        # It takes the process that was left free last, which the first one would get again otherwise.
        with second.connection().transaction():
            process(second.connection())
            found.add(first.run(process))
    return "transaction" if len(found) > 1 else "session"


def _facts(connection: Connection, name: str, pooler: str, mapping: MappingFile) -> TargetFacts:
    with connection.transaction():
        [server] = connection.cursor(row_factory=dict_row).execute(_SERVER).fetchall()
        status = read_control_status(connection)
        relay = {table: rights[Part.RELAY] for table, rights in CONTROL_RIGHTS.items()}
        values = {"names": list(relay), "rights": list(relay.values())}
        lacks = [row[0] for row in connection.execute(_CONTROL, values).fetchall()]
        [(may_install,)] = connection.execute(_MAY_INSTALL).fetchall()
        oldest_s, oldest = _oldest(connection)
        tables = [table.name for _, table in mapping.tables()]
        found = connection.execute(_TABLES, {"names": tables, "schema": mapping.schema}).fetchall()
        ahead_s, error_s = _clock(connection)
        return TargetFacts(
            name=name,
            pooler=pooler,
            standbys=_standbys(connection),
            oldest_s=oldest_s,
            oldest=oldest,
            installed=status.installed,
            current=status.current,
            may_install=may_install,
            lacks_control=lacks,
            live_functions=_live_functions(connection, mapping.name) if status.installed else 0,
            tables=[TableFacts(*row) for row in found],
            ahead_s=ahead_s,
            clock_error_s=error_s,
            **server,
        )


def _standbys(connection: Connection) -> list[tuple[str, str]] | None:
    found = connection.execute(_STANDBYS).fetchall()
    return None if any(state is None for _, state, _ in found) else [(name, kind) for name, _, kind in found]


def _oldest(connection: Connection) -> tuple[float | None, str]:
    found = connection.execute(_OLDEST).fetchone()
    [(hidden,)] = connection.execute(_HIDDEN).fetchall()
    if hidden:
        return None, ""
    return (float(found[0]), str(found[1])) if found else (0.0, "")


def _live_functions(connection: Connection, scope: str) -> int:
    try:
        with connection.transaction():
            [(count,)] = connection.execute(_FUNCTIONS, [scope]).fetchall()
            return int(count)
    except psycopg.errors.InsufficientPrivilege:
        return 0


def _clock(connection: Connection) -> tuple[float, float]:
    before = time.time()
    [(told,)] = connection.execute("SELECT EXTRACT(epoch FROM clock_timestamp())::float8").fetchall()
    after = time.time()
    return float(told) - (before + after) / 2, (after - before) / 2
