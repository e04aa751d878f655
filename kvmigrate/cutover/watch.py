"""What the leader of the relay looks at each second: lives, fences, and moves that somebody left unfinished."""

from __future__ import annotations

from typing import NamedTuple

from kvmigrate.cutover.controller import Controller
from kvmigrate.cutover.intent import read_intent
from kvmigrate.cutover.leased import Held, new_holder, take
from kvmigrate.cutover.mend import Seen, look, mend
from kvmigrate.cutover.sides import Sides
from kvmigrate.cutover.trouble import Trouble
from kvmigrate.errors import CheckFailedError, DeadlineError
from kvmigrate.model import Authority, Stage

SAFE_EVERY = 5
"""Polls between two marks of how far the store is, as each of them writes on both sides."""


MOST_SAFE_SHARDS = 64
"""Of a store with more shards no n is noted, as all of them stand in the one control row: of a cluster that failed over
everything is compared."""


class Watched(NamedTuple):
    """What a poll found and did.

    Attributes:
        is_mended: What was wrong was mended, or one round of it.

        resumed: A move was gone on with.

        alarm: What needs a person, or "".
    """

    trouble: Trouble = Trouble.NONE
    is_mended: bool = False
    resumed: bool = False
    alarm: str = ""


class Watch:
    """Watches both sides of one scope and reacts, as the controller would and under its lease.

    Polled by one process at a time, on connections of its own.
    """

    def __init__(self, sides: Sides, *, who: str = "relay") -> None:
        """Nothing is read yet."""
        self._sides, self._who, self._holder = sides, who, new_holder()
        self._controller = Controller(sides, who=who)
        self._polls = 0

    def poll(self) -> Watched:
        """Look once, and react to what is wrong; while a controller is at work that is left to it.

        Raises:
            SourceError, TargetError: a side does not answer. Poll again.
        """
        seen = look(self._sides)
        if seen.control.epoch == 0:
            return Watched()
        if seen.trouble is Trouble.NONE and read_intent(seen.control) is None:
            self._note_safe(seen)
            return Watched()
        held = take(self._sides.row, self._holder, seconds=self._sides.limits.lease_s)
        if held is None:
            return Watched(seen.trouble)
        try:
            return self._react(held)
        finally:
            held.release()

    def _react(self, held: Held) -> Watched:
        self._sides.done.clear()
        # Once more, as a controller may have been at work a moment ago.
        seen = look(self._sides)
        try:
            if seen.trouble is not Trouble.NONE:
                mend(self._sides, seen, who=self._who)
                return Watched(seen.trouble, is_mended=True)
            held.prolong()
            return Watched(resumed=self._controller.resume())
        except (CheckFailedError, DeadlineError) as exc:
            return Watched(seen.trouble, alarm=str(exc))

    def _note_safe(self, seen: Seen) -> None:
        """Note how far the store is, in both sides: after a restart or failover the one tells what the other lost.

        Where replicas are counted, only once they have it: what they do not have may be gone in a moment.
        """
        self._polls += 1
        sides, control = self._sides, seen.control
        if control.authority is not Authority.STORE or control.stage is Stage.OFF or self._polls % SAFE_EVERY != 1:
            return
        if len(sides.store.shards()) > MOST_SAFE_SHARDS:
            return
        safe = sides.store.mark_safe()
        if not sides.store.confirm(replicas=sides.replicas, timeout_s=sides.limits.confirm_s):
            return
        # What was marked in a life that nobody has looked at yet says nothing of the one before.
        if sides.store.incarnation() == seen.store_life:
            sides.row.note({"safe_n": safe})
