"""What connections with a deadline have in common, whether they are waited for in a thread or in an event loop."""

from __future__ import annotations

import os
from typing import Any, Protocol
from weakref import WeakSet

import psycopg

from kvmigrate.errors import AmbiguousWriteError, DeadlineError, KVMigrateError, TargetError
from kvmigrate.target.address import safe_name, target_settings
from kvmigrate.target.session import LOGIN_HINT, house_error, is_refusal

CONNECT_TIMEOUT_S = 3
"""How long one attempt to connect may take: after it the next one is made, which may find another way."""

SETTINGS = (
    # Rows that a policy hides would be missing without a word; so PostgreSQL refuses instead.
    "SET row_security = off; SET client_min_messages = 'warning'; SET default_transaction_isolation = 'read committed'"
)

SERVER_PROCESS = "SELECT pg_catalog.pg_backend_pid()"
"""The number of the process that answers; a pooler speaks to its clients under another one."""

HAS_REPLAYED = """
SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() - '0/0'::pg_lsn >= %s
    ELSE false END
"""
"""Whether what a connection sees has come so far in the log; a server that follows no other one writes its own."""

_CANCELED = "57014"


class Forked(Protocol):
    """What holds connections of its process."""

    def leave_to_parent(self) -> object:
        """Forget them, in a process that was forked, and return what holds them."""
        ...


_holders: WeakSet[Any] = WeakSet()
_of_parents: list[object] = []


def forget_in_children(holder: Forked) -> None:
    """See to it that forked processes open connections of their own.

    What they inherit is kept until they end: to close it would end the connections of their parent.
    """
    _holders.add(holder)


def _forget() -> None:
    _of_parents.extend([holder.leave_to_parent() for holder in list(_holders)])


os.register_at_fork(after_in_child=_forget)


def connect_settings(url: str, application_name: str) -> dict[str, Any]:
    """Return what to connect with. Raises `TargetError` where *url* cannot be read."""
    return {
        "connect_timeout": CONNECT_TIMEOUT_S,
        **target_settings(url),
        "autocommit": True,
        "application_name": application_name,
        # A pooler in transaction mode would mix prepared statements up.
        "prepare_threshold": None,
        "client_encoding": "UTF8",
    }


def statement_limit_ms(seconds: float) -> int:
    """Return for how long the server may go on with a statement that its client waits *seconds* for.

    A power of two, so that it seldom has to be set anew. Without it statements that wait for a
    lock would pile up in the server, long given up by their clients.
    """
    return 1 << max(int(seconds * 1000), 1).bit_length()


def no_connection(url: str, seconds: float, last: Exception | None) -> KVMigrateError:
    """Return the error of a pool that had no connection to give in time."""
    if isinstance(last, psycopg.OperationalError) and is_refusal(last):
        return TargetError(f"PostgreSQL refuses: {last}", hint=LOGIN_HINT)
    why = f": {str(last).strip()}" if last is not None else ""
    return DeadlineError(
        f"{safe_name(url)} gave no connection within {seconds:g} s{why}",
        hint="check that PostgreSQL runs and can be reached, and how many connections it allows",
    )


def no_answer(seconds: float) -> DeadlineError:
    """Return the error of a connection that was given up."""
    return DeadlineError(
        f"PostgreSQL did not answer within {seconds:g} s; the connection was given up",
        hint="see what the server is busy with: locks, load, the network",
    )


def timed_error(exc: psycopg.Error, seconds: float) -> KVMigrateError:
    """Return the house's error of a statement that failed or took too long."""
    return no_answer(seconds) if exc.sqlstate == _CANCELED else house_error(exc)


def ambiguous(key: str, exc: BaseException) -> AmbiguousWriteError:
    """Return the error of a write whose answer never came."""
    return AmbiguousWriteError(
        f"no answer came to the write of {key!r}: {exc}",
        key=key,
        hint="read the key, then decide whether to write again",
    )
