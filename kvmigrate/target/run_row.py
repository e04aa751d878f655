"""A run's row in the control schema: where it says that it lives, and where others tell it how fast to go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import psycopg
from psycopg.types.json import Jsonb

from kvmigrate.errors import TargetError
from kvmigrate.target.base import Heard, Signals
from kvmigrate.target.session import Session, house_error
from kvmigrate.target.signals import APPLICATION, StandbyLag, read_active, read_lag

T = TypeVar("T")
Connection = psycopg.Connection[Any]

_BEAT = """
UPDATE kvmigrate.run AS r SET seen_at = now(), state = %(state)s, reason = %(reason)s,
    knobs = COALESCE(r.knobs, %(knobs)s)
WHERE r.id = %(run)s
RETURNING r.knobs, NOT EXISTS (
    SELECT FROM kvmigrate.control AS c WHERE c.id = r.scope AND c.backfill_run > r.id)
"""

_QUARANTINED = """
SELECT (SELECT count(*) FROM kvmigrate.quarantine WHERE scope = %(scope)s AND (run = %(run)s OR %(resumed)s)),
       (SELECT COALESCE(sum(items), 0) FROM kvmigrate.checkpoint WHERE run = %(run)s)
"""

_PATIENCE = "SET LOCAL statement_timeout = '4s'; SET LOCAL lock_timeout = '4s'"


class RunRow:
    """The row of one run, on a connection of its own. Implements `kvmigrate.target.base.Beside`."""

    def __init__(self, url: str, run: int) -> None:
        """Open nothing yet."""
        self._session, self._run = Session(url, application_name=APPLICATION), run
        self._lags = StandbyLag()

    def beat(self, state: str, reason: str, knobs: Mapping[str, Any]) -> Heard:
        """Say that the run lives; see `Beside.beat`."""
        values = {"run": self._run, "state": state, "reason": reason, "knobs": Jsonb(dict(knobs))}
        rows = self._once(lambda connection: connection.execute(_BEAT, values).fetchall())
        if not rows:
            raise TargetError(f"the row of run {self._run} is gone")
        return Heard(rows[0][0], is_newest=rows[0][1])

    def signals(self, *, lag: bool, active: bool) -> Signals:
        """Read what is asked for; see `Beside.signals`."""

        def read(connection: Connection) -> Signals:
            found = read_lag(connection, self._lags) if lag else Signals()
            busy = read_active(connection) if active else Signals()
            return found._replace(active=busy.active, active_unread=busy.active_unread)

        return self._once(read)

    def close(self) -> None:
        """Close the connection. Safe to call twice."""
        self._session.close()

    def _once(self, work: Callable[[Connection], T]) -> T:
        """Do *work* in a short transaction that waits for nobody; who waits tries again."""
        try:
            connection = self._session.connection()
            with connection.transaction():
                # For this transaction only: behind a pooler the next one may be a long load's.
                connection.execute(_PATIENCE)
                return work(connection)
        except psycopg.Error as exc:
            self._session.close()
            raise house_error(exc) from exc


def quarantined_by(connection: Connection, scope: int, run: int, *, resumed: bool) -> tuple[int, int]:
    """Return how many items are quarantined by *run*, and how many its checkpoints have."""
    values = {"scope": scope, "run": run, "resumed": resumed}
    [(quarantined, items)] = connection.execute(_QUARANTINED, values).fetchall()
    return int(quarantined), int(items)
