"""What PostgreSQL says of reads: the control row, flags, rollbacks; and what processes counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg.types.json import Jsonb

from kvmigrate.errors import DeadlineError, SchemaError, TargetError
from kvmigrate.intent import FlagChange, Rollback
from kvmigrate.model import LedgerStatus
from kvmigrate.target.address import safe_name
from kvmigrate.target.live_base import Control
from kvmigrate.target.live_control import SELECT_CONTROL, control_of
from kvmigrate.target.session import house_error, never_migrated
from kvmigrate.target.timed import TimedConnection
from kvmigrate.target.timed_settings import connect_settings

FLAG = "flag "
"""How a changed flag begins in the change log; the flag's name follows."""

_LOOK = """
SELECT (SELECT f.document FROM kvmigrate.flags AS f WHERE f.scope = c.id),
    (SELECT jsonb_object_agg(k.endpoint, jsonb_build_array(k.at, k.who, k.why))
     FROM kvmigrate.kill AS k WHERE k.scope = c.id)
FROM kvmigrate.control AS c WHERE c.scope = %s
"""
_KILL = """
INSERT INTO kvmigrate.kill (scope, endpoint, at, who, why)
SELECT id, %s, %s, %s, %s FROM kvmigrate.control WHERE scope = %s
ON CONFLICT (scope, endpoint) DO UPDATE SET at = excluded.at, who = excluded.who, why = excluded.why
RETURNING endpoint
"""
_CLEAR = """
DELETE FROM kvmigrate.kill AS k USING kvmigrate.control AS c
WHERE c.scope = %s AND k.scope = c.id AND k.endpoint = %s RETURNING k.endpoint
"""
_LOG = """
INSERT INTO kvmigrate.change_log (scope, who, what, before, after, why)
SELECT id, %s, %s, %s, %s, %s FROM kvmigrate.control WHERE scope = %s
"""
_FOR_UPDATE = "SELECT id FROM kvmigrate.control WHERE scope = %s"
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('kvmigrate flags ' || %s, 0))"
_DOCUMENT = "SELECT document FROM kvmigrate.flags WHERE scope = %s"
_SET = """
INSERT INTO kvmigrate.flags (scope, document) VALUES (%s, %s)
ON CONFLICT (scope) DO UPDATE SET document = excluded.document, updated_at = now()
"""
_HISTORY = """
SELECT to_char(l.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"'), l.who, substr(l.what, %s), l.before,
    l.after, l.why
FROM kvmigrate.change_log AS l JOIN kvmigrate.control AS c ON c.id = l.scope
WHERE c.scope = %s AND starts_with(l.what, %s) ORDER BY l.id DESC LIMIT %s
"""
_COUNTED = """
INSERT INTO kvmigrate.endpoint_stat (scope, process, endpoint, counts)
SELECT c.id, %s, given.endpoint, given.counts
FROM kvmigrate.control AS c, unnest(%s::text[], %s::jsonb[]) AS given (endpoint, counts) WHERE c.scope = %s
ON CONFLICT (scope, process, endpoint) DO UPDATE SET counts = excluded.counts, updated_at = now()
RETURNING endpoint, xmax = 0
"""
_FOLDED = ""
"""In the place of a process: what those counted that ended."""

_TRY_LOCK = "SELECT pg_try_advisory_xact_lock(hashtextextended('kvmigrate counts ' || %s, 0))"
_TAKE_ENDED = """
DELETE FROM kvmigrate.endpoint_stat AS s USING kvmigrate.control AS c
WHERE c.scope = %s AND s.scope = c.id
    AND (s.process = '' OR s.counts ? 'ended' OR s.updated_at < now() - interval '1 day')
RETURNING s.endpoint, s.counts
"""
_HAVE_ENDED = """
SELECT EXISTS (SELECT FROM kvmigrate.endpoint_stat AS s JOIN kvmigrate.control AS c ON c.id = s.scope
WHERE c.scope = %s AND s.process <> '' AND (s.counts ? 'ended' OR s.updated_at < now() - interval '1 day'))
"""
_COUNTS = """
SELECT s.endpoint,
    CASE WHEN s.updated_at > now() - interval '15 s' THEN s.counts
    ELSE s.counts - ARRAY['answered', 'demoted', 'flags_age_s', 'pairs'] END
FROM kvmigrate.endpoint_stat AS s JOIN kvmigrate.control AS c ON c.id = s.scope
WHERE c.scope = %s ORDER BY s.endpoint, s.process
"""
_ENDPOINTS = """
SELECT DISTINCT s.endpoint FROM kvmigrate.endpoint_stat AS s JOIN kvmigrate.control AS c ON c.id = s.scope
WHERE c.scope = %s
"""
_STANDING = """
SELECT l.status, coalesce(q.reason, ''), coalesce(q.path, '')
FROM kvmigrate.control AS c JOIN kvmigrate.ledger AS l ON l.scope = c.id
LEFT JOIN kvmigrate.quarantine AS q ON q.scope = l.scope AND q.key = l.key
WHERE c.scope = %s AND l.key = %s AND NOT l.deleted
"""


class Standing(NamedTuple):
    """How an item stands in the ledger; *reason* and *path* say why it is quarantined, or are ""."""

    status: LedgerStatus
    reason: str
    path: str


class Looked(NamedTuple):
    """What one look found.

    Attributes:
        control: ``None`` where the scope is not known here.

        flags: The document, or ``None`` where there is none.
    """

    control: Control | None
    flags: Any
    rollbacks: Mapping[str, Rollback]


class PostgresReadRow:
    """What a process asks of PostgreSQL about its reads, on a connection of its own. One thread at a time.

    Every method raises `TargetError` where PostgreSQL does not answer within *seconds*, or refuses.
    """

    def __init__(self, url: str, scope: str, *, role: str = "reads", seconds: float = 2.0, who: str = "") -> None:
        """Connect to nothing yet.

        Args:
            url: The target.

            scope: The mapping's name.

            role: How the connection is named.

            seconds: For each question; connecting takes 2 more at most.

            who: Stands in the change log where a rollback ends.

        Raises:
            TargetError: the URL cannot be read.
        """
        self._who = who
        self._url, self._scope, self._role, self._seconds = url, scope, role, seconds
        self.name = safe_name(url)
        self._connection: TimedConnection | None = None

    def look(self) -> Looked:
        """Return the control row, flags and rollbacks. Raises `SchemaError` where this version's tables are missing."""
        found = self._ask(SELECT_CONTROL, [self._scope])
        if not found:
            return Looked(None, None, {})
        [(document, kills)] = self._ask(_LOOK, [self._scope]) or [(None, None)]
        return Looked(control_of(found[0]), document, {slug: Rollback(*each) for slug, each in (kills or {}).items()})

    def rollbacks(self) -> Mapping[str, Rollback]:
        """As `RollbackPlace`."""
        return self.look().rollbacks

    def roll_back(self, slug: str, rollback: Rollback) -> None:
        """As `RollbackPlace`; it stands in the change log, too. Raises `SchemaError` where nothing was migrated."""
        if not self._ask(_KILL, [slug, *rollback, self._scope]):
            raise never_migrated(self.name, self._scope)
        self._ask(_LOG, [rollback.who, f"reads {slug}", "as flags say", "rolled back", rollback.why, self._scope])

    def clear(self, slug: str) -> bool:
        """As `RollbackPlace`."""
        found = self._ask(_CLEAR, [self._scope, slug])
        if found:
            self._ask(_LOG, [self._who, f"reads {slug}", "rolled back", "as flags say", "", self._scope])
        return bool(found)

    def document(self) -> Any:
        """Return the flags as they stand there; ``None`` where there are none."""
        return self.look().flags

    def set_document(self, make: Any, flag: str, *, who: str, why: str) -> FlagChange:
        """Change the flags in one transaction, others waiting meanwhile, and record it.

        Args:
            make: Gets the document, or ``None``, and returns the new one and what changed: before and after, as texts.

            flag: The flag's name.

            who: Changes it.

            why: For the history.

        Raises:
            SchemaError: nothing was migrated yet.
        """
        try:
            connection = self._opened()
            with connection.transaction():
                connection.execute(_LOCK, [self._scope])
                found = connection.execute(_FOR_UPDATE, [self._scope]).fetchall()
                if not found:
                    raise never_migrated(self.name, self._scope)
                held = connection.execute(_DOCUMENT, [found[0][0]]).fetchall()
                document, before, after = make(held[0][0] if held else None)
                connection.execute(_SET, [found[0][0], Jsonb(document)])
                connection.execute(_LOG, [who, FLAG + flag, before, after, why, self._scope])
        except (psycopg.Error, OSError, DeadlineError) as exc:
            raise self._failed(exc) from exc
        return FlagChange("", who, flag, before, after, why)

    def history(self, *, limit: int) -> Sequence[FlagChange]:
        """Return the newest changes of flags."""
        return [FlagChange(*row) for row in self._ask(_HISTORY, [len(FLAG) + 1, self._scope, FLAG, limit])]

    def keep_counts(self, process: str, counts: Mapping[str, Any]) -> list[str]:
        """Keep what a process counted since it began, by endpoint; return those that had no row of it before.

        Numbers with ``ended`` are the last ones of their process.
        """
        given = [process, list(counts), [Jsonb(each) for each in counts.values()], self._scope]
        return [endpoint for endpoint, is_new in self._ask(_COUNTED, given) if is_new]

    def fold_counts(self, add: Callable[[Any, Any], Any]) -> int:
        """Make one row for each endpoint of those of processes that ended, or were not heard of for a day.

        Args:
            add: Puts the counts of two processes together.

        Returns:
            How many rows were folded; 0 also while somebody else does it.
        """
        try:
            connection = self._opened()
            if not connection.execute(_HAVE_ENDED, [self._scope]).fetchall()[0][0]:
                return 0
            with connection.transaction():
                if not connection.execute(_TRY_LOCK, [self._scope]).fetchall()[0][0]:
                    return 0
                taken = connection.execute(_TAKE_ENDED, [self._scope]).fetchall()
                sums: dict[str, Any] = {}
                for endpoint, counts in taken:
                    sums[endpoint] = add(sums.get(endpoint), counts)
                given = [_FOLDED, list(sums), [Jsonb(each) for each in sums.values()], self._scope]
                connection.execute(_COUNTED, given)
        except (psycopg.Error, OSError, DeadlineError) as exc:
            raise self._failed(exc) from exc
        return len(taken)

    def counts(self) -> Sequence[tuple[str, Any]]:
        """Return what every process counted: endpoint and numbers, a row for each process.

        What a process does just now, ``demoted`` and ``flags_age_s``, is left out of rows that are older than 15 s.
        """
        return [(endpoint, counts) for endpoint, counts in self._ask(_COUNTS, [self._scope])]

    def endpoints(self) -> frozenset[str]:
        """Return the endpoints that processes told of, by slug."""
        return frozenset(endpoint for (endpoint,) in self._ask(_ENDPOINTS, [self._scope]))

    def standing(self, key: str) -> Standing | None:
        """Return how an item stands; ``None`` where the ledger does not know it, or knows it as deleted."""
        found = self._ask(_STANDING, [self._scope, key])
        return Standing(LedgerStatus(found[0][0]), *found[0][1:]) if found else None

    def close(self) -> None:
        """Release the connection. Safe to call twice; the next use opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _ask(self, query: Any, values: Any) -> list[tuple[Any, ...]]:
        try:
            # In binary, as a moment in text follows the role's habits.
            cursor = self._opened().cursor(binary=True)
            cursor.execute(query, values)
            return cursor.fetchall() if cursor.description is not None else []
        except (psycopg.Error, OSError, DeadlineError) as exc:
            raise self._failed(exc) from exc

    def _failed(self, exc: Exception) -> Exception:
        self.close()
        if isinstance(exc, psycopg.errors.UndefinedTable | psycopg.errors.InvalidSchemaName):
            return SchemaError(
                f"{self.name}: the control schema is missing or of an earlier version",
                hint="its owner runs `kvmigrate control upgrade`",
            )
        if isinstance(exc, psycopg.Error):
            return house_error(exc)
        return TargetError(f"{self.name}: PostgreSQL cannot be used: {exc}", hint="check that it runs")

    def _opened(self) -> TimedConnection:
        if self._connection is None or self._connection.closed:
            settings = {**connect_settings(self._url, f"kvmigrate:{self._role}"), "connect_timeout": 2}
            self._connection = TimedConnection.connect("", **settings, told=lambda _: None)
        self._connection.allowed_s = self._seconds
        self._connection.end = time.monotonic() + self._seconds
        return self._connection
