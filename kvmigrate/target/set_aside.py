"""Items of a first load that a key refuses: taken out of the tables, to be tried again the careful way.

There are no indexes yet, so everything is done for many items at a time, each table read once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
from psycopg import sql

from kvmigrate.model import Reason
from kvmigrate.target.attempt import Parts
from kvmigrate.target.layout import TablePlan, all_set, fields, names
from kvmigrate.target.ledger import Wait
from kvmigrate.target.removal import by_entity
from kvmigrate.transform.mapping import Entity

Connection = psycopg.Connection[Any]

ITEMS_AT_ONCE = 50_000
"""Items taken out per transaction; bounds memory and the length of locks."""

_KNOWN = sql.SQL("SELECT DISTINCT key, entity FROM {} WHERE key = ANY(%s)")

# One entry for each key, whatever the scan had of it; without a hash, so that nothing is taken for known.
_LEAVE = sql.SQL("""
WITH gone AS (DELETE FROM {ledger} WHERE key = ANY(%s) RETURNING *)
INSERT INTO {ledger} (scope, key, entity, mapping, run, born, epoch, n, content_hash, expires_at, status)
SELECT DISTINCT ON (key) scope, key, entity, mapping, run, born, epoch, n, NULL, expires_at, 'waiting'
FROM gone ORDER BY key
""")


class SetAside:
    """Takes items out while a first load is open. Each method is part of a transaction that holds the fence."""

    def __init__(self, parts: Parts) -> None:
        """Work on the tables of *parts*."""
        self._parts = parts

    def repeated(self, connection: Connection) -> list[str]:
        """Return the keys that the ledger has twice: the scan repeated them, perhaps with another content."""
        found = connection.execute(
            sql.SQL("SELECT key FROM {} GROUP BY key HAVING count(*) > 1 ORDER BY key").format(self._parts.ledger_table)
        )
        return [key for (key,) in found.fetchall()]

    def rivals(self, connection: Connection, plan: TablePlan, columns: Sequence[str]) -> list[str]:
        """Return the keys of the items with a row in *plan*'s table whose *columns* another row has, too."""
        joins, owner = self._parts.layout.owner(plan, "t")
        statement = sql.SQL(
            "SELECT DISTINCT {owner} FROM {table} AS t{joins} WHERE ({values}) IN "
            "(SELECT {columns} FROM {table} AS s WHERE {filled} GROUP BY {columns} HAVING count(*) > 1)"
        ).format(
            owner=owner,
            table=plan.name,
            joins=joins,
            values=fields("t", columns),
            columns=names(columns),
            filled=all_set("s", columns),
        )
        return sorted(key for (key,) in connection.execute(statement).fetchall())

    def leave(self, connection: Connection, keys: Sequence[str], reason: Reason, message: str) -> list[str]:
        """Delete all rows of these items, and let them wait, due; return those that the ledger knows.

        Of a key that the ledger has twice one entry stays.
        """
        ledger = self._parts.ledger_table
        known = connection.execute(_KNOWN.format(ledger), [list(keys)]).fetchall()
        entities = {entity.id: entity for entity in self._parts.layout.mapping.entities}
        for entity_id, owned in by_entity(known).items():
            if entity_id in entities:
                self._delete_rows(connection, entities[entity_id], owned)
        found = sorted({key for key, _ in known}, key=str.encode)
        connection.execute(_LEAVE.format(ledger=ledger), [found])
        of_key = dict(known)
        waits = {key: [Wait("", of_key[key], "", reason.value, message, due=True)] for key in found}
        self._parts.ledger.wait(connection, waits)
        return found

    def _delete_rows(self, connection: Connection, entity: Entity, keys: Sequence[str]) -> None:
        # Children first: they are found through their parents, and no foreign key deletes them yet.
        for plan in reversed(self._parts.layout.plans_of(entity)):
            joins, owner = self._parts.layout.owner(plan, "t")
            statement = sql.SQL(
                "DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT t.ctid FROM {table} AS t{joins} "
                "WHERE {owner} = ANY(%s)))"
            ).format(table=plan.name, joins=joins, owner=owner)
            connection.execute(statement, [list(keys)])


def in_steps(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield as many keys at a time as one transaction takes."""
    for start in range(0, len(keys), ITEMS_AT_ONCE):
        yield keys[start : start + ITEMS_AT_ONCE]
