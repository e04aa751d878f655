"""The control row in PostgreSQL: who may write, changed only while no fenced transaction is under way."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg
from psycopg import errors, sql

from kvmigrate.errors import CheckFailedError, DeadlineError
from kvmigrate.model import Authority
from kvmigrate.target.control_fields import columns_of
from kvmigrate.target.control_schema import is_installed
from kvmigrate.target.incarnation import read_incarnation
from kvmigrate.target.live_base import RECONCILED, REFUSED, CommandSeen, Control, Lease, ProcessSeen
from kvmigrate.target.live_control import SELECT_CONTROL, control_of
from kvmigrate.target.lock_holders import name_holders
from kvmigrate.target.session import FENCE_STATE, Session, never_migrated

Connection = psycopg.Connection[Any]

APPLICATION = "kvmigrate:control"

ATTEMPTS = 10
"""How often a swap asks for the lock. Between two times those get through that waited behind it."""

_LEASE = """
INSERT INTO kvmigrate.lease AS l (name, holder, until)
VALUES (%(name)s, %(holder)s, clock_timestamp() + make_interval(secs => %(seconds)s))
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until,
    fencing = l.fencing + CASE WHEN l.holder = excluded.holder AND l.until > clock_timestamp() THEN 0 ELSE 1 END
WHERE l.holder = excluded.holder OR l.until <= clock_timestamp()
RETURNING l.fencing, l.until
"""

_RELEASE = "UPDATE kvmigrate.lease SET until = now() WHERE name = %s AND holder = %s AND fencing = %s"

_LOG = """
INSERT INTO kvmigrate.change_log (scope, who, what, before, after, why)
SELECT c.id, %s, %s, %s, %s, %s FROM kvmigrate.control AS c WHERE c.scope = %s
"""

_UNSETTLED = """
SELECT count(*) FILTER (WHERE status = 'quarantined'), count(*) FILTER (WHERE status = 'waiting')
FROM kvmigrate.ledger WHERE scope = %s AND status IN ('waiting', 'quarantined') AND NOT deleted
"""

_PROCESSES = """
SELECT p.id, p.kind, p.adapter_version, p.epoch_seen, p.stage_seen, p.live_seen,
    extract(epoch FROM clock_timestamp() - p.heartbeat)::float8, p.mapping
FROM kvmigrate.process AS p JOIN kvmigrate.control AS c ON c.id = p.scope
WHERE c.scope = %s AND p.heartbeat > clock_timestamp() - interval '1 day'
ORDER BY p.id
"""


_COMMANDS = """
SELECT u.command, u.entity, u.uses, extract(epoch FROM clock_timestamp() - u.last_use)::float8
FROM kvmigrate.command_use AS u JOIN kvmigrate.control AS c ON c.id = u.scope
WHERE c.scope = %s
ORDER BY u.last_use DESC, u.command, u.entity
"""


BACKUP = "backup verified"
"""What stands in the change log of a backup that was restored and looked at; *after* is when it is from."""

_BACKUP = """
SELECT l.after, l.who, extract(epoch FROM clock_timestamp() - l.after::timestamptz)::float8
FROM kvmigrate.change_log AS l JOIN kvmigrate.control AS c ON c.id = l.scope
WHERE c.scope = %s AND l.what = %s ORDER BY l.after::timestamptz DESC LIMIT 1
"""

_KEPT = """
SELECT count(*) FROM kvmigrate.kept AS k JOIN kvmigrate.control AS c ON c.id = k.scope WHERE c.scope = %s
"""


_REFUSAL = """
SELECT l.what, l.why FROM kvmigrate.change_log AS l JOIN kvmigrate.control AS c ON c.id = l.scope
WHERE c.scope = %s AND c.owes_all AND l.what = ANY(%s) AND l.before = c.authority || ' at ' || c.epoch
ORDER BY l.id DESC LIMIT 1
"""


class _Place(NamedTuple):
    """Where the row must be, and what else it must say."""

    epoch: int
    authority: Authority
    expect: Mapping[str, Any]


class PostgresControlRow:
    """The control row of one scope. Implements `kvmigrate.target.live_base.ControlRow`; one thread at a time."""

    def __init__(self, url: str, scope: str) -> None:
        """Open nothing yet; *scope* is the mapping's name."""
        self._session, self._scope = Session(url, application_name=APPLICATION), scope
        self._signature: tuple[str, str, str] | None = None

    def read(self) -> Control:
        """Return the row. Raises `SchemaError` where the scope is not known here."""
        return self._session.run(self._read)

    def swap(
        self,
        *,
        epoch: int,
        authority: Authority,
        changes: Mapping[str, Any],
        expect: Mapping[str, Any] | None = None,
        wait_s: float = 0.25,
        alone: bool = True,
        opening: bool = False,
    ) -> bool:
        """Change the row if it is at *epoch* and *authority*, and as *expect* says; see `ControlRow.swap`.

        A connection that is lost at the commit is opened again and the row compared again: the answer is then
        ``False`` although the change was made. So whoever calls reads the row afterwards.
        """
        place = _Place(epoch, authority, expect or {})
        for attempt in range(ATTEMPTS):
            try:
                return self._session.run(
                    lambda connection: self._swap(
                        connection, place, changes, wait_s=wait_s, alone=alone, opening=opening
                    )
                )
            except _LockedError as exc:
                if attempt == ATTEMPTS - 1:
                    raise DeadlineError(
                        f"the control row of {self._scope!r} could not be changed: {exc.holders} went on for over "
                        f"{wait_s * ATTEMPTS:.1f} s",
                        hint="wait until that transaction has ended, or end it, then type the same command again",
                    ) from exc
            # Waiting for longer each time would hold the application up for longer each time.
            time.sleep(random.uniform(0.01, 0.05) * (attempt + 1))  # noqa: S311 - jitter, not a secret
        raise AssertionError

    def note(self, changes: Mapping[str, Any]) -> None:
        """Change fields that decide nothing: incarnations, safe_n."""

        def work(connection: Connection) -> None:
            with connection.transaction():
                connection.execute("SET LOCAL synchronous_commit = on")
                self._update(connection, changes)

        self._session.run(work)

    @contextmanager
    def signed(self, what: str, *, why: str, who: str) -> Iterator[None]:
        """Have swaps that move something stand in the change log; see `ControlRow.signed`."""
        self._signature = what, why, who
        try:
            yield
        finally:
            self._signature = None

    def log(self, what: str, *, before: str, after: str, why: str, who: str) -> None:
        """Append to the change log."""
        values = [who, what, before, after, why, self._scope]
        self._session.run(lambda connection: connection.execute(_LOG, values))

    def lease(self, name: str, holder: str, *, seconds: float) -> Lease | None:
        """Take or prolong a lease of this scope; ``None`` where another holder has it."""
        values = {"name": self._own(name), "holder": holder, "seconds": seconds}
        found = self._session.run(lambda connection: connection.execute(_LEASE, values).fetchall())
        return Lease(name, holder, found[0][0], found[0][1]) if found else None

    def release(self, lease: Lease) -> None:
        """Give a lease back, unless another holder has it by now."""
        values = [self._own(lease.name), lease.holder, lease.fencing]
        self._session.run(lambda connection: connection.execute(_RELEASE, values))

    def incarnation(self) -> str:
        """Return in which life the database is; see `read_incarnation`."""
        return self._session.run(read_incarnation)

    def processes(self) -> Sequence[ProcessSeen]:
        """Return the processes that were heard of within a day."""
        found = self._session.run(lambda connection: connection.execute(_PROCESSES, [self._scope]).fetchall())
        return [ProcessSeen(*row) for row in found]

    def commands(self) -> Sequence[CommandSeen]:
        """Return the commands that were used on mapped keys and work on the store alone, the latest first."""
        found = self._session.run(lambda connection: connection.execute(_COMMANDS, [self._scope]).fetchall())
        return [CommandSeen(*row) for row in found]

    def backup(self) -> tuple[str, str, float] | None:
        """Return when the newest backup is from that somebody verified, who did, and its age in seconds."""
        found = self._session.run(lambda connection: connection.execute(_BACKUP, [self._scope, BACKUP]).fetchall())
        return (found[0][0], found[0][1], float(found[0][2])) if found else None

    def kept(self) -> int:
        """Return how many items are kept whole, without rows."""
        found = self._session.run(lambda connection: connection.execute(_KEPT, [self._scope]).fetchall())
        return int(found[0][0])

    def refusal(self) -> str:
        """Return why the reconcile that is owed waits for a person, or ""; see `ControlRow.refusal`."""

        def work(connection: Connection) -> str:
            try:
                found = connection.execute(_REFUSAL, [self._scope, [REFUSED, RECONCILED]]).fetchall()
            except errors.InsufficientPrivilege:
                return ""
            return str(found[0][1]) if found and found[0][0] == REFUSED else ""

        return self._session.run(work)

    def close(self) -> None:
        """Close the connection. Safe to call twice."""
        self._session.close()

    def _read(self, connection: Connection) -> Control:
        if not is_installed(connection):
            raise never_migrated(self._session.name, self._scope)
        found = connection.execute(SELECT_CONTROL, [self._scope]).fetchall()
        if not found:
            raise never_migrated(self._session.name, self._scope)
        return control_of(found[0])

    def _swap(
        self,
        connection: Connection,
        place: _Place,
        changes: Mapping[str, Any],
        *,
        wait_s: float,
        alone: bool,
        opening: bool,
    ) -> bool:
        try:
            with connection.transaction():
                # A standby that is promoted must know who may write, whatever else it lost.
                connection.execute(
                    "SELECT set_config('synchronous_commit', 'on', true), set_config('lock_timeout', %s, true)",
                    [f"{max(1, round(wait_s * 1000))}ms"],
                )
                if alone:
                    connection.execute("SELECT kvmigrate.fence_alone(%s)", [self._scope])
                if opening:
                    self._check_opening(connection, self._read(connection), place)
                return self._move(connection, changes, place)
        except errors.LockNotAvailable as exc:
            raise _LockedError(name_holders(connection, self._scope)) from exc
        except psycopg.Error as exc:
            if exc.sqlstate == FENCE_STATE:
                raise never_migrated(self._session.name, self._scope) from exc
            raise

    def _move(self, connection: Connection, changes: Mapping[str, Any], place: _Place) -> bool:
        """Change the row, and write that down where a signature is given."""
        if self._signature is None:
            return self._update(connection, changes, place)
        # The lock of an update, so that it is the very row that is changed.
        found = connection.execute(SELECT_CONTROL + "FOR NO KEY UPDATE", [self._scope]).fetchall()
        if not self._update(connection, changes, place):
            return False
        before = control_of(found[0])
        after = before._replace(**changes)
        # With a phase, a new epoch only announces what will be written down when it is done.
        if (before.stage, before.authority) != (after.stage, after.authority) or (
            before.epoch != after.epoch and not after.phase
        ):
            what, why, who = self._signature
            connection.execute(_LOG, [who, what, before.told, after.told, why, self._scope])
        return True

    def _check_opening(self, connection: Connection, found: Control, place: _Place) -> None:
        """Look again at what may have come since the pre-flight. Raises `CheckFailedError`."""
        if (found.epoch, found.authority) != place[:2]:
            return
        life = read_incarnation(connection)
        if life != found.target_incarnation:
            raise CheckFailedError(
                f"the database is in another life ({life}) than the control row knows ({found.target_incarnation})",
                hint="after a failover the tables are compared with the store again first; `kvmigrate stage show`",
            )
        [(quarantined, waiting)] = connection.execute(_UNSETTLED, [found.scope]).fetchall()
        if quarantined or waiting:
            raise CheckFailedError(
                f"{quarantined} quarantined and {waiting} waiting items came since the gate was passed",
                hint="`kvmigrate quarantine list` names them; mend them, or `kvmigrate quarantine keep`",
            )

    def _update(self, connection: Connection, changes: Mapping[str, Any], place: _Place | None = None) -> bool:
        """Change the row, if it is at *place* where one is given; return whether it was."""
        columns = columns_of(changes)
        assignments = [sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in columns]
        # What compares is the statement that changes, so that nobody comes in between.
        compared: dict[str, Any] = {"scope": self._scope}
        if place is not None:
            compared |= {"epoch": place.epoch, "authority": place.authority, **columns_of(place.expect)}
        conditions = [
            sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(f"is_{name}")) for name in compared
        ]
        statement = sql.SQL("UPDATE kvmigrate.control SET {}, updated_at = now() WHERE {}").format(
            sql.SQL(", ").join(assignments), sql.SQL(" AND ").join(conditions)
        )
        values = {**columns, **{f"is_{name}": value for name, value in compared.items()}}
        return connection.execute(statement, values).rowcount == 1

    def _own(self, name: str) -> str:
        """Leases of several scopes stand in one table."""
        return f"{self._scope}:{name}"


class _LockedError(Exception):
    """The exclusive lock was not to be had in time. *holders* says who has it."""

    def __init__(self, holders: str) -> None:
        super().__init__(holders)
        self.holders = holders
