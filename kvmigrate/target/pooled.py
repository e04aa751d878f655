"""A connection whose settings hold behind a pooler, too.

A pooler in transaction mode gives every transaction to whichever server process is free. A setting made for the session
would stay with that process and meet strangers, and the next transaction would not have it. So behind a pooler, which
is told by its process number, settings are made in every transaction and end with it, and no statement is without one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import psycopg
from psycopg import IsolationLevel, pq, sql

_TRANSACTION_TIMEOUT_SINCE = 170000


class SettledConnection(psycopg.Connection[Any]):
    """A connection with the settings of `settle`. It is in autocommit mode, and uses no prepared statements.

    Attributes:
        is_pooled: Whether a pooler stands between: each transaction may be another server process's.
    """

    is_pooled = False
    _each_time: sql.SQL | None = None

    def settle(self, settings: str) -> None:
        """Make *settings* hold for all that follows.

        Args:
            settings: ``name = value`` each, separated by semicolons. They must be safe to make in any transaction
                before its first query.
        """
        self.cursor_factory = _SettledCursor
        [(pid,)] = self.execute("SELECT pg_catalog.pg_backend_pid()").fetchall()
        # A pooler speaks to us under a number of its own.
        self.is_pooled = pid != self.info.backend_pid
        names = [each.strip() for each in settings.split(";")]
        if self.info.server_version >= _TRANSACTION_TIMEOUT_SINCE:
            names.append("transaction_timeout = 0")
        verb = "SET LOCAL" if self.is_pooled else "SET"
        # Constants of this package, never input.
        made = sql.SQL(cast("Any", "; ".join(f"{verb} {name}" for name in names)))
        if self.is_pooled:
            self._each_time = made
            # The default of the session comes too late within a transaction.
            self.isolation_level = IsolationLevel.READ_COMMITTED
        else:
            self.execute(made)

    @contextmanager
    def transaction(
        self,
        savepoint_name: str | None = None,
        force_rollback: bool = False,  # noqa: FBT001, FBT002 - the driver's
    ) -> Iterator[psycopg.Transaction]:
        """Begin a transaction, or a savepoint within one, with the settings in force."""
        begins = self.is_idle
        with super().transaction(savepoint_name, force_rollback) as transaction:
            if begins and self._each_time is not None:
                self.execute(self._each_time)
            yield transaction

    @property
    def is_idle(self) -> bool:
        """Whether no transaction is under way."""
        return self.pgconn.transaction_status == pq.TransactionStatus.IDLE

    def statement(self) -> AbstractContextManager[Any]:
        """Return what surrounds a single statement: a transaction where it would have no settings otherwise."""
        return self.transaction() if self._each_time is not None and self.is_idle else nullcontext()


class _SettledCursor(psycopg.Cursor[Any]):
    """A cursor that gives each statement the connection's settings."""

    def execute(self, *arguments: Any, **options: Any) -> Any:
        """Execute as usual."""
        with self._settled().statement():
            return super().execute(*arguments, **options)

    def executemany(self, query: Any, params_seq: Iterable[Any], **options: Any) -> None:
        """Execute as usual, all in one transaction."""
        with self._settled().statement():
            super().executemany(query, params_seq, **options)

    @contextmanager
    def copy(self, *arguments: Any, **options: Any) -> Iterator[psycopg.Copy]:
        """Copy as usual."""
        with self._settled().statement(), super().copy(*arguments, **options) as copy:
            yield copy

    def _settled(self) -> SettledConnection:
        return cast("SettledConnection", self.connection)


def is_pooled(connection: psycopg.Connection[Any]) -> bool:
    """Return whether each transaction may be another server process's."""
    return isinstance(connection, SettledConnection) and connection.is_pooled
