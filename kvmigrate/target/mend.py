"""The ledger ceases to vouch for single items, so that whoever brings them next makes their rows anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg

from kvmigrate.model import Version
from kvmigrate.target.session import Session

Connection = psycopg.Connection[Any]

# An entry that a write changed since it was looked at has another version, and is left alone.
_DOUBT = """
UPDATE kvmigrate.ledger AS l SET content_hash = NULL, deleted = l.deleted AND NOT g.has_rows
FROM unnest(%(keys)s::text[], %(epochs)s::int[], %(ns)s::bigint[], %(rows)s::boolean[]) AS g (key, epoch, n, has_rows),
    kvmigrate.control AS c
WHERE c.scope = %(scope)s AND c.epoch = %(epoch)s AND c.authority = 'K'
    AND l.scope = c.id AND l.key = g.key AND (l.epoch, l.n) = (g.epoch, g.n)
RETURNING l.key
"""

# Rows that nobody owns get the oldest of all versions, so that any later one may take them out.
_ADOPT = """
INSERT INTO kvmigrate.ledger (scope, key, entity, mapping, run, born, epoch, n, status)
SELECT c.id, g.key, g.entity, g.mapping, 0, 0, 0, 0, 'ok'
FROM unnest(%(keys)s::text[], %(entities)s::int[], %(mappings)s::int[]) AS g (key, entity, mapping),
    kvmigrate.control AS c
WHERE c.scope = %(scope)s AND c.epoch = %(epoch)s AND c.authority = 'K'
ON CONFLICT (scope, key) DO NOTHING
RETURNING key
"""


class Doubted(NamedTuple):
    """An item whose rows are not what the ledger says.

    Attributes:
        entity, mapping: Numbers as in the ledger.

        version: Of its entry as it was looked at; ``None`` where the ledger does not know it.

        has_rows: The tables have rows of it.
    """

    key: str
    entity: int
    mapping: int
    version: Version | None
    has_rows: bool


class LedgerMender:
    """Takes the ledger's word back, of one scope whose store leads. One thread at a time."""

    def __init__(self, url: str, scope: str) -> None:
        """Open nothing yet; *scope* is the mapping's name."""
        self._session, self._scope = Session(url, application_name="kvmigrate:repair"), scope

    def doubt(self, items: Sequence[Doubted], *, epoch: int) -> set[str]:
        """Cease to vouch for *items*; return the keys of those that nobody changed since they were looked at.

        Nothing else is changed, and nothing at all where the control row is not at *epoch* with the store leading.
        Raises `TargetError`.
        """
        known = [item for item in items if item.version is not None]
        unknown = [item for item in items if item.version is None]

        def work(connection: Connection) -> set[str]:
            with connection.transaction():
                doubted = connection.execute(
                    _DOUBT,
                    {
                        "keys": [item.key for item in known],
                        "epochs": [item.version.epoch for item in known if item.version],
                        "ns": [item.version.n for item in known if item.version],
                        "rows": [item.has_rows for item in known],
                        "scope": self._scope,
                        "epoch": epoch,
                    },
                ).fetchall()
                adopted = connection.execute(
                    _ADOPT,
                    {
                        "keys": [item.key for item in unknown if item.has_rows],
                        "entities": [item.entity for item in unknown if item.has_rows],
                        "mappings": [item.mapping for item in unknown if item.has_rows],
                        "scope": self._scope,
                        "epoch": epoch,
                    },
                ).fetchall()
            return {key for (key,) in (*doubted, *adopted)}

        return self._session.run(work) | {item.key for item in unknown if not item.has_rows}

    def close(self) -> None:
        """Close the connection. Safe to call twice."""
        self._session.close()
