# This file is generated from live_writer_async.py by tools/async_to_sync.py.
# Change that one instead.
"""What an application's writes and reads of the tables go through; implements `live_base.LiveWriter`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import Any

import psycopg
from psycopg.errors import error_from_result
from psycopg.generators import execute
from psycopg.pq import ExecStatus

from kvmigrate.errors import DeadlineError
from kvmigrate.model import Item, Version
from kvmigrate.target.address import safe_name
from kvmigrate.target.live_arguments import BINARY, Call
from kvmigrate.target.live_base import Control
from kvmigrate.target.live_calls import (
    SELECT_TYPES,
    LiveCalls,
    OddItemError,
    Prepared,
    is_odd,
    is_other_make,
    is_repeatable,
    not_installed,
    prepare,
)
from kvmigrate.target.live_control import SELECT_CONTROL, control_of
from kvmigrate.target.live_function import NOT_THERE
from kvmigrate.target.live_put import CarefulPut
from kvmigrate.target.live_rows import Condition, LiveRows, Stored, item_of, read_exactly
from kvmigrate.target.timed import Aside, TimedConnection, TimedPool
from kvmigrate.target.timed_settings import ambiguous
from kvmigrate.transform.lens import Lens

CALL_S = 5.0
"""The deadline of calls that are given none."""

_KEYS = """
SELECT l.key FROM kvmigrate.ledger AS l
WHERE l.scope = (SELECT id FROM kvmigrate.control WHERE scope = %s) AND l.key > %s AND NOT l.deleted
    AND (l.expires_at IS NULL OR l.expires_at > now())
ORDER BY l.key LIMIT %s
"""

_NOW = "SELECT (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000)::bigint"

_VERSION = """
SELECT epoch, n FROM kvmigrate.ledger
WHERE scope = (SELECT id FROM kvmigrate.control WHERE scope = %s) AND key = %s
"""

_PAID = """
UPDATE kvmigrate.ledger SET kv_dirty = false
WHERE scope = (SELECT id FROM kvmigrate.control WHERE scope = %s) AND key = %s AND (epoch, n) = (%s, %s) AND kv_dirty
"""


class _TriedTooEarlyError(Exception):
    """Another write of the same new key came first."""


class LiveWriter:
    """Writes items into the tables one by one, each in one round trip where it is a plain case.

    Nothing is connected before the first call. A forked process opens connections of its own.
    """

    def __init__(self, url: str, lens: Lens, *, connections: int = 2, is_standby: bool = False) -> None:
        """Keep what is needed. Of a standby one can only read. Raises `TargetError` where *url* cannot be read."""
        self._name, self._lens = safe_name(url), lens
        self._pool = TimedPool(
            url, application_name="kvmigrate:writer", size=connections, adapt=read_exactly, is_standby=is_standby
        )
        self._careful, self._aside = CarefulPut(url, lens), Aside()
        self._calls: LiveCalls | None = None
        self._rows: LiveRows | None = None

    def control(self) -> Control | None:
        """Return the control row; ``None`` where the scope is not known here."""
        with self._pool.within(CALL_S) as connection:
            # In binary, as a moment in text follows the role's habits.
            cursor = connection.cursor(binary=True)
            cursor.execute(SELECT_CONTROL, [self._lens.mapping.name])
            found = cursor.fetchone()
        return None if found is None else control_of(found)

    def mirror(self, item: Item | None, key: str, version: Version, *, deadline_s: float) -> bool:
        """Bring the rows of one item to *version*, if that is a plain matter; see `LiveWriter.mirror`."""
        prepared = prepare(self._lens, item, key)
        if prepared is None:
            return False
        with self._pool.within(deadline_s) as connection:
            try:
                self._plainly(connection, lambda calls: calls.mirror(prepared, version))
            except OddItemError:
                return False
        return True

    def put(
        self,
        item: Item | None,
        key: str,
        *,
        epoch: int,
        expect: Item | None = None,
        only_new: bool = False,
        deadline_s: float,
    ) -> Version | None:
        """Write an item to the open tables, or delete it, and owe it to the store; see `LiveWriter.put`.

        Values are refused that would have to wait, or cost other items their rows. A kept item may stay refused:
        then it is kept with its new value.
        """
        end, condition = time.monotonic() + deadline_s, Condition(expect, only_new)
        prepared = prepare(self._lens, item, key)
        with self._pool.within(deadline_s) as connection:
            if prepared is not None:
                with suppress(OddItemError):
                    return self._put(connection, prepared, epoch, condition)
            calls = self._known(connection)

        def carefully() -> Version | None:
            """Write by the careful merge, in what is left of the time."""
            # By now, as others had their turn before.
            left = max(end - time.monotonic(), 0.001)
            return self._careful.put(item, key, calls.scope, epoch=epoch, condition=condition, seconds=left)

        return self._aside.do(carefully)

    def get(self, keys: Sequence[str], *, deadline_s: float) -> Sequence[Item | None]:
        """Return items rebuilt from their rows, kept ones whole; ``None`` for those that are not there or expired.

        All are of one moment.

        Raises:
            TargetError: one is there, and only the store has its value, as it waits.

            LensError: the rows of one belong to no item.

            DeadlineError: it took too long.
        """
        with self._pool.within(deadline_s) as connection:
            found = self._stored(connection, keys)
        return [item_of(found.get(key)) for key in keys]

    def keys(self, *, after: str, limit: int) -> Sequence[str]:
        """Return the next addresses that the tables hold behind *after*, in COLLATE "C" order."""
        with self._pool.within(CALL_S) as connection:
            cursor = connection.execute(_KEYS, [self._lens.mapping.name, after, limit])
            return [key for (key,) in cursor.fetchall()]

    def now_ms(self, *, deadline_s: float) -> int:
        """Return the database's clock, in milliseconds since 1970."""
        with self._pool.within(deadline_s) as connection:
            cursor = connection.execute(_NOW)
            [(now,)] = cursor.fetchall()
        return int(now)

    def version(self, key: str, *, deadline_s: float = CALL_S) -> Version | None:
        """Return as of which version the tables hold the key; ``None`` where they never did."""
        with self._pool.within(deadline_s) as connection:
            cursor = connection.execute(_VERSION, [self._lens.mapping.name, key])
            found = cursor.fetchone()
        return None if found is None else Version(*found)

    def begin_epoch(self) -> Control:
        """Begin a new epoch that owes a full reconcile; see `LiveWriter.begin_epoch`."""
        name = self._lens.mapping.name
        with self._pool.within(CALL_S) as connection, connection.transaction():
            connection.execute("SELECT kvmigrate.begin_epoch(%s)", [name])
            cursor = connection.cursor(binary=True)
            cursor.execute(SELECT_CONTROL, [name])
            [found] = cursor.fetchall()
        return control_of(found)

    def paid(self, key: str, version: Version) -> None:
        """Note that the store was given this version: nothing is owed if it is still the newest."""
        with self._pool.within(CALL_S) as connection:
            connection.execute(_PAID, [self._lens.mapping.name, key, version.epoch, version.n])

    def close(self) -> None:
        """Release connections. Safe to call twice."""
        self._pool.close()
        self._aside.close()
        self._careful.close()

    def _put(self, connection: TimedConnection, prepared: Prepared, epoch: int, condition: Condition) -> Version | None:
        """Write a plain item, again and again while others write it between the look and the write."""
        known = None
        while True:
            if condition.is_any:
                found = (self._stored(connection, [prepared.key])).get(prepared.key)
                if not condition.is_met(found):
                    connection.execute("SELECT kvmigrate.fence(%s, %s, 'T')", [self._lens.mapping.name, epoch])
                    return None
                known = NOT_THERE if found is None else found.version
            with suppress(_TriedTooEarlyError):
                n = self._put_at(connection, prepared, epoch, known)
                if n is not None:
                    return Version(epoch, int(n))

    def _put_at(
        self, connection: TimedConnection, prepared: Prepared, epoch: int, known: Version | None
    ) -> bytes | None:
        """Write a plain item if the ledger has it at *known*; ``None`` where it has not."""
        try:
            return self._plainly(connection, lambda calls: calls.put(prepared, epoch, known))
        except (psycopg.Error, DeadlineError) as exc:
            if not connection.is_idle():
                raise ambiguous(prepared.key, exc) from exc
            if isinstance(exc, psycopg.Error) and is_repeatable(exc):
                raise _TriedTooEarlyError from exc
            raise

    def _stored(self, connection: TimedConnection, keys: Sequence[str]) -> Mapping[str, Stored]:
        """Return what the ledger has of keys, all of one moment."""
        if self._rows is None:
            self._rows = LiveRows(self._lens, (self._known(connection)).scope)
        rows, queries = self._rows, self._rows.queries(keys)
        found: list[Sequence[Any]] = []
        with connection.transaction() if len(queries) > 1 else nullcontext():
            if len(queries) > 1:
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            for statement, parameters in queries:
                cursor = connection.cursor(binary=True)
                cursor.execute(statement, parameters)
                found += cursor.fetchall()
        return {each.key: each for each in map(rows.stored, found)}

    def _plainly(self, connection: TimedConnection, make: Callable[[LiveCalls], Call | None]) -> bytes | None:
        """Make a call and return what it returned.

        Raises:
            OddItemError: it is no plain case; nothing was written.
        """
        for is_last in (False, True):
            call = make(self._known(connection))
            if call is None:
                break
            try:
                return self._call(connection, call)
            except psycopg.Error as exc:
                if is_odd(exc):
                    raise OddItemError from exc
                if not is_other_make(exc):
                    raise
                self._calls = None
                if is_last:
                    raise not_installed(self._lens) from exc
        raise OddItemError

    def _known(self, connection: TimedConnection) -> LiveCalls:
        if self._calls is None:
            cursor = connection.execute(SELECT_TYPES, [self._lens.mapping.name])
            self._calls = LiveCalls(self._lens, self._name, cursor.fetchone())
        return self._calls

    def _call(self, connection: TimedConnection, call: Call) -> bytes | None:
        """Call a function and return what it returns, as text. psycopg's cursors would take as long as the server."""
        server = connection.pgconn
        server.send_query_params(call.statement, call.values, call.oids, [BINARY] * len(call.values))
        results = connection.wait(execute(server))
        # What is refused at the commit, such as by a deferred constraint, comes behind the function's own answer.
        for result in results:
            if result.status != ExecStatus.TUPLES_OK:
                raise error_from_result(result)
        value: bytes | None = results[0].get_value(0, 0)
        return value
