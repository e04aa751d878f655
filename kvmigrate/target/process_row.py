"""The row of one process in PostgreSQL: that it lives, and which epoch and stage it last saw."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Collection, Mapping
from importlib.metadata import version
from typing import Any

import psycopg

from kvmigrate.errors import DeadlineError, TargetError
from kvmigrate.model import Stage, Version
from kvmigrate.target.live_base import Control
from kvmigrate.target.live_control import SELECT_CONTROL, control_of
from kvmigrate.target.session import house_error
from kvmigrate.target.timed import TimedConnection
from kvmigrate.target.timed_settings import SERVER_PROCESS, connect_settings

DEADLINE_S = 5
"""For connecting, and for each statement: who asks is meant to go on without an answer, also from the network."""

_BEAT = """
INSERT INTO kvmigrate.process AS p (id, scope, kind, adapter_version, mapping, epoch_seen, stage_seen, live_seen)
SELECT %(id)s, c.id, %(kind)s, %(version)s, %(mapping)s, %(epoch)s, %(stage)s, %(live)s
FROM kvmigrate.control AS c WHERE c.scope = %(scope)s
ON CONFLICT (id) DO UPDATE SET epoch_seen = excluded.epoch_seen, stage_seen = excluded.stage_seen,
    live_seen = p.live_seen OR excluded.live_seen, heartbeat = now()
"""

_PAID = """
UPDATE kvmigrate.ledger AS l SET kv_dirty = false
FROM kvmigrate.control AS c, unnest(%s::text[], %s::int[], %s::bigint[]) AS given (key, epoch, n)
WHERE c.scope = %s AND l.scope = c.id AND l.key = given.key AND (l.epoch, l.n) = (given.epoch, given.n) AND l.kv_dirty
RETURNING l.key
"""

_USED = """
INSERT INTO kvmigrate.command_use AS u (scope, command, entity, uses)
SELECT c.id, given.command, given.entity, given.uses
FROM kvmigrate.control AS c, unnest(%s::text[], %s::text[], %s::bigint[]) AS given (command, entity, uses)
WHERE c.scope = %s
ORDER BY given.command, given.entity
ON CONFLICT (scope, command, entity) DO UPDATE SET uses = u.uses + excluded.uses, last_use = now()
"""


def process_id(kind: str) -> str:
    """Return a name for this process that no other one has."""
    return f"{kind}@{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"


class PostgresProcessRow:
    """Implements `kvmigrate.target.live_base.ProcessRow`. One thread at a time."""

    def __init__(self, url: str, scope: str, *, kind: str, name: str, mapping: str = "") -> None:
        """Connect to nothing yet.

        Args:
            url: The target.

            scope: The mapping's name.

            kind: What the process does, such as ``relay``.

            name: Of this process alone; see `process_id`.

            mapping: Fingerprint of the mapping that it writes by.
        """
        self._url, self._scope, self._kind, self._name, self._mapping = url, scope, kind, name, mapping
        self._connection: TimedConnection | None = None

    def control(self) -> Control | None:
        """Return the control row; ``None`` where the scope is not known here."""
        [(known,)] = self._ask("SELECT to_regclass('kvmigrate.control') IS NOT NULL")
        rows = self._ask(SELECT_CONTROL, [self._scope]) if known else []
        return control_of(rows[0]) if rows else None

    def beat(self, *, epoch: int, stage: Stage, live_seen: bool) -> None:
        """Write that the process lives, and what it last saw. *live_seen* never goes back."""
        self._ask(
            _BEAT,
            {
                "id": self._name,
                "scope": self._scope,
                "kind": self._kind,
                "version": version("kvmigrate"),
                "mapping": self._mapping,
                "epoch": epoch,
                "stage": stage.value,
                "live": live_seen,
            },
        )

    def leave(self) -> None:
        """Take the row away: the process ends."""
        self._ask("DELETE FROM kvmigrate.process WHERE id = %s", [self._name])

    def paid(self, given: Collection[tuple[str, Version]]) -> int:
        """Note that the store was given these versions; return how many were still the newest."""
        columns = [[key for key, _ in given], [each.epoch for _, each in given], [each.n for _, each in given]]
        return len(self._ask(_PAID, [*columns, self._scope]))

    def used(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Add uses of commands, by command and entity, to those that were told before."""
        columns = [[name for name, _ in counts], [entity for _, entity in counts], list(counts.values())]
        self._ask(_USED, [*columns, self._scope])

    def close(self) -> None:
        """Release the connection. Safe to call twice; the next use opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _ask(self, query: Any, values: Any = None) -> list[tuple[Any, ...]]:
        try:
            connection = self._opened()
            connection.end = time.monotonic() + DEADLINE_S
            # In binary, as a moment in text follows the role's habits.
            cursor = connection.cursor(binary=True)
            cursor.execute(query, values)
            return cursor.fetchall() if cursor.description is not None else []
        except psycopg.Error as exc:
            self.close()
            raise house_error(exc) from exc
        except (OSError, DeadlineError) as exc:
            self.close()
            raise TargetError(f"PostgreSQL cannot be used: {exc}", hint="check that it runs") from exc

    def _opened(self) -> TimedConnection:
        if self._connection is None or self._connection.closed:
            settings = {**connect_settings(self._url, f"kvmigrate:{self._kind}"), "connect_timeout": DEADLINE_S}
            self._connection = TimedConnection.connect("", **settings, told=lambda _: None)
            self._connection.allowed_s = DEADLINE_S
            self._connection.end = time.monotonic() + DEADLINE_S
            [(process,)] = self._connection.execute(SERVER_PROCESS).fetchall()
            # Behind a pooler it would stay with a server process, and end statements of strangers.
            if process == self._connection.info.backend_pid:
                self._connection.execute(f"SET statement_timeout = '{DEADLINE_S}s'")
        return self._connection
