"""How many worker processes share a job, where nobody said so. Pure but for the number of processors."""

from __future__ import annotations

import os

WORTH_PROCESSES_KEYS = 50_000
"""A store with fewer keys is read before worker processes have started."""

MOST_PROCESSES = 8
"""Worker processes at most, unless more are asked for: each has its own connections to store and database."""


def crew_size(keys: int | None, *, beyond: int) -> int:
    """Return how many workers do a job over so many *keys*, ``None`` where nobody knows.

    *beyond* is how many more than processors are worth it: while one waits for its commit, another computes.
    """
    if keys is not None and keys < WORTH_PROCESSES_KEYS:
        return 1
    return min((os.cpu_count() or 1) + beyond, MOST_PROCESSES)
