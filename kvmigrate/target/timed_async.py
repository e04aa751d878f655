"""Connections of an event loop that answer in time or are given up. `timed` is the same for a thread."""

from __future__ import annotations

import asyncio
import os
import select
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar

import psycopg
from psycopg import waiting
from psycopg.abc import AdaptContext, PQGen
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from kvmigrate.target.address import without_secrets
from kvmigrate.target.standby_base import BehindError, wanted_position
from kvmigrate.target.timed_settings import (
    HAS_REPLAYED,
    SERVER_PROCESS,
    SETTINGS,
    connect_settings,
    forget_in_children,
    no_answer,
    no_connection,
    statement_limit_ms,
    timed_error,
)

RV = TypeVar("RV")
T = TypeVar("T")

_RECONNECT_S = 1.0
_LOOK_S = 0.1


class AsyncTimedConnection(psycopg.AsyncConnection[Any]):
    """A connection whose every wait ends at a moment.

    Attributes:
        end: That moment, of `time.monotonic`; ``None`` for no end.

        allowed_s: The seconds that led to it, for messages.

        limit_ms: The server's own limit, as it was set last.

        is_pooled: Whether a pooler stands between. Then nothing is set for the session: it would meet strangers.
    """

    end: float | None = None
    allowed_s: float = 0.0
    limit_ms: int = 0
    is_pooled: bool = False

    @classmethod
    async def connect(cls, conninfo: str = "", *, told: Callable[[Exception | None], None], **settings: Any) -> Self:  # type: ignore[override]
        """Connect, and tell how it went: nothing, or an error that holds no secret."""
        try:
            made = await super().connect(conninfo, **settings)
        except psycopg.Error as exc:
            failed = without_secrets(exc, {name: str(value) for name, value in settings.items()})
            told(failed)
        else:
            told(None)
            return made
        raise failed

    async def wait(self, gen: PQGen[RV], interval: float = _LOOK_S, timeout: float | None = None) -> RV:  # noqa: ASYNC109 - psycopg's
        """Drive *gen* as psycopg does, but no longer than until `end`; then close and raise `DeadlineError`."""
        if self.end is None:
            return await (super().wait(gen, interval) if timeout is None else super().wait(gen, interval, timeout))
        try:
            async with asyncio.timeout(max(self.end - time.monotonic(), 0)):
                return await waiting.wait_async(gen, self.pgconn.socket, _LOOK_S)
        except psycopg.Error:
            raise
        except TimeoutError as exc:
            await self.close()
            raise no_answer(self.allowed_s) from exc
        except BaseException:
            # A query is under way that nobody will read the answer of.
            await self.close()
            raise

    def is_idle(self) -> bool:
        """Whether it can be used again."""
        return not self.closed and self.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE

    def has_news(self) -> bool:
        """Whether the server said something that nobody asked for: then it mostly said good-bye."""
        poller = select.poll()
        poller.register(self.pgconn.socket, select.POLLIN)
        return bool(poller.poll(0))


class _Pool(AsyncConnectionPool[AsyncTimedConnection]):
    """A pool to which connections that were given up come back without a warning: whoever gave one up raised."""

    async def _putconn(self, conn: AsyncTimedConnection, from_getconn: bool) -> None:  # noqa: FBT001 - psycopg's
        # The pool says so in a lower voice of connections that it finds closed itself, before it gives them.
        await super()._putconn(conn, from_getconn or conn.closed)


class AsyncTimedPool:
    """A few connections, opened when first needed, of one event loop: another one opens its own."""

    def __init__(
        self,
        url: str,
        *,
        application_name: str,
        size: int,
        adapt: Callable[[AdaptContext], None] | None = None,
        is_standby: bool = False,
    ) -> None:
        """Keep *url*; nothing is opened yet. *adapt* says how connections load values.

        Those of a standby are given only where they have what is wanted of them, see `standby_base`.

        Raises:
            TargetError: the URL cannot be read.
        """
        self._url, self._size, self._adapt, self._is_standby = url, size, adapt, is_standby
        self._settings = connect_settings(url, application_name)
        self._pool: AsyncConnectionPool[AsyncTimedConnection] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._last: Exception | None = None
        forget_in_children(self)

    @asynccontextmanager
    async def within(self, seconds: float) -> AsyncIterator[AsyncTimedConnection]:
        """Give a connection for one thing to do, all of which takes no longer than *seconds*.

        Raises:
            DeadlineError: it took longer; the connection, if there was one, is given up.

            TargetError: PostgreSQL failed or refused.

            BehindError: the standby has not come so far as is wanted.
        """
        end = time.monotonic() + seconds
        pool = await self._open()
        connection = await self._take(pool, end, seconds)
        try:
            connection.end, connection.allowed_s = end, seconds
            limit = statement_limit_ms(seconds)
            if connection.limit_ms != limit and not connection.is_pooled:
                await connection.execute(f"SET statement_timeout = {limit:d}".encode())
                connection.limit_ms = limit
            if self._is_standby and (position := wanted_position.get()):
                await _need(connection, position)
            yield connection
        except psycopg.Error as exc:
            raise timed_error(exc, seconds) from exc
        finally:
            connection.end = None
            if not connection.is_idle():
                await connection.close()
            await pool.putconn(connection)

    async def close(self) -> None:
        """Close all connections. Safe to call twice."""
        pool, self._pool = self._pool, None
        if pool is not None and self._loop is asyncio.get_running_loop():
            await pool.close()

    def leave_to_parent(self) -> object:
        """Forget the connections of the process that this one was forked from, and return what holds them."""
        pool, self._pool = self._pool, None
        return pool

    async def _take(
        self, pool: AsyncConnectionPool[AsyncTimedConnection], end: float, seconds: float
    ) -> AsyncTimedConnection:
        try:
            while True:
                connection = await pool.getconn(timeout=max(end - time.monotonic(), 0.001))
                if not connection.closed and not connection.has_news():
                    return connection
                await connection.close()
                await pool.putconn(connection)
        except PoolTimeout as exc:
            raise no_connection(self._url, seconds, self._last) from exc

    async def _open(self) -> AsyncConnectionPool[AsyncTimedConnection]:
        loop = asyncio.get_running_loop()
        if self._pool is None or self._loop is not loop:
            pool = _Pool(
                "",
                connection_class=AsyncTimedConnection,
                kwargs={**self._settings, "told": self._hear},
                min_size=0,
                max_size=self._size,
                open=False,
                configure=self._configure,
                reconnect_timeout=_RECONNECT_S,
                num_workers=self._size,
            )
            # Set before the first wait, so that no other task opens a second one; opening it twice is no error.
            self._pool, self._loop = pool, loop
        await self._pool.open()
        return self._pool

    async def _configure(self, connection: AsyncTimedConnection) -> None:
        if self._adapt is not None:
            self._adapt(connection)
        cursor = await connection.execute(SERVER_PROCESS)
        [(process,)] = await cursor.fetchall()
        connection.is_pooled = process != connection.info.backend_pid
        if not connection.is_pooled:
            await connection.execute(SETTINGS)

    def _hear(self, failed: Exception | None) -> None:
        self._last = failed


async def _need(connection: AsyncTimedConnection, position: int) -> None:
    cursor = await connection.execute(HAS_REPLAYED, [position])
    [(has_replayed,)] = await cursor.fetchall()
    if not has_replayed:
        raise BehindError


class AsyncAside:
    """One thread for work that waits in its thread. The loop's own threads are the application's."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._process = os.getpid()
        self._executor: ThreadPoolExecutor | None = None

    async def do(self, work: Callable[[], T]) -> T:
        """Do *work* when its turn has come; cancelled before that, it is not done."""
        if self._executor is None or self._process != os.getpid():
            # Threads do not survive a fork.
            self._process = os.getpid()
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="kvmigrate-aside")
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def close(self) -> None:
        """Let the thread end; what waits for its turn is cancelled. Safe to call twice."""
        executor, self._executor = self._executor, None
        if executor is not None and self._process == os.getpid():
            executor.shutdown(wait=False, cancel_futures=True)
