"""Which of several relays does what one alone should do: a lease row, prolonged while the holder lives."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from kvmigrate.target.live_base import ControlRow, Lease, ProcessRow

LEASE_S = 15.0
PROLONG_S = 3.0
BEAT_S = 5.0


class Told(NamedTuple):
    """What the control row said last."""

    stage: str
    authority: str
    epoch: int
    owes_all: bool


class Leadership:
    """Holds the lease where it can, and says of this process that it lives. A `Step`.

    Attributes:
        told: What the control row said last; ``None`` until it did.
    """

    def __init__(
        self,
        row: ControlRow,
        process: ProcessRow,
        *,
        name: str,
        holder: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Hold nothing yet. *name* is the lease's, *holder* this process's."""
        self._row, self._process, self._name, self._holder, self._clock = row, process, name, holder, clock
        self._lease: Lease | None = None
        self._until = self._beaten = float("-inf")
        self.told: Told | None = None

    @property
    def is_leader(self) -> bool:
        """Whether the lease is surely held: a little less long than the database says."""
        return self._clock() < self._until

    def open(self) -> None:
        """Do nothing: both rows connect when they are first asked."""

    def step(self) -> float:
        """Take or prolong the lease, read the control row, and write that this process lives."""
        asked = self._clock()
        self._lease = self._row.lease(self._name, self._holder, seconds=LEASE_S)
        self._until = asked + LEASE_S - PROLONG_S if self._lease is not None else float("-inf")
        control = self._row.read()
        self.told = Told(control.stage.value, control.authority.value, control.epoch, control.owes_all)
        if asked - self._beaten >= BEAT_S:
            # A relay writes nothing without a fence, whatever the stage.
            self._process.beat(epoch=control.epoch, stage=control.stage, live_seen=True)
            self._beaten = asked
        return PROLONG_S if self._lease is not None else PROLONG_S / 2

    def close(self) -> None:
        """Give the lease back, take the process's row away, and release connections."""
        lease, self._lease, self._until = self._lease, None, float("-inf")
        try:
            if lease is not None:
                self._row.release(lease)
            self._process.leave()
        finally:
            self._row.close()
            self._process.close()
