"""The reading half of the applier: which marks are next, and what stands under their keys."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from kvmigrate.dualwrite.batch_size import BatchSize
from kvmigrate.dualwrite.observation import Work, divide, why_held
from kvmigrate.dualwrite.ripeness import GRACE_S, Ripeness, StuckKeys
from kvmigrate.errors import FenceMissingError
from kvmigrate.model import Authority, MarkedKey, Version
from kvmigrate.stores.fence_base import FencedStore, Seen
from kvmigrate.transform.lens import Lens

T = TypeVar("T")
Marks = Mapping[str, Sequence[MarkedKey]]

SHARDS_AT_ONCE = 500
"""Shards whose marks are asked for together."""


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

    def look(self, shards: Sequence[str], *, hurry: bool, until: float) -> Iterator[Work]:
        """Yield works, the oldest marks of each shard first, until nothing is left to look at or it is *until*.

        Args:
            shards: Those that have marks.

            hurry: Also marks that were made just now.

            until: By the clock; what was begun is still yielded.

        Raises:
            SourceError: the store does not answer. FenceMissingError: it has no fence.
        """
        self.held = ""
        if hurry:
            self._ripeness.clear()
        found = True
        while found and shards and not self.held and self._clock() < until:
            found = False
            for shard in self._ripeness.keys() - set(shards):
                del self._ripeness[shard]
            for some in batched(shards, SHARDS_AT_ONCE):
                for work in self._next_of(some, hurry=hurry):
                    found = True
                    yield work
            shards = self._store.shards_with_marks(shards)

    def nothing_marked(self) -> None:
        """Note that nothing is marked anywhere: whatever is marked next is a fresh mark."""
        self._ripeness.clear()

    def look_at(self, keys: Sequence[str], *, together: bool = False) -> Iterator[Work]:
        """Yield works on these keys, marked or not: those of waiting items. Raises as `look`.

        *together*: in one work, however large, unless somebody writes their shards meanwhile.
        """
        for some in batched(keys, max(len(keys), 1) if together else self._size.keys):
            yield from self._observed(dict.fromkeys(some, 0), unmarked_too=True)

    def _next_of(self, shards: Sequence[str], *, hurry: bool) -> Iterator[Work]:
        now, size = self._clock(), self._size.keys
        many = size + len(self.in_hand) + len(self._stuck)
        limit = many if len(shards) == 1 else -(-size // len(shards)) + len(self._stuck)
        found = self._store.marked_in(shards, limit=limit)
        free = {
            shard: [mark for mark in marks if mark.key not in self.in_hand and not self._stuck.holds(mark, now)]
            for shard, marks in found.items()
        }
        if sum(map(len, found.values())) < many and not hurry:
            # With more marks than a batch the writers' own mirrors do not keep up, or are down.
            free = self._ripe_of(found, free, now)
        oldest = sorted((mark for marks in free.values() for mark in marks), key=lambda mark: mark.n)
        for some in batched(oldest, size):
            yield from self._observed({mark.key: mark.n for mark in some}, unmarked_too=False)

    def _ripe_of(self, found: Marks, free: Marks, now: float) -> dict[str, list[MarkedKey]]:
        ripe: dict[str, list[MarkedKey]] = {}
        fresh: list[str] = []
        for shard, marks in found.items():
            if not free[shard]:
                continue
            keys = {mark.key for mark in self._ripeness.setdefault(shard, Ripeness(self._grace_s)).ripe(marks, now)}
            ripe[shard] = [mark for mark in free[shard] if mark.key in keys]
            if len(keys) < len(marks):
                fresh.append(shard)
        for shard, fence in self._store.fences(fresh).items() if fresh else ():
            if fence is not None and fence.authority is Authority.SEALED:
                # No writer is on its way any more, and many wait for this.
                ripe[shard] = list(free[shard])
        return ripe

    def _observed(self, keys: dict[str, int], *, unmarked_too: bool) -> Iterator[Work]:
        try:
            works = self._look_at_once(list(keys), unmarked_too=unmarked_too)
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
                yield from self._observed({key: keys[key] for key in some}, unmarked_too=unmarked_too)
            return
        for work in works:
            self.in_hand.take(work.keys)
            yield work

    def _look_at_once(self, keys: Sequence[str], *, unmarked_too: bool) -> list[Work]:
        groups = self._store.by_shard(keys)
        seen = self._store.observe_together(groups)
        held = {shard: why_held(each.fence) for shard, each in seen.items()}
        self.held = "" if "" in held.values() else next(iter(held.values()), "")
        works: list[Work] = []
        for names, each in _of_one_version(groups, {shard: seen[shard] for shard, why in held.items() if not why}):
            work = divide(self._lens, names, each, unmarked_too=unmarked_too)
            self._size.met(len(names), work.size_bytes)
            if work.keys:
                works.append(work)
        if works:
            for shard, some in groups.items():
                if shard in self._ripeness:
                    self._ripeness[shard].forget(some)
        return works


def _of_one_version(groups: Mapping[str, Sequence[str]], seen: Mapping[str, Seen]) -> list[tuple[list[str], Seen]]:
    """Return what was seen of several shards, put together where the version is the same."""
    found: dict[Version, tuple[list[str], Seen]] = {}
    for shard, each in seen.items():
        keys, before = found.get(each.version, ([], each._replace(items=(), marks=())))
        keys += groups[shard]
        found[each.version] = keys, before._replace(items=before.items + each.items, marks=before.marks + each.marks)
    return list(found.values())


def batched(some: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield parts of *size*, in their order."""
    for start in range(0, len(some), size):
        yield some[start : start + size]
