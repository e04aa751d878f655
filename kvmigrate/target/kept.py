"""Items that the tables cannot hold and that were waived: kept whole, served by key, without rows.

What is kept follows the item: each later version of it is kept instead; once the tables can hold it, nothing is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import psycopg

from kvmigrate.model import Item, ItemKind, Version
from kvmigrate.target.payload import NOT_KEPT, decode_payload, encode_payload

Connection = psycopg.Connection[Any]

_FOUND = """
SELECT k.key, l.status, l.deleted FROM kvmigrate.kept AS k
JOIN kvmigrate.ledger AS l ON l.scope = k.scope AND l.key = k.key
WHERE k.scope = %s AND k.key = ANY(%s) AND (l.epoch, l.n) = (%s, %s)
"""

# An item that is kept already stays so for as long as it was to stay.
_KEEP = """
INSERT INTO kvmigrate.kept (scope, key, value, kind, expires_at)
VALUES (%s, %s, %b, %s, 'epoch'::timestamptz + %s * interval '1 millisecond')
ON CONFLICT (scope, key) DO UPDATE SET value = excluded.value, kind = excluded.kind, expires_at = excluded.expires_at
"""

_STATUS = "UPDATE kvmigrate.ledger SET status = 'kept' WHERE scope = %s AND key = ANY(%s)"

_SELECT = """
SELECT key, value, kind, (extract(epoch FROM expires_at) * 1000)::bigint
FROM kvmigrate.kept WHERE scope = %s AND key = ANY(%s)
"""

# Year 255,000: a store takes later ones, a timestamp does not.
_LAST_EXPIRY_MS = 8_000_000_000_000_000


class Kept:
    """What is kept of one scope. Every method is part of an open transaction that holds the fence."""

    def __init__(self, scope: int) -> None:
        """Work on the rows of *scope*."""
        self._scope = scope

    def follow(self, connection: Connection, items: Sequence[Item], version: Version) -> None:
        """Let what is kept follow items that were applied at *version* just now, in this transaction.

        Whoever applies calls it last: items that were refused again are kept again; of those that have rows now,
        nothing is kept any more. Items that the guard did not let pass are left alone.
        """
        values = [self._scope, [item.key for item in items], *version]
        found = connection.execute(_FOUND, values).fetchall()
        if not found:
            return
        refused = {key for key, status, deleted in found if status != "ok" and not deleted}
        again = [item for item in items if item.key in refused and encode_payload(item)[1] != NOT_KEPT]
        self.forget(connection, {key for key, _, _ in found} - {item.key for item in again})
        self.keep(connection, again)

    def keep(self, connection: Connection, items: Sequence[Item]) -> None:
        """Keep items whole at the version that the ledger has, instead of waiting or in quarantine."""
        if not items:
            return
        keys = [item.key for item in items]
        with connection.cursor() as cursor:
            cursor.executemany(_KEEP, [self._row(item) for item in items])
        connection.execute("DELETE FROM kvmigrate.waiting WHERE scope = %s AND key = ANY(%s)", [self._scope, keys])
        connection.execute("DELETE FROM kvmigrate.quarantine WHERE scope = %s AND key = ANY(%s)", [self._scope, keys])
        connection.execute(_STATUS, [self._scope, keys])

    def forget(self, connection: Connection, keys: Iterable[str]) -> None:
        """Keep nothing of these items any more: they have rows now, or are gone."""
        connection.execute("DELETE FROM kvmigrate.kept WHERE scope = %s AND key = ANY(%s)", [self._scope, list(keys)])

    def items(self, connection: Connection, keys: Sequence[str]) -> Mapping[str, Item]:
        """Return those of these items that are kept."""
        found = connection.execute(_SELECT, [self._scope, list(keys)]).fetchall()
        return {key: kept_item(key, value, kind, expires_at_ms) for key, value, kind, expires_at_ms in found}

    def count(self, connection: Connection) -> int:
        """Return how many items are kept."""
        [(count,)] = connection.execute(
            "SELECT count(*) FROM kvmigrate.kept WHERE scope = %s", [self._scope]
        ).fetchall()
        return int(count)

    def _row(self, item: Item) -> tuple[Any, ...]:
        payload, kind = encode_payload(item)
        expires = None if item.expires_at_ms is None else min(item.expires_at_ms, _LAST_EXPIRY_MS)
        return self._scope, item.key, payload or b"", kind, expires


def kept_item(key: str, value: bytes, kind: str, expires_at_ms: int | None) -> Item:
    """Return a row of ``kvmigrate.kept`` as the item that it was."""
    found = decode_payload(key, None if kind == ItemKind.NULL else value, kind, expires_at_ms)
    assert found is not None  # noqa: S101 - only whole values are kept
    return found
