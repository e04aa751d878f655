"""Who holds the fence of a scope, for the message of whoever waits for it."""

from __future__ import annotations

from typing import Any

import psycopg

Connection = psycopg.Connection[Any]

FENCE_CLASS = 1802923313
"""Class of the advisory lock in ``kvmigrate.fence``."""

_HOLDERS = """
SELECT l.pid, coalesce(a.application_name, ''), coalesce(a.state, ''),
    extract(epoch FROM clock_timestamp() - a.xact_start)::float8
FROM pg_catalog.pg_locks AS l
JOIN kvmigrate.control AS c ON c.id = l.objid::int AND c.scope = %s
LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.classid::bigint = %s AND l.objsubid = 2 AND l.granted
    AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
ORDER BY a.xact_start NULLS LAST, l.pid LIMIT 3
"""


def name_holders(connection: Connection, scope: str) -> str:
    """Return the oldest transactions that hold the fence of *scope*, for people."""
    found = connection.execute(_HOLDERS, [scope, FENCE_CLASS]).fetchall()
    named = [
        f"process {pid} ({name or 'unnamed'}{', ' + state if state else ''}"
        f"{f', for {age:.1f} s' if age is not None else ''})"
        for pid, name, state, age in found
    ]
    return ", ".join(named) or "a transaction that has ended meanwhile"
