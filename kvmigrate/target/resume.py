"""Going on with a first load that was cut short: from what its checkpoints say is in the tables."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from kvmigrate.target.base import ResumePoint
from kvmigrate.target.first_load import has_primary_key
from kvmigrate.target.layout import ledger_part

Connection = psycopg.Connection[Any]

_BEFORE = """
SELECT id, resume_key FROM kvmigrate.run
WHERE scope = %s AND kind = 'backfill' AND id < %s ORDER BY id DESC LIMIT 1
"""

_SHARES = """
SELECT number, max(position), (array_agg(digest ORDER BY part))[1], bool_or(position <> '')
FROM kvmigrate.checkpoint WHERE run = %s GROUP BY number ORDER BY number
"""


def take_over(connection: Connection, scope: int, run: int, resume_key: str) -> ResumePoint | None:
    """Let *run* go on where the last backfill of the scope was cut short; see `Target.resume_point`.

    Shares are numbered in the order of the scan and finished in any order. All up to
    the first gap are behind the new run; those beyond it are told by their digests.
    """
    ledger = ledger_part(scope)
    found = connection.execute(_BEFORE, [scope, run]).fetchall()
    if not found:
        return ResumePoint("", 0, frozenset())
    [(before, key)] = found
    shares = connection.execute(_SHARES, [before]).fetchall()
    if not shares:
        # The run before ended before it loaded anything, or its load is over.
        return ResumePoint("", 0, frozenset()) if not _has_rows(connection, ledger) else None
    # Nothing can be loaded into a ledger that has its key already, as it may know it.
    if key != resume_key or not key or has_primary_key(connection, ledger):
        return None
    number, position = 0, ""
    for share, behind, _, is_whole in shares:
        if share != number or not is_whole:
            break
        number, position = number + 1, behind
    beyond = frozenset(digest for share, _, digest, is_whole in shares if share >= number and is_whole)
    connection.execute("DELETE FROM kvmigrate.checkpoint WHERE run = %s AND number >= %s", [before, number])
    connection.execute("UPDATE kvmigrate.checkpoint SET run = %s WHERE run = %s", [run, before])
    # One load is one run, for whoever asks later what a run brought.
    connection.execute(sql.SQL("UPDATE {} SET run = %(run)s, born = %(run)s").format(ledger), {"run": run})
    connection.execute("UPDATE kvmigrate.quarantine SET run = %s WHERE scope = %s AND run = %s", [run, scope, before])
    return ResumePoint(position, number, beyond)


def _has_rows(connection: Connection, ledger: sql.Identifier) -> bool:
    """Whether the scope's part of the ledger, standing alone, holds anything."""
    found = connection.execute(sql.SQL("SELECT EXISTS (SELECT FROM {})").format(ledger))
    return bool(found.fetchall()[0][0])
