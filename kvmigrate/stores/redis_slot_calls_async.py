"""Commands of a client of a cluster in one step with fence and marks, each at the master that has its slot.

`AsyncSlotCalls` has a generated twin without ``await``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.asyncio import RedisCluster
from redis.crc import key_slot
from redis.exceptions import AskError, MaxConnectionsError, MovedError, RedisClusterException, RedisError, ResponseError

from kvmigrate.errors import ConfigError, SourceError
from kvmigrate.stores.client_encoder import ClientEncoder
from kvmigrate.stores.client_plan import Plan
from kvmigrate.stores.redis_change import to_bytes
from kvmigrate.stores.redis_client_calls_async import (
    AsyncClientCalls,
    Words,
    answer_in,
    behind_name,
    function_of,
    resp_of,
)
from kvmigrate.stores.redis_clients_async import Address, cluster_at
from kvmigrate.stores.redis_cluster_call_async import PAUSES_S, AsyncClusterCaller
from kvmigrate.stores.redis_nodes_async import AsyncRedisNodes
from kvmigrate.stores.redis_refusal import ELSEWHERE
from kvmigrate.stores.redis_shards import SlotKeys, is_own


class AsyncSlotCalls:
    """Speaks to the nodes of one cluster, on connections of its own. For all threads or tasks of a client.

    Attributes:
        encoder: The client's rules.

        resp: The version of the protocol that the client speaks, 2 or 3.

        nodes: What is known of the cluster.
    """

    def __init__(self, client: RedisCluster, *, scope: str, in_c: bool) -> None:
        """Connect to nothing yet. Raises `ConfigError` where it is no client of a cluster."""
        place = cluster_at(client)
        if place is None:
            raise ConfigError(f"a {type(client).__name__} is no client of a cluster")
        untyped: Any = client
        self.nodes = AsyncRedisNodes(place)
        self._caller, self._shards = AsyncClusterCaller(self.nodes), SlotKeys(scope)
        self._at: dict[Address, AsyncClientCalls] = {}
        self.encoder = ClientEncoder(untyped.get_encoder(), in_c=in_c)
        self.resp = resp_of(untyped.nodes_manager.connection_kwargs)

    def is_own(self, key: Any) -> bool:
        """Return whether a key, as the client gives it, is one of the tool itself."""
        return key is not None and is_own(self.encoder.encode(key))

    async def write(self, plan: Plan, epoch: int) -> Any:
        """Run one command with its marks; return its answer. Raises as `AsyncRedisWriter.write`."""
        rest = behind_name(plan, epoch, self._shards, self.resp)
        return answer_in(await self._caller.call(function_of(plan), *rest, is_write=True), plan)

    def slot(self, plan: Plan) -> int:
        """Return the slot of a command's keys. Raises `RedisClusterException` where they are of several."""
        found: int = key_slot(to_bytes(plan.keys[0]))
        if len(plan.keys) > 1 and any(key_slot(to_bytes(key)) != found for key in plan.keys):
            raise RedisClusterException(f"{plan.name} - all keys must map to the same key slot")
        return found

    def at(self, address: Address) -> AsyncClientCalls:
        """Return how to speak to one node."""
        found = self._at.get(address)
        if found is None:
            made = AsyncClientCalls(
                f"{self.nodes.name} at {address[0]}:{address[1]}",
                self.nodes.caller(address),
                self._shards,
                self.encoder,
                self.resp,
            )
            found = self._at.setdefault(address, made)
        return found

    async def transacted(self, plans: Sequence[Plan], commands: Sequence[Words]) -> list[Any]:
        """Run a transaction in the slot of its keys, at whichever node has it. Raises as `AsyncClientCalls.transacted`.

        While the keys of the slot are on their way there are no transactions: it waits for a few seconds.

        Raises:
            ResponseError: one of `ELSEWHERE`, as the slot is still on its way; nothing was done.
        """
        slot = self.slot(plans[0])
        last: ResponseError | None = None
        for pause in (*PAUSES_S, None):
            address = await self.nodes.owner(slot)
            try:
                return await self._transacted_at(address, plans, commands)
            except MovedError as exc:
                self.nodes.moved(slot, exc, address)
                last = exc
            except ELSEWHERE as exc:
                if not isinstance(exc, AskError):
                    self.nodes.doubt()
                last = exc
            if pause:
                await asyncio.sleep(pause)
        assert last is not None  # noqa: S101 - each round ends with one
        raise last

    async def _transacted_at(self, address: Address, plans: Sequence[Plan], commands: Sequence[Words]) -> list[Any]:
        pool: Any = self.nodes.client(address).connection_pool
        try:
            connection = await pool.get_connection()
        except (RedisError, OSError) as exc:
            if not isinstance(exc, MaxConnectionsError):
                self.nodes.doubt()
            raise SourceError(f"{self.nodes.name}: {self.nodes.place.scrub(exc)}; nothing was sent") from exc
        try:
            return await self.at(address).transacted(connection, plans, commands)
        finally:
            await pool.release(connection)

    async def close(self) -> None:
        """Close the connections to all nodes."""
        await self._caller.close()
        self._at.clear()
