"""The seam to tables that an application writes and reads while they are migrated. See `live_base` for the words.

`AsyncLiveWriter` has a generated twin without ``await``. One writer serves all threads or tasks of a process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from kvmigrate.model import Item, Version
from kvmigrate.target.keyset_base import Keyset
from kvmigrate.target.live_base import Control


class AsyncItems(Protocol):
    """What reads of single items go through. Raises as `AsyncLiveWriter`."""

    async def get(self, keys: Sequence[str], *, deadline_s: float) -> Sequence[Item | None]:
        """Return items rebuilt from their rows, kept ones whole; ``None`` for those that are not there or expired."""
        ...

    async def version(self, key: str, *, deadline_s: float = 5.0) -> Version | None:
        """Return as of which version the tables hold the key; ``None`` where they never did. Raises `TargetError`."""
        ...

    async def close(self) -> None:
        """Release connections. Safe to call twice."""
        ...


class AsyncLiveWriter(AsyncItems, Protocol):
    """What an application's writes and reads of the tables go through.

    Every call has a deadline of its own; past it, it raises `DeadlineError` and gives the connection up.
    """

    async def control(self) -> Control | None:
        """Return the control row; ``None`` where the scope is not known here. Raises `TargetError`."""
        ...

    async def mirror(self, item: Item | None, key: str, version: Version, *, deadline_s: float) -> bool:
        """Bring the rows of one item to *version*, if that is a plain matter.

        Args:
            item: As the store accepted it; ``None`` where it was deleted.

            key: Its address.

            version: That the store gave the write.

            deadline_s: Seconds, for everything together, waiting for a connection included.

        Returns:
            Whether the tables are at *version* or a later one. ``False`` where the item is refused, must wait, or
            concerns other items: nothing was written, and it is for the applier.

        Raises:
            FenceError: the control row is at another epoch or authority.

            DeadlineError, TargetError: nothing is known of the tables.
        """
        ...

    async def put(
        self,
        item: Item | None,
        key: str,
        *,
        epoch: int,
        expect: Item | None = None,
        only_new: bool = False,
        deadline_s: float,
    ) -> Version | None:
        """Write an item to the open tables, or delete it (``None``), and owe it to the store.

        Args:
            item: With its absolute expiry.

            key: Its address.

            epoch: That the caller believes in.

            expect: Only if this is what the tables hold, as `get` returned it, its expiry too: a writer that keeps
                one says so in *item*.

            only_new: Only if the tables hold nothing under the key, or something expired.

            deadline_s: As for `mirror`.

        Returns:
            ``None`` where *expect* or *only_new* was not met; nothing was written.

        Raises:
            FenceError: the tables are not open at *epoch*.

            WriteRefusedError: the tables cannot hold it.

            DeadlineError: nothing is known of the write (an `AmbiguousWriteError` where it may have happened).
        """
        ...

    async def keys(self, *, after: str, limit: int) -> Sequence[str]:
        """Return the next addresses that the tables hold behind *after*, in COLLATE "C" order."""
        ...

    async def now_ms(self, *, deadline_s: float) -> int:
        """Return the tables' clock, in milliseconds since 1970: what expires there goes by it."""
        ...

    async def begin_epoch(self) -> Control:
        """Begin a new epoch that owes a full reconcile, as a store lost its fence; one transaction.

        Only where the authority is the store's. Where the scope is not known here, its row is made first.

        Returns:
            The control row as it is afterwards; where the authority is another one, as it was.

        Raises:
            SchemaError: the control schema is not installed. `TargetError`.
        """
        ...

    async def paid(self, key: str, version: Version) -> None:
        """Note that the store was given this version: nothing is owed if it is still the newest."""
        ...


class AsyncRowQuery(Protocol):
    """What an application's own queries of the tables go through."""

    async def fetch(self, sql: str, values: Sequence[Any], *, deadline_s: float) -> Sequence[Mapping[str, Any]]:
        """Return the rows of one statement by column.

        Raises:
            DeadlineError: it took longer than *deadline_s* seconds, waiting for a connection included.

            TargetError: PostgreSQL failed or refused.
        """
        ...

    async def page(
        self, sql: str, values: Sequence[Any], keyset: Keyset, *, deadline_s: float
    ) -> Sequence[Mapping[str, Any]]:
        """Return the rows of one page of a statement by column, in order; *sql* has no ORDER BY and no LIMIT.

        Raises as `fetch`.
        """
        ...

    async def position(self, *, deadline_s: float) -> int:
        """Return a position of the log behind all that was committed before; see `standby_base`. Raises as `fetch`."""
        ...

    async def close(self) -> None:
        """Release connections. Safe to call twice."""
        ...
