"""The seam between an application's own client of the store and what decides about its commands.

`AsyncCommands` has a generated twin without ``await``. One serves all clients, threads and tasks of a process.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from kvmigrate.model import Fence
from kvmigrate.stores.client_plan import Encoder, Plan

AsyncSend = Callable[[Fence], Awaitable[Any]]
"""Does what is planned in one step with its marks, under this fence; returns the answer as the server gave it."""


class AsyncCommands(Protocol):
    """Decides which commands of a client are more than they look like, and has them done where the authority is."""

    @property
    def surely_in_store(self) -> bool:
        """Whether it was confirmed a moment ago that reads belong to the store."""
        ...

    def plan(self, args: Sequence[Any], encoder: Encoder, *, is_piped: bool = False) -> Plan | None:
        """Return what a command does to mapped keys; ``None`` where the client may go on as if nothing were.

        *is_piped*: it goes together with others, so that a read may have to be done again behind a write.

        Raises:
            CommandRefusedError: it cannot be done through a store that is migrated.
        """
        ...

    async def reads_tables(self, plan: Plan) -> bool:
        """Return whether a read must be answered by the tables. Raises as `AsyncStore`."""
        ...

    async def read(self, plan: Plan) -> Any:
        """Return the tables' answer to a read. Raises `NotAfterCutoverError` where they have none."""
        ...

    async def write(self, plan: Plan, send: AsyncSend) -> Any:
        """Have a write done wherever the authority is; return the answer as a server gives it.

        *send* is called while the store is the authority, again where its fence had moved.

        Raises:
            NotAfterCutoverError: the tables are the authority, and the command does not work there.

            StaleError, FenceMissingError: as of `AsyncStore`; nothing was written.
        """
        ...

    async def together(self, plans: Sequence[Plan], send: AsyncSend) -> Any:
        """As `write`, for commands that are one transaction; none of it works while the tables are the authority."""
        ...

    async def known(self, plans: Sequence[Plan]) -> Fence | None:
        """Return the fence for commands that are sent together; ``None`` while the tables are the authority.

        It is not checked; who writes does.
        """
        ...

    def note_transaction(self, plans: Sequence[Plan]) -> None:
        """Count a transaction on mapped keys, as none works while the tables are the authority."""
        ...

    def forget(self) -> None:
        """Ask anew the next time, as a fence was met that is not the one which is known."""
        ...
