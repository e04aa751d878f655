"""The reverse applier: what the open tables hold, back into the store, so that a way back stays open."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from kvmigrate.dualwrite.ripeness import StuckKeys
from kvmigrate.errors import StaleError
from kvmigrate.model import Authority, MarkedKey, Version
from kvmigrate.stores.fence_base import FencedStore
from kvmigrate.target.live_base import LiveTarget, Owed

PAGE = 1_000
"""Keys rebuilt from one snapshot."""

_OPEN = frozenset({Authority.TABLES, Authority.SEALED})
"""While the tables open, and while they are sealed on the way back: then what they owe is drained."""


class Beforehand(Protocol):
    """What must be done before items are given to the store, such as the indexes that list them."""

    @property
    def broken(self) -> Mapping[str, str]:
        """What of it cannot be done, by name, and why."""
        ...

    def prepare(self, owed: Sequence[Owed], *, hurry: bool) -> Collection[str]:
        """Do it, and return the keys that must wait for a later pass. *hurry*: none may."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...


class ReverseApplier:
    """Gives the store what it is owed. Any number of them, in any processes, give the same store.

    Attributes:
        given: Keys that the store was given since it began.
    """

    def __init__(
        self,
        store: FencedStore,
        target: LiveTarget,
        *,
        beforehand: Beforehand | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is done yet; the two are this applier's own."""
        self._store, self._target, self._beforehand, self._clock = store, target, beforehand, clock
        self._stuck = StuckKeys()
        self.given = 0

    @property
    def stuck(self) -> Mapping[str, str]:
        """Some keys that fail by themselves, and why."""
        return self._stuck.examples()

    def run_pass(self, *, hurry: bool = False) -> int:
        """Give the store one page of what it is owed; return how many keys it has now.

        Nothing is done unless the tables are the authority, or are sealed on the way back. A key that fails
        although the store answers stays owed, is tried again later, and stops no other.

        Raises:
            SourceError, TargetError: a server does not answer; what was given and not noted is given again.
        """
        control = self._target.control()
        if control.authority not in _OPEN:
            return 0
        hurry = hurry or control.authority is Authority.SEALED
        now = self._clock()
        page = self._target.owed(limit=PAGE + len(self._stuck))
        owed = [each for each in page if not self._stuck.holds(MarkedKey(each.key, each.version.n), now)]
        if not owed:
            return 0
        later = self._beforehand.prepare(owed, hurry=hurry) if self._beforehand is not None else ()
        given = self._give([each for each in owed if each.key not in later])
        if given:
            self._target.paid(given)
            self.given += len(given)
        return len(given)

    def drain(self, *, seconds: float, stop: Callable[[], bool] = lambda: False) -> int:
        """Give until nothing is owed, nothing more can be given, or the time is over; return what is owed then."""
        end = self._clock() + seconds
        while self.run_pass(hurry=True) and self._clock() < end and not stop():
            pass
        return self._target.owes()

    def _give(self, owed: Sequence[Owed]) -> list[tuple[str, Version]]:
        by_key = {each.key: each for each in owed}
        given: list[tuple[str, Version]] = []
        for shard, keys in self._store.by_shard(list(by_key)).items():
            try:
                given.extend((key, by_key[key].version) for key in keys if self._give_one(shard, by_key[key]))
            except StaleError:
                # The authority moves, or this shard did not hear of it yet: whatever is still owed then comes again.
                continue
        return given

    def _give_one(self, shard: str, owed: Owed) -> bool:
        try:
            has = self._store.reverse(shard, owed.key, owed.version, owed.item)
        except StaleError:
            raise
        except Exception as exc:  # noqa: BLE001 - one key at fault must not stop the others
            # Where the store itself is lost this raises, and no key is at fault.
            self._store.fences()
            self._stuck.add(owed.key, owed.version.n, f"{type(exc).__name__}: {exc}", self._clock())
            return False
        self._stuck.clear([owed.key])
        return has
