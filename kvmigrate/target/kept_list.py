"""Kept items for people: whole, without rows, waived into the era of the tables."""

from __future__ import annotations

from typing import Any, NamedTuple

import psycopg

from kvmigrate.transform.mapping import Mapping

Connection = psycopg.Connection[Any]

_SELECT = """
SELECT k.key, coalesce(l.entity, 0), k.kind, octet_length(k.value),
    to_char(k.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
FROM kvmigrate.kept AS k LEFT JOIN kvmigrate.ledger AS l ON l.scope = k.scope AND l.key = k.key
WHERE k.scope = %(scope)s AND (%(entity)s::int IS NULL OR l.entity = %(entity)s)
ORDER BY k.key LIMIT %(limit)s
"""


class KeptEntry(NamedTuple):
    """One kept item.

    Attributes:
        entity: Name of the item's entity.

        kind: Of the value, as the store has it.

        bytes: Of the value.

        expires_at: ISO 8601, or ``None``.
    """

    key: str
    entity: str
    kind: str
    bytes: int
    expires_at: str | None


def select_kept_list(
    connection: Connection, mapping: Mapping, scope: int, *, entity: str | None, limit: int
) -> list[KeptEntry]:
    """Return the first *limit* kept items in order of their keys.

    Raises:
        KeyError: the mapping has no such entity.
    """
    names = {each.id: each.name for each in mapping.entities}
    values = {"scope": scope, "entity": None if entity is None else mapping.entity(entity).id, "limit": limit}
    return [
        KeptEntry(key, names.get(number, ""), kind, size, expires_at)
        for key, number, kind, size, expires_at in connection.execute(_SELECT, values).fetchall()
    ]
