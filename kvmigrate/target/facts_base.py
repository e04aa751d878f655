"""What a PostgreSQL tells of itself that decides whether it can be migrated to. No driver here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class TableFacts(NamedTuple):
    """One table of the mapping.

    Attributes:
        exists: Whether it is there; if not, the rest says nothing.

        lacks: Rights that the role lacks, of SELECT, INSERT, UPDATE, DELETE.

        hides: Whether a policy hides rows of it from the role.
    """

    name: str
    exists: bool
    lacks: Sequence[str] = ()
    hides: bool = False


class TargetFacts(NamedTuple):
    """One database, as the role of the URL sees it. ``None`` stands for what the server does not tell that role.

    Attributes:
        version: Such as ``15.4``; *version_number* is ``150004``.

        is_standby: Whether it only follows another server.

        pooler: "" for none, "session" or "transaction" for what stands between.

        max_connections, reserved, connected: How many connections it allows, keeps for administrators, and has.

        role_limit: How many the role may have, ``-1`` for any number.

        standbys: Name and kind of synchronisation (``sync``, ``async`` ...) of each standby.

        oldest_s: Age of the oldest open transaction of others; *oldest* says whose.

        installed, current: Whether there is a control schema, and whether it is that of this version.

        may_install: Whether the role may make what is missing of it.

        live_functions: How many functions of live writes are there for this mapping.

        ahead_s: By how much its clock is ahead of this machine's.
    """

    name: str
    role: str
    version: str
    version_number: int
    encoding: str
    is_standby: bool
    read_only: bool
    pooler: str
    max_connections: int
    reserved: int
    connected: int
    role_limit: int
    isolation: str
    synchronous_commit: str
    synchronous_standbys: str
    standbys: Sequence[tuple[str, str]] | None
    fsync: bool
    oldest_s: float | None
    oldest: str
    installed: bool
    current: bool
    may_install: bool
    lacks_control: Sequence[str]
    live_functions: int
    tables: Sequence[TableFacts]
    size_bytes: int
    ahead_s: float
    clock_error_s: float
