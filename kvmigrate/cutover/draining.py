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


def drain_open(sides: Sides, *, seconds: float, low: int) -> Backlog:
    """Drain the marks of a store that is written, until at most *low* are left."""

    def is_done(left: int, did: int) -> bool:
        del did
        return left <= low

    return _drain(sides, sides.store.marks, sides.drain.forward, is_done, seconds)


def drain_sealed(sides: Sides, *, seconds: float) -> Backlog:
    """Drain the marks of a store that is sealed, and the waiting items that are free, until there is nothing to do.

    A shard without marks gets none while it is sealed, so that it is not looked at again: whoever asks for this makes
    sure afterwards that all shards are sealed still.
    """
    store = sides.store
    shards = store.shards_with_marks()

    def work() -> int:
        return sides.drain.forward(shards)

    def count() -> int:
        nonlocal shards
        shards = store.shards_with_marks(shards)
        return len(shards)

    def is_done(left: int, did: int) -> bool:
        return not left and not did

    backlog = _drain(sides, count, work, is_done, seconds)
    return backlog._replace(left=max(store.marks(), 1)) if backlog.left else backlog


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
