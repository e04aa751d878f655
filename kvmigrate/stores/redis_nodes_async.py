"""The nodes of a Redis Cluster: which has which slot, and a caller for each.

`AsyncRedisNodes` has a generated twin without ``await``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from redis.asyncio import Redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS
from redis.exceptions import AskError, ClusterDownError

from kvmigrate.errors import SourceError
from kvmigrate.stores.redis_call_async import AsyncRedisCaller
from kvmigrate.stores.redis_clients_async import Address, AsyncClusterPlace
from kvmigrate.stores.redis_refusal import refusal

_MOST_MOVES = 5
"""After so many slots that are elsewhere it is quicker to look all of them up again."""


class Slots(NamedTuple):
    """Which master has which slot, as a node told it.

    Attributes:
        owners: The master of each slot; ``None`` where it has none.

        masters: All that have slots, sorted.

        mark: Short text that differs where an owner does.
    """

    owners: list[Address | None]
    masters: Sequence[Address]
    mark: str


class AsyncRedisNodes:
    """What is known of a cluster. Nothing is known before the first question; a wrong belief costs a round trip.

    Safe for threads, tasks and forks as the driver's pools are.
    """

    def __init__(self, place: AsyncClusterPlace) -> None:
        """Connect to nothing yet."""
        self.place = place
        self._opened: dict[Address, tuple[AsyncRedisCaller, Redis]] = {}
        self._known: Slots | None = None
        self._teacher: Address | None = None
        self._moves = 0

    @property
    def name(self) -> str:
        """The cluster without secrets."""
        return self.place.name

    def caller(self, address: Address) -> AsyncRedisCaller:
        """Return what calls a node."""
        return self._node(address)[0]

    def client(self, address: Address) -> Redis:
        """Return the client of a node."""
        return self._node(address)[1]

    async def owner(self, slot: int) -> Address:
        """Return the master that has a slot, as far as is known.

        Raises:
            SourceError: no node answers, or the slot has no master; nothing was sent.
        """
        found = (await self.slots()).owners[slot]
        if found is None:
            self.doubt()
            down = ClusterDownError(f"slot {slot} has no master")
            raise SourceError(f"{self.name}: {down}", hint="see CLUSTER INFO on any node") from down
        return found

    async def slots(self) -> Slots:
        """Return what is known; look it up where nothing is. Raises `SourceError`."""
        known = self._known
        return known if known is not None else await self.learn()

    async def learn(self) -> Slots:
        """Ask one node after another, before all others the last one that was given a slot.

        The first that knows a master for every slot is believed: one that was taken out of the cluster knows of none.

        Raises:
            SourceError: none answers.
        """
        failure: SourceError | None = None
        partial: Slots | None = None
        self._moves = 0
        teachers = [] if self._teacher is None else [self._teacher]
        for address in dict.fromkeys([*teachers, *self._opened, *self.place.seeds]):
            try:
                told = await self.told_by(address)
            except SourceError as exc:
                failure = exc
                continue
            if None not in told.owners:
                self._known = told
                return told
            if partial is None or len(told.masters) > len(partial.masters):
                partial = told
        if partial is None:
            raise failure or SourceError(f"{self.name}: no node is named")
        self._known = partial
        return partial

    async def told_by(self, address: Address) -> Slots:
        """Return what one node says. Raises `SourceError`."""
        try:
            found = await self.caller(address).run(b"CLUSTER", b"SLOTS")
        except ClusterDownError as exc:
            raise refusal(self.name, exc, of_cluster=True) from exc
        owners: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        ranges: list[tuple[int, int, Address]] = []
        for first, last, master, *_ in found:
            host, port = master[0], master[1]
            # A node that does not know its own address means the one under which it was asked.
            told = address[0] if not host or host == b"?" else host.decode()
            owner = self.place.seen_from_here((told, int(port)))
            owners[first : last + 1] = [owner] * (last + 1 - first)
            ranges.append((first, last, owner))
        masters = sorted({owner for _, _, owner in ranges})
        mark = hashlib.sha256(repr(sorted(ranges)).encode()).hexdigest()[:12]
        return Slots(owners, masters, mark)

    def moved(self, slot: int, told: AskError, asked: Address) -> Address:
        """Note where a node says that a slot is; return it."""
        address = self._teacher = self.sent_to(told, asked)
        self._moves += 1
        known = self._known
        if self._moves >= _MOST_MOVES:
            self.doubt()
        elif known is not None:
            known.owners[slot] = address
        return address

    def sent_to(self, told: AskError, asked: Address) -> Address:
        """Return which node an answer sends to."""
        host = told.host if told.host and told.host != "?" else asked[0]
        return self.place.seen_from_here((host, told.port))

    def doubt(self) -> None:
        """Look the layout up before the next question."""
        self._known = None

    async def is_moving(self) -> bool:
        """Whether a master says that it gives a slot away or takes one: only it itself knows. Raises `SourceError`."""
        for address in (await self.slots()).masters:
            told = await self.caller(address).run(b"CLUSTER", b"NODES")
            text = told if isinstance(told, bytes) else str(told).encode()
            if any(b"[" in line.split(b" ", 8)[-1] for line in text.splitlines() if b"myself" in line):
                return True
        return False

    async def close(self) -> None:
        """Close the connections to all nodes."""
        for caller, _ in list(self._opened.values()):
            await caller.close()
        self._opened.clear()
        self._known = None

    def _node(self, address: Address) -> tuple[AsyncRedisCaller, Redis]:
        found = self._opened.get(address)
        if found is None:
            place = self.place.node(address)
            # Two threads may make one each: the first one stays.
            found = self._opened.setdefault(address, (AsyncRedisCaller(place), place.client))
        return found
