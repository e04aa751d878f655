"""The ledger's statements that only live writes need: tombstones at any version, and what the store is owed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import psycopg
from psycopg import sql

from kvmigrate.model import Version
from kvmigrate.target.attempt import Parts
from kvmigrate.target.live_base import LIVE_RUN

Connection = psycopg.Connection[Any]

_KNOWN = """
SELECT key, entity, deleted FROM kvmigrate.ledger
WHERE scope = %s AND key = ANY(%s) ORDER BY key FOR UPDATE
"""

# A key that was never here gets one, too: a mirror of an earlier write of it may still be on its way.
_BURY = """
INSERT INTO kvmigrate.ledger AS l (scope, key, entity, mapping, run, born, epoch, n, deleted, status)
SELECT %(scope)s, k.key, k.entity, k.mapping, %(run)s, %(run)s, %(epoch)s, %(n)s, true, 'ok'
FROM unnest(%(keys)s::text[], %(entities)s::int[], %(mappings)s::int[]) AS k (key, entity, mapping)
ORDER BY k.key COLLATE "C"
ON CONFLICT (scope, key) DO UPDATE SET
    deleted = true, content_hash = NULL, expires_at = NULL, status = 'ok', kv_dirty = false,
    run = excluded.run, epoch = excluded.epoch, n = excluded.n
WHERE (l.epoch, l.n) < (excluded.epoch, excluded.n) OR ((l.epoch, l.n) = (excluded.epoch, excluded.n)
    AND EXISTS (SELECT FROM kvmigrate.waiting AS w WHERE w.scope = l.scope AND w.key = l.key))
RETURNING l.key
"""

_FORGET = [
    sql.SQL("DELETE FROM {} WHERE scope = %s AND key = ANY(%s)").format(sql.Identifier("kvmigrate", name))
    for name in ("waiting", "quarantine", "kept")
]

_OWED = "kv_dirty AND status IN ('ok', 'kept')"
"""What waits or is quarantined has no state in the tables that could be given."""

_PAID = """
UPDATE kvmigrate.ledger AS l SET kv_dirty = false
FROM (
    SELECT o.scope, o.key, o.epoch, o.n FROM kvmigrate.ledger AS o
    JOIN unnest(%(keys)s::text[], %(epochs)s::int[], %(ns)s::bigint[]) AS k (key, epoch, n)
        ON o.key = k.key COLLATE "C" AND o.epoch = k.epoch AND o.n = k.n
    WHERE o.scope = %(scope)s AND o.kv_dirty
    ORDER BY o.key FOR UPDATE OF o
) AS paid
WHERE l.scope = paid.scope AND l.key = paid.key AND l.epoch = paid.epoch AND l.n = paid.n
"""

_TOUCH = """
UPDATE kvmigrate.ledger AS l SET epoch = %(epoch)s, n = l.n + 1, kv_dirty = true
FROM (
    SELECT scope, key FROM kvmigrate.ledger
    WHERE scope = %(scope)s AND key = ANY(%(keys)s) AND status IN ('ok', 'kept') ORDER BY key FOR UPDATE
) AS known
WHERE l.scope = known.scope AND l.key = known.key
"""

# Keys that the store was given and the ledger does not know: the database lost them.
_LOST = """
INSERT INTO kvmigrate.ledger (scope, key, entity, mapping, run, born, epoch, n, deleted, kv_dirty, status)
SELECT %(scope)s, k.key, k.entity, k.mapping, %(run)s, %(run)s, %(epoch)s, 1, true, true, 'ok'
FROM unnest(%(keys)s::text[], %(entities)s::int[], %(mappings)s::int[]) AS k (key, entity, mapping)
WHERE k.entity <> 0 ORDER BY k.key COLLATE "C"
ON CONFLICT (scope, key) DO NOTHING
"""

_EXPIRE = """
UPDATE kvmigrate.ledger AS l
SET deleted = true, content_hash = NULL, expires_at = NULL, status = 'ok', kv_dirty = true, run = 0,
    epoch = %(epoch)s, n = l.n + 1
WHERE l.scope = %(scope)s AND l.key = %(key)s AND l.expires_at <= now() AND NOT l.deleted
RETURNING l.key, l.entity
"""


class LiveLedger:
    """The statements of one scope. Every method is part of an open transaction that holds the fence."""

    def __init__(self, parts: Parts) -> None:
        """Work on the ledger of *parts*."""
        self._parts, self._scope = parts, parts.scope

    def bury(self, connection: Connection, keys: Sequence[str], version: Version) -> list[tuple[str, int]]:
        """Remember items as deleted as of *version*; return key and entity id of those whose rows must go."""
        found = connection.execute(_KNOWN, [self._scope, list(keys)]).fetchall()
        known = {key: entity for key, entity, _ in found}
        wanted = [(key, known.get(key) or self._parts.entity_id(key)) for key in keys]
        rows = [(key, entity) for key, entity in wanted if key in known or entity]
        numbers = self._parts.layout.numbers
        passed = connection.execute(
            _BURY,
            {
                "scope": self._scope,
                "run": LIVE_RUN,
                "epoch": version.epoch,
                "n": version.n,
                "keys": [key for key, _ in rows],
                "entities": [entity for _, entity in rows],
                "mappings": [numbers.get(entity, 0) for _, entity in rows],
            },
        ).fetchall()
        gone = {key for (key,) in passed}
        self.forget(connection, list(gone))
        return [(key, entity) for key, entity, deleted in found if key in gone and not deleted]

    def forget(self, connection: Connection, keys: Sequence[str]) -> None:
        """Drop what is kept beside the ledger of items that are deleted."""
        for statement in _FORGET:
            connection.execute(statement, [self._scope, list(keys)])

    def keep_waiting(self, connection: Connection, key: str, version: Version) -> bool:
        """Let an item wait with its rows as of *version*, under the guard; return whether it let it pass."""
        passed = connection.execute(
            "UPDATE kvmigrate.ledger AS l SET status = 'waiting', epoch = %(epoch)s, n = %(n)s, content_hash = NULL "
            "WHERE l.scope = %(scope)s AND l.key = %(key)s AND NOT l.deleted AND (l.epoch, l.n) <= (%(epoch)s, %(n)s)",
            {"scope": self._scope, "key": key, "epoch": version.epoch, "n": version.n},
        )
        return passed.rowcount > 0

    def hashes(self, connection: Connection, keys: Sequence[str]) -> dict[str, bytes | None]:
        """Return the content hashes of items; see `LiveTarget.ledger_hashes`."""
        statement = sql.SQL(
            "SELECT key, CASE WHEN status = 'ok' AND mapping = {} THEN content_hash END FROM kvmigrate.ledger "
            "WHERE scope = %s AND key = ANY(%s) AND NOT deleted"
        ).format(self._parts.layout.number_of(sql.Identifier("entity")))
        return dict(connection.execute(statement, [self._scope, list(keys)]).fetchall())

    def keys(self, connection: Connection, *, after: str, limit: int) -> list[str]:
        """Return the next keys behind *after* that are not deleted."""
        return _first(
            connection.execute(
                "SELECT key FROM kvmigrate.ledger WHERE scope = %s AND key > %s AND NOT deleted ORDER BY key LIMIT %s",
                [self._scope, after, limit],
            ).fetchall()
        )

    def keys_since(self, connection: Connection, version: Version, *, after: str, limit: int) -> list[str]:
        """Return the next keys behind *after* at *version* or a later one, deleted ones too."""
        return _first(
            connection.execute(
                "SELECT key FROM kvmigrate.ledger WHERE scope = %s AND key > %s AND (epoch, n) >= (%s, %s) "
                "ORDER BY key LIMIT %s",
                [self._scope, after, version.epoch, version.n, limit],
            ).fetchall()
        )

    def expired(self, connection: Connection, *, limit: int, besides: Sequence[str] = ()) -> list[str]:
        """Return keys whose expiry has passed and that are not deleted, longest ago first, *besides* some."""
        return _first(
            connection.execute(
                "SELECT key FROM kvmigrate.ledger WHERE scope = %s AND expires_at <= now() AND NOT deleted "
                "AND key <> ALL(%s) ORDER BY expires_at LIMIT %s",
                [self._scope, list(besides), limit],
            ).fetchall()
        )

    def owed_keys(self, connection: Connection, *, after: str, limit: int) -> list[str]:
        """Return the next keys behind *after* that the store is owed."""
        return _first(
            connection.execute(
                f"SELECT key FROM kvmigrate.ledger WHERE scope = %s AND key > %s AND {_OWED} ORDER BY key LIMIT %s",  # noqa: S608 - a constant
                [self._scope, after, limit],
            ).fetchall()
        )

    def owed(self, connection: Connection) -> int:
        """Return how many keys the store is owed."""
        found = connection.execute(
            f"SELECT count(*) FROM kvmigrate.ledger WHERE scope = %s AND {_OWED}",  # noqa: S608 - a constant
            [self._scope],
        )
        return int(found.fetchall()[0][0])

    def paid(self, connection: Connection, given: Collection[tuple[str, Version]]) -> int:
        """Note that the store was given these versions; return how many were still the newest."""
        ordered = sorted(given, key=lambda pair: pair[0].encode())
        done = connection.execute(
            _PAID,
            {
                "scope": self._scope,
                "keys": [key for key, _ in ordered],
                "epochs": [version.epoch for _, version in ordered],
                "ns": [version.n for _, version in ordered],
            },
        )
        return done.rowcount

    def touch(self, connection: Connection, keys: Sequence[str], epoch: int) -> int:
        """Owe these keys to the store with a fresh n; return how many the ledger has a state of."""
        values = {"scope": self._scope, "keys": list(keys), "epoch": epoch, "run": LIVE_RUN}
        known = connection.execute(_TOUCH, values).rowcount
        if known < len(keys):
            entities = [self._parts.entity_id(key) for key in keys]
            numbers = [self._parts.layout.numbers.get(entity, 0) for entity in entities]
            connection.execute(_LOST, {**values, "entities": entities, "mappings": numbers})
        return known

    def unsettled(self, connection: Connection) -> tuple[int, int]:
        """Return how many items are quarantined, and how many wait."""
        found = connection.execute(
            "SELECT count(*) FILTER (WHERE status = 'quarantined'), count(*) FILTER (WHERE status = 'waiting') "
            "FROM kvmigrate.ledger WHERE scope = %s AND NOT deleted AND status IN ('quarantined', 'waiting')",
            [self._scope],
        )
        quarantined, waiting = found.fetchall()[0]
        return int(quarantined), int(waiting)

    def outdated(self, connection: Connection) -> int:
        """Return how many items have rows that were written under an earlier declaration of their entity."""
        statement = sql.SQL(
            "SELECT count(*) FROM kvmigrate.ledger WHERE scope = %s AND NOT deleted AND status = 'ok' "
            "AND mapping IS DISTINCT FROM {}"
        ).format(self._parts.layout.number_of(sql.Identifier("entity")))
        return int(connection.execute(statement, [self._scope]).fetchall()[0][0])

    def expire(self, connection: Connection, key: str, epoch: int) -> list[tuple[str, int]]:
        """Delete an item whose expiry has passed, and owe that; return key and entity id if it still stands."""
        return connection.execute(_EXPIRE, {"scope": self._scope, "key": key, "epoch": epoch}).fetchall()


def _first(rows: Sequence[tuple[Any, ...]]) -> list[str]:
    return [row[0] for row in rows]
