"""Many calls to a Redis Cluster at once: pipelined to every master, while all masters work at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from hiredis import pack_command
from redis.crc import key_slot
from redis.exceptions import RedisError, ResponseError

from kvmigrate.stores.redis_call import RedisCaller
from kvmigrate.stores.redis_change import Arguments, to_bytes
from kvmigrate.stores.redis_clients import Address
from kvmigrate.stores.redis_cluster_call import ClusterCaller
from kvmigrate.stores.redis_line import Line
from kvmigrate.stores.redis_nodes import RedisNodes
from kvmigrate.stores.redis_refusal import is_undone, refusal
from kvmigrate.stores.redis_script import Script
from kvmigrate.stores.redis_shards import ShardKeys, shard_keys, tag_slots

_AT_ONCE = 500
"""Calls that a master is sent at once, while the answers to as many before them are still to be read."""

_ROUNDS = 3
"""How often all that was not done is sent together again; then each call goes alone."""

Build = Callable[[ShardKeys], Arguments]
Pack = Callable[[RedisCaller, Sequence[int]], bytes]


class Bulk:
    """Calls to many shards. All of them must be safe to repeat; for one thread at a time.

    What a node did not do is made again: its slot is elsewhere, or the function is not there yet. Raised are
    `SourceError`, where a server refuses or does not answer, and what the function says; other calls may have been
    made then.
    """

    def __init__(self, nodes: RedisNodes, caller: ClusterCaller, scope: str) -> None:
        """Send to *nodes*; *caller* makes single calls."""
        self._nodes, self._caller, self._scope = nodes, caller, scope

    def same(self, script: Script | None, shards: Sequence[str], build: Build) -> list[Any]:
        """Make a call for each of *shards* that differs in the names of the shard's keys alone; return the answers.

        Args:
            script: ``None`` for a plain command.

            shards: Their tags.

            build: Returns the call for a shard's keys: number of keys, keys, arguments; or the plain command.
        """
        frame, slots = _Frame(script, self._scope, build), tag_slots()

        def pack(caller: RedisCaller, numbers: Sequence[int]) -> bytes:
            return frame.packed(caller, [shards[number] for number in numbers])

        def alone(number: int) -> Any:
            return self._alone(script, build(shard_keys(shards[number], self._scope)))

        return self._made([slots[shard] for shard in shards], pack, alone)

    def many(self, script: Script | None, calls: Sequence[Arguments]) -> list[Any]:
        """Make different calls; return the answers. The second word of each is a key, which names its slot."""

        def pack(caller: RedisCaller, numbers: Sequence[int]) -> bytes:
            return b"".join(_packed(caller, script, calls[number]) for number in numbers)

        return self._made(
            [_slot_of(call[1]) for call in calls], pack, lambda number: self._alone(script, calls[number])
        )

    def _alone(self, script: Script | None, call: Arguments) -> Any:
        return self._caller.run(*call) if script is None else self._caller.call(script, *call)

    def _made(self, slots: Sequence[int], pack: Pack, alone: Callable[[int], Any]) -> list[Any]:
        answers: list[Any] = [None] * len(slots)
        left: Sequence[int] = range(len(slots))
        for _ in range(_ROUNDS):
            left = self._round(slots, left, pack, answers)
            if left:
                self._nodes.doubt()
            # A call by itself teaches its node the function, and finds out where its slot is.
            first = {self._nodes.slots().owners[slots[number]]: number for number in reversed(left)}
            for number in first.values():
                answers[number] = alone(number)
            done = set(first.values())
            left = [number for number in left if number not in done]
            if not left:
                break
        for number in left:
            answers[number] = alone(number)
        return answers

    def _round(self, slots: Sequence[int], numbers: Iterable[int], pack: Pack, answers: list[Any]) -> list[int]:
        """Make calls, each once; return the numbers of those that no node did."""
        owners, left = self._nodes.slots().owners, list[int]()
        by_node: dict[Address, list[int]] = {}
        for number in numbers:
            owner = owners[slots[number]]
            (left if owner is None else by_node.setdefault(owner, [])).append(number)
        shares: list[_Share] = []
        try:
            for owner, own in by_node.items():
                try:
                    shares.append(
                        _Share(own, Line(self._nodes.client(owner)), partial(pack, self._nodes.caller(owner)))
                    )
                except (RedisError, OSError):
                    left += own
            # Some calls are always on their way to a node while the answers of another, or its last ones, are read.
            busy = [share for share in shares if self._send(share, left)]
            while busy:
                busy = [share for share in busy if self._send(share, left) and self._read(share, answers, left)]
        finally:
            for share in shares:
                share.line.close()
        return left

    def _send(self, share: _Share, left: list[int]) -> bool:
        try:
            share.send()
        except (RedisError, OSError):
            # The master is gone. Its successor is found by a single call, or that says what fails.
            left += share.unanswered
            return False
        return True

    def _read(self, share: _Share, answers: list[Any], left: list[int]) -> bool:
        """Read some answers; return whether there are more."""
        refused: ResponseError | None = None
        try:
            for number, answer in share.read():
                if not isinstance(answer, ResponseError):
                    answers[number] = answer
                elif is_undone(answer):
                    left.append(number)
                else:
                    refused = refused or answer
        except (RedisError, OSError):
            left += share.unanswered
            return False
        if refused is not None:
            raise refusal(self._nodes.name, refused, of_cluster=True) from refused
        return bool(share.unanswered)


@dataclass(slots=True)
class _Share:
    """The calls for one node, and how far they are."""

    numbers: Sequence[int]
    line: Line
    pack: Callable[[Sequence[int]], bytes]
    sent: int = 0
    answered: int = 0

    @property
    def unanswered(self) -> Sequence[int]:
        """What was not sent, or not answered yet."""
        return self.numbers[self.answered :]

    def send(self) -> None:
        """Send the next calls, if there are any."""
        if some := self.numbers[self.sent : self.sent + _AT_ONCE]:
            self.line.send(self.pack(some), commands=len(some))
            self.sent += len(some)

    def read(self) -> Iterator[tuple[int, Any]]:
        """Yield calls with their answers, as many as were sent together."""
        for number in self.numbers[self.answered : self.answered + _AT_ONCE]:
            answer = self.line.read()
            self.answered += 1
            yield number, answer


class _Frame:
    """A call as it goes over the wire, with gaps where the shard's tag stands: so that 16384 of them cost little."""

    def __init__(self, script: Script | None, scope: str, build: Build) -> None:
        self._script, self._scope, self._build = script, scope, build
        self._pieces: dict[tuple[bytes, int], list[bytes]] = {}

    def packed(self, caller: RedisCaller, shards: Sequence[str]) -> bytes:
        """Return the calls for *shards*."""
        head = b"" if self._script is None else caller.head(self._script)[0]
        calls = []
        for shard in shards:
            # Lengths of keys stand before them, so that there is a frame for each length of a tag.
            pieces = self._pieces.get((head, len(shard)))
            if pieces is None:
                pieces = self._pieces[head, len(shard)] = self._cut(caller, len(shard))
            calls.append(shard.encode().join(pieces))
        return b"".join(calls)

    def _cut(self, caller: RedisCaller, length: int) -> list[bytes]:
        gap = "\0" * length
        whole = _packed(caller, self._script, self._build(shard_keys(gap, self._scope)))
        first, *others = whole.split(b"{%b}" % gap.encode())
        # What is joined by tags has the braces in it.
        return [first + b"{", *(b"}" + piece + b"{" for piece in others[:-1]), b"}" + others[-1]]


def _packed(caller: RedisCaller, script: Script | None, call: Arguments) -> bytes:
    head = () if script is None else caller.head(script)
    packed: bytes = pack_command((*head, *call))
    return packed


def _slot_of(key: str | bytes | int) -> int:
    return key_slot(key if isinstance(key, bytes) else to_bytes(str(key)))
