"""Indexes kept by hand, rebuilt in the store before it is given the items that changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence

from kvmigrate.errors import FenceMissingError, StaleError
from kvmigrate.model import Item, Version
from kvmigrate.stores.fence_base import FencedStore
from kvmigrate.target.live_base import ListedItems, Owed
from kvmigrate.transform.lens import Lens
from kvmigrate.transform.maintained import Maintained, NotRebuilt, maintained_pointers, pointer_key, rebuilt

PAUSE_S = 1.0
"""An index is rebuilt at most so often; items that stand in it wait that long."""


class MaintainedPointers:
    """Rebuilds the indexes that owed items stand in. Implements `reverse.Beforehand`; for one relay, the leader.

    An item stays owed until its indexes are right: both that of its value in the store, and that of its new one. So
    nothing has to be remembered, whatever ends in between.
    """

    def __init__(
        self, store: FencedStore, listing: ListedItems, lens: Lens, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Rebuild nothing yet; *store* is that of the reverse applier, *listing* is closed with this."""
        self._store, self._listing, self._lens, self._clock = store, listing, lens, clock
        self._pointers, self._refused = maintained_pointers(lens.mapping)
        self._built: dict[str, float] = {}
        self._failed: dict[str, str] = {}

    @property
    def broken(self) -> Mapping[str, str]:
        """Indexes that cannot be maintained, by the pattern of their keys, and why."""
        return {**self._refused, **self._failed}

    def prepare(self, owed: Sequence[Owed], *, hurry: bool) -> Collection[str]:
        """Rebuild the indexes of *owed* items; return the keys of items whose indexes were rebuilt a moment ago.

        Raises:
            StaleError, SourceError, TargetError: nothing is noted, and what is owed stays owed.
        """
        listed = [each for each in owed if self._of(each.key)]
        if not listed:
            return ()
        before, now = self._before([each.key for each in listed]), self._clock()
        self._built = {key: at for key, at in self._built.items() if now - at < PAUSE_S}
        later: set[str] = set()
        needed: dict[str, tuple[Maintained, int]] = {}
        for each in listed:
            indexes = self._indexes(each, before.get(each.key))
            if not hurry and not self._built.keys().isdisjoint(indexes):
                later.add(each.key)
            else:
                needed.update({key: (pointer, each.version.epoch) for key, pointer in indexes.items()})
        for key, (pointer, epoch) in needed.items():
            self._rebuild(key, pointer, epoch)
            self._built[key] = now
        return later

    def look(self) -> Mapping[str, str]:
        """Return as `broken`, before anything was rebuilt: what follows from the mapping, and from single keys.

        A pointer of many keys is found to be of another shape only when one of them is rebuilt.
        """
        found = dict(self._refused)
        for each in self._pointers:
            if each.columns:
                continue
            key = each.pointer.key.render({})
            try:
                rebuilt(self._lens, each, key, self._before([key]).get(key), ())
            except FenceMissingError:
                continue
            except NotRebuilt as exc:
                found[each.name] = f"{key}: {exc}"
        return {**found, **self._failed}

    def close(self) -> None:
        """Release what it reads with."""
        self._listing.close()

    def _of(self, key: str) -> list[Maintained]:
        entity = self._lens.route(key).entity
        return [each for each in self._pointers if each.entity is entity]

    def _indexes(self, owed: Owed, before: Item | None) -> dict[str, Maintained]:
        return {
            key: each
            for each in self._of(owed.key)
            for item in (before, owed.item)
            if (key := pointer_key(self._lens, each, item)) is not None
        }

    def _before(self, keys: Sequence[str]) -> dict[str, Item]:
        """Return what the store has under these keys still."""
        found: dict[str, Item] = {}
        for shard, some in self._store.by_shard(keys).items():
            found.update((item.key, item) for item in self._store.observe(shard, some).items if item is not None)
        return found

    def _rebuild(self, key: str, pointer: Maintained, epoch: int) -> None:
        captured = self._lens.route(key).captured
        values = {column: captured[capture] for column, capture in pointer.columns.items() if capture in captured}
        listing = self._listing.listed(pointer.entity.name, values)
        [shard] = self._store.by_shard([key])
        [before] = self._store.observe(shard, [key]).items
        try:
            item = rebuilt(self._lens, pointer, key, before, listing.keys)
            if item != before:
                self._store.reverse(shard, key, Version(epoch, listing.n), item)
        except StaleError:
            raise
        except NotRebuilt as exc:
            self._failed[pointer.name] = f"{key}: {exc}"
        else:
            self._failed.pop(pointer.name, None)
