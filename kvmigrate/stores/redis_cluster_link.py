# This file is generated from redis_cluster_link_async.py by tools/async_to_sync.py.
# Change that one instead.
"""How commands of mapped keys get done through a client of a cluster.

`ClusterLink` is the generated twin.
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import isawaitable, iscoroutinefunction
from typing import Any

from redis import RedisCluster
from redis.exceptions import RedisClusterException

from kvmigrate.model import Fence
from kvmigrate.stores import redis_cluster_client as driver
from kvmigrate.stores.client_base import Commands
from kvmigrate.stores.client_plan import Plan
from kvmigrate.stores.redis_client_link import Link
from kvmigrate.stores.redis_slot_calls import SlotCalls


class ClusterLink(Link):
    """The link to a cluster. Reads, and what names no mapped key, go through the client as it was."""

    def __init__(self, plain: Any, commands: Commands, scope: str) -> None:
        """Connect to nothing yet."""
        super().__init__(plain, driver.callbacks_of(plain), commands)
        # Without an event loop the driver packs in C, and takes fewer types.
        in_c = not iscoroutinefunction(RedisCluster.execute_command)
        self.calls: SlotCalls = SlotCalls(plain, scope=scope, in_c=in_c)

    def done(self, plan: Plan, args: Sequence[Any], options: dict[str, Any]) -> Any:
        """As `Link.done`. Raises `RedisClusterException` where its keys are of several slots."""
        self.calls.slot(plan)
        return super().done(plan, args, options)

    def alone(self, plan: Plan) -> list[Any]:
        """Run it in the slot of its keys."""

        def send(_: Fence) -> Any:
            """Send it."""
            return self.calls.transacted([plan], [plan.args])

        answers: list[Any] = self.commands.together([plan], send)
        return answers

    def size(self, answer: Any) -> Any:
        """Tell it as it is: which nodes were asked only the driver knows, and each slot has some."""
        return answer

    def other_key(self) -> Any:
        """Scan all nodes."""
        for found in self.plain.scan_iter(count=1000):
            if not self.calls.is_own(found):
                return found
        return None

    def slot(self, plan: Plan | None, args: Sequence[Any]) -> int | None:
        """Return the slot of a command; ``None`` where only the driver knows where it goes."""
        if plan is not None:
            return self.calls.slot(plan)
        try:
            ready = driver.ready(self.plain)
            _ = ready if isawaitable(ready) else ready
            found: Any = driver.slot_of(self.plain, args)
            found = found if isawaitable(found) else found
        except RedisClusterException:
            return None
        return int(found)
