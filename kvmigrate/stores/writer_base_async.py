"""The seam to a store that an application writes while it is migrated. See `fence_base` for the words.

`AsyncFencedWriter` has a generated twin without ``await``. One writer serves all threads or tasks of a process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from kvmigrate.model import Authority, Fence, Item
from kvmigrate.stores.fence_base import KeyPage, Put, Seen, Swap


class AsyncFencedWriter(Protocol):
    """What an application's own reads and writes go through.

    Every write names the epoch that the caller believes in, and raises, with nothing written:
    `SealedError` or `StaleError` where the fence says otherwise, `FenceMissingError` where there is none,
    `SourceError` where the store refused it. A connection that was lost before the answer raises
    `AmbiguousWriteError` and is never tried again.
    """

    @property
    def is_one_shard(self) -> bool:
        """Whether all keys are in one shard, and so under one fence."""
        ...

    async def fence(self, key: str) -> Fence | None:
        """Return the fence of the key's shard."""
        ...

    async def observe(self, keys: Sequence[str]) -> Sequence[Seen]:
        """Return one `Seen` per key, each for that key alone."""
        ...

    async def get(self, key: str) -> Item | None:
        """Return what stands under the key, as a plain read: no fence is looked at."""
        ...

    async def put(
        self,
        item: Item,
        *,
        epoch: int,
        ttl_ms: int | None = None,
        keep_ttl: bool = False,
        expect: Item | None = None,
    ) -> Put | None:
        """Write the item whole. Its expiry is *ttl_ms* by the store's clock, or `Item.expires_at_ms`, or none.

        Args:
            item: JSON, hash or a field of a hash; other kinds are refused. A field's expiry is its hash's: it stays.

            epoch: That the caller believes in.

            ttl_ms: From now on.

            keep_ttl: Leave the expiry as it is.

            expect: Write only if this is what stands there (its value; its expiry does not count).

        Returns:
            ``None`` where *expect* was not met; nothing was written.
        """
        ...

    async def create(self, item: Item, *, epoch: int, ttl_ms: int | None = None) -> Put | None:
        """Write the item only if nothing stands under its key; ``None`` if something does."""
        ...

    async def delete(self, key: str, *, epoch: int, expect: Item | None = None) -> Put | None:
        """Delete the key, whether it exists or not; ``None`` where *expect* was not met."""
        ...

    async def put_many(self, items: Sequence[Item], *, epoch: int) -> Sequence[Put]:
        """Write items, all of one shard in one step with one n; several shards one after the other."""
        ...

    async def create_fence(self, key: str, fence: Fence) -> bool:
        """Give the key's shard the fence if it has none; return whether it did. Its clock starts at that epoch."""
        ...

    async def swap_fence(self, key: str, *, epoch: int, authority: Authority, to: Swap) -> bool:
        """Give the key's shard another fence if it is at *epoch* and *authority* now; return whether it did."""
        ...

    async def pass_unfenced(self, item: Item | None, key: str, *, ttl_ms: int | None = None) -> bool:
        """Write the item, or delete the key (``None``), only where its shard has no fence at that very moment.

        Nothing is marked and no clock moves.

        Returns:
            Whether it did. ``False`` where there is a fence; nothing was written.
        """
        ...

    async def keys(self, *, prefix: str, position: str = "", limit: int = 500) -> KeyPage:
        """Return about *limit* of the store's own keys that begin with *prefix*; some may come twice.

        A key that stands there from the first page to the last is in one of them. Keys that are no UTF-8 are left out.
        """
        ...

    async def fields(self, key: str, *, position: str = "", limit: int = 500) -> KeyPage:
        """Return about *limit* addresses of the fields of a hash; none where there is no hash under *key*."""
        ...

    async def close(self) -> None:
        """Release connections. Safe to call twice."""
        ...
