"""A reader of the tables that ends in time. `within` is the same for threads, where nobody can end it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

_PARTS = 8
"""The calls under way are looked at so often in the time that one of them may take: a timer for each would cost more
than most of the reads."""


class _Call:
    """A call under way."""

    __slots__ = ("end", "is_over", "task")

    def __init__(self, task: asyncio.Task[Any] | None, end: float) -> None:
        self.task, self.end, self.is_over = task, end, False

    def forgive(self) -> int | None:
        """Take back the cancellation, where it was asked for; return how many others there are, else ``None``."""
        if not self.is_over or self.task is None:
            return None
        self.is_over = False
        return self.task.uncancel()


class _Watch:
    """Ends the calls of one reader that take too long. Of one loop at a time, as its tasks are."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._calls: set[_Call] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_armed = False

    def begin(self) -> _Call:
        """Watch the call of this task."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._calls, self._is_armed = loop, set(), False
        call = _Call(asyncio.current_task(), monotonic() + self._seconds)
        self._calls.add(call)
        if not self._is_armed:
            self._is_armed = True
            loop.call_later(self._seconds / _PARTS, self._look, loop)
        return call

    def end(self, call: _Call) -> None:
        """Watch it no longer."""
        self._calls.discard(call)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is not self._loop:
            return
        now = monotonic()
        for call in self._calls:
            if now >= call.end and not call.is_over and call.task is not None:
                call.is_over = True
                call.task.cancel()
        self._is_armed = bool(self._calls)
        if self._is_armed:
            loop.call_later(self._seconds / _PARTS, self._look, loop)


def within(reader: Callable[..., Awaitable[Any]], seconds: float) -> Callable[..., Awaitable[Any]]:
    """Return *reader* with a deadline: past it, or an eighth of it later, it is cancelled and `TimeoutError` raised."""
    watch = _Watch(seconds)

    async def read(*args: Any, **kwargs: Any) -> Any:
        """Read, watched."""
        call = watch.begin()
        try:
            return await reader(*args, **kwargs)
        except asyncio.CancelledError:
            # Cancelled by others, too, it stays cancelled.
            if call.forgive() == 0:
                raise TimeoutError from None
            raise
        finally:
            watch.end(call)
            call.forgive()

    return read
