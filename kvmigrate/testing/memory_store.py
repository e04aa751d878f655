"""A store in memory with fence, clock and marks: one shard, for any number of threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from threading import RLock

from kvmigrate.errors import FenceMissingError, SealedError, SourceError, StaleError
from kvmigrate.model import ADDRESS_SEPARATOR, Authority, Fence, Item, Logging, MarkedKey, Version
from kvmigrate.stores.fence_base import Put, Seen, Swap
from kvmigrate.testing.memory_items import MemoryItems, fields_of

SHARD = "0"
"""The name of the only shard."""


class MemoryStore:
    """A `FencedStore`, and what its writers do. Safe for threads.

    Attributes:
        before: Called with the name of each operation before it happens; what it raises is raised.

        items: Keys and values, with their clock.
    """

    def __init__(self) -> None:
        """Start empty and without a fence."""
        self.before: Callable[[str], None] = lambda _: None
        self.items = MemoryItems()
        self._marks: dict[str, int] = {}
        self._guard: dict[str, Version] = {}
        self._safe: dict[str, Version] = {}
        self._fence: Fence | None = None
        self._clock = Version(0, 0)
        self._life = 1
        self._lock = RLock()

    @property
    def name(self) -> str:
        """What stands in reports."""
        return "memory://"

    def __repr__(self) -> str:
        return f"MemoryStore({self.name!r})"

    def shards(self) -> Sequence[str]:
        """Return the only shard."""
        return [SHARD]

    def by_shard(self, keys: Sequence[str]) -> Mapping[str, list[str]]:
        """Return all keys as those of the only shard."""
        return {SHARD: list(keys)} if keys else {}

    def fences(self, shards: Sequence[str] | None = None) -> Mapping[str, Fence | None]:
        """As `FencedStore.fences`."""
        self.before("fences")
        if shards is not None and not shards:
            return {}
        return {SHARD: self._fence}

    def marked(self, shard: str, *, limit: int) -> Sequence[MarkedKey]:
        """As `FencedStore.marked`."""
        self._only(shard)
        with self._lock:
            found = sorted(self._marks.items(), key=lambda mark: (mark[1], mark[0]))
        return [MarkedKey(key, n) for key, n in found[:limit]]

    def marked_in(self, shards: Sequence[str], *, limit: int) -> Mapping[str, Sequence[MarkedKey]]:
        """As `FencedStore.marked_in`."""
        return {shard: self.marked(shard, limit=limit) for shard in shards}

    def marks(self) -> int:
        """As `FencedStore.marks`."""
        return len(self._marks)

    def shards_with_marks(self, among: Sequence[str] | None = None) -> Sequence[str]:
        """As `FencedStore.shards_with_marks`."""
        return [SHARD] if self._marks and (among is None or SHARD in among) else []

    def observe(self, shard: str, keys: Sequence[str]) -> Seen:
        """As `FencedStore.observe`."""
        self._only(shard)
        self.before("observe")
        with self._lock:
            fence = self._present()
            items = tuple(self.items.at(key) for key in keys)
            return Seen(fence, self._clock, items, tuple(self._marks.get(key) for key in keys))

    def observe_together(self, keys: Mapping[str, Sequence[str]]) -> Mapping[str, Seen]:
        """As `FencedStore.observe_together`."""
        return {shard: self.observe(shard, some) for shard, some in keys.items()}

    def ack(self, shard: str, mirrored: Collection[MarkedKey]) -> int:
        """As `FencedStore.ack`."""
        self._only(shard)
        self.before("ack")
        with self._lock:
            taken = [key for key, n in mirrored if self._marks.get(key) == n]
            for key in taken:
                del self._marks[key]
        return len(taken)

    def ack_all(self, mirrored: Mapping[str, Collection[MarkedKey]]) -> int:
        """As `FencedStore.ack_all`."""
        return sum(self.ack(shard, some) for shard, some in mirrored.items())

    def touch(self, shard: str, keys: Sequence[str], *, epoch: int) -> int:
        """As `FencedStore.touch`."""
        self._only(shard)
        with self._lock:
            self._check_open(epoch)
            version = self._tick(epoch)
            self._marks.update(dict.fromkeys(keys, version.n))
            return version.n

    def touch_all(self, keys: Mapping[str, Sequence[str]], *, epoch: int) -> None:
        """As `FencedStore.touch_all`."""
        for shard, some in keys.items():
            self.touch(shard, some, epoch=epoch)

    def swap(
        self, shards: Sequence[str], *, epochs: Collection[int], authorities: Collection[Authority], to: Swap
    ) -> int:
        """As `FencedStore.swap`."""
        for shard in shards:
            self._only(shard)
        self.before("swap")
        with self._lock:
            fence = self._fence
            if fence is not None and fence.epoch in epochs and fence.authority in authorities:
                self._fence = fence = _followed(fence, to.fence)
                if to.clock_epoch is not None:
                    self._clock = Version(to.clock_epoch, self._clock.n)
                if to.clear_marks:
                    self._marks.clear()
                if to.clear_guard:
                    self._guard.clear()
            done = fence is not None and fence[:3] == to.fence[:3]
        return len(shards) if done else 0

    def create(self, shards: Sequence[str], fence: Fence) -> int:
        """As `FencedStore.create`."""
        for shard in shards:
            self._only(shard)
        self.before("create")
        with self._lock:
            if not shards or self._fence is not None:
                return 0
            self._fence = fence
            self._tick(fence.epoch)
            return 1

    def note(self, shards: Sequence[str], *, incarnation: str | None = None, owes_all: bool | None = None) -> None:
        """As `FencedStore.note`."""
        for shard in shards:
            self._only(shard)
        with self._lock:
            if self._fence is not None and incarnation is not None:
                self._fence = self._fence._replace(incarnation=incarnation)
            if self._fence is not None and owes_all is not None:
                self._fence = self._fence._replace(owes_all=owes_all)

    def drop_marks(self, shard: str, *, over: int) -> bool:
        """As `FencedStore.drop_marks`."""
        self._only(shard)
        with self._lock:
            if len(self._marks) <= over:
                return False
            self._marks.clear()
            self.note([shard], owes_all=True)
            return True

    def reverse(self, shard: str, key: str, version: Version, item: Item | None) -> bool:
        """As `FencedStore.reverse`."""
        self._only(shard)
        self.before("reverse")
        with self._lock:
            fence = self._present()
            if (fence.epoch, fence.authority) != (version.epoch, Authority.TABLES):
                raise _stale(fence, key)
            if self._guard.get(key, Version(0, 0)) < version:
                self._set(key, item)
                self._guard[key] = version
            return True

    def guarded(self, shard: str) -> Iterator[str]:
        """As `FencedStore.guarded`."""
        self._only(shard)
        yield from list(self._guard)

    def shards_with_guard(self) -> Sequence[str]:
        """As `FencedStore.shards_with_guard`."""
        return [SHARD] if self._guard else []

    def incarnation(self) -> str:
        """As `FencedStore.incarnation`: `lose_all` begins another life."""
        return str(self._life)

    def confirm(self, *, replicas: int, timeout_s: float) -> bool:
        """As `FencedStore.confirm`: there are no replicas, however long one waits."""
        return replicas <= 0 <= timeout_s

    def clocks(self) -> Mapping[str, Version]:
        """As `FencedStore.clocks`."""
        return {} if self._fence is None else {SHARD: self._clock}

    def mark_safe(self) -> Mapping[str, Version]:
        """As `FencedStore.mark_safe`."""
        clocks = self.clocks()
        self._safe.update(clocks)
        return clocks

    def safe(self) -> Mapping[str, Version]:
        """As `FencedStore.safe`."""
        return dict(self._safe)

    def close(self) -> None:
        """Nothing is open."""

    # What an application's writers do; `memory_writer_async.py` has the words of the seam.

    def get(self, key: str) -> Item | None:
        """Return what stands under the key."""
        self.before("get")
        with self._lock:
            return self.items.at(key)

    def write(
        self,
        key: str,
        item: Item | None,
        *,
        epoch: int,
        ttl_ms: int | None = None,
        keep_ttl: bool = False,
        expect: Item | None = None,
        only_new: bool = False,
    ) -> Put | None:
        """Write, or delete (``None``), under fence and condition."""
        self.before("delete" if item is None else "put")
        with self._lock:
            self._check_open(epoch)
            found = self.items.at(key)
            if (only_new and found) or (expect is not None and (found is None or found.value != expect.value)):
                return None
            if item is not None and keep_ttl:
                item = item._replace(expires_at_ms=found.expires_at_ms if found else None)
            elif item is not None:
                item = self._expiring(item, ttl_ms)
            written = self._set(key, item)
            return self._marked([key], epoch, written.expires_at_ms if written else None)

    def write_many(self, items: Sequence[Item], *, epoch: int) -> Sequence[Put]:
        """Write items in one step with one n."""
        self.before("put_many")
        with self._lock:
            self._check_open(epoch)
            if not items:
                return []
            written = [self.items.put(item) for item in items]
            put = self._marked([item.key for item in items], epoch, None)
            return [put._replace(expires_at_ms=item.expires_at_ms) for item in written]

    def write_unfenced(self, key: str, item: Item | None, ttl_ms: int | None) -> bool:
        """Write only where there is no fence."""
        self.before("pass_unfenced")
        with self._lock:
            if self._fence is not None:
                return False
            self._set(key, None if item is None else self._expiring(item, ttl_ms))
            return True

    def key_page(self, *, prefix: str, position: str, limit: int) -> tuple[list[str], str]:
        """Return keys behind *position*, and the position of the next page."""
        with self._lock:
            page = [key for key in self.items.keys() if key.startswith(prefix) and key > position][: limit + 1]  # noqa: SIM118 - no dict
        return (page[:-1], page[-2]) if len(page) > limit else (page, "")

    def field_page(self, key: str) -> list[str]:
        """Return all addresses of a hash's fields, sorted."""
        with self._lock:
            item = self.items.at(key)
        return sorted(f"{key}{ADDRESS_SEPARATOR}{name.decode()}" for name in (fields_of(item) if item else ()))

    def lose_all(self) -> None:
        """Lose everything, the fence too, as FLUSHALL does or a server without its files."""
        with self._lock:
            self.items.clear()
            self._marks.clear()
            self._guard.clear()
            self._safe.clear()
            self._fence, self._clock = None, Version(0, 0)
            self._life += 1

    def _only(self, shard: str) -> None:
        if shard != SHARD:
            raise SourceError(f"there is no shard {shard!r}")

    def _set(self, key: str, item: Item | None) -> Item | None:
        if item is None:
            self.items.delete(key)
            return None
        return self.items.put(item)

    def _expiring(self, item: Item, ttl_ms: int | None) -> Item:
        if ttl_ms is None:
            return item
        if ttl_ms < 1 or ADDRESS_SEPARATOR in item.key:
            raise SourceError("no time to live, or one of a field, which expires with its hash", key=item.key)
        return item._replace(expires_at_ms=self.items.now_ms() + ttl_ms)

    def _present(self) -> Fence:
        if self._fence is None:
            raise FenceMissingError("the store has no fence")
        return self._fence

    def _check_open(self, epoch: int) -> None:
        fence = self._present()
        if fence.authority is not Authority.STORE or fence.epoch != epoch:
            raise _stale(fence, None)

    def _tick(self, epoch: int) -> Version:
        self._clock = Version(epoch, max(self._clock.n + 1, time.time_ns() // 1_000))
        return self._clock

    def _marked(self, keys: Sequence[str], epoch: int, expires_at_ms: int | None) -> Put:
        log = self._present().log
        if log is Logging.NONE:
            return Put(None, log, expires_at_ms)
        version = self._tick(epoch)
        self._marks.update(dict.fromkeys(keys, version.n))
        return Put(version, log, expires_at_ms)


def _stale(fence: Fence, key: str | None) -> StaleError:
    kind = SealedError if fence.authority is Authority.SEALED else StaleError
    return kind(
        f"the store is at epoch {fence.epoch} with authority {fence.authority}",
        epoch=fence.epoch,
        authority=fence.authority,
        key=key,
    )


def _followed(before: Fence, after: Fence) -> Fence:
    """Return the fence that follows another one: what is owed stays owed, and a life that is known, known."""
    if after.epoch < before.epoch:
        raise SourceError(f"an epoch never falls: {before.epoch} to {after.epoch}")
    begins = (before.authority, before.log) == (Authority.STORE, Logging.NONE) and after.log is not Logging.NONE
    if begins and after.epoch == before.epoch:
        raise SourceError(f"unlogged writes were at epoch {before.epoch}: logging begins a new one")
    incarnation = after.incarnation or before.incarnation
    return after._replace(incarnation=incarnation, owes_all=before.owes_all or after.owes_all)
