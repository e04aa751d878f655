"""Which items an index lists, as one SELECT of the open tables; implements `live_base.ListedItems`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import sql

from kvmigrate.target.layout import Layout, owner_key
from kvmigrate.target.live_base import Listing
from kvmigrate.target.live_control import SELECT_CONTROL
from kvmigrate.target.session import Session, never_migrated
from kvmigrate.transform.lens import Lens
from kvmigrate.transform.mapping import Entity

Connection = psycopg.Connection[Any]

# Taken before the items are looked at: whatever is as new as this is among them.
_CLOCK = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"

_LIVES = sql.SQL(
    "l.scope = %(scope)s AND l.entity = %(entity)s AND NOT l.deleted "
    "AND (l.expires_at IS NULL OR l.expires_at > clock_timestamp())"
)
_ALL = sql.SQL("SELECT l.key FROM kvmigrate.ledger AS l WHERE {} ORDER BY l.key").format(_LIVES)


class PostgresListedItems:
    """Reads with a connection of its own. One thread at a time."""

    def __init__(self, url: str, lens: Lens) -> None:
        """Connect to nothing yet."""
        self._lens, self._layout = lens, Layout(lens.mapping)
        self._session = Session(url, application_name="kvmigrate:relay")
        self._scope: int | None = None
        self._last = 0

    def listed(self, entity: str, values: Mapping[str, str]) -> Listing:
        """Return the keys of an entity's items whose columns have these values as text; see `ListedItems`."""
        found = self._lens.mapping.entity(entity)
        query = self._query(found, values) if values else _ALL
        asked: dict[str, Any] = {"entity": found.id, "values": list(values.values())}

        def work(connection: Connection) -> Listing:
            asked["scope"] = self._scope_id(connection)
            [(clock,)] = connection.execute(_CLOCK).fetchall()
            keys = [key for (key,) in connection.execute(query, asked).fetchall()]
            self._last = max(self._last + 1, clock)
            return Listing(self._last, keys)

        return self._session.run(work)

    def close(self) -> None:
        """Close the connection. Safe to call twice."""
        self._session.close()

    def _query(self, entity: Entity, values: Mapping[str, str]) -> sql.Composed:
        chosen = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier("t", name)) for name in values)
        return sql.SQL(
            "SELECT l.key FROM {table} AS t JOIN kvmigrate.ledger AS l ON l.key = {owner} "
            "WHERE ARRAY[{chosen}] = %(values)s::text[] AND {lives} ORDER BY l.key"
        ).format(
            table=self._layout.by_name[entity.root.name].name,
            owner=owner_key(entity, "t"),
            chosen=chosen,
            lives=_LIVES,
        )

    def _scope_id(self, connection: Connection) -> int:
        if self._scope is None:
            rows = connection.execute(SELECT_CONTROL, [self._lens.mapping.name]).fetchall()
            if not rows:
                raise never_migrated(self._session.name, self._lens.mapping.name)
            self._scope = int(rows[0][0])
        return self._scope
