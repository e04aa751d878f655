"""The other end of a run's row: how one finds a run that is under way, and changes its knobs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from psycopg import errors
from psycopg.types.json import Jsonb

from kvmigrate.errors import CheckFailedError
from kvmigrate.target.session import Session

Connection = psycopg.Connection[Any]

UNSEEN_S = 10
"""A run that was not seen for so long is not running."""

PATIENCE_S = 5.0
"""How long to wait until a run that was retuned has said what it makes of it."""

_LOOK_EVERY_S = 0.1

_RUNNING = """
FROM kvmigrate.control AS c
WHERE c.scope = %(scope)s AND r.id = c.backfill_run AND r.finished_at IS NULL AND r.state <> 'ended'
    AND r.seen_at > now() - make_interval(secs => %(unseen)s)
"""

_COLUMNS = "r.id, r.state, r.reason, r.knobs, r.seen_at"

_LOOK = f"SELECT {_COLUMNS} FROM kvmigrate.run AS r, LATERAL (SELECT c.scope {_RUNNING}) AS running"  # noqa: S608 - constants

_SET = "UPDATE kvmigrate.run AS r SET knobs = COALESCE(r.knobs, '{}') || %(changes)s"

_TUNE = f"{_SET} {_RUNNING} RETURNING {_COLUMNS}"


class RunState(NamedTuple):
    """A run that is under way.

    Attributes:
        run: Its number.

        seen_at: When it last told its state, by the server's clock.
    """

    run: int
    state: str
    reason: str
    knobs: Mapping[str, Any]
    seen_at: datetime


def retune(url: str, scope: str, changes: Mapping[str, Any]) -> RunState:
    """Change knobs of the backfill of *scope* that is under way.

    Returns:
        How it stands when it has heard of them and told its state again.

    Raises:
        CheckFailedError: none is under way.
    """
    session = Session(url, application_name="kvmigrate:retune")
    try:
        changed = _look(session, _TUNE, {"scope": scope, "changes": Jsonb(dict(changes))})
        if changed is None:
            raise CheckFailedError(
                f"no backfill of {scope!r} is running",
                hint="`kvmigrate backfill` begins one",
            )
        return _settled(session, scope, changed)
    finally:
        session.close()


def _settled(session: Session, scope: str, changed: RunState) -> RunState:
    """Return how the run stands when it was seen twice since: first it hears, then it tells what it does."""
    found, seen = changed, {changed.seen_at}
    end = time.monotonic() + PATIENCE_S
    while len(seen) <= 2 and time.monotonic() < end:
        time.sleep(_LOOK_EVERY_S)
        now = _look(session, _LOOK, {"scope": scope})
        if now is None:
            # It came to its end meanwhile.
            return found._replace(state="ended", reason="")
        found = now
        seen.add(found.seen_at)
    return found


def _look(session: Session, query: str, values: Mapping[str, Any]) -> RunState | None:
    def work(connection: Connection) -> RunState | None:
        try:
            rows = connection.execute(query, {**values, "unseen": UNSEEN_S}).fetchall()
        except (errors.UndefinedTable, errors.UndefinedColumn):
            # Nothing was migrated here yet, or by a version that cannot be spoken to.
            return None
        return RunState(*rows[0]) if rows else None

    return session.run(work)
