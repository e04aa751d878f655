"""The reading half of the applier: which marks are next, and what stands under their keys."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from kvmigrate.dualwrite.batch_size import BatchSize
from kvmigrate.dualwrite.observation import Work, divide, why_held
from kvmigrate.dualwrite.ripeness import GRACE_S, Ripeness, StuckKeys
from kvmigrate.errors import FenceMissingError
from kvmigrate.model import Authority, MarkedKey
from kvmigrate.stores.fence_base import FencedStore
from kvmigrate.transform.lens import Lens


class InHand:
    """Keys that were looked at and are not settled yet, so that nobody looks at them again. For two threads."""

    def __init__(self) -> None:
        """None is."""
        self._keys: dict[str, int] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def take(self, keys: Iterable[str]) -> None:
        """Note that keys are being worked on."""
        with self._lock:
            for key in keys:
                self._keys[key] = self._keys.get(key, 0) + 1

    def give(self, keys: Iterable[str]) -> None:
        """Note that the work on keys is over, however it ended."""
        with self._lock:
            for key in keys:
                left = self._keys.pop(key, 0) - 1
                if left > 0:
                    self._keys[key] = left


class Looker:
    """Looks at marked keys with a store of its own. For one thread at a time.

    Attributes:
        in_hand: What it gave out; whoever settles a work gives its keys back.

        held: Why marks are left alone at the moment; "" where they are not.
    """

    def __init__(
        self,
        store: FencedStore,
        lens: Lens,
        stuck: StuckKeys,
        *,
        grace_s: float = GRACE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is looked at yet."""
        self._store, self._lens, self._stuck = store, lens, stuck
        self._grace_s, self._clock = grace_s, clock
        self._ripeness: dict[str, Ripeness] = {}
        self._size = BatchSize()
        self.in_hand = InHand()
        self.held = ""

    def look(self, *, hurry: bool, until: float) -> Iterator[Work]:
        """Yield works, the oldest marks of each shard first, until nothing is left to look at or it is *until*.

        Args:
            hurry: Also marks that were made just now.

            until: By the clock; what was begun is still yielded.

        Raises:
            SourceError: the store does not answer. FenceMissingError: it has no fence.
        """
        self.held = ""
        found = True
        if hurry:
            self._ripeness.clear()
        while found and not self.held and self._clock() < until:
            found = False
            shards = self._store.shards_with_marks()
            for shard in self._ripeness.keys() - set(shards):
                del self._ripeness[shard]
            for shard in shards:
                for work in self._next_of(shard, hurry=hurry):
                    found = True
                    yield work

    def nothing_marked(self) -> None:
        """Note that nothing is marked anywhere: whatever is marked next is a fresh mark."""
        self._ripeness.clear()

    def look_at(self, keys: Sequence[str], *, together: bool = False) -> Iterator[Work]:
        """Yield works on these keys, marked or not: those of waiting items. Raises as `look`.

        *together*: keys of one shard in one work, however large.
        """
        for shard, some in self._store.by_shard(keys).items():
            size = len(some) if together else self._size.keys
            for start in range(0, len(some), size):
                names = dict.fromkeys(some[start : start + size], 0)
                yield from self._observed(shard, names, unmarked_too=True)

    def _next_of(self, shard: str, *, hurry: bool) -> Iterator[Work]:
        now, size = self._clock(), self._size.keys
        limit = size + len(self.in_hand) + len(self._stuck)
        found = self._store.marked(shard, limit=limit)
        free = [mark for mark in found if mark.key not in self.in_hand and not self._stuck.holds(mark, now)]
        if free and len(found) < limit and not hurry:
            # With more marks than a batch the writers' own mirrors do not keep up, or are down.
            free = self._ripe_of(shard, found, free, now)
        if free:
            yield from self._observed(shard, {mark.key: mark.n for mark in free[:size]}, unmarked_too=False)

    def _ripe_of(
        self, shard: str, found: Sequence[MarkedKey], free: Sequence[MarkedKey], now: float
    ) -> list[MarkedKey]:
        ripeness = self._ripeness.setdefault(shard, Ripeness(self._grace_s))
        ripe = {mark.key for mark in ripeness.ripe(found, now)}
        if len(ripe) < len(found):
            fence = self._store.fences().get(shard)
            if fence is not None and fence.authority is Authority.SEALED:
                # No writer is on its way any more, and many wait for this.
                return list(free)
        return [mark for mark in free if mark.key in ripe]

    def _observed(self, shard: str, keys: dict[str, int], *, unmarked_too: bool) -> Iterator[Work]:
        try:
            work = self._look_at_once(shard, list(keys), unmarked_too=unmarked_too)
        except FenceMissingError:
            raise
        except Exception as exc:  # noqa: BLE001 - one key at fault must not stop the others
            # Where the store itself is lost this raises, and no key is at fault.
            self._store.fences()
            if len(keys) == 1:
                for key, n in keys.items():
                    self._stuck.add(key, n, f"{type(exc).__name__}: {exc}", self._clock())
                return
            names = list(keys)
            for some in (names[: len(names) // 2], names[len(names) // 2 :]):
                yield from self._observed(shard, {key: keys[key] for key in some}, unmarked_too=unmarked_too)
            return
        if work is not None:
            if shard in self._ripeness:
                self._ripeness[shard].forget(keys)
            self.in_hand.take(work.keys)
            yield work

    def _look_at_once(self, shard: str, keys: Collection[str], *, unmarked_too: bool) -> Work | None:
        names = list(keys)
        seen = self._store.observe(shard, names)
        self.held = why_held(seen.fence)
        if self.held:
            return None
        work = divide(self._lens, shard, names, seen, unmarked_too=unmarked_too)
        self._size.met(len(names), work.size_bytes)
        return work if work.keys else None
