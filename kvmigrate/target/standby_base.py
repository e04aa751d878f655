"""The seam to how far the log of a database was written, and how far a standby of it has come. No driver here.

A position is the number of bytes before it in the log, which PostgreSQL writes as an LSN.
"""

from __future__ import annotations

import datetime as dt
from contextvars import ContextVar
from typing import NamedTuple, Protocol

wanted_position: ContextVar[int] = ContextVar("kvmigrate_wanted_position", default=0)
"""Connections to a standby are used only once it has replayed so much; 0 is any."""


class BehindError(Exception):
    """The standby has not replayed what is wanted yet. It never leaves the package."""


class LogPosition(NamedTuple):
    """How far a database is.

    Attributes:
        system: Tells databases apart that do not have the same log.

        position: Up to where the log is written, or on a standby replayed.

        timeline: Of the log; positions of two timelines cannot be compared.

        is_standby: Whether it only replays the log of another server.

        started: When the server began; tells one from all others.
    """

    system: int
    position: int
    timeline: int
    is_standby: bool
    started: dt.datetime


class LogLooker(Protocol):
    """Looks at one database, on a connection of its own. One thread at a time."""

    @property
    def name(self) -> str:
        """For messages, without secrets."""
        ...

    def look(self) -> LogPosition:
        """Return how far it is. Raises `TargetError`."""
        ...

    def close(self) -> None:
        """Release the connection. Safe to call twice."""
        ...
