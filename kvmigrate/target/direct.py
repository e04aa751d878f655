"""A first load's way around the staging tables: COPY straight into ledger and tables.

It is taken while nothing can be in the way of a batch: the ledger was empty, and
references are settled at the end. Whatever it meets nevertheless (a key that the scan
repeated, two keys for one row, a value that the database refuses) fails as a whole,
is rolled back, and the batch goes the careful way.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import sql

from kvmigrate.model import LedgerStatus
from kvmigrate.target.attempt import Parts
from kvmigrate.target.base import Applied, Batch
from kvmigrate.target.layout import TablePlan, names
from kvmigrate.target.session import is_data_error
from kvmigrate.target.staging import Candidate, copy_rows, pack_expiry
from kvmigrate.transform.values.content_hash import content_hash

Connection = psycopg.Connection[Any]

FAILURES = 8
"""After so many failures in a row the careful way is cheaper than trying first."""

_LEDGER = sql.SQL(
    "COPY kvmigrate.ledger (scope, key, entity, mapping, run, epoch, n, content_hash, expires_at, status) "
    "FROM STDIN (FORMAT binary)"
).format()
_start = struct.Struct("!hiii").pack
_middle = struct.Struct("!iiiiiqiiiq").pack
_length = struct.Struct("!i").pack


class DirectLoad:
    """Tries batches of a first load the short way."""

    def __init__(self, parts: Parts) -> None:
        """Nothing has failed yet."""
        self._parts = parts
        self._failures = 0
        self._copies = {
            plan.table.name: sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(
                plan.staging if plan.lookup else plan.name, _columns(plan)
            )
            for plan in parts.layout.plans
        }

    def apply(self, connection: Connection, batch: Batch) -> Applied | None:
        """Apply the batch, whose rows are not staged, or leave everything as it was and return ``None``."""
        if self._failures >= FAILURES:
            return None
        try:
            with connection.transaction():
                applied = self._load(connection, batch)
        except psycopg.Error as exc:
            if not is_data_error(exc):
                raise
            self._failures += 1
            return None
        self._failures = 0
        return applied

    def _load(self, connection: Connection, batch: Batch) -> Applied:
        rows = batch.rows
        copy_rows(connection, _LEDGER, b"".join(self._ledger_rows(batch)))
        for plan in self._parts.layout.plans:
            name = plan.table.name
            if name not in rows.tables:
                continue
            copy_rows(connection, self._copies[name], rows.tables[name])
            if plan.lookup:
                self._feed_lookup(connection, plan)
        if rows.refused:
            refused = [(item, self._parts.entity_id(item.key), refusal) for item, refusal in rows.refused]
            self._parts.ledger.quarantine(connection, refused, batch.label)
        written, quarantined = len(rows.accepted), len(rows.refused)
        return Applied(written, 0, quarantined, written + quarantined)

    def _feed_lookup(self, connection: Connection, plan: TablePlan) -> None:
        connection.execute(
            sql.SQL("INSERT INTO {0} ({1}) SELECT {1} FROM {2} ON CONFLICT DO NOTHING").format(
                plan.name, _columns(plan), plan.staging
            )
        )

    def _ledger_rows(self, batch: Batch) -> Iterator[bytes]:
        """Yield the batch's ledger rows in the order in which the ledger keeps them."""
        candidates = [Candidate(*accepted, live=True) for accepted in batch.rows.accepted]
        for item, _ in batch.rows.refused:
            entity = self._parts.entity_id(item.key)
            candidates.append(Candidate(0, item.key, entity, content_hash(item), item.expires_at_ms, live=False))
        keyed = sorted((candidate.key.encode(), candidate) for candidate in candidates)
        scope, number = self._parts.scope, self._parts.layout.mapping.number
        (run, (epoch, n)), statuses = batch.label, {live: _status(live=live) for live in (True, False)}
        for key, candidate in keyed:
            digest = candidate.content_hash or b""
            yield b"".join(
                (
                    _start(10, 4, scope, len(key)),
                    key,
                    _middle(4, candidate.entity, 4, number, 8, run, 4, epoch, 8, n),
                    _length(len(digest)),
                    digest,
                    pack_expiry(candidate.expires_at_ms),
                    statuses[candidate.live],
                )
            )


def _status(*, live: bool) -> bytes:
    text = (LedgerStatus.OK if live else LedgerStatus.QUARANTINED).value.encode()
    return _length(len(text)) + text


def _columns(plan: TablePlan) -> sql.Composed:
    return names(column.name for column in plan.table.columns)
