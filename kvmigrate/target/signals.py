"""What a PostgreSQL server tells of its standbys and sessions, and what it does not tell to every role."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import psycopg

from kvmigrate.target.base import Signals

Connection = psycopg.Connection[Any]

APPLICATION = "kvmigrate:backfill"
"""Sessions of this name are a run's own."""

_MONITOR = "the role {} needs the right to see it: GRANT pg_monitor TO {}"

# A receiver of WAL that replays nothing, such as a backup, is as far as what it has received.
# Its state is hidden from a role that may not see it, and so is all the rest.
_STANDBYS = """
SELECT pg_catalog.quote_ident(current_user),
       pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), '0/0')::bigint,
       min(pg_catalog.pg_wal_lsn_diff(at, '0/0'))::bigint,
       COALESCE(EXTRACT(epoch FROM max(replay_lag)), 0)::float8,
       count(*) FILTER (WHERE state IS NULL)::int,
       count(*) FILTER (WHERE state IS NOT NULL AND at IS NULL)::int
FROM (
    SELECT state, replay_lag, COALESCE(replay_lsn, flush_lsn, write_lsn) AS at
    FROM pg_catalog.pg_stat_replication WHERE state IS DISTINCT FROM 'backup'
) AS standby
"""

_SESSIONS = """
SELECT pg_catalog.quote_ident(current_user),
       count(*) FILTER (WHERE state = 'active' AND backend_type = 'client backend')::int,
       count(*) FILTER (WHERE backend_type IS NULL)::int,
       count(*) FILTER (WHERE state = 'disabled')::int
FROM pg_catalog.pg_stat_activity
WHERE usesysid IS NOT NULL AND pid <> pg_catalog.pg_backend_pid() AND application_name IS DISTINCT FROM %s
"""


class StandbyLag:
    """How long ago the server wrote what its slowest standby has not replayed yet.

    The server's own ``replay_lag`` stands still while a standby replays nothing. So
    positions are remembered with the time at which they were seen, and the larger of both counts.
    """

    MOST = 4096

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._written: deque[tuple[int, float]] = deque(maxlen=self.MOST)

    def seconds(self, written: int, replayed: int | None, told: float, now: float) -> float:
        """Return the lag in seconds.

        Args:
            written: Position of the server's WAL, in bytes.

            replayed: Of the slowest standby; ``None`` where there is none.

            told: What the server says.

            now: Of a clock that goes on.
        """
        if replayed is None:
            self._written.clear()
            return 0.0
        while self._written and self._written[0][0] <= replayed:
            self._written.popleft()
        if written > replayed and (not self._written or self._written[-1][0] < written):
            self._written.append((written, now))
        own = now - self._written[0][1] if self._written else 0.0
        return max(told, own, 0.0)


def read_lag(connection: Connection, lags: StandbyLag) -> Signals:
    """Return the lag of the slowest standby, or why it cannot be read."""
    [(role, written, replayed, told, hidden, silent)] = connection.execute(_STANDBYS).fetchall()
    if hidden:
        return Signals(lag_unread=_MONITOR.format(role, role))
    if silent:
        return Signals(lag_unread="it has not told where it is")
    return Signals(lag_s=lags.seconds(written, replayed, told, time.monotonic()))


def read_active(connection: Connection) -> Signals:
    """Return how many sessions of others are at work, or why that cannot be read."""
    [(role, active, hidden, untracked)] = connection.execute(_SESSIONS, [APPLICATION]).fetchall()
    if hidden:
        return Signals(active_unread=_MONITOR.format(role, role))
    if untracked:
        return Signals(active_unread="the server's setting track_activities is off")
    return Signals(active=active)
