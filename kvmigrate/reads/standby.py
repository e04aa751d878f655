"""What a process knows of the standby that its reads may ask, and what a read of an endpoint wants of it."""

from __future__ import annotations

from collections import deque
from contextvars import ContextVar
from time import monotonic
from typing import NamedTuple

from kvmigrate.errors import TargetError
from kvmigrate.reads.bounds import FRESH_S
from kvmigrate.reads.counts import Counts
from kvmigrate.target.standby_base import LogLooker, LogPosition

PAUSE_S = 5.0
"""A standby that failed a read is not asked for so long: where it hangs, each try costs a deadline."""


class Asking(NamedTuple):
    """A read of an endpoint.

    Attributes:
        position: What a standby must have replayed to serve it; 0 is any, ``None`` leaves it to the primary.

        counts: Of the endpoint.

        spent_s: Seconds that passed until *position* was known; they are of the read's own time.
    """

    position: int | None
    counts: Counts
    spent_s: float = 0.0


asking: ContextVar[Asking | None] = ContextVar("kvmigrate_asking", default=None)
"""Which read of an endpoint is under way; what asks the tables outside of one asks the primary."""


class Standby:
    """How well a standby follows. One thread tells, and any thread may ask."""

    def __init__(self) -> None:
        """Know nothing yet: it is not asked."""
        self._written: deque[tuple[float, int]] = deque()
        self._fresh_until = 0.0
        self._paused_until: dict[Counts, float] = {}

    def hear(self, begun: float, written: int, replayed: int) -> None:
        """Take what a look found that began at *begun*: how far the primary is, then how far the standby."""
        self._written.append((begun, written))
        while len(self._written) > 1 and self._written[1][1] <= replayed:
            self._written.popleft()
        at, position = self._written[0]
        if position <= replayed:
            self._fresh_until = at + FRESH_S
        while self._written[0][0] < begun - FRESH_S:
            # Where it comes to now would be too late to count.
            self._written.popleft()

    def forget(self) -> None:
        """Leave it alone until a look finds it well again: it is no standby."""
        self._written.clear()
        self._fresh_until = 0.0

    def has_failed(self, counts: Counts) -> None:
        """Let it alone for a while with reads of one endpoint; those of others may be well."""
        self._paused_until[counts] = monotonic() + PAUSE_S

    def serves(self, counts: Counts) -> bool:
        """Whether it answers reads of an endpoint, and has all that the primary had `FRESH_S` ago."""
        now = monotonic()
        return now < self._fresh_until and now >= self._paused_until.get(counts, 0.0)


class StandbyLook:
    """Looks at both databases again and again; of one thread."""

    def __init__(self, standby: Standby, primary: LogLooker, replica: LogLooker) -> None:
        """Tell *standby*."""
        self._standby, self._primary, self._replica = standby, primary, replica

    def look(self) -> None:
        """Look once. Raises `TargetError`, also where the one does not follow the other."""
        begun = monotonic()
        # In this order: what was written meanwhile must not make it look late.
        primary, replica = self._primary.look(), self._replica.look()
        if why := _why_none(primary, replica):
            self._standby.forget()
            raise TargetError(
                f"{self._replica.name} is no standby of {self._primary.name}: {why}",
                hint="check the setting `read_target`",
            )
        self._standby.hear(begun, primary.position, replica.position)

    def close(self) -> None:
        """Close both."""
        self._primary.close()
        self._replica.close()


def _why_none(primary: LogPosition, replica: LogPosition) -> str:
    if primary.system != replica.system:
        return "its log is another one"
    if not replica.is_standby and primary.started != replica.started:
        return "it follows no server"
    if primary.timeline != replica.timeline:
        return f"it is on timeline {replica.timeline}, and the target on {primary.timeline}"
    return ""
