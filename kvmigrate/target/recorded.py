"""What the control schema has recorded of a migration: its place, runs, changes, measurements, repairs, reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import psycopg

from kvmigrate.target.session import Session

Connection = psycopg.Connection[Any]

_RUNS = """
SELECT r.id, r.kind, to_char(r.started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
    extract(epoch FROM r.finished_at - r.started_at)::float8, r.report
FROM kvmigrate.run AS r JOIN kvmigrate.control AS c ON c.id = r.scope WHERE c.scope = %s ORDER BY r.id DESC LIMIT %s
"""
_CHANGES = """
SELECT to_char(l.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), l.who, l.what, l.before, l.after, l.why
FROM kvmigrate.change_log AS l JOIN kvmigrate.control AS c ON c.id = l.scope WHERE c.scope = %s
ORDER BY l.id DESC LIMIT %s
"""
_MEASURED = """
SELECT e.kind, to_char(e.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), e.facts - 'keys'
FROM kvmigrate.evidence AS e JOIN kvmigrate.control AS c ON c.id = e.scope
WHERE c.scope = %s AND e.kind IN ('sample', 'verify') AND coalesce((e.facts ->> 'whole')::boolean, true)
ORDER BY e.at DESC, e.id DESC LIMIT %s
"""
_REPAIRS = """
SELECT e.facts ->> 'outcome', count(*) FROM kvmigrate.evidence AS e JOIN kvmigrate.control AS c ON c.id = e.scope
WHERE c.scope = %s AND e.kind = 'repair' GROUP BY 1 ORDER BY 1
"""

LIMIT = 200
"""Runs, changes and measurements, each: the newest of them."""


class Recorded(NamedTuple):
    """What is recorded, each the oldest first; times in UTC.

    Attributes:
        runs: With ``id``, ``kind``, ``started_at``, ``duration_s`` (``None`` while it runs) and ``report``.

        changes: With ``at``, ``who``, ``what``, ``before``, ``after`` and ``why``.

        measurements: With ``kind``, ``at`` and the facts of a sample or verification, without keys.

        repairs: How many keys by outcome.
    """

    runs: list[dict[str, Any]]
    changes: list[dict[str, Any]]
    measurements: list[dict[str, Any]]
    repairs: Mapping[str, int]


def read_recorded(url: str, scope: str) -> Recorded:
    """Return what is recorded of a scope, as of one moment.

    Raises:
        TargetError: the database does not answer, or has nothing recorded under an older control schema.
    """
    session = Session(url, application_name="kvmigrate:report")

    def work(connection: Connection) -> Recorded:
        with connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            runs, changes, measured = (
                connection.execute(query, [scope, LIMIT]).fetchall()[::-1] for query in (_RUNS, _CHANGES, _MEASURED)
            )
            repairs = connection.execute(_REPAIRS, [scope]).fetchall()
        return Recorded(
            [dict(zip(("id", "kind", "started_at", "duration_s", "report"), row, strict=True)) for row in runs],
            [dict(zip(("at", "who", "what", "before", "after", "why"), row, strict=True)) for row in changes],
            [{"kind": kind, "at": at, **facts} for kind, at, facts in measured],
            dict(repairs),
        )

    try:
        return session.run(work)
    finally:
        session.close()
