"""Marks that are too many: dropped, and owed as a whole, so that a long outage does not fill the store's memory."""

from __future__ import annotations

from collections.abc import Callable

from kvmigrate.log import get_log
from kvmigrate.model import Authority, Logging
from kvmigrate.stores.fence_base import FencedStore

_log = get_log()

MOST_MARKS = 2_000_000
"""So many marks take about 290 MB of a Redis. To compare everything costs less than to keep more of them."""

PAUSE_S = 10.0
"""At 20,000 new marks a second, so long a pause adds a tenth to the most."""


class MarksCap:
    """Drops the marks where there are too many, in the step that notes that everything is owed. A `Step`.

    Losing marks is allowed when it is recorded: the reconcile that is owed finds every key that differs. While a first
    load runs they stay, as it would begin anew; while the store is sealed they stay, as the flip drains them.

    For every relay, not for its leader alone: while the database is away, which is when marks become many, none leads.
    """

    def __init__(self, store: Callable[[], FencedStore], *, most: int = MOST_MARKS) -> None:
        """Open nothing yet; *store* opens the store for this step alone."""
        self._opens, self._most = store, most
        self._store: FencedStore | None = None

    def open(self) -> None:
        """Connect."""
        self._store = self._opens()

    def step(self) -> float:
        """Look how many there are."""
        assert self._store is not None  # noqa: S101 - it was opened
        count = self._store.marks()
        if count > self._most and self._is_mirrored(self._store):
            most = self._most // len(self._store.shards())
            dropped = [shard for shard in self._store.shards_with_marks() if self._store.drop_marks(shard, over=most)]
            _log.warning(
                "there were too many marks: they are dropped, and everything is owed", marks=count, shards=len(dropped)
            )
        return PAUSE_S

    def close(self) -> None:
        """Release the connection."""
        if self._store is not None:
            self._store.close()
        self._store = None

    def _is_mirrored(self, store: FencedStore) -> bool:
        mirrored = (Authority.STORE, Logging.MIRROR)
        return all(fence is not None and (fence.authority, fence.log) == mirrored for fence in store.fences().values())
