"""Items that were waived: without rows, and kept whole until a later value of them becomes rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

from kvmigrate.model import Item, LedgerStatus
from kvmigrate.target.attempt import Parts
from kvmigrate.target.ledger import LAST_EXPIRY_MS
from kvmigrate.target.payload import encode_payload

Connection = psycopg.Connection[Any]

_REWRITE = """
UPDATE kvmigrate.kept SET value = %(payload)b, kind = %(kind)s,
    expires_at = 'epoch'::timestamptz + %(expires)s * interval '1 millisecond'
WHERE scope = %(scope)s AND key = %(key)s
"""

_WAIVE = """
INSERT INTO kvmigrate.kept (scope, key, value, kind, expires_at)
SELECT q.scope, q.key, q.payload, q.payload_kind, q.expires_at FROM kvmigrate.quarantine AS q
JOIN kvmigrate.ledger AS l ON l.scope = q.scope AND l.key = q.key AND l.status = 'quarantined'
WHERE q.scope = %s AND q.key = ANY(%s) AND q.payload IS NOT NULL
ORDER BY q.key FOR UPDATE OF l
ON CONFLICT (scope, key) DO UPDATE SET value = excluded.value, kind = excluded.kind, expires_at = excluded.expires_at
RETURNING key
"""


class Kept:
    """The kept items of one scope. Every method is part of an open transaction that holds the fence."""

    def __init__(self, parts: Parts) -> None:
        """Work on the tables of *parts*."""
        self._parts, self._scope = parts, parts.scope

    def known(self, connection: Connection, keys: Sequence[str]) -> set[str]:
        """Return those of *keys* that are kept."""
        # Most scopes keep none, and then no key need be sent.
        [(any_kept,)] = connection.execute(
            "SELECT EXISTS (SELECT FROM kvmigrate.kept WHERE scope = %s)", [self._scope]
        ).fetchall()
        if not any_kept:
            return set()
        found = connection.execute(
            "SELECT key FROM kvmigrate.kept WHERE scope = %s AND key = ANY(%s)", [self._scope, list(keys)]
        )
        return {key for (key,) in found.fetchall()}

    def settle(self, connection: Connection, items: Sequence[Item]) -> None:
        """Let kept items follow what was applied: written ones are kept no more, refused ones are kept anew."""
        found = connection.execute(
            "SELECT key, status FROM kvmigrate.ledger WHERE scope = %s AND key = ANY(%s) AND NOT deleted",
            [self._scope, [item.key for item in items]],
        ).fetchall()
        of_key = {item.key: item for item in items}
        self._drop(connection, "kept", [key for key, status in found if status == LedgerStatus.OK])
        again = []
        for key, status in found:
            payload, kind = encode_payload(of_key[key])
            if status in {LedgerStatus.QUARANTINED, LedgerStatus.WAITING} and payload is not None:
                again.append(key)
                expires = of_key[key].expires_at_ms
                connection.execute(
                    _REWRITE,
                    {
                        "scope": self._scope,
                        "key": key,
                        "payload": payload,
                        "kind": kind,
                        "expires": None if expires is None else min(expires, LAST_EXPIRY_MS),
                    },
                )
        self._take(connection, again)

    def waive(self, connection: Connection, keys: Sequence[str]) -> int:
        """Keep quarantined items whole and without rows; return how many. Those whose value is not here stay."""
        kept = [key for (key,) in connection.execute(_WAIVE, [self._scope, list(keys)]).fetchall()]
        owned = connection.execute(
            "SELECT key, entity FROM kvmigrate.ledger WHERE scope = %s AND key = ANY(%s)", [self._scope, kept]
        ).fetchall()
        self._parts.removal.delete_items(connection, owned)
        self._parts.removal.displace_referrers(connection)
        self._take(connection, kept)
        return len(kept)

    def _take(self, connection: Connection, keys: Sequence[str]) -> None:
        self._parts.ledger.set_status(connection, keys, LedgerStatus.KEPT)
        for table in ("waiting", "quarantine"):
            self._drop(connection, table, keys)

    def _drop(self, connection: Connection, table: str, keys: Sequence[str]) -> None:
        statement = psycopg.sql.SQL("DELETE FROM {} WHERE scope = %s AND key = ANY(%s)").format(
            psycopg.sql.Identifier("kvmigrate", table)
        )
        connection.execute(statement, [self._scope, list(keys)])
