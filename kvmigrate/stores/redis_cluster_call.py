# This file is generated from redis_cluster_call_async.py by tools/async_to_sync.py.
# Change that one instead.
"""Calls of the functions inside a Redis Cluster: each at the master that has the keys' slot.

`ClusterCaller` is the generated twin.
"""

from __future__ import annotations

import time
from typing import Any, Protocol

from redis.crc import key_slot
from redis.exceptions import AskError, MovedError, RedisError, ResponseError

from kvmigrate.errors import AmbiguousWriteError, SourceError
from kvmigrate.stores.redis_call import RedisCaller
from kvmigrate.stores.redis_clients import Address
from kvmigrate.stores.redis_nodes import RedisNodes
from kvmigrate.stores.redis_refusal import ELSEWHERE, refusal
from kvmigrate.stores.redis_script import Script

PAUSES_S = (0.0, 0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0)
"""Before a call goes out again that no node did: a slot's keys are on their way, or a failover is."""

_ROUNDS = 20
_MOVING_PAUSE_S = 0.2


class Ask(Protocol):
    """One call, at the node that it is given."""

    def __call__(self, caller: RedisCaller, *, is_asking: bool) -> Any:
        """Return the answer."""
        ...


class ClusterCaller:
    """Calls like `RedisCaller`, and asks another node where one says that it has not got the slot.

    Such an answer means that nothing was done, so that the call may go out again. A lost answer to a write does not:
    it is ambiguous here, too, and never sent twice.
    """

    def __init__(self, nodes: RedisNodes) -> None:
        """Ask *nodes* where each slot is."""
        self._nodes = nodes

    def call(self, script: Script, *rest: str | bytes | int, is_write: bool = False) -> Any:
        """Return what the function answers to number of keys, keys, arguments; the first key names the slot.

        Raises:
            SealedError, StaleError, FenceMissingError: the fence says so; nothing was written.

            SourceError: the server refused, or nothing was sent; or the answer was lost, unless *is_write*.

            AmbiguousWriteError: the answer to a write was lost.
        """

        def ask(caller: RedisCaller, *, is_asking: bool) -> Any:
            """Ask one node."""
            return caller.call(script, *rest, is_write=is_write, is_asking=is_asking)

        return self._routed(_slot_of(rest[1]), ask)

    def run(self, *command: str | bytes | int) -> Any:
        """Return the answer to a plain command that is safe to repeat; its second word is a key.

        Raises:
            SourceError: the server refused, or does not answer.
        """

        def ask(caller: RedisCaller, *, is_asking: bool) -> Any:
            """Ask one node."""
            return caller.run(*command, is_asking=is_asking)

        return self._routed(_slot_of(command[1]), ask)

    def scan(self, position: str, pattern: str, limit: int) -> tuple[str, list[bytes]]:
        """Return about *limit* keys behind *position* that match, and where it goes on: "" behind the last.

        One master after another. Where slots moved meanwhile it begins again: their keys may have gone past.

        Raises:
            SourceError: a node does not answer, or slots move all the time.
        """
        nodes = self._nodes
        if not position:
            slots = nodes.learn()
            position = f"{slots.mark} 0 0 0"
        mark, number, cursor, rounds = position.split(" ")
        slots = nodes.slots()
        if slots.mark != mark or int(number) >= len(slots.masters):
            return self._again(int(rounds)), []
        caller = nodes.caller(slots.masters[int(number)])
        following, found = caller.run(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", limit)
        if following != b"0":
            return f"{mark} {number} {following.decode()} {rounds}", found
        if int(number) + 1 < len(slots.masters):
            return f"{mark} {int(number) + 1} 0 {rounds}", found
        is_whole = (nodes.learn()).mark == mark and not nodes.is_moving()
        return "" if is_whole else self._again(int(rounds)), found

    def close(self) -> None:
        """Close the connections to all nodes."""
        self._nodes.close()

    def _again(self, rounds: int) -> str:
        if rounds >= _ROUNDS:
            raise SourceError(
                f"{self._nodes.name}: slots of the cluster are being moved", hint="wait until it is rebalanced"
            )
        time.sleep(_MOVING_PAUSE_S)
        return f"{(self._nodes.learn()).mark} 0 0 {rounds + 1}"

    def _routed(self, slot: int, ask: Ask) -> Any:
        nodes, before = self._nodes, None
        last: ResponseError | None = None
        for pause in (*PAUSES_S, None):
            address = nodes.owner(slot)
            try:
                return ask(nodes.caller(address), is_asking=False)
            except MovedError as exc:
                nodes.moved(slot, exc, address)
                last = exc
            except AskError as exc:
                try:
                    return ask(nodes.caller(nodes.sent_to(exc, address)), is_asking=True)
                except ELSEWHERE as other:
                    last = other
            except ELSEWHERE as exc:
                nodes.doubt()
                last = exc
            except AmbiguousWriteError:
                nodes.doubt()
                raise
            except SourceError as exc:
                # What was not sent may go to another node, and a read again; but to each only once.
                if not _is_lost(exc) or address == before:
                    raise
                before = address
                if self._successor(slot, address) == address:
                    raise
                continue
            if pause:
                time.sleep(pause)
        assert last is not None  # noqa: S101 - a lost node is asked once, and then raises
        raise refusal(nodes.name, last, of_cluster=True) from last

    def _successor(self, slot: int, lost: Address) -> Address | None:
        """Return who has the slot of a node that does not answer; that node itself where nobody says otherwise."""
        nodes = self._nodes
        for address in [each for each in (nodes.slots()).masters if each != lost]:
            try:
                owner = (nodes.told_by(address)).owners[slot]
            except SourceError:
                continue
            if owner != lost:
                nodes.doubt()
                return owner
        return lost


def _slot_of(key: str | bytes | int) -> int:
    return key_slot(key if isinstance(key, bytes) else str(key).encode("utf-8", "surrogateescape"))


def _is_lost(exc: SourceError) -> bool:
    return isinstance(exc.__cause__, (RedisError, OSError)) and not isinstance(exc.__cause__, ResponseError)
