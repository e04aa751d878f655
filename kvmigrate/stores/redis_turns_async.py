"""A place in the queue for one of a pool's connections; `redis_turns` is the same for threads."""

from __future__ import annotations

import asyncio

from kvmigrate.stores.redis_turns import WAIT_S


class AsyncTurns:
    """Lets so many calls pass at once, and the others wait: the driver's own pool would refuse them."""

    def __init__(self, most: int) -> None:
        """Let *most* pass at once."""
        self.most, self._free = most, asyncio.Semaphore(most)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def take(self) -> bool:
        """Wait for a turn, up to `WAIT_S`; return whether it came. Then it must be given back."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._free = loop, asyncio.Semaphore(self.most)
        if not self._free.locked():
            return await self._free.acquire()
        try:
            async with asyncio.timeout(WAIT_S):
                return await self._free.acquire()
        except TimeoutError:
            return False

    def give(self) -> None:
        """Give a turn back."""
        self._free.release()
