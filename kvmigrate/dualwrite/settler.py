"""The writing half of the applier: rows into the tables, then the marks away."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass

from kvmigrate.dualwrite.observation import Work, halves
from kvmigrate.dualwrite.ripeness import StuckKeys
from kvmigrate.errors import FenceError
from kvmigrate.stores.fence_base import FencedStore
from kvmigrate.target.base import Applied
from kvmigrate.target.live_base import LiveTarget
from kvmigrate.transform.lens import Lens


@dataclass(slots=True)
class Relayed:
    """What an applier did since it began. Only the thread that settles changes it.

    Attributes:
        items: Items that the ledger's guard let pass.

        waiting, quarantined: Of these, how many were refused.

        removed: Items whose rows were taken out as they are gone.

        acked: Marks taken away.

        dropped: Works that were given up because another epoch or authority took over.
    """

    items: int = 0
    waiting: int = 0
    quarantined: int = 0
    removed: int = 0
    acked: int = 0
    dropped: int = 0

    def plus(self, other: Relayed) -> Relayed:
        """Return the sum, field by field."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Relayed(*(mine + theirs for mine, theirs in pairs))


class Settler:
    """Brings works into the tables with a store and a target of its own. For one thread at a time.

    Attributes:
        done: What it did since it began.
    """

    def __init__(
        self,
        store: FencedStore,
        target: LiveTarget,
        lens: Lens,
        stuck: StuckKeys,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is settled yet."""
        self._store, self._target, self._lens, self._stuck = store, target, lens, stuck
        self._clock = clock
        self.done = Relayed()

    def settle(self, work: Work) -> Applied:
        """Bring the tables to what was seen, and then take the marks away that were seen.

        Where the database refuses the whole of it although it answers, the keys at fault are found by halving:
        they keep their marks, and all others go on.

        Raises:
            FenceError: another epoch or authority took over; nothing was written, and the marks stay.

            TargetError, SourceError: a server does not answer; what was committed stays, and so do the marks.
        """
        try:
            applied = self._write(work)
        except FenceError:
            self.done.dropped += 1
            raise
        except Exception as exc:  # noqa: BLE001 - one item at fault must not stop the others
            # Where the server itself is lost this raises, and no item is at fault.
            self._target.control()
            return self._settle_apart(work, exc)
        self.done.acked += self._acked(work)
        self._stuck.clear(work.keys)
        return applied

    def _acked(self, work: Work) -> int:
        marks = {mark.key: mark for mark in work.marks}
        groups = self._store.by_shard(list(marks))
        return self._store.ack_all({shard: [marks[key] for key in keys] for shard, keys in groups.items()})

    def _write(self, work: Work) -> Applied:
        # What goes first makes room: a value that another item of the same moment takes over.
        removed = self._target.remove(work.gone, work.version) if work.gone else 0
        batch = work.batch
        applied = self._target.apply(batch) if batch is not None else Applied()
        done = self.done
        done.removed += removed
        done.items += applied.items
        done.waiting += applied.waiting
        done.quarantined += applied.quarantined
        return applied

    def _settle_apart(self, work: Work, exc: Exception) -> Applied:
        parts = halves(self._lens, work)
        if not parts:
            for key in work.keys:
                n = next((mark.n for mark in work.marks), 0)
                self._stuck.add(key, n, f"{type(exc).__name__}: {exc}", self._clock())
        applied = Applied()
        for some in parts:
            applied = applied.plus(self.settle(some))
        return applied
