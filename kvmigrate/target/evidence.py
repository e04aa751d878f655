"""Measurements and repairs in the control schema: written where the role may, read by the gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Self

import psycopg
from psycopg.types.json import Jsonb

from kvmigrate.errors import TargetError
from kvmigrate.target.session import Session

Connection = psycopg.Connection[Any]

SAMPLE, VERIFY, REPAIR = "sample", "verify", "repair"

_APPLICATION = "kvmigrate:verify"

_ADD = """
INSERT INTO kvmigrate.evidence (scope, kind, epoch, authority, mapping, key, facts)
SELECT c.id, %(kind)s, c.epoch, c.authority, %(mapping)s, %(key)s, %(facts)s
FROM kvmigrate.control AS c WHERE c.scope = %(scope)s
"""

_OLD = """
DELETE FROM kvmigrate.evidence AS e USING kvmigrate.control AS c
WHERE c.scope = %s AND e.scope = c.id AND e.keep_until < now()
"""

# A sample names the keys that it found; a verification only counts them.
_LATEST = """
WITH mine AS (
    SELECT e.* FROM kvmigrate.evidence AS e JOIN kvmigrate.control AS c ON c.id = e.scope WHERE c.scope = %s
), found AS (
    SELECT e.* FROM mine AS e WHERE e.kind IN ('sample', 'verify') AND e.id > coalesce((
        SELECT max(v.id) FROM mine AS v WHERE v.kind = 'verify' AND (v.facts ->> 'divergent')::bigint = 0
    ), 0)
), named AS (
    SELECT n.key, max(e.id) AS id
    FROM found AS e CROSS JOIN LATERAL jsonb_object_keys(coalesce(e.facts -> 'keys', '{}')) AS n (key) GROUP BY n.key
), unmended AS (
    SELECT count(*) AS items FROM named AS n WHERE NOT EXISTS (
        SELECT FROM mine AS m
        WHERE m.kind = 'repair' AND m.key = n.key AND m.id > n.id AND m.facts ->> 'outcome' = 'repaired'
    )
    UNION ALL
    SELECT (e.facts ->> 'divergent')::bigint - (
        SELECT count(DISTINCT m.key) FROM mine AS m
        WHERE m.kind = 'repair' AND m.id > e.id AND m.facts ->> 'outcome' = 'repaired'
    )
    FROM found AS e WHERE e.kind = 'verify'
)
SELECT e.kind, e.at, extract(epoch FROM clock_timestamp() - e.at)::float8, e.epoch, e.authority, e.mapping, e.facts,
    (SELECT greatest(0, max(u.items)) FROM unmended AS u)
FROM mine AS e WHERE e.kind IN ('sample', 'verify') AND coalesce((e.facts ->> 'whole')::boolean, true)
ORDER BY e.id DESC LIMIT 1
"""


class Measured(NamedTuple):
    """A measurement of both sides.

    Attributes:
        age_s: Seconds since it ended, by the database's clock.

        mapping: Fingerprint of the mapping that was compared by.

        facts: ``n``, ``population``, ``divergent``, ``upper_pct``, ``worst_pct`` and more.

        unmended: Divergent keys found since the last clean verification and not repaired since they were found: a
            sample that happens to miss them does not make them good, nor does a repair of others.
    """

    kind: str
    at: datetime
    age_s: float
    epoch: int
    authority: str
    mapping: str
    facts: Mapping[str, Any]
    unmended: int


class Evidence:
    """The evidence of one scope. One thread at a time; every method may raise `TargetError`."""

    def __init__(self, url: str, scope: str) -> None:
        """Open nothing yet; *scope* is the mapping's name."""
        self._session, self._scope = Session(url, application_name=_APPLICATION), scope

    def add(self, kind: str, facts: Mapping[str, Any], *, mapping: str) -> None:
        """Keep what was found; what is past its time goes.

        Raises:
            SchemaError: the control schema is older than this program.
        """
        self._add(kind, [(None, facts)], mapping)

    def add_repairs(self, repairs: Mapping[str, Mapping[str, Any]], *, mapping: str) -> None:
        """Keep what became of repaired keys. Raises `SchemaError` as `add` does."""
        self._add(REPAIR, list(repairs.items()), mapping)

    def _add(self, kind: str, found: Sequence[tuple[str | None, Mapping[str, Any]]], mapping: str) -> None:
        same = {"kind": kind, "mapping": mapping, "scope": self._scope}
        values = [{**same, "key": key, "facts": Jsonb(dict(facts))} for key, facts in found]

        def work(connection: Connection) -> None:
            with connection.transaction(), connection.cursor() as cursor:
                cursor.executemany(_ADD, values)
                cursor.execute(_OLD, [self._scope])

        self._session.run(work)

    def try_add(self, kind: str, facts: Mapping[str, Any], *, mapping: str) -> str:
        """Keep what was found if that can be; return why it could not, or ""."""
        try:
            self.add(kind, facts, mapping=mapping)
        except TargetError as exc:
            return str(exc)
        return ""

    def latest(self) -> Measured | None:
        """Return the last measurement of all entities; ``None`` where there is none."""
        rows = self._session.run(lambda connection: connection.execute(_LATEST, [self._scope]).fetchall())
        return Measured(*rows[0]) if rows else None

    def close(self) -> None:
        """Close the connection. Safe to call twice."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
