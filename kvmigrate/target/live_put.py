"""A write of the open tables that is no plain case: the careful merge, of one item, or nothing at all."""

from __future__ import annotations

from typing import Any

import psycopg

from kvmigrate.errors import DeadlineError, TargetError, WriteRefusedError
from kvmigrate.model import Item, LedgerStatus, Version
from kvmigrate.target.apply import Applier
from kvmigrate.target.attempt import Parts
from kvmigrate.target.base import Batch, Label
from kvmigrate.target.kept import Kept
from kvmigrate.target.layout import Layout
from kvmigrate.target.live_base import LIVE_RUN
from kvmigrate.target.live_ledger import LiveLedger
from kvmigrate.target.live_rows import Condition, LiveRows, Stored, read_exactly
from kvmigrate.target.postgres import WRITER_LOCK
from kvmigrate.target.session import is_data_error
from kvmigrate.target.timed import TimedConnection, TimedPool
from kvmigrate.target.timed_settings import ambiguous
from kvmigrate.transform.lens import Lens

Connection = psycopg.Connection[Any]

_WHY = """
SELECT path, reason, message FROM kvmigrate.quarantine WHERE scope = %(scope)s AND key = %(key)s
UNION ALL
SELECT '$', reason, message FROM kvmigrate.waiting WHERE scope = %(scope)s AND key = %(key)s
"""

# Rows of a transaction have the moment of its begin.
_MOVED = "SELECT key FROM kvmigrate.waiting WHERE scope = %s AND key <> %s AND at = now() ORDER BY key LIMIT 1"


class CarefulPut:
    """Writes items one at a time, as the scope's only careful writer, over a connection of its own."""

    def __init__(self, url: str, lens: Lens) -> None:
        """Keep what is needed; nothing is connected yet. Raises `TargetError` where *url* cannot be read."""
        self._lens, self._layout = lens, Layout(lens.mapping)
        self._pool = TimedPool(url, application_name="kvmigrate:writer", size=1, adapt=read_exactly)

    def put(
        self, item: Item | None, key: str, scope: int, *, epoch: int, condition: Condition, seconds: float
    ) -> Version | None:
        """Write or delete an item; see `LiveWriter.put`. *scope* is the mapping's number here."""
        parts = Parts(self._layout, self._lens, scope)
        with self._pool.within(seconds) as connection:
            while True:
                is_done, version = self._try(connection, parts, (item, key), epoch=epoch, condition=condition)
                if is_done:
                    return version

    def close(self) -> None:
        """Release the connection. Safe to call twice."""
        self._pool.close()

    def _try(
        self,
        connection: TimedConnection,
        parts: Parts,
        wanted: tuple[Item | None, str],
        *,
        epoch: int,
        condition: Condition,
    ) -> tuple[bool, Version | None]:
        """Return whether it came to an end, and the version written if any was."""
        item, key = wanted
        is_committing = False
        try:
            with connection.transaction():
                self._begin(connection, parts, epoch)
                known = self._known(connection, parts, key)
                if not condition.is_met(known):
                    return True, None
                version = Version(epoch, known.version.n + 1 if known is not None else 1)
                if item is None:
                    self._delete(connection, parts, key, version)
                elif not self._write(connection, parts, item, version):
                    # Another write of this new key came first.
                    raise psycopg.Rollback
                connection.execute(
                    "UPDATE kvmigrate.ledger SET kv_dirty = true, content_hash = NULL WHERE scope = %s AND key = %s",
                    [parts.scope, key],
                )
                is_committing = True
        except (psycopg.Error, DeadlineError, TargetError) as exc:
            if is_committing and not connection.is_idle():
                raise ambiguous(key, exc) from exc
            raise
        return is_committing, version

    def _begin(self, connection: Connection, parts: Parts, epoch: int) -> None:
        connection.execute("SELECT kvmigrate.fence(%s, %s, 'T')", [self._lens.mapping.name, epoch])
        connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", [WRITER_LOCK, parts.scope])
        parts.staging.ensure(connection)

    def _known(self, connection: Connection, parts: Parts, key: str) -> Stored | None:
        """Lock the key's ledger row and return what stands, if there is any."""
        connection.execute("SELECT FROM kvmigrate.ledger WHERE scope = %s AND key = %s FOR UPDATE", [parts.scope, key])
        rows = LiveRows(self._lens, parts.scope)
        for statement, parameters in rows.queries([key]):
            for row in connection.cursor(binary=True).execute(statement, parameters):
                return rows.stored(row, lenient=True)
        return None

    def _write(self, connection: Connection, parts: Parts, item: Item, version: Version) -> bool:
        """Merge the item; return whether the guard let it."""
        page, kept = self._lens.page([item]), Kept(parts)
        if not page.accepted and not page.refused:
            raise WriteRefusedError(
                f"{item.key!r} stays in the store by declaration, or belongs to no entity: no table can hold it",
                key=item.key,
                path="$",
            )
        was_kept = kept.known(connection, [item.key])
        applied = Applier(parts).apply(connection, Batch([item], page, Label(LIVE_RUN, version)))
        if not applied.items:
            return False
        if was_kept:
            kept.settle(connection, [item])
        [(status,)] = connection.execute(
            "SELECT status FROM kvmigrate.ledger WHERE scope = %s AND key = %s", [parts.scope, item.key]
        ).fetchall()
        if status not in {LedgerStatus.OK, LedgerStatus.KEPT}:
            raise self._refusal(connection, parts, item.key)
        self._check_others(connection, parts, item.key, "to write it would take the place of")
        return True

    def _delete(self, connection: Connection, parts: Parts, key: str, version: Version) -> None:
        try:
            with connection.transaction():
                connection.execute("SET CONSTRAINTS ALL DEFERRED")
                passed = LiveLedger(parts).bury(connection, [key], version)
                parts.removal.delete_items(connection, passed)
                parts.removal.displace_referrers(connection)
                self._check_others(connection, parts, key, "its rows are referred to by")
                connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        except psycopg.Error as exc:
            if not is_data_error(exc):
                raise
            message = f"{key!r} cannot be deleted: {exc.diag.table_name or 'another table'} refers to its rows"
            raise WriteRefusedError(message, key=key, path="$") from exc

    def _check_others(self, connection: Connection, parts: Parts, key: str, why: str) -> None:
        """Refuse what would cost other items their rows: only the tables have them now."""
        moved = connection.execute(_MOVED, [parts.scope, key]).fetchone()
        if moved is not None:
            raise WriteRefusedError(f"{key!r}: {why} {moved[0]!r}", key=key, path="$", hint="change that one first")

    def _refusal(self, connection: Connection, parts: Parts, key: str) -> WriteRefusedError:
        path, reason, message = connection.execute(_WHY, {"scope": parts.scope, "key": key}).fetchall()[0]
        return WriteRefusedError(f"{key!r} at {path}: {message} ({reason})", key=key, path=path)
