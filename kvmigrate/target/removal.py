"""Taking rows away: of items that are gone, that yield, or that lose the row they refer to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import psycopg
from psycopg import sql

from kvmigrate.model import LedgerStatus, Reason
from kvmigrate.target.layout import Layout, TablePlan, equal, equal_pairs, fields, value_text
from kvmigrate.target.ledger import Ledger, Wait
from kvmigrate.target.staging import gone_columns
from kvmigrate.transform.lens import Lens
from kvmigrate.transform.mapping import Entity, ForeignKey, OnMissing

Connection = psycopg.Connection[Any]


class Removal:
    """Deletes whole items' rows, and moves what referred to them to their own rule."""

    def __init__(self, layout: Layout, lens: Lens, ledger: Ledger) -> None:
        """Work on *layout*'s tables under *ledger*'s scope."""
        self._layout, self._lens, self._ledger = layout, lens, ledger
        self._deletes = {plan.table.name: self._delete_sql(plan) for plan in layout.plans if plan.anchor}
        self._referring = [(key, self._referrers_sql(plan, key)) for plan in layout.plans for key in plan.references]

    def delete_items(self, connection: Connection, keys: Iterable[tuple[str, int]]) -> None:
        """Delete all rows of items, given as pairs of key and entity id."""
        entities = {entity.id: entity for entity in self._lens.mapping.entities}
        for entity_id, owners in by_entity(keys).items():
            # An entity that the mapping no longer has is not ours to touch.
            if entity_id in entities:
                self._delete_of(connection, entities[entity_id], owners)

    def _delete_of(self, connection: Connection, entity: Entity, owners: Sequence[str]) -> None:
        rows = [(*values, key) for key in owners if (values := self._lens.primary_key(entity, key))]
        found = {row[-1] for row in rows}
        rest = [key for key in owners if key not in found]
        for plan in self._layout.anchors(entity):
            by_key, by_owner = self._deletes[plan.table.name]
            if rest:
                # Without an index where the mapping no longer derives the primary key from this key.
                connection.execute(by_owner, [rest])
            if rows:
                with connection.cursor() as cursor:
                    cursor.executemany(by_key, rows)

    def displace(self, connection: Connection, waits: Mapping[str, Sequence[Wait]]) -> list[str]:
        """Delete the rows of items that lose their place, and let them wait; return whom that moved.

        Keys that the ledger does not know are not ours and are left alone.
        """
        known = self._known(connection, list(waits))
        keys = [key for key, _ in known]
        self.delete_items(connection, known)
        self._ledger.set_status(connection, keys, LedgerStatus.WAITING)
        self._ledger.wait(connection, {key: waits[key] for key in keys})
        return keys

    def yield_rows(self, connection: Connection, keys: Sequence[str]) -> None:
        """Delete what waiting items still hold of an earlier version, and let them be tried again."""
        self.delete_items(connection, self._known(connection, keys))
        self._ledger.make_due(connection, keys)

    def displace_referrers(self, connection: Connection) -> None:
        """Move every item that refers to a row deleted in this transaction to its own `on_missing`.

        Its rows go, and unless it is to wait it is due: the next try makes the
        reference null or quarantines the item, from the item as the store has it.
        """
        while True:
            waits: dict[str, list[Wait]] = {}
            for key, statement in self._referring:
                self._collect(connection.execute(statement).fetchall(), key, waits)
            if not waits or not self.displace(connection, waits):
                return

    def orphans(self, connection: Connection, plan: TablePlan, key: ForeignKey, *, limit: int) -> dict[str, list[Wait]]:
        """Return up to *limit* items of the whole table whose reference leads nowhere."""
        target = self._layout.by_name[key.target_table]
        joins, owner = self._layout.owner(plan, "r")
        statement = sql.SQL(
            "SELECT DISTINCT {owner}, {value}, {elsewhere} FROM {table} AS r{joins} "
            "WHERE NOT EXISTS (SELECT FROM {target} AS p WHERE {match}) AND {filled} LIMIT %s"
        ).format(
            owner=owner,
            value=value_text("r", key.columns),
            elsewhere=elsewhere_sql("r", key, target.name),
            table=plan.name,
            joins=joins,
            target=target.name,
            match=equal_pairs("p", "r", zip(key.target_columns, key.columns, strict=True)),
            filled=sql.SQL(" AND ").join(
                sql.SQL("{} IS NOT NULL").format(sql.Identifier("r", name)) for name in key.columns
            ),
        )
        return self._collect(connection.execute(statement, [limit]).fetchall(), key, {})

    def _referrers_sql(self, plan: TablePlan, key: ForeignKey) -> sql.Composed:
        target = self._layout.by_name[key.target_table]
        assert target.gone is not None  # noqa: S101 - it has a referrer
        joins, owner = self._layout.owner(plan, "r")
        return sql.SQL(
            "SELECT DISTINCT {owner}, {value}, {elsewhere} "
            "FROM (SELECT DISTINCT {gone_columns} FROM {gone} AS g) AS g JOIN {table} AS r ON {refers}{joins} "
            "WHERE NOT EXISTS (SELECT FROM {target} AS p WHERE {stands})"
        ).format(
            owner=owner,
            value=value_text("r", key.columns),
            elsewhere=elsewhere_sql("r", key, target.name),
            gone_columns=fields("g", key.target_columns),
            gone=target.gone,
            table=plan.name,
            refers=equal_pairs("r", "g", zip(key.columns, key.target_columns, strict=True)),
            joins=joins,
            target=target.name,
            stands=equal("p", "g", key.target_columns),
        )

    def _collect(
        self, rows: Sequence[tuple[str, str, bool]], key: ForeignKey, waits: dict[str, list[Wait]]
    ) -> dict[str, list[Wait]]:
        for owner, value, elsewhere in rows:
            waits.setdefault(owner, []).append(missing_parent(self._lens, key, value, elsewhere=elsewhere))
        return waits

    def _known(self, connection: Connection, keys: Sequence[str]) -> list[tuple[str, int]]:
        """Lock the ledger rows of *keys* in order; return key and entity id of those that it knows."""
        return connection.execute(
            "SELECT key, entity FROM kvmigrate.ledger WHERE scope = %s AND key = ANY(%s) AND NOT deleted "
            "ORDER BY key FOR UPDATE",
            [self._ledger.scope, list(keys)],
        ).fetchall()

    def _delete_sql(self, plan: TablePlan) -> tuple[sql.Composed, sql.Composed]:
        """Return the deletes of one item by primary key and owner, and of several by owner alone."""
        _, owner = self._layout.owner(plan, "t")
        values = [*(sql.Identifier("t", name) for name in plan.table.primary_key), owner]
        by_key = sql.SQL(" AND ").join(sql.SQL("{} = %s").format(value) for value in values)
        start = sql.SQL("DELETE FROM {} AS t WHERE {}")
        return (
            noting_gone(self._layout, plan, start.format(plan.name, by_key)),
            noting_gone(self._layout, plan, start.format(plan.name, sql.SQL("{} = ANY(%s)").format(owner))),
        )


def by_entity(keys: Iterable[tuple[str, int]]) -> dict[int, list[str]]:
    """Return keys by the id of their entity, from pairs of both."""
    found: dict[int, list[str]] = {}
    for key, entity_id in keys:
        found.setdefault(entity_id, []).append(key)
    return found


def noting_gone(layout: Layout, plan: TablePlan, delete: sql.Composed) -> sql.Composed:
    """Return *delete*, of rows ``t``, so that it also notes the keys that others may refer to."""
    if plan.gone is None:
        return delete
    columns = gone_columns(layout, plan)
    return sql.SQL("WITH gone AS ({} RETURNING {}) INSERT INTO {} SELECT * FROM gone").format(
        delete, fields("t", columns), plan.gone
    )


def missing_parent(lens: Lens, key: ForeignKey, value: str, *, elsewhere: bool) -> Wait:
    """Return what an item waits for whose reference leads nowhere, or to another tenant's row."""
    reason = Reason.OTHER_TENANT if elsewhere else Reason.MISSING_PARENT
    where = f"{key.table}.{key.column}"
    message = (
        f"{where} refers to a {key.entity} of another tenant" if elsewhere else f"{where} refers to no {key.entity}"
    )
    due = key.on_missing is not OnMissing.WAIT
    return Wait(key.name, lens.mapping.entity(key.entity).id, value, reason.value, message, due)


def elsewhere_sql(alias: str, key: ForeignKey, table: sql.Identifier) -> sql.Composed:
    """Return whether *table* has the row referred to, whatever its tenant."""
    if len(key.columns) == 1:
        return sql.SQL("false").format()
    return sql.SQL("EXISTS (SELECT FROM {} AS e WHERE {} = {})").format(
        table, sql.Identifier("e", key.target_columns[-1]), sql.Identifier(alias, key.columns[-1])
    )
