"""How far the log of a PostgreSQL is written, or replayed; implements `standby_base.LogLooker`."""

from __future__ import annotations

import time

import psycopg

from kvmigrate.errors import DeadlineError, TargetError
from kvmigrate.target.address import safe_name
from kvmigrate.target.session import house_error
from kvmigrate.target.standby_base import LogPosition
from kvmigrate.target.timed import TimedConnection
from kvmigrate.target.timed_settings import connect_settings

WRITTEN = "SELECT (pg_catalog.pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint"
"""Behind whatever was committed before: also behind what is not on disk yet, where `synchronous_commit` is off."""

# What is not flushed yet no standby can have. A timeline that a standby has come to but not noted yet is no error of
# anybody: it counts as another one until the next restart point.
_LOOK = """
SELECT system_identifier, (CASE WHEN is_standby THEN pg_catalog.pg_last_wal_replay_lsn()
    ELSE pg_catalog.pg_current_wal_flush_lsn() END - '0/0'::pg_lsn)::bigint,
    CASE WHEN is_standby THEN greatest(timeline_id, min_recovery_end_timeline)
    ELSE ('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8)
        )::bit(32)::bigint END,
    is_standby, pg_catalog.pg_postmaster_start_time()
FROM pg_catalog.pg_is_in_recovery() AS is_standby, pg_catalog.pg_control_system(), pg_catalog.pg_control_checkpoint(),
    pg_catalog.pg_control_recovery()
"""
_LOOK_S = 2.0


class PostgresLogPosition:
    """One database, looked at."""

    def __init__(self, url: str) -> None:
        """Connect to nothing yet. Raises `TargetError` where *url* cannot be read."""
        self.name = safe_name(url)
        self._settings = {**connect_settings(url, "kvmigrate:standby"), "connect_timeout": 2}
        self._connection: TimedConnection | None = None

    def look(self) -> LogPosition:
        """Return how far it is."""
        try:
            if self._connection is None or self._connection.closed:
                self._connection = TimedConnection.connect("", **self._settings, told=lambda _: None)
            self._connection.allowed_s, self._connection.end = _LOOK_S, time.monotonic() + _LOOK_S
            [found] = self._connection.execute(_LOOK).fetchall()
            return LogPosition(*found)
        except psycopg.Error as exc:
            self.close()
            raise house_error(exc) from exc
        except (OSError, DeadlineError) as exc:
            self.close()
            raise TargetError(f"{self.name}: PostgreSQL cannot be used: {exc}", hint="check that it runs") from exc

    def close(self) -> None:
        """Release the connection. Safe to call twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
