"""What the ledger must forget: items whose tables somebody dropped or emptied."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from kvmigrate.transform.mapping import Entity, Mapping

Connection = psycopg.Connection[Any]

_FORGET = """
UPDATE kvmigrate.ledger SET content_hash = NULL
WHERE scope = %s AND entity = %s AND status = 'ok' AND NOT deleted AND content_hash IS NOT NULL
"""


def forget_lost_rows(connection: Connection, mapping: Mapping, scope: int) -> int:
    """Forget the content of items of every entity that has no row at all; return of how many.

    Such items then count as changed, and the next sweep writes them again. Without
    this a dropped and newly made table would stay empty, as the ledger says that
    nothing changed in the store.
    """
    return sum(
        connection.execute(_FORGET, [scope, entity.id]).rowcount
        for entity in mapping.entities
        if _is_empty(connection, mapping, entity)
    )


def _is_empty(connection: Connection, mapping: Mapping, entity: Entity) -> bool:
    looks = [sql.SQL("EXISTS (SELECT FROM {})").format(sql.Identifier(mapping.schema, t.name)) for t in entity.tables]
    [(found,)] = connection.execute(sql.SQL("SELECT {}").format(sql.SQL(" OR ").join(looks))).fetchall()
    return not found
