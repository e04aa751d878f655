# This file is generated from live_writer_async.py by tools/async_to_sync.py.
# Change that one instead.
"""What an application's writes and reads of the tables go through; implements `live_base.LiveWriter`."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
from psycopg.errors import error_from_result
from psycopg.generators import execute
from psycopg.pq import ExecStatus

from kvmigrate.model import Item, Version
from kvmigrate.target.address import safe_name
from kvmigrate.target.live_arguments import BINARY, Call
from kvmigrate.target.live_base import Control
from kvmigrate.target.live_calls import SELECT_TYPES, LiveCalls, is_odd, is_other_make, not_installed, prepare
from kvmigrate.target.live_control import SELECT_CONTROL, control_of
from kvmigrate.target.timed import TimedConnection, TimedPool
from kvmigrate.transform.lens import Lens

CONTROL_S = 5.0
"""How long the control row is waited for."""


class LiveWriter:
    """Writes items into the tables one by one, each in one round trip where it is a plain case.

    Nothing is connected before the first call. A forked process opens connections of its own.
    """

    def __init__(self, url: str, lens: Lens, *, connections: int = 2) -> None:
        """Keep what is needed. Raises `TargetError` where *url* cannot be read."""
        self._name, self._lens = safe_name(url), lens
        self._pool = TimedPool(url, application_name="kvmigrate:writer", size=connections)
        self._calls: LiveCalls | None = None

    def control(self) -> Control | None:
        """Return the control row; ``None`` where the scope is not known here."""
        with self._pool.within(CONTROL_S) as connection:
            cursor = connection.execute(SELECT_CONTROL, [self._lens.mapping.name])
            found = cursor.fetchone()
        return None if found is None else control_of(found)

    def mirror(self, item: Item | None, key: str, version: Version, *, deadline_s: float) -> bool:
        """Bring the rows of one item to *version*, if that is a plain matter; see `LiveWriter.mirror`."""
        prepared = prepare(self._lens, item, key)
        if prepared is None:
            return False
        with self._pool.within(deadline_s) as connection:
            outcome = self._plainly(connection, lambda calls: calls.mirror(prepared, version))
        return outcome is not None

    def close(self) -> None:
        """Release connections. Safe to call twice."""
        self._pool.close()

    def _plainly(self, connection: TimedConnection, make: Callable[[LiveCalls], Call | None]) -> bytes | None:
        """Make a call and return what it returned; ``None`` where it is no plain case, and nothing was written."""
        for is_last in (False, True):
            if self._calls is None:
                cursor = connection.execute(SELECT_TYPES, [self._lens.mapping.name])
                self._calls = LiveCalls(self._lens, self._name, cursor.fetchone())
            call = make(self._calls)
            if call is None:
                return None
            try:
                return self._call(connection, call)
            except psycopg.Error as exc:
                if is_odd(exc):
                    return None
                if not is_other_make(exc):
                    raise
                self._calls = None
                if is_last:
                    raise not_installed(self._lens) from exc
        return None

    def _call(self, connection: TimedConnection, call: Call) -> bytes | None:
        """Call a function and return what it returns, as text. psycopg's cursors would take as long as the server."""
        server = connection.pgconn
        server.send_query_params(call.statement, call.values, call.oids, [BINARY] * len(call.values))
        (result,) = connection.wait(execute(server))
        if result.status != ExecStatus.TUPLES_OK:
            raise error_from_result(result)
        value: bytes | None = result.get_value(0, 0)
        return value
