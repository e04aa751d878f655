"""What a store tells of itself that decides whether it can be migrated while it is written. No driver here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class StoreFacts(NamedTuple):
    """One server of a store. ``None`` stands for what it did not tell.

    Attributes:
        name: Of the server, without secrets.

        refused: Commands that it refused, with its words.

        version: Such as ``7.0.15``.

        role: ``master`` or ``slave``, as Redis has it.

        unreachable: Why it could not be asked at all, though the cluster names it as a master; "" where it could.

        is_cluster: Whether it is a node of a cluster.

        full_coverage: Whether it takes no writes at all while a slot of its cluster has no master.

        is_moving: Whether it gives a slot of its cluster away, or takes one.

        scripts: Whether EVAL works.

        functions: Whether FUNCTION works; servers before 7 have none.

        policy: What is evicted when memory is full.

        memory_limit: In bytes; 0 where there is none.

        append_only: Whether every write is appended to a file.

        fsync: When that file reaches the disk: ``always``, ``everysec`` or ``no``.

        save: When snapshots are written; "" for never.

        save_failed: Whether the last snapshot or append failed.

        replicas: How many are connected.

        min_replicas: Without how many it refuses writes.

        keys, expiring: How many keys there are, and how many of them have an expiry.

        ahead_s: By how much its clock is ahead of this machine's.

        clock_error_s: How far off that may be: half of the round trip.
    """

    name: str
    refused: Mapping[str, str]
    version: str | None = None
    role: str | None = None
    unreachable: str = ""
    is_cluster: bool | None = None
    full_coverage: bool | None = None
    is_moving: bool = False
    scripts: bool | None = None
    functions: bool | None = None
    policy: str | None = None
    memory_limit: int | None = None
    append_only: bool | None = None
    fsync: str | None = None
    save: str | None = None
    save_failed: bool | None = None
    replicas: int | None = None
    min_replicas: int | None = None
    keys: int | None = None
    expiring: int | None = None
    ahead_s: float | None = None
    clock_error_s: float = 0.0
