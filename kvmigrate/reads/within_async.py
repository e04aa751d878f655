"""A reader of the tables that ends in time. `within` is the same for threads, where nobody can end it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any


def within(reader: Callable[..., Awaitable[Any]], seconds: float) -> Callable[..., Awaitable[Any]]:
    """Return *reader* with a deadline: past it, it is cancelled and `TimeoutError` raised."""

    async def read(*args: Any, **kwargs: Any) -> Any:
        async with asyncio.timeout(seconds):
            return await reader(*args, **kwargs)

    return read
