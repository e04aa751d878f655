"""A batch of a first load: COPY straight into ledger and tables, which have no keys yet.

Nothing is looked up and nothing is replaced, so batches of several connections never
meet. What the database refuses is set aside one item at a time: it waits, without rows,
until the keys stand, and is then tried the careful way. Whatever only a key would tell
(a key that the scan repeated, two keys for one row, an orphan) is found when it is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql

from kvmigrate.model import Item, LedgerStatus, Reason
from kvmigrate.target.apply import concerned
from kvmigrate.target.attempt import Parts
from kvmigrate.target.base import Applied, Batch, Label, Mark
from kvmigrate.target.layout import TablePlan, names
from kvmigrate.target.ledger import Wait
from kvmigrate.target.ledger_rows import COLUMNS, LedgerRows
from kvmigrate.target.session import is_data_error
from kvmigrate.target.staging import copy_rows
from kvmigrate.transform.lens import PageRows
from kvmigrate.transform.values.content_hash import content_hash

Connection = psycopg.Connection[Any]


class DirectLoad:
    """Writes batches of a first load. Each call is part of a transaction that holds the fence."""

    def __init__(self, parts: Parts) -> None:
        """Compose the statements."""
        self._parts = parts
        self._ledger = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(parts.ledger_table, names(COLUMNS))
        self._copies = {
            plan.table.name: sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(plan.name, plan.columns)
            for plan in parts.layout.plans
        }

    def is_done(self, connection: Connection, run: int, mark: Mark) -> bool:
        """Return whether a batch with this mark is in the tables: its commit may have gone through unheard."""
        found = connection.execute(
            "SELECT EXISTS (SELECT FROM kvmigrate.checkpoint WHERE run = %s AND number = %s AND part = %s)",
            [run, mark.number, mark.part],
        )
        return bool(found.fetchall()[0][0])

    def load(self, connection: Connection, batch: Batch) -> Applied:
        """Load the batch, and set aside what the database refuses of it."""
        applied = self._load_or_split(connection, batch.items, batch.rows, batch.label)
        if batch.mark is not None:
            connection.execute(
                "INSERT INTO kvmigrate.checkpoint (run, number, part, position, digest, items) "
                "VALUES (%s, %s, %s, %s, %s, %s)",
                [batch.label.run, *batch.mark, len(batch.items)],
            )
        return applied

    def _load_or_split(self, connection: Connection, items: Sequence[Item], rows: PageRows, label: Label) -> Applied:
        try:
            with connection.transaction():
                return self._load(connection, rows, label)
        except psycopg.Error as exc:
            if not is_data_error(exc):
                raise
            left = concerned(items, rows)
            if len(left) == 1:
                return self._set_aside(connection, left[0], label)
            if not left:
                raise
        middle, applied = len(left) // 2, Applied()
        for half in (left[:middle], left[middle:]):
            part = self._parts.lens.page(half, staged=False)
            applied = applied.plus(self._load_or_split(connection, half, part, label))
        return applied

    def _load(self, connection: Connection, rows: PageRows, label: Label) -> Applied:
        if not rows.accepted and not rows.refused:
            return Applied()
        ledger = LedgerRows(self._parts, label)
        ledger.add_accepted(rows.accepted)
        for item, _ in rows.refused:
            ledger.add(item, content_hash(item), LedgerStatus.QUARANTINED)
        copy_rows(connection, self._ledger, ledger.packed())
        for plan in self._parts.layout.plans:
            if (packed := rows.tables.get(plan.table.name)) is None:
                continue
            if plan.lookup:
                self._feed_lookup(connection, plan, packed)
            else:
                copy_rows(connection, self._copies[plan.table.name], packed)
        refused = [(item, self._parts.entity_id(item.key), refusal) for item, refusal in rows.refused]
        if refused:
            self._parts.ledger.quarantine(connection, refused, label)
        return self.result(rows)

    def result(self, rows: PageRows) -> Applied:
        """Return what loading these rows comes to, where the database refuses none."""
        written, quarantined = len(rows.accepted), len(rows.refused)
        return Applied(written, 0, quarantined, written + quarantined)

    def _set_aside(self, connection: Connection, item: Item, label: Label) -> Applied:
        """Let one item wait, without rows, for the careful try after the load."""
        ledger = LedgerRows(self._parts, label)
        ledger.add(item, None, LedgerStatus.WAITING)
        copy_rows(connection, self._ledger, ledger.packed())
        message = "the database refused it in the first load; it is tried again when the keys stand"
        wait = Wait("", self._parts.entity_id(item.key), "", Reason.DATABASE.value, message, due=True)
        self._parts.ledger.wait(connection, {item.key: [wait]})
        return Applied(0, 1, 0, 1)

    def _feed_lookup(self, connection: Connection, plan: TablePlan, rows: bytes) -> None:
        """Add what is new. In order of the key, so that connections that feed the same values take turns."""
        staging = self._parts.staging
        staging.ensure(connection)
        connection.execute(sql.SQL("TRUNCATE {}").format(plan.staging))
        copy_rows(connection, staging.unstaged_copy(plan), rows)
        connection.execute(
            sql.SQL("INSERT INTO {0} ({1}) SELECT {1} FROM {2} ORDER BY {3} ON CONFLICT DO NOTHING").format(
                plan.name, plan.columns, plan.staging, names(plan.table.primary_key)
            )
        )
