"""Measurements, what they found, and repairs, in the control schema: written where the role may, read by the gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Self

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from kvmigrate.errors import CheckFailedError, TargetError
from kvmigrate.target.changed import Watermark
from kvmigrate.target.incarnation import read_incarnation
from kvmigrate.target.session import Session

Connection = psycopg.Connection[Any]

SAMPLE, VERIFY, FOUND, REPAIR = "sample", "verify", "found", "repair"

KEEP_DAYS = 30

MOST_UNMENDED = 1_000
"""Divergent keys that are named, at most."""

_APPLICATION = "kvmigrate:verify"

_BEGIN = """
SELECT c.epoch, (SELECT coalesce(max(e.id), 0) FROM kvmigrate.evidence AS e WHERE e.scope = c.id), now()::text,
    pg_snapshot_xmin(pg_current_snapshot())::text
FROM kvmigrate.control AS c WHERE c.scope = %s
"""

# What was measured in another epoch says nothing of this one.
_ADD = """
INSERT INTO kvmigrate.evidence (scope, kind, epoch, authority, mapping, key, facts, keep_until)
SELECT c.id, %(kind)s, c.epoch, c.authority, %(mapping)s, %(key)s, %(facts)s, now() + %(days)s * interval '1 day'
FROM kvmigrate.control AS c WHERE c.scope = %(scope)s AND c.epoch = coalesce(%(epoch)s::int, c.epoch)
RETURNING id
"""

_CHANGE = """
UPDATE kvmigrate.evidence AS e SET facts = %(facts)s, at = now(), keep_until = now() + %(days)s * interval '1 day'
FROM kvmigrate.control AS c
WHERE e.id = %(id)s AND c.scope = %(scope)s AND e.scope = c.id AND e.epoch = c.epoch
    AND e.facts ->> 'keeper' IS NOT DISTINCT FROM %(keeper)s
RETURNING e.id
"""

_KEEPER = "SELECT e.facts ->> 'keeper' FROM kvmigrate.evidence AS e WHERE e.id = %s"

_OLD = """
DELETE FROM kvmigrate.evidence AS e USING kvmigrate.control AS c
WHERE c.scope = %s AND e.scope = c.id AND e.keep_until < now()
"""

# What was found since everything was found equal, and not mended since it was found. A sample names the keys; a
# verification counts them. It says nothing of what was found after it had begun. Of its keys those are mended that a
# repair has made right since, and that no sample has found since: others may be none of them.
_UNMENDED = sql.SQL("""
WITH mine AS (
    SELECT e.* FROM kvmigrate.evidence AS e JOIN kvmigrate.control AS c ON c.id = e.scope WHERE c.scope = %(scope)s
), since AS (
    SELECT coalesce(max(coalesce((v.facts ->> 'begun_id')::bigint, v.id)), 0) AS id FROM mine AS v
    WHERE v.kind = 'verify' AND (v.facts ->> 'divergent')::bigint = 0
        AND coalesce((v.facts ->> 'whole')::boolean, true)
), mended AS (
    SELECT m.key, max(m.id) AS id, max(m.id) FILTER (WHERE m.facts ->> 'outcome' = 'repaired') AS repaired_id
    FROM mine AS m WHERE m.kind = 'repair' AND m.facts ->> 'outcome' IN ('repaired', 'equal') GROUP BY m.key
), found AS (
    SELECT f.key, max(f.id) AS id FROM mine AS f WHERE f.kind = 'found' GROUP BY f.key
), named AS (
    SELECT f.key FROM found AS f CROSS JOIN since AS s LEFT JOIN mended AS m ON m.key = f.key
    WHERE f.id > s.id AND f.id > coalesce(m.id, 0)
), counted AS (
    SELECT (v.facts ->> 'divergent')::bigint - (
        SELECT count(*) FROM mended AS m LEFT JOIN found AS f ON f.key = m.key
        WHERE m.repaired_id > coalesce((v.facts ->> 'until_id')::bigint, v.id) AND coalesce(f.id, 0) < v.id
    ) AS items
    FROM mine AS v, since AS s WHERE v.kind = 'verify' AND v.id > s.id
)
""")

_LATEST = _UNMENDED + sql.SQL("""
SELECT e.kind, e.at,
    extract(epoch FROM clock_timestamp() - coalesce((e.facts ->> 'begun_at')::timestamptz, e.at))::float8,
    e.epoch, e.authority, e.mapping, e.facts,
    (SELECT greatest(0, max(u.n)) FROM (SELECT count(*) FROM named UNION ALL SELECT items FROM counted) AS u (n))
FROM mine AS e JOIN kvmigrate.control AS c ON c.id = e.scope
WHERE e.kind IN ('sample', 'verify') AND coalesce((e.facts ->> 'whole')::boolean, true)
-- A round that has just begun says less than the last that ended, while that is of today.
ORDER BY coalesce(e.facts ->> 'left', '0') = '0' AND e.epoch = c.epoch AND e.at > now() - interval '1 day' DESC,
    e.at DESC, e.id DESC
LIMIT 1
""")

_VERIFIED = """
SELECT e.facts FROM kvmigrate.evidence AS e JOIN kvmigrate.control AS c ON c.id = e.scope
WHERE c.scope = %(scope)s AND e.kind = 'verify' AND e.epoch = c.epoch AND e.mapping = %(mapping)s
    AND coalesce((e.facts ->> 'whole')::boolean, true)
    AND coalesce((e.facts ->> 'begun_at')::timestamptz, e.at) > now() - interval '1 day'
ORDER BY e.at DESC, e.id DESC LIMIT 1
"""

# Of another epoch the store may have another history.
_WATERMARK = """
SELECT (e.facts ->> 'begun_xid')::bigint, e.facts ->> 'begun_life', (e.facts ->> 'begun_at')::timestamptz,
    coalesce((e.facts ->> 'pending')::bigint, 0) + coalesce((e.facts ->> 'not_comparable')::bigint, 0)
FROM kvmigrate.evidence AS e JOIN kvmigrate.control AS c ON c.id = e.scope
WHERE c.scope = %(scope)s AND e.kind = 'verify' AND e.epoch = c.epoch AND e.mapping = %(mapping)s
    AND coalesce((e.facts ->> 'whole')::boolean, true) AND (e.facts ->> 'divergent')::bigint = 0
    AND e.facts ? 'begun_xid' AND e.facts ? 'begun_life'
    AND (%(before)s::timestamptz IS NULL OR (e.facts ->> 'begun_at')::timestamptz <= %(before)s)
ORDER BY (e.facts ->> 'begun_at')::timestamptz DESC, e.id DESC LIMIT 1
"""

_NAMED = _UNMENDED + sql.SQL("SELECT key FROM named ORDER BY key LIMIT %(limit)s")

_FOUND = """
SELECT e.key, e.facts -> 'causes' FROM kvmigrate.evidence AS e JOIN kvmigrate.control AS c ON c.id = e.scope
WHERE c.scope = %(scope)s AND e.kind = 'found' AND e.id > %(id)s
"""

_BEGUN = """
SELECT e.id, e.facts FROM kvmigrate.evidence AS e JOIN kvmigrate.control AS c ON c.id = e.scope
WHERE c.scope = %(scope)s AND e.kind = 'sample' AND e.epoch = c.epoch AND e.mapping = %(mapping)s
    AND e.facts ? 'left' AND e.at > now() - interval '1 day' AND e.facts ->> 'entity' IS NOT DISTINCT FROM %(entity)s
ORDER BY e.id DESC LIMIT 1
"""

_BEGUN_VERIFY = """
SELECT e.id, e.facts FROM kvmigrate.evidence AS e JOIN kvmigrate.control AS c ON c.id = e.scope
WHERE c.scope = %(scope)s AND e.kind = 'verify' AND e.epoch = c.epoch AND e.mapping = %(mapping)s
    AND e.at > now() - interval '1 day'
ORDER BY e.id DESC LIMIT 1
"""


class Measured(NamedTuple):
    """A measurement of both sides.

    Attributes:
        age_s: Seconds since it began, by the database's clock.

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

    def __init__(self, url: str, scope: str, *, keep_days: int = KEEP_DAYS) -> None:
        """Open nothing yet; *scope* is the mapping's name, and what is added goes after *keep_days*."""
        self._session, self._scope, self._days = Session(url, application_name=_APPLICATION), scope, keep_days

    def begin(self) -> Mapping[str, Any]:
        """Return what a measurement that begins now keeps among its facts: of which epoch it is, and since when.

        Raises:
            SchemaError: the control schema is older than this program.
        """
        rows = self._session.run(lambda connection: connection.execute(_BEGIN, [self._scope]).fetchall())
        if not rows:
            return {}
        begun = dict(zip(("begun_epoch", "begun_id", "begun_at", "begun_xid"), rows[0], strict=True))
        return {**begun, "begun_life": self._session.run(read_incarnation)}

    def try_begin(self) -> Mapping[str, Any]:
        """As `begin`; nothing where the evidence cannot be read."""
        try:
            return self.begin()
        except TargetError:
            return {}

    def add(self, kind: str, facts: Mapping[str, Any], *, mapping: str) -> None:
        """Keep a measurement, with the keys that a sample found; what is past its time goes.

        Raises:
            SchemaError: the control schema is older than this program.

            TargetError: another epoch began since the measurement did. The keys that it found are kept.
        """
        found = {key: {"causes": causes} for key, causes in facts.get("keys", {}).items()}
        values, keys = self._values(kind, facts, mapping), self._keyed(FOUND, found, mapping)

        def work(connection: Connection) -> bool:
            with connection.transaction(), connection.cursor() as cursor:
                is_kept = cursor.execute(_ADD, values).fetchone() is not None
                cursor.executemany(_ADD, keys)
                cursor.execute(_OLD, [self._scope])
            return is_kept

        if not self._session.run(work):
            raise _of_another_epoch()

    def add_repairs(self, repairs: Mapping[str, Mapping[str, Any]], *, mapping: str) -> None:
        """Keep what became of repaired keys. Raises `SchemaError` as `add` does."""
        values = self._keyed(REPAIR, repairs, mapping)

        def work(connection: Connection) -> None:
            with connection.transaction(), connection.cursor() as cursor:
                cursor.executemany(_ADD, values)
                cursor.execute(_OLD, [self._scope])

        self._session.run(work)

    def keep_round(
        self, known: int | None, facts: Mapping[str, Any], found: Mapping[str, Sequence[str]], *, mapping: str
    ) -> int:
        """Keep what is known of a round, in place of what was kept of it as *known*, and what it *found* since.

        Returns its number. Raises as `add`.
        """
        return self._keep(SAMPLE, known, facts, found, mapping)

    def keep_verify(
        self, known: int | None, facts: Mapping[str, Any], *, mapping: str, keeper: str | None = None
    ) -> int:
        """Keep what is known of a verification under way; as `keep_round`.

        Raises:
            CheckFailedError: what was kept as *known* is not *keeper*'s any more, as its ``keeper`` says: another one
                goes on with it.
        """
        return self._keep(VERIFY, known, facts, {}, mapping, keeper)

    def begun_verify(self, *, mapping: str) -> tuple[int, Mapping[str, Any]] | None:
        """Return number and facts of the last verification of this epoch and day, where it did not end."""
        values = {"scope": self._scope, "mapping": mapping}
        rows = self._session.run(lambda connection: connection.execute(_BEGUN_VERIFY, values).fetchall())
        return (int(rows[0][0]), rows[0][1]) if rows and "report" in rows[0][1] else None

    def _keep(
        self,
        kind: str,
        known: int | None,
        facts: Mapping[str, Any],
        found: Mapping[str, Sequence[str]],
        mapping: str,
        keeper: str | None = None,
    ) -> int:
        values = {**self._values(kind, facts, mapping), "id": known, "keeper": keeper}
        keys = self._keyed(FOUND, {key: {"causes": causes} for key, causes in found.items()}, mapping)

        def work(connection: Connection) -> int:
            with connection.transaction(), connection.cursor() as cursor:
                row = cursor.execute(_ADD if known is None else _CHANGE, values).fetchone()
                cursor.executemany(_ADD, keys)
                cursor.execute(_OLD, [self._scope])
            return int(row[0]) if row else 0

        number = self._session.run(work)
        if number:
            return number
        kept_by = self._session.run(lambda connection: connection.execute(_KEEPER, [known]).fetchall())
        if kept_by and kept_by[0][0] != keeper:
            raise CheckFailedError(
                "another verification was begun, and goes on with what this one kept", hint="let that one end"
            )
        raise _of_another_epoch()

    def begun_round(self, *, mapping: str, entity: str | None) -> tuple[int, Mapping[str, Any]] | None:
        """Return number and facts of the last round of this epoch and day; ``None`` where there is none.

        Its ``keys`` are those that were found since it began and not erased, with their causes.
        """
        values = {"scope": self._scope, "mapping": mapping, "entity": entity}

        def work(connection: Connection) -> tuple[int, Mapping[str, Any]] | None:
            row = connection.execute(_BEGUN, values).fetchone()
            if row is None:
                return None
            keys = dict(connection.execute(_FOUND, {"scope": self._scope, "id": row[0]}).fetchall())
            return int(row[0]), {**row[1], "keys": keys}

        return self._session.run(work)

    def unmended(self) -> list[str]:
        """Return keys that samples found and that nothing has mended since, in order; the first `MOST_UNMENDED`."""
        values = {"scope": self._scope, "limit": MOST_UNMENDED}
        return [key for (key,) in self._session.run(lambda connection: connection.execute(_NAMED, values).fetchall())]

    def try_add(self, kind: str, facts: Mapping[str, Any], *, mapping: str) -> str:
        """Keep what was found if that can be; return why it could not, or ""."""
        try:
            self.add(kind, facts, mapping=mapping)
        except TargetError as exc:
            return str(exc)
        return ""

    def latest(self) -> Measured | None:
        """Return the last measurement of all entities; ``None`` where there is none."""
        values = {"scope": self._scope}
        rows = self._session.run(lambda connection: connection.execute(_LATEST, values).fetchall())
        return Measured(*rows[0]) if rows else None

    def watermark(self, *, mapping: str, before: datetime | None = None) -> tuple[Watermark, int] | None:
        """Return since when the last clean verification of everything tells of the tables; how many it left undecided.

        Only one of this epoch, that began by *before*; ``None`` where there is none.
        """
        values = {"scope": self._scope, "mapping": mapping, "before": before}
        rows = self._session.run(lambda connection: connection.execute(_WATERMARK, values).fetchall())
        return (Watermark(*rows[0][:3]), int(rows[0][3])) if rows else None

    def try_add_found(self, found: Mapping[str, Sequence[str]], *, mapping: str) -> str:
        """Keep that these keys diverge, each with its causes; the gate counts them until they are mended.

        Returns why that could not be kept, or "".
        """
        keys = self._keyed(FOUND, {key: {"causes": list(causes)} for key, causes in found.items()}, mapping)

        def work(connection: Connection) -> None:
            with connection.transaction(), connection.cursor() as cursor:
                cursor.executemany(_ADD, keys)

        try:
            if keys:
                self._session.run(work)
        except TargetError as exc:
            return str(exc)
        return ""

    def verified(self, *, mapping: str) -> Mapping[str, Any] | None:
        """Return the facts of the last whole verification of this epoch, mapping and day, if there is one."""
        values = {"scope": self._scope, "mapping": mapping}
        rows = self._session.run(lambda connection: connection.execute(_VERIFIED, values).fetchall())
        return rows[0][0] if rows else None

    def _keyed(self, kind: str, facts: Mapping[str, Mapping[str, Any]], mapping: str) -> list[dict[str, Any]]:
        return [{**self._values(kind, each, mapping), "key": key} for key, each in facts.items()]

    def _values(self, kind: str, facts: Mapping[str, Any], mapping: str) -> dict[str, Any]:
        same = {"scope": self._scope, "days": self._days, "key": None, "epoch": facts.get("begun_epoch")}
        return {**same, "kind": kind, "mapping": mapping, "facts": Jsonb(dict(facts))}

    def close(self) -> None:
        """Close the connection. Safe to call twice."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _of_another_epoch() -> TargetError:
    return TargetError("another epoch began while this was measured", hint="measure again")
