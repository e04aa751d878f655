"""What every step of a move works on: the store, the control row, the tables, and somebody who drains."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from kvmigrate.cutover.divergence import Measurement, Wish
from kvmigrate.cutover.readiness import Ready
from kvmigrate.stores.fence_base import FencedStore
from kvmigrate.target.live_base import Control, ControlRow, LiveTarget


class Drain(Protocol):
    """Does a share of the work that a move waits for. A relay may do the same meanwhile."""

    def forward(self, among: Sequence[str] | None = None) -> int:
        """Bring marked keys, fresh ones too, and waiting items that are free now into the tables; return how many.

        *among*: the shards that have marks, where they are known.
        """
        ...

    def reverse(self) -> int:
        """Give the store what the tables owe it; return how many."""
        ...


class NoDrain:
    """Leaves all of it to a relay."""

    def forward(self, among: Sequence[str] | None = None) -> int:
        """Do nothing."""
        del among
        return 0

    def reverse(self) -> int:
        """Do nothing."""
        return 0


class Limits(NamedTuple):
    """How long a move may take. All in seconds, but *low*.

    Attributes:
        drain_s: Nobody can write longer than that on the way forward, apart from the database's own lock.

        back_s: As *drain_s*, on the way back.

        before_s: For bringing the backlog down while everybody still writes.

        low: So many marks, or owed keys, are few enough to begin.

        confirm_s: For the replicas, until they have the seal.

        lease_s: A controller that was not heard of for so long has lost its lease.
    """

    drain_s: float = 2.0
    back_s: float = 10.0
    before_s: float = 60.0
    low: int = 500
    confirm_s: float = 1.0
    lease_s: float = 15.0


def _no_indexes() -> Mapping[str, str] | None:
    return None


def _not_looked() -> Sequence[str] | None:
    return None


def _unmeasured(control: Control) -> Measurement | None:
    del control
    return None


def _no_hook(step: str) -> None:
    del step


@dataclass(slots=True)
class Sides:
    """Both sides of one scope. One thread at a time.

    Attributes:
        replicas: So many replicas of each shard must have the seal before the tables open.

        left: Entities that leave items in the store by declaration.

        mapping: Fingerprint of the mapping at work.

        unbuilt: Tells which indexes kept by hand cannot be maintained while the tables lead, by name, and why; ``None``
            where the mapping maintains none.

        unwatched: Names the tables whose changes by plain SQL the store would not be owed; ``None`` where nobody looks.

        measured: Returns what was last measured of both sides, as it stands at a control row.

        wish: What the gate asks of that, and of *ready*.

        ready: Returns what else the gate wants to know.

        hook: Called with the name of every step that was done.

        done: Names of the steps that were done, each with the clock's seconds.
    """

    store: FencedStore
    row: ControlRow
    target: LiveTarget
    drain: Drain = field(default_factory=NoDrain)
    replicas: int = 0
    left: Sequence[str] = ()
    mapping: str = ""
    limits: Limits = field(default_factory=Limits)
    unbuilt: Callable[[], Mapping[str, str] | None] = _no_indexes
    unwatched: Callable[[], Sequence[str] | None] = _not_looked
    measured: Callable[[Control], Measurement | None] = _unmeasured
    wish: Wish = field(default_factory=Wish)
    ready: Callable[[], Ready] = Ready
    hook: Callable[[str], None] = _no_hook
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    done: list[tuple[str, float]] = field(default_factory=list)

    def did(self, step: str) -> None:
        """Say that a step was done."""
        self.done.append((step, self.clock()))
        self.hook(step)
