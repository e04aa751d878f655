"""Connections of a thread that answer in time or are given up. `timed_async` is the same for an event loop."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import psycopg
from psycopg.abc import AdaptContext, PQGen
from psycopg.waiting import Ready, Wait
from psycopg_pool import ConnectionPool, PoolTimeout

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

_EVENTS = {Wait.R: select.POLLIN, Wait.W: select.POLLOUT, Wait.RW: select.POLLIN | select.POLLOUT}
_RECONNECT_S = 1.0


class TimedConnection(psycopg.Connection[Any]):
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
    def connect(cls, conninfo: str = "", *, told: Callable[[Exception | None], None], **settings: Any) -> Self:  # type: ignore[override]
        """Connect, and tell how it went: nothing, or an error that holds no secret."""
        try:
            made = super().connect(conninfo, **settings)
        except psycopg.Error as exc:
            failed = without_secrets(exc, {name: str(value) for name, value in settings.items()})
            told(failed)
        else:
            told(None)
            return made
        raise failed

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Drive *gen* as psycopg does, but no longer than until `end`; then close and raise `DeadlineError`."""
        if self.end is None:
            return super().wait(gen, interval) if timeout is None else super().wait(gen, interval, timeout)
        try:
            return self._drive(gen, self.end)
        except psycopg.Error:
            raise
        except BaseException:
            # A query is under way that nobody will read the answer of.
            self.close()
            raise

    def is_idle(self) -> bool:
        """Whether it can be used again."""
        return not self.closed and self.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE

    def has_news(self) -> bool:
        """Whether the server said something that nobody asked for: then it mostly said good-bye."""
        poller = select.poll()
        poller.register(self.pgconn.socket, select.POLLIN)
        return bool(poller.poll(0))

    def _drive(self, gen: PQGen[RV], end: float) -> RV:
        poller, socket = select.poll(), self.pgconn.socket
        try:
            wanted = next(gen)
            while True:
                poller.register(socket, _EVENTS[wanted])
                left = end - time.monotonic()
                found = poller.poll(left * 1000) if left > 0 else []
                if not found:
                    raise no_answer(self.allowed_s)
                happened = found[0][1]
                # An error or the end of the stream is for libpq to find, by reading.
                ready = (Ready.R if happened & ~select.POLLOUT else 0) | (Ready.W if happened & select.POLLOUT else 0)
                wanted = gen.send(Ready(ready & wanted or wanted))
        except StopIteration as stop:
            found_value: RV = stop.value
            return found_value


class _Pool(ConnectionPool[TimedConnection]):
    """A pool to which connections that were given up come back without a warning: whoever gave one up raised."""

    def _putconn(self, conn: TimedConnection, from_getconn: bool) -> None:  # noqa: FBT001 - psycopg's
        # The pool says so in a lower voice of connections that it finds closed itself, before it gives them.
        super()._putconn(conn, from_getconn or conn.closed)


class TimedPool:
    """A few connections, opened when first needed, of one process: a forked one opens its own."""

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
        self._lock = threading.Lock()
        self._pool: ConnectionPool[TimedConnection] | None = None
        self._last: Exception | None = None
        forget_in_children(self)

    @contextmanager
    def within(self, seconds: float) -> Iterator[TimedConnection]:
        """Give a connection for one thing to do, all of which takes no longer than *seconds*.

        Raises:
            DeadlineError: it took longer; the connection, if there was one, is given up.

            TargetError: PostgreSQL failed or refused.

            BehindError: the standby has not come so far as is wanted.
        """
        end = time.monotonic() + seconds
        pool = self._open()
        connection = self._take(pool, end, seconds)
        try:
            connection.end, connection.allowed_s = end, seconds
            limit = statement_limit_ms(seconds)
            if connection.limit_ms != limit and not connection.is_pooled:
                connection.execute(f"SET statement_timeout = {limit:d}".encode())
                connection.limit_ms = limit
            if self._is_standby and (position := wanted_position.get()):
                _need(connection, position)
            yield connection
        except psycopg.Error as exc:
            raise timed_error(exc, seconds) from exc
        finally:
            connection.end = None
            if not connection.is_idle():
                connection.close()
            pool.putconn(connection)

    def close(self) -> None:
        """Close all connections. Safe to call twice."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def leave_to_parent(self) -> object:
        """Forget the connections of the process that this one was forked from, and return what holds them."""
        pool, self._pool, self._lock = self._pool, None, threading.Lock()
        return pool

    def _take(self, pool: ConnectionPool[TimedConnection], end: float, seconds: float) -> TimedConnection:
        try:
            while True:
                connection = pool.getconn(timeout=max(end - time.monotonic(), 0.001))
                if not connection.closed and not connection.has_news():
                    return connection
                connection.close()
                pool.putconn(connection)
        except PoolTimeout as exc:
            raise no_connection(self._url, seconds, self._last) from exc

    def _open(self) -> ConnectionPool[TimedConnection]:
        with self._lock:
            if self._pool is None:
                self._pool = _Pool(
                    "",
                    connection_class=TimedConnection,
                    kwargs={**self._settings, "told": self._hear},
                    min_size=0,
                    max_size=self._size,
                    open=True,
                    configure=self._configure,
                    reconnect_timeout=_RECONNECT_S,
                    num_workers=self._size,
                )
            return self._pool

    def _configure(self, connection: TimedConnection) -> None:
        if self._adapt is not None:
            self._adapt(connection)
        [(process,)] = connection.execute(SERVER_PROCESS).fetchall()
        connection.is_pooled = process != connection.info.backend_pid
        if not connection.is_pooled:
            connection.execute(SETTINGS)

    def _hear(self, failed: Exception | None) -> None:
        self._last = failed


def _need(connection: TimedConnection, position: int) -> None:
    cursor = connection.execute(HAS_REPLAYED, [position])
    [(has_replayed,)] = cursor.fetchall()
    if not has_replayed:
        raise BehindError


class Aside:
    """Does work that waits in its thread in the caller's."""

    def do(self, work: Callable[[], T]) -> T:
        """Do *work*."""
        return work()

    def close(self) -> None:
        """Nothing is open."""
