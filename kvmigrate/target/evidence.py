"""Measurements and repairs in the control schema: written where the role may, read by the gate."""

from __future__ import annotations

from collections.abc import Mapping
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

_LATEST = """
SELECT e.kind, e.at, extract(epoch FROM clock_timestamp() - e.at)::float8, e.epoch, e.authority, e.mapping, e.facts,
    coalesce((
        SELECT max((b.facts ->> 'divergent')::bigint) FROM kvmigrate.evidence AS b
        WHERE b.scope = e.scope AND b.kind IN ('sample', 'verify') AND (b.epoch, b.mapping) = (e.epoch, e.mapping)
            AND b.id > coalesce((
                SELECT max(m.id) FROM kvmigrate.evidence AS m
                WHERE m.scope = e.scope
                    AND (m.kind = 'repair' OR m.kind = 'verify' AND (m.facts ->> 'divergent')::bigint = 0)
            ), 0)
    ), 0)
FROM kvmigrate.evidence AS e JOIN kvmigrate.control AS c ON c.id = e.scope
WHERE c.scope = %s AND e.kind IN ('sample', 'verify') AND coalesce((e.facts ->> 'whole')::boolean, true)
ORDER BY e.id DESC LIMIT 1
"""


class Measured(NamedTuple):
    """A measurement of both sides.

    Attributes:
        age_s: Seconds since it ended, by the database's clock.

        mapping: Fingerprint of the mapping that was compared by.

        facts: ``n``, ``population``, ``divergent``, ``upper_pct``, ``worst_pct`` and more.

        unmended: The most divergent keys that this one, or one like it, found since the last repair or clean
            verification: a sample that happens to miss them does not make them good.
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

    def add(self, kind: str, facts: Mapping[str, Any], *, mapping: str, key: str | None = None) -> None:
        """Keep what was found; what is past its time goes.

        Raises:
            SchemaError: the control schema is older than this program.
        """
        values = {"kind": kind, "mapping": mapping, "key": key, "facts": Jsonb(dict(facts)), "scope": self._scope}

        def work(connection: Connection) -> None:
            with connection.transaction():
                connection.execute(_ADD, values)
                connection.execute(_OLD, [self._scope])

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
