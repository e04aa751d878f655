"""The row that says that a process lives, and what it last saw; implements `live_base.ProcessRow`."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Collection
from importlib.metadata import version as version_of

from kvmigrate.model import Stage, Version
from kvmigrate.target.live_base import Control
from kvmigrate.target.live_control import SELECT_CONTROL, control_of
from kvmigrate.target.timed import TimedPool

_PATIENCE_S = 3.0
_BEAT = """
INSERT INTO kvmigrate.process AS p (id, scope, kind, adapter_version, epoch_seen, stage_seen, live_seen)
SELECT %s, c.id, %s, %s, %s, %s, %s FROM kvmigrate.control AS c WHERE c.scope = %s
ON CONFLICT (id) DO UPDATE SET epoch_seen = excluded.epoch_seen, stage_seen = excluded.stage_seen,
    live_seen = p.live_seen OR excluded.live_seen, heartbeat = now()
"""
_PAID = """
UPDATE kvmigrate.ledger AS l SET kv_dirty = false
FROM kvmigrate.control AS c, unnest(%s::text[], %s::int[], %s::bigint[]) AS given (key, epoch, n)
WHERE c.scope = %s AND l.scope = c.id AND l.key = given.key AND (l.epoch, l.n) = (given.epoch, given.n) AND l.kv_dirty
"""


class PostgresProcessRow:
    """The row of this process, on one connection. Nothing is connected before the first call."""

    def __init__(self, url: str, scope: str, *, kind: str = "adapter") -> None:
        """Speak of the mapping called *scope*. Raises `TargetError` where *url* cannot be read."""
        self.id = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._scope, self._kind = scope, kind
        self._pool = TimedPool(url, application_name=f"kvmigrate:{kind}", size=1)

    def control(self) -> Control | None:
        """Return the control row; ``None`` where the scope is not known here."""
        with self._pool.within(_PATIENCE_S) as connection:
            found = connection.execute(SELECT_CONTROL, [self._scope]).fetchone()
        return None if found is None else control_of(found)

    def beat(self, *, epoch: int, stage: Stage, live_seen: bool) -> None:
        """Write that the process lives, and what it last saw; nothing where the scope is not known here."""
        values = [self.id, self._kind, version_of("kvmigrate"), epoch, stage.value, live_seen, self._scope]
        with self._pool.within(_PATIENCE_S) as connection:
            connection.execute(_BEAT, values)

    def leave(self) -> None:
        """Take the row away: the process ends."""
        with self._pool.within(_PATIENCE_S) as connection:
            connection.execute("DELETE FROM kvmigrate.process WHERE id = %s", [self.id])

    def paid(self, given: Collection[tuple[str, Version]]) -> int:
        """Note that the store was given these versions; return how many were still the newest."""
        columns = [[key for key, _ in given], [each.epoch for _, each in given], [each.n for _, each in given]]
        with self._pool.within(_PATIENCE_S) as connection:
            return connection.execute(_PAID, [*columns, self._scope]).rowcount

    def close(self) -> None:
        """Release the connection. Safe to call twice; the next use opens it again."""
        self._pool.close()
