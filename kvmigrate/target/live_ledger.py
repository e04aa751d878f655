"""The ledger's statements that only live writes need: tombstones at any version, and what the store is owed."""

from __future__ import annotations

from collections.abc import Sequence
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
        for statement in _FORGET:
            connection.execute(statement, [self._scope, list(gone)])
        return [(key, entity) for key, entity, deleted in found if key in gone and not deleted]
