"""How commands of mapped keys get done through a client of a cluster.

`AsyncClusterLink` has a generated twin without ``await``.
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import isawaitable, iscoroutinefunction
from typing import Any

from redis.asyncio import RedisCluster
from redis.exceptions import RedisClusterException

from kvmigrate.model import Fence
from kvmigrate.stores import redis_cluster_client as driver
from kvmigrate.stores.client_base_async import AsyncCommands
from kvmigrate.stores.client_plan import Plan
from kvmigrate.stores.redis_client_link_async import AsyncLink
from kvmigrate.stores.redis_slot_calls_async import AsyncSlotCalls


class AsyncClusterLink(AsyncLink):
    """The link to a cluster. Reads, and what names no mapped key, go through the client as it was."""

    def __init__(self, plain: Any, commands: AsyncCommands, scope: str) -> None:
        """Connect to nothing yet."""
        super().__init__(plain, driver.callbacks_of(plain), commands)
        # Without an event loop the driver packs in C, and takes fewer types.
        in_c = not iscoroutinefunction(RedisCluster.execute_command)
        self.calls: AsyncSlotCalls = AsyncSlotCalls(plain, scope=scope, in_c=in_c)

    async def done(self, plan: Plan, args: Sequence[Any], options: dict[str, Any]) -> Any:
        """As `AsyncLink.done`. Raises `RedisClusterException` where its keys are of several slots."""
        self.calls.slot(plan)
        return await super().done(plan, args, options)

    async def alone(self, plan: Plan) -> list[Any]:
        """Run it in the slot of its keys."""

        async def send(_: Fence) -> Any:
            """Send it."""
            return await self.calls.transacted([plan], [plan.args])

        answers: list[Any] = await self.commands.together([plan], send)
        return answers

    async def size(self, answer: Any) -> Any:
        """Tell it as it is: which nodes were asked only the driver knows, and each slot has some."""
        return answer

    async def other_key(self) -> Any:
        """Scan all nodes."""
        async for found in self.plain.scan_iter(count=1000):
            if not self.calls.is_own(found):
                return found
        return None

    async def slot(self, plan: Plan | None, args: Sequence[Any]) -> int | None:
        """Return the slot of a command; ``None`` where only the driver knows where it goes."""
        if plan is not None:
            return self.calls.slot(plan)
        try:
            ready = driver.ready(self.plain)
            _ = await ready if isawaitable(ready) else ready
            found: Any = driver.slot_of(self.plain, args)
            found = await found if isawaitable(found) else found
        except RedisClusterException:
            return None
        return int(found)
