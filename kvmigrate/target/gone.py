"""Items that are gone from the store: their rows leave, and those that others hold on to wait with theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import psycopg

from kvmigrate.model import LedgerStatus, Reason
from kvmigrate.target.attempt import Parts
from kvmigrate.target.ledger import Wait
from kvmigrate.target.session import is_data_error

Connection = psycopg.Connection[Any]

Bury = Callable[[Connection, Sequence[str]], list[tuple[str, int]]]
"""Moves the ledger of some keys under its guard; returns key and entity id of those whose rows must go."""


Hold = Callable[[Connection, str], bool]
"""Moves the ledger of an item that must wait with its rows; returns whether the guard let it."""


class Gone:
    """Removes items in a transaction that holds the fence and has the staging tables."""

    def __init__(self, parts: Parts, bury: Bury, hold: Hold | None = None) -> None:
        """Work on the tables of *parts*; without *hold* only the status of a waiting item changes."""
        self._parts, self._bury, self._hold = parts, bury, hold

    def remove(self, connection: Connection, keys: Sequence[str]) -> int:
        """Delete the items' rows, and move what refers to them to its own rule; return how many items went.

        An item whose rows others refer to, outside the mapping, waits with its rows.
        """
        parts = self._parts
        try:
            with connection.transaction():
                connection.execute("SET CONSTRAINTS ALL DEFERRED")
                passed = self._bury(connection, keys)
                parts.removal.delete_items(connection, passed)
                parts.removal.displace_referrers(connection)
                connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
                return len(passed)
        except psycopg.Error as exc:
            if not is_data_error(exc):
                raise
            parts.staging.clear(connection)
            if len(keys) == 1:
                self._keep_referred(connection, keys[0], exc)
                return 0
        middle = len(keys) // 2
        return self.remove(connection, keys[:middle]) + self.remove(connection, keys[middle:])

    def _keep_referred(self, connection: Connection, key: str, exc: psycopg.Error) -> None:
        ledger = self._parts.ledger
        if self._hold is not None and not self._hold(connection, key):
            return
        constraint = exc.diag.constraint_name or ""
        message = f"it is gone from the store, and {exc.diag.table_name or 'a table'} still refers to its rows"
        ledger.set_status(connection, [key], LedgerStatus.WAITING)
        ledger.wait(connection, {key: [Wait(constraint, 0, "", Reason.DATABASE.value, message)]})
