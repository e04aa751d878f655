"""The statements on the tool's own tables: ledger, waiting and quarantine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import sql

from kvmigrate.model import Item, Refusal
from kvmigrate.target.base import Label
from kvmigrate.target.layout import Layout
from kvmigrate.target.payload import NOT_KEPT, encode_payload

Connection = psycopg.Connection[Any]

_LOOK = """
UPDATE {candidate} AS c
SET prior_entity = l.entity,
    moved = l.deleted OR l.content_hash IS DISTINCT FROM c.content_hash,
    same = c.live AND l.status = 'ok' AND NOT l.deleted AND l.content_hash IS NOT DISTINCT FROM c.content_hash
        AND l.mapping = {number}
        AND NOT EXISTS (SELECT FROM kvmigrate.waiting AS w WHERE w.scope = l.scope AND w.key = l.key)
FROM (
    SELECT * FROM kvmigrate.ledger
    WHERE scope = %(scope)s AND key IN (SELECT key FROM {candidate})
    ORDER BY key FOR UPDATE
) AS l
WHERE l.key = c.key
"""

# The guard: only a later observation may replace an earlier one. An equal one may
# where the item waits, since what it waits for is not part of its own version.
_GUARD = sql.SQL("""
    (l.epoch, l.n) < (%(epoch)s, %(n)s) OR ((l.epoch, l.n) = (%(epoch)s, %(n)s)
        AND EXISTS (SELECT FROM kvmigrate.waiting AS w WHERE w.scope = l.scope AND w.key = l.key))
""")

_MOVE = """
WITH moved AS (
    INSERT INTO kvmigrate.ledger AS l
        (scope, key, entity, mapping, run, born, epoch, n, content_hash, expires_at, status)
    SELECT %(scope)s, c.key, c.entity, {number}, %(run)s, %(run)s, %(epoch)s, %(n)s, c.content_hash, c.expires_at,
        CASE WHEN c.live THEN 'ok' ELSE 'quarantined' END
    FROM {candidate} AS c
    ORDER BY c.key
    ON CONFLICT (scope, key) DO UPDATE SET
        entity = excluded.entity, mapping = excluded.mapping, run = excluded.run,
        born = CASE WHEN l.deleted AND l.run <> excluded.run THEN excluded.born ELSE l.born END,
        epoch = excluded.epoch, n = excluded.n, content_hash = excluded.content_hash,
        expires_at = excluded.expires_at, deleted = false, kv_dirty = false, status = excluded.status
    WHERE {guard}
    RETURNING l.key
)
UPDATE {candidate} AS c SET taken = true FROM moved WHERE moved.key = c.key
"""

_TOMB = """
UPDATE kvmigrate.ledger AS l
SET deleted = true, content_hash = NULL, status = 'ok', kv_dirty = false,
    run = %(run)s, epoch = %(epoch)s, n = %(n)s
FROM (
    SELECT scope, key FROM kvmigrate.ledger
    WHERE scope = %(scope)s AND key = ANY(%(keys)s) AND NOT deleted
    ORDER BY key FOR UPDATE
) AS known
WHERE l.scope = known.scope AND l.key = known.key AND ({guard})
RETURNING l.key, l.entity
"""

_CLEAR = """
DELETE FROM {table} AS old USING {candidate} AS c
WHERE old.scope = %(scope)s AND old.key = c.key AND c.taken
"""

_COUNT = """
SELECT count(*) FILTER (WHERE NOT taken) AS stale,
    count(*) FILTER (WHERE taken AND same) AS same,
    count(*) FILTER (WHERE taken AND moved) AS moved,
    count(*) FILTER (WHERE taken AND live AND prior_entity <> entity) AS rehomed
FROM {candidate}
"""

_QUARANTINE = """
INSERT INTO kvmigrate.quarantine
    (scope, key, entity, epoch, n, payload, payload_kind, expires_at, path, reason, message, mapping, fingerprint, run)
VALUES (%(scope)s, %(key)s, %(entity)s, %(epoch)s, %(n)s, %(payload)b, %(kind)s,
    'epoch'::timestamptz + %(expires)s * interval '1 millisecond',
    %(path)s, %(reason)s, %(message)s, %(mapping)s, %(fingerprint)s, %(run)s)
ON CONFLICT (scope, key) DO UPDATE SET
    entity = excluded.entity, epoch = excluded.epoch, n = excluded.n, payload = excluded.payload,
    payload_kind = excluded.payload_kind, expires_at = excluded.expires_at, path = excluded.path,
    reason = excluded.reason, message = excluded.message, mapping = excluded.mapping,
    fingerprint = excluded.fingerprint, run = excluded.run, at = excluded.at, keep_until = excluded.keep_until
"""

# Year 255,000: a store takes later ones, a timestamp does not.
LAST_EXPIRY_MS = 8_000_000_000_000_000

_WAIT = """
INSERT INTO kvmigrate.waiting (scope, key, place, on_constraint, on_entity, on_value, due, reason, message)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (scope, key, place) DO UPDATE SET on_constraint = excluded.on_constraint, on_entity = excluded.on_entity,
    on_value = excluded.on_value, due = excluded.due, reason = excluded.reason, message = excluded.message
"""


class Wait(NamedTuple):
    """What an item waits for.

    Attributes:
        constraint: Name of the foreign key, primary key or unique that refuses it.

        entity: Id of the entity that must give way or come.

        value: The awaited value, as `layout.value_text` writes it.

        due: Try again at once, under the mapping's own rule.
    """

    constraint: str
    entity: int
    value: str
    reason: str
    message: str
    due: bool = False


class Counted(NamedTuple):
    """What the guard made of the candidates."""

    stale: int
    same: int
    moved: int
    rehomed: int


class Ledger:
    """The tool's own tables, in the words of one scope. Every method is part of an open transaction."""

    def __init__(self, layout: Layout, scope: int) -> None:
        """Compose the statements for *layout*'s temporary tables."""
        self.scope = scope
        self._layout = layout
        number = layout.number_of(sql.SQL("c.entity"))

        def compose(text: LiteralString, **parts: sql.Composable) -> sql.Composed:
            return sql.SQL(text).format(candidate=layout.candidate, **parts)

        self._look, self._count = compose(_LOOK, number=number), compose(_COUNT)
        self._move, self._tomb = compose(_MOVE, number=number, guard=_GUARD), compose(_TOMB, guard=_GUARD)
        self._clear = [compose(_CLEAR, table=sql.Identifier("kvmigrate", name)) for name in ("waiting", "quarantine")]
        self._narrow = compose("UPDATE {candidate} SET live = false WHERE live AND (same OR NOT taken)")

    def move(self, connection: Connection, label: Label) -> Counted:
        """Move the ledger to the batch's version where the guard allows it, and note in the candidates what it did.

        What earlier versions left in waiting and quarantine is gone afterwards.
        """
        values = self._values(label)
        connection.execute(self._look, values)
        connection.execute(self._move, values)
        for statement in self._clear:
            connection.execute(statement, values)
        counted = Counted(*connection.execute(self._count).fetchall()[0])
        if counted.stale or counted.same:
            connection.execute(self._narrow)
        return counted

    def tomb(self, connection: Connection, keys: Sequence[str], label: Label) -> list[tuple[str, int]]:
        """Remember items as deleted, under the guard; return key and entity id of those that it let pass."""
        values = {**self._values(label), "keys": list(keys)}
        passed = connection.execute(self._tomb, values).fetchall()
        gone = [key for key, _ in passed]
        for table in ("waiting", "quarantine"):
            connection.execute(
                sql.SQL("DELETE FROM {} WHERE scope = %s AND key = ANY(%s)").format(sql.Identifier("kvmigrate", table)),
                [self.scope, gone],
            )
        return passed

    def set_status(self, connection: Connection, keys: Iterable[str], status: str) -> None:
        """Set the status of items, at the version they have."""
        connection.execute(
            "UPDATE kvmigrate.ledger SET status = %s WHERE scope = %s AND key = ANY(%s)",
            [status, self.scope, list(keys)],
        )

    def wait(self, connection: Connection, waits: Mapping[str, Sequence[Wait]]) -> None:
        """Register what each key waits for, instead of what it waited for before."""
        connection.execute(
            "DELETE FROM kvmigrate.waiting WHERE scope = %s AND key = ANY(%s)", [self.scope, list(waits)]
        )
        rows = [
            (self.scope, key, place, wait.constraint, wait.entity, wait.value, wait.due, wait.reason, wait.message)
            for key, found in sorted(waits.items(), key=lambda pair: pair[0].encode())
            for place, wait in enumerate(found)
        ]
        with connection.cursor() as cursor:
            cursor.executemany(_WAIT, rows)

    def make_due(self, connection: Connection, keys: Iterable[str]) -> None:
        """Mark waiting items to be tried again."""
        connection.execute(
            "UPDATE kvmigrate.waiting SET due = true WHERE scope = %s AND key = ANY(%s)", [self.scope, list(keys)]
        )

    def quarantine(self, connection: Connection, refused: Iterable[tuple[Item, int, Refusal]], label: Label) -> None:
        """Keep items whole with the place and reason of their refusal; triples of item, entity id, refusal."""
        with connection.cursor() as cursor:
            cursor.executemany(_QUARANTINE, [self._quarantine_row(*each, label) for each in refused])

    def _quarantine_row(self, item: Item, entity: int, refusal: Refusal, label: Label) -> dict[str, Any]:
        payload, kind = encode_payload(item)
        kept = "" if kind != NOT_KEPT else " (the value is too large to be kept here; the store has it)"
        return {
            **self._values(label),
            "key": item.key,
            "entity": entity,
            "mapping": self._layout.numbers[entity],
            "payload": payload,
            "kind": kind,
            "expires": None if item.expires_at_ms is None else min(item.expires_at_ms, LAST_EXPIRY_MS),
            "path": _storable(refusal.path),
            "reason": refusal.reason.value,
            "message": _storable(refusal.message) + kept,
            "fingerprint": self._layout.mapping.fingerprint,
        }

    def _values(self, label: Label) -> dict[str, Any]:
        return {
            "scope": self.scope,
            "run": label.run,
            "epoch": label.version.epoch,
            "n": label.version.n,
        }


def _storable(text: str) -> str:
    """Return *text* with what no text column takes spelled out: a path may hold any member name."""
    return text.replace("\x00", "\\u0000").encode(errors="backslashreplace").decode()
