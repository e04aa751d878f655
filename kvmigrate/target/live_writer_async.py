"""What an application's writes and reads of the tables go through; implements `live_base.AsyncLiveWriter`."""

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
from kvmigrate.target.timed_async import AsyncAside, AsyncTimedConnection, AsyncTimedPool
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


class AsyncLiveWriter:
    """Writes items into the tables one by one, each in one round trip where it is a plain case.

    Nothing is connected before the first call. A forked process opens connections of its own.
    """

    def __init__(self, url: str, lens: Lens, *, connections: int = 2, is_standby: bool = False) -> None:
        """Keep what is needed. Of a standby one can only read. Raises `TargetError` where *url* cannot be read."""
        self._name, self._lens = safe_name(url), lens
        self._pool = AsyncTimedPool(
            url, application_name="kvmigrate:writer", size=connections, adapt=read_exactly, is_standby=is_standby
        )
        self._careful, self._aside = CarefulPut(url, lens), AsyncAside()
        self._calls: LiveCalls | None = None
        self._rows: LiveRows | None = None

    async def control(self) -> Control | None:
        """Return the control row; ``None`` where the scope is not known here."""
        async with self._pool.within(CALL_S) as connection:
            # In binary, as a moment in text follows the role's habits.
            cursor = connection.cursor(binary=True)
            await cursor.execute(SELECT_CONTROL, [self._lens.mapping.name])
            found = await cursor.fetchone()
        return None if found is None else control_of(found)

    async def mirror(self, item: Item | None, key: str, version: Version, *, deadline_s: float) -> bool:
        """Bring the rows of one item to *version*, if that is a plain matter; see `AsyncLiveWriter.mirror`."""
        prepared = prepare(self._lens, item, key)
        if prepared is None:
            return False
        async with self._pool.within(deadline_s) as connection:
            try:
                await self._plainly(connection, lambda calls: calls.mirror(prepared, version))
            except OddItemError:
                return False
        return True

    async def put(
        self,
        item: Item | None,
        key: str,
        *,
        epoch: int,
        expect: Item | None = None,
        only_new: bool = False,
        deadline_s: float,
    ) -> Version | None:
        """Write an item to the open tables, or delete it, and owe it to the store; see `AsyncLiveWriter.put`.

        Values are refused that would have to wait, or cost other items their rows. A kept item may stay refused:
        then it is kept with its new value.
        """
        end, condition = time.monotonic() + deadline_s, Condition(expect, only_new)
        prepared = prepare(self._lens, item, key)
        async with self._pool.within(deadline_s) as connection:
            if prepared is not None:
                with suppress(OddItemError):
                    return await self._put(connection, prepared, epoch, condition)
            calls = await self._known(connection)

        def carefully() -> Version | None:
            """Write by the careful merge, in what is left of the time."""
            # By now, as others had their turn before.
            left = max(end - time.monotonic(), 0.001)
            return self._careful.put(item, key, calls.scope, epoch=epoch, condition=condition, seconds=left)

        return await self._aside.do(carefully)

    async def get(self, keys: Sequence[str], *, deadline_s: float) -> Sequence[Item | None]:
        """Return items rebuilt from their rows, kept ones whole; ``None`` for those that are not there or expired.

        All are of one moment.

        Raises:
            TargetError: one is there, and only the store has its value, as it waits.

            LensError: the rows of one belong to no item.

            DeadlineError: it took too long.
        """
        async with self._pool.within(deadline_s) as connection:
            found = await self._stored(connection, keys)
        return [item_of(found.get(key)) for key in keys]

    async def keys(self, *, after: str, limit: int) -> Sequence[str]:
        """Return the next addresses that the tables hold behind *after*, in COLLATE "C" order."""
        async with self._pool.within(CALL_S) as connection:
            cursor = await connection.execute(_KEYS, [self._lens.mapping.name, after, limit])
            return [key for (key,) in await cursor.fetchall()]

    async def now_ms(self, *, deadline_s: float) -> int:
        """Return the database's clock, in milliseconds since 1970."""
        async with self._pool.within(deadline_s) as connection:
            cursor = await connection.execute(_NOW)
            [(now,)] = await cursor.fetchall()
        return int(now)

    async def version(self, key: str, *, deadline_s: float = CALL_S) -> Version | None:
        """Return as of which version the tables hold the key; ``None`` where they never did."""
        async with self._pool.within(deadline_s) as connection:
            cursor = await connection.execute(_VERSION, [self._lens.mapping.name, key])
            found = await cursor.fetchone()
        return None if found is None else Version(*found)

    async def begin_epoch(self) -> Control:
        """Begin a new epoch that owes a full reconcile; see `AsyncLiveWriter.begin_epoch`."""
        name = self._lens.mapping.name
        async with self._pool.within(CALL_S) as connection, connection.transaction():
            await connection.execute("SELECT kvmigrate.begin_epoch(%s)", [name])
            cursor = connection.cursor(binary=True)
            await cursor.execute(SELECT_CONTROL, [name])
            [found] = await cursor.fetchall()
        return control_of(found)

    async def paid(self, key: str, version: Version) -> None:
        """Note that the store was given this version: nothing is owed if it is still the newest."""
        async with self._pool.within(CALL_S) as connection:
            await connection.execute(_PAID, [self._lens.mapping.name, key, version.epoch, version.n])

    async def close(self) -> None:
        """Release connections. Safe to call twice."""
        await self._pool.close()
        self._aside.close()
        self._careful.close()

    async def _put(
        self, connection: AsyncTimedConnection, prepared: Prepared, epoch: int, condition: Condition
    ) -> Version | None:
        """Write a plain item, again and again while others write it between the look and the write."""
        known = None
        while True:
            if condition.is_any:
                found = (await self._stored(connection, [prepared.key])).get(prepared.key)
                if not condition.is_met(found):
                    await connection.execute("SELECT kvmigrate.fence(%s, %s, 'T')", [self._lens.mapping.name, epoch])
                    return None
                known = NOT_THERE if found is None else found.version
            with suppress(_TriedTooEarlyError):
                n = await self._put_at(connection, prepared, epoch, known)
                if n is not None:
                    return Version(epoch, int(n))

    async def _put_at(
        self, connection: AsyncTimedConnection, prepared: Prepared, epoch: int, known: Version | None
    ) -> bytes | None:
        """Write a plain item if the ledger has it at *known*; ``None`` where it has not."""
        try:
            return await self._plainly(connection, lambda calls: calls.put(prepared, epoch, known))
        except (psycopg.Error, DeadlineError) as exc:
            if not connection.is_idle():
                raise ambiguous(prepared.key, exc) from exc
            if isinstance(exc, psycopg.Error) and is_repeatable(exc):
                raise _TriedTooEarlyError from exc
            raise

    async def _stored(self, connection: AsyncTimedConnection, keys: Sequence[str]) -> Mapping[str, Stored]:
        """Return what the ledger has of keys, all of one moment."""
        if self._rows is None:
            self._rows = LiveRows(self._lens, (await self._known(connection)).scope)
        rows, queries = self._rows, self._rows.queries(keys)
        found: list[Sequence[Any]] = []
        async with connection.transaction() if len(queries) > 1 else nullcontext():
            if len(queries) > 1:
                await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            for statement, parameters in queries:
                cursor = connection.cursor(binary=True)
                await cursor.execute(statement, parameters)
                found += await cursor.fetchall()
        return {each.key: each for each in map(rows.stored, found)}

    async def _plainly(
        self, connection: AsyncTimedConnection, make: Callable[[LiveCalls], Call | None]
    ) -> bytes | None:
        """Make a call and return what it returned.

        Raises:
            OddItemError: it is no plain case; nothing was written.
        """
        for is_last in (False, True):
            call = make(await self._known(connection))
            if call is None:
                break
            try:
                return await self._call(connection, call)
            except psycopg.Error as exc:
                if is_odd(exc):
                    raise OddItemError from exc
                if not is_other_make(exc):
                    raise
                self._calls = None
                if is_last:
                    raise not_installed(self._lens) from exc
        raise OddItemError

    async def _known(self, connection: AsyncTimedConnection) -> LiveCalls:
        if self._calls is None:
            cursor = await connection.execute(SELECT_TYPES, [self._lens.mapping.name])
            self._calls = LiveCalls(self._lens, self._name, await cursor.fetchone())
        return self._calls

    async def _call(self, connection: AsyncTimedConnection, call: Call) -> bytes | None:
        """Call a function and return what it returns, as text. psycopg's cursors would take as long as the server."""
        server = connection.pgconn
        server.send_query_params(call.statement, call.values, call.oids, [BINARY] * len(call.values))
        results = await connection.wait(execute(server))
        # What is refused at the commit, such as by a deferred constraint, comes behind the function's own answer.
        for result in results:
            if result.status != ExecStatus.TUPLES_OK:
                raise error_from_result(result)
        value: bytes | None = results[0].get_value(0, 0)
        return value
