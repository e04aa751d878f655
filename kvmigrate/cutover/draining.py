"""Waiting until one side has all of the other, with a hand in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kvmigrate.cutover.sides import Sides

_PAUSE_S = 0.005


class Backlog(NamedTuple):
    """What was left when a drain ended; 0 where it did what it was for."""

    left: int
    seconds: float


def drain_forward(sides: Sides, *, seconds: float, low: int = 0) -> Backlog:
    """Drain the marks, and the waiting items that are free, until at most *low* marks are left.

    To 0 it also means that the drain found nothing more to do.
    """

    def is_done(left: int, did: int) -> bool:
        return left <= low and (low > 0 or not did)

    return _drain(sides, sides.store.marks, sides.drain.forward, is_done, seconds)


def drain_reverse(sides: Sides, *, seconds: float, low: int = 0) -> Backlog:
    """Drain what the tables owe the store, until at most *low* keys are left."""

    def is_done(left: int, did: int) -> bool:
        del did
        return left <= low

    return _drain(sides, sides.target.owes, sides.drain.reverse, is_done, seconds)


def _drain(
    sides: Sides, count: Callable[[], int], work: Callable[[], int], is_done: Callable[[int, int], bool], seconds: float
) -> Backlog:
    begin = sides.clock()
    while True:
        did = work()
        left = count()
        if is_done(left, did):
            return Backlog(0, sides.clock() - begin)
        if sides.clock() - begin >= seconds:
            return Backlog(max(left, 1), sides.clock() - begin)
        if not did:
            sides.sleep(_PAUSE_S)
