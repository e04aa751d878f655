"""Reading quarantined items back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql

from kvmigrate.model import Item
from kvmigrate.target.base import QuarantineEntry
from kvmigrate.target.counts import entity_name
from kvmigrate.target.payload import decode_payload
from kvmigrate.transform.mapping import Mapping

Connection = psycopg.Connection[Any]

_SELECT = """
SELECT key, entity, reason, path, message, fingerprint, run, at, payload_kind, coalesce(octet_length(payload), 0),
    (extract(epoch FROM expires_at) * 1000)::bigint, {payload}
FROM kvmigrate.quarantine
WHERE scope = %(scope)s AND key > %(after)s
    AND (%(reason)s::text IS NULL OR reason = %(reason)s)
    AND (%(entity)s::int IS NULL OR entity = %(entity)s)
    AND (%(every)s OR key = ANY(%(keys)s))
ORDER BY key LIMIT %(limit)s
"""


_KEPT = """
SELECT key, CASE WHEN kind <> 'null' THEN value END, kind, (extract(epoch FROM expires_at) * 1000)::bigint
FROM kvmigrate.kept WHERE scope = %s AND key = ANY(%s)
"""


def select_quarantined(
    connection: Connection,
    mapping: Mapping,
    scope: int,
    *,
    after: str,
    limit: int,
    reason: str | None,
    entity: str | None,
    keys: Sequence[str],
    payload: bool,
) -> list[QuarantineEntry]:
    """Return the next quarantined items behind *after*; *keys* and the rest restrict them, *payload* reads values.

    Raises:
        KeyError: the mapping has no such entity.
    """
    values = {
        "scope": scope,
        "after": after,
        "limit": limit,
        "reason": reason,
        "entity": None if entity is None else mapping.entity(entity).id,
        "every": not keys,
        "keys": list(keys),
    }
    statement = sql.SQL(_SELECT).format(payload=sql.SQL("payload" if payload else "NULL::bytea"))
    names = {each.id: each.name for each in mapping.entities}
    return [_entry(row, names, payload=payload) for row in connection.execute(statement, values).fetchall()]


def select_kept(connection: Connection, scope: int, keys: Sequence[str]) -> dict[str, Item]:
    """Return those of these items that were waived and are kept whole."""
    found = connection.execute(_KEPT, [scope, list(keys)]).fetchall()
    items = [decode_payload(key, value, kind, expires_at_ms) for key, value, kind, expires_at_ms in found]
    return {item.key: item for item in items if item is not None}


def _entry(row: tuple[Any, ...], names: dict[int, str], *, payload: bool) -> QuarantineEntry:
    key, entity, reason, path, message, fingerprint, run, at, kind, size, expires_at_ms, stored = row
    return QuarantineEntry(
        key=key,
        entity=entity_name(names, entity),
        reason=reason,
        path=path,
        message=message,
        fingerprint=fingerprint,
        run=run,
        at=at,
        payload_kind=kind,
        payload_bytes=size,
        item=decode_payload(key, stored, kind, expires_at_ms) if payload else None,
    )
