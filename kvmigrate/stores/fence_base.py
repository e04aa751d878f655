"""The seam to a store that is migrated while it is written: fence, marks and fenced writes, without any driver.

A store is one shard or several. Each has a fence (who may write, `kvmigrate.model.Fence`), a clock whose n
only grows, and a set of marks: keys whose newest write the tables do not have yet. Every method here is one
atomic step in the store, and one round trip; whatever is compared is compared in the store. What concerns several
shards is one step in each of them.

Two faces: `FencedStore` is what the relay, the backfill and the controller use (plain sync code), and
`AsyncFencedWriter` (``writer_base_async.py``) with its generated twin is what an application's calls go through.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from kvmigrate.model import Authority, Fence, Item, Logging, MarkedKey, Version


class Seen(NamedTuple):
    """What some keys of one shard held at one moment.

    Attributes:
        fence: The shard's fence at that moment.

        version: As of which all of it is: the epoch of the shard's last write, and its n. While the shard is
            sealed, that epoch is still the one before the seal.

        items: In the order of the keys asked for; ``None`` where there is nothing.

        marks: The n of each key's mark, ``None`` where it has none.
    """

    fence: Fence
    version: Version
    items: tuple[Item | None, ...]
    marks: tuple[int | None, ...]


class Put(NamedTuple):
    """An accepted write of the store.

    Attributes:
        version: ``None`` where nothing is logged (stage off).

        log: Whether the writer should mirror now.

        expires_at_ms: The absolute expiry that the store gave it, or ``None``.
    """

    version: Version | None
    log: Logging
    expires_at_ms: int | None


class Swap(NamedTuple):
    """The fence that a shard shall have instead of another one; `FencedStore.swap`.

    Attributes:
        fence: Its incarnation of "" leaves the one that is noted. What is owed is only ever added: `FencedStore.note`
            takes it away, so that a swap by somebody who read the fence before marks were dropped does not.

        clock_epoch: The epoch from now on of what the clock counts; ``None`` leaves it: a sealed shard's positions
            still belong to the epoch before.

        clear_marks: The tables open, so forward marks mean nothing any more.

        clear_guard: The store opens, so what remembers reverse-mirrored versions is not needed any more.
    """

    fence: Fence
    clock_epoch: int | None = None
    clear_marks: bool = False
    clear_guard: bool = False


class KeyPage(NamedTuple):
    """Some keys of a walk through a store; *position* is where it goes on, "" behind the last page."""

    keys: Sequence[str]
    position: str


class FencedStore(Protocol):
    """Fences, marks and reads of a store. Every method may raise `SourceError` and is safe to repeat.

    A *shard* is named by an opaque text from `shards`. Keys are addresses as in `Item.key`: of a field of a hash
    that explodes it is the hash's key, `ADDRESS_SEPARATOR`, the field.
    One thread at a time: open one for each.
    """

    @property
    def name(self) -> str:
        """The store's URL without secrets."""
        ...

    def shards(self) -> Sequence[str]:
        """Return all shards; the same as long as the store is one server or one cluster."""
        ...

    def by_shard(self, keys: Sequence[str]) -> Mapping[str, list[str]]:
        """Group addresses by shard, in their order."""
        ...

    def fences(self, shards: Sequence[str] | None = None) -> Mapping[str, Fence | None]:
        """Return the fence of each of *shards*, of every one by default; ``None`` where it has none, or has no clock.

        Of a cluster that is one question for each of 16384 shards: nothing to do all the time.
        """
        ...

    def marked(self, shard: str, *, limit: int) -> Sequence[MarkedKey]:
        """Return the marks with the lowest n."""
        ...

    def marked_in(self, shards: Sequence[str], *, limit: int) -> Mapping[str, Sequence[MarkedKey]]:
        """Return the marks with the lowest n of each of *shards*, at most *limit* of each."""
        ...

    def marks(self) -> int:
        """Return how many marks there are in all shards."""
        ...

    def shards_with_marks(self, among: Sequence[str] | None = None) -> Sequence[str]:
        """Return the shards that have any mark, of all or *among* some."""
        ...

    def observe(self, shard: str, keys: Sequence[str]) -> Seen:
        """Return what stands under keys of one shard, with their expiries, fence, clock and marks, all at one moment.

        Raises:
            FenceMissingError: the shard has no fence.
        """
        ...

    def observe_together(self, keys: Mapping[str, Sequence[str]]) -> Mapping[str, Seen]:
        """Return the same for keys of several shards, those of each shard as of one moment.

        Where nobody writes meanwhile, all have one version, so that they can be applied together: the clocks of
        shards that are behind are moved on for that.

        Raises:
            FenceMissingError: a shard has no fence.
        """
        ...

    def ack(self, shard: str, mirrored: Collection[MarkedKey]) -> int:
        """Take away the marks that still have the n given; return how many. A newer mark stays."""
        ...

    def ack_all(self, mirrored: Mapping[str, Collection[MarkedKey]]) -> int:
        """Do that for several shards."""
        ...

    def touch(self, shard: str, keys: Sequence[str], *, epoch: int) -> int:
        """Mark keys with a fresh n, whether they exist or not; return that n.

        Raises:
            StaleError: the shard is not open at *epoch* (authority K); nothing was marked.
        """
        ...

    def touch_all(self, keys: Mapping[str, Sequence[str]], *, epoch: int) -> None:
        """Do that for keys of several shards.

        Raises:
            StaleError: one of them is not open at *epoch* (authority K); keys of others may be marked.
        """
        ...

    def swap(
        self, shards: Sequence[str], *, epochs: Collection[int], authorities: Collection[Authority], to: Swap
    ) -> int:
        """Give each of *shards* the fence *to* if its fence has one of the *epochs* and *authorities* now.

        Returns:
            How many of *shards* have that epoch, authority and log afterwards, be it from this call or an earlier one.

        Raises:
            SourceError: the epoch would fall, or an open store (K) would begin to log without a new epoch.
        """
        ...

    def create(self, shards: Sequence[str], fence: Fence) -> int:
        """Give the fence to those of *shards* that have none; return how many. Their clocks start at its epoch."""
        ...

    def note(self, shards: Sequence[str], *, incarnation: str | None = None, owes_all: bool | None = None) -> None:
        """Write into the fences of *shards*, beside epoch and authority, what is given.

        That nothing is owed may be noted only by who first wrote durably elsewhere that all is, and compares then.
        """
        ...

    def drop_marks(self, shard: str, *, over: int) -> bool:
        """Drop all marks of a shard that has more than *over*, and note that it owes all; return whether it did."""
        ...

    def reverse(self, shard: str, key: str, version: Version, item: Item | None) -> bool:
        """Write what the tables hold of a key, unless the store was given that version or a later one already.

        Returns:
            Whether the store has that version or a later one now (always, if nothing is raised).

        Raises:
            StaleError: the shard is not at the epoch of *version* with authority T; nothing was written.
        """
        ...

    def guarded(self, shard: str) -> Iterator[str]:
        """Yield the keys that the reverse mirror wrote since the tables opened."""
        ...

    def shards_with_guard(self) -> Sequence[str]:
        """Return the shards of which `guarded` yields anything."""
        ...

    def incarnation(self) -> str:
        """Return in which life the store is: another one after a restart, a failover or a restore of any part of it."""
        ...

    def confirm(self, *, replicas: int, timeout_s: float) -> bool:
        """Return whether so many replicas of every shard have all that this connection's shards accepted (WAIT)."""
        ...

    def clocks(self) -> Mapping[str, Version]:
        """Return what every shard's clock says; shards without one are left out."""
        ...

    def mark_safe(self) -> Mapping[str, Version]:
        """Write into each shard's clock what it says, and return that.

        A shard that `safe` tells this of later, in whatever life, has lost nothing that it accepted before: what a
        restart, a failover or a restore loses is the end of a history.
        """
        ...

    def safe(self) -> Mapping[str, Version]:
        """Return what `mark_safe` wrote last and the store still has; shards without it are left out."""
        ...

    def close(self) -> None:
        """Release connections. Safe to call twice."""
        ...
