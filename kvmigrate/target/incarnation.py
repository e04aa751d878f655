"""In which life a database is: another one after a failover or a restore."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import errors

Connection = psycopg.Connection[Any]

UNKNOWN = "?"
"""Stands for a part that the role may not read; `read_incarnation` then tells fewer lives apart."""

_SYSTEM = "SELECT system_identifier::text FROM pg_catalog.pg_control_system()"

# The name of the file that is written now: the control file learns of a promotion only with the next checkpoint.
_TIMELINE = "SELECT substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8)"
_TIMELINE_BEFORE = "SELECT lpad(upper(to_hex(timeline_id)), 8, '0') FROM pg_catalog.pg_control_checkpoint()"

_REFUSED = (errors.InsufficientPrivilege, errors.UndefinedFunction, errors.FeatureNotSupported)


def read_incarnation(connection: Connection) -> str:
    """Return system identifier and timeline, such as ``7301482093847561234:00000001``; `UNKNOWN` for what is hidden.

    Usable within a transaction.
    """
    timeline = _ask(connection, _TIMELINE)
    if timeline == UNKNOWN:
        timeline = _ask(connection, _TIMELINE_BEFORE)
    return f"{_ask(connection, _SYSTEM)}:{timeline}"


def tells_failovers(incarnation: str) -> bool:
    """Whether an incarnation names the timeline, so that another one is noticed."""
    return not incarnation.endswith(UNKNOWN)


def _ask(connection: Connection, query: str) -> str:
    try:
        with connection.transaction():
            found = connection.execute(query.encode()).fetchall()
    except (*_REFUSED, errors.ObjectNotInPrerequisiteState):
        return UNKNOWN
    return str(found[0][0]) if found and found[0][0] else UNKNOWN
