"""One PostgreSQL connection that comes back: settings, retries, and errors in house words."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
from psycopg import errors

from kvmigrate.errors import FenceError, KVMigrateError, SchemaError, TargetError
from kvmigrate.target.address import connect_as, safe_name, target_settings
from kvmigrate.target.pooled import SettledConnection, is_pooled

T = TypeVar("T")
Connection = psycopg.Connection[Any]

PAUSES_S = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Waits before each new attempt: together longer than a restart or failover usually takes."""

FIRST_PAUSES = 4
"""So many of them before a server that this process never reached is given up: its address may be wrong."""

CONNECT_TIMEOUT_S = 10
"""How long a server that does not answer is waited for, unless the URL says otherwise."""

LOGIN_HINT = "check user, password and database name"
"""The hint where the server answered and said no."""

CONFLICT_ATTEMPTS = 8
"""Attempts at a transaction that deadlocked or could not be serialized."""

FENCE_STATE = "KM001"

_reached: set[str] = set()
"""URLs under which a server answered this process."""

_CONTROL_COLUMNS = ("backfilled_epoch", "owes_all", "reconcile")
"""Of the control row, such as an older version did not make."""

FENCE_HINT = (
    "nothing was written: it was begun at another epoch or authority, and another took over, or live migration began. "
    "`kvmigrate stage show` tells who may write; then run the same command again"
)

_SETTINGS = (
    # Owners' keys are compared as text, so the text must not follow the role's habits.
    "TimeZone = 'UTC'; DateStyle = 'ISO, YMD'; client_min_messages = 'warning'; "
    "standard_conforming_strings = on; quote_all_identifiers = off; "
    # A batch is as long as it is; a limit made for web requests would only stop a load.
    "statement_timeout = 0; lock_timeout = 0; idle_in_transaction_session_timeout = 0; "
    # Rows that a policy hides would be missing without a word; so PostgreSQL refuses instead.
    "row_security = off; "
    # An older snapshot would not see what a transaction waited for to commit.
    "default_transaction_isolation = 'read committed'"
)


def patience(url: str) -> dict[str, Any]:
    """Return the connect timeout for *url*: none where it has its own."""
    return {} if "connect_timeout" in target_settings(url) else {"connect_timeout": CONNECT_TIMEOUT_S}


class Session:
    """A connection used by one thread at a time, opened when first needed and opened again when lost."""

    def __init__(self, url: str, *, application_name: str) -> None:
        """Keep *url*; nothing is connected yet."""
        self.name = safe_name(url)
        self._url = url
        self._application_name = application_name
        self._connection: SettledConnection | None = None

    def connection(self) -> Connection:
        """Return the open connection, opening it if need be. Raises psycopg's errors."""
        if self._connection is None or self._connection.closed:
            opened = connect_as(
                SettledConnection,
                self._url,
                autocommit=True,
                application_name=self._application_name,
                # Binary COPY carries UTF-8, whatever the role, the database or the environment prefers.
                client_encoding="UTF8",
                **patience(self._url),
            )
            self._connection = opened
            _reached.add(self._url)
            check_encoding(opened)
            opened.settle(_SETTINGS)
        return self._connection

    @property
    def is_pooled(self) -> bool:
        """Whether a pooler stands between, so that each transaction may be another server process's."""
        return self.run(is_pooled)

    def run(self, work: Callable[[Connection], T]) -> T:
        """Call *work* with the connection until it succeeds, as far as trying again can help.

        A lost connection is opened again with growing pauses, fewer where the server never
        answered this process; a deadlock or a serialization failure is tried again at once.
        *work* must be safe to repeat.

        Raises:
            FenceError, SchemaError, TargetError: trying again cannot help, or did not.
        """
        conflicts, losses = 0, 0
        while True:
            try:
                return work(self.connection())
            except KVMigrateError:
                raise
            except psycopg.Error as exc:
                if is_conflict(exc) and conflicts < CONFLICT_ATTEMPTS:
                    conflicts += 1
                    # Rivals that met once would meet again if they waited equally long.
                    time.sleep(random.uniform(0.002, 0.02) * conflicts)  # noqa: S311 - jitter, not a secret
                elif self._is_loss(exc) and losses < self._most_losses():
                    self.close()
                    time.sleep(PAUSES_S[losses])
                    losses += 1
                else:
                    raise house_error(exc) from exc

    def close(self) -> None:
        """Close the connection. Safe to call twice; the next use opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _most_losses(self) -> int:
        return len(PAUSES_S) if self._url in _reached else min(FIRST_PAUSES, len(PAUSES_S))

    def _is_loss(self, exc: psycopg.Error) -> bool:
        state = exc.sqlstate or ""
        if state[:2] in {"08", "57"} and state != "57014":
            return True
        if isinstance(exc, errors.ConnectionTimeout) and self._url not in _reached:
            return False
        broken = self._connection is None or self._connection.broken or self._connection.closed
        return isinstance(exc, psycopg.OperationalError) and not state and broken and not is_refusal(exc)


def check_encoding(connection: Connection) -> None:
    """Refuse a database that cannot hold every text. Raises `TargetError`."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise TargetError(
            f"the database's encoding is {encoding}, which cannot hold every JSON text",
            hint="use a database made with ENCODING 'UTF8' (TEMPLATE template0)",
        )


def is_conflict(exc: BaseException) -> bool:
    """Whether the transaction lost against another one and may simply be tried again."""
    return isinstance(exc, psycopg.Error) and (exc.sqlstate or "")[:2] == "40"


def is_data_error(exc: BaseException) -> bool:
    """Whether the data are at fault: a value, a constraint, a limit, or a trigger that refuses."""
    return isinstance(exc, psycopg.Error) and (exc.sqlstate or "")[:2] in {"22", "23", "44", "54", "P0"}


def house_error(exc: psycopg.Error) -> TargetError:
    """Return psycopg's error as one of the house, with a hint."""
    message = str(exc).strip() or type(exc).__name__
    if exc.sqlstate == FENCE_STATE:
        return FenceError(
            exc.diag.message_primary or message,
            hint=FENCE_HINT,
        )
    if is_outdated(exc):
        return outdated_schema(exc)
    if isinstance(exc, errors.UndefinedTable | errors.UndefinedColumn | errors.InvalidSchemaName):
        return SchemaError(
            f"the tables are not those of this mapping: {exc.diag.message_primary or message}",
            hint="`kvmigrate schema --diff` shows how they differ; `kvmigrate backfill` makes what is missing",
        )
    if isinstance(exc, errors.InsufficientPrivilege):
        return TargetError(
            message,
            hint="the role needs rights on the mapping's tables and on schema kvmigrate; "
            "`kvmigrate control grants` prints them",
        )
    if isinstance(exc, psycopg.OperationalError) and is_refusal(exc):
        return TargetError(f"PostgreSQL refuses: {message}", hint=LOGIN_HINT)
    if isinstance(exc, psycopg.OperationalError):
        return TargetError(f"PostgreSQL cannot be used: {message}", hint="check that it runs, then run this again")
    return TargetError(message)


def is_outdated(exc: psycopg.Error) -> bool:
    """Whether something of schema kvmigrate is missing that this version of the program uses."""
    message = exc.diag.message_primary or ""
    if isinstance(exc, errors.UndefinedColumn):
        # The control row is read without a table's name before its columns.
        return message in {f'column "{name}" does not exist' for name in _CONTROL_COLUMNS}
    missing = errors.UndefinedTable | errors.UndefinedFunction | errors.InvalidSchemaName
    return isinstance(exc, missing) and ("kvmigrate." in message or '"kvmigrate"' in message)


def outdated_schema(exc: psycopg.Error) -> SchemaError:
    """Return the error of a database whose control schema is missing, or older than this program."""
    return SchemaError(
        f"the control schema is missing or older than this version of kvmigrate: {exc.diag.message_primary}",
        hint="`kvmigrate control status` tells what is missing; `kvmigrate control install`, as its owner, makes it",
    )


def never_migrated(database: str, mapping: str) -> SchemaError:
    """Return the error of a *database* that knows no *mapping* of this name."""
    return SchemaError(
        f"nothing was migrated to {database} under the name {mapping!r}",
        hint="run `kvmigrate backfill` first, or check --target and the mapping's name",
    )


def is_unreachable(exc: TargetError) -> bool:
    """Whether *exc* says that nobody answers; a server that refuses may serve others, and its tables may be written."""
    cause = exc.__cause__
    if not isinstance(cause, psycopg.OperationalError) or (cause.sqlstate or "08")[:2] != "08":
        return False
    # While it starts or stops it serves nobody.
    return "FATAL:" not in str(cause) or "the database system is" in str(cause)


def is_refusal(exc: psycopg.OperationalError) -> bool:
    """Whether the server answered and said no: a wrong password or database stays wrong."""
    text = str(exc)
    return any(sign in text for sign in ("authentication failed", "does not exist", "no password", "no pg_hba.conf"))
